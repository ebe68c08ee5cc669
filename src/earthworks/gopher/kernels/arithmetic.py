"""Branch-free exponential and GELU in float32, so that loops over them vectorise."""

import numpy as np

from earthworks.compilation import arithmetic, bits_to_float


@arithmetic
def exponential(x):
    """e^x to 1e-7 for x <= 0 (0 below -87), without a call, so that loops over it vectorise."""
    x = np.float32(-87) if x < np.float32(-87) else x  # in this form, NaN stays
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)  # x - n log 2, log 2 in two parts
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * bits_to_float(np.int32((np.int32(n) + 127) << 23))


@arithmetic
def gelu(x):
    """x Phi(x), Phi the normal distribution function; erf by Abramowitz & Stegun 7.1.26, to 1.5e-7."""
    z = abs(x) * np.float32(0.70710678)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    p = np.float32(1.061405429)
    p = p * t + np.float32(-1.453152027)
    p = p * t + np.float32(1.421413741)
    p = p * t + np.float32(-0.284496736)
    p = p * t + np.float32(0.254829592)
    beyond = np.float32(0.5) * p * t * exponential(-z * z)  # 1 - Phi(|x|)
    return x * beyond if x < 0 else x - x * beyond
