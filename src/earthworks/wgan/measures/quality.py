"""Sample quality as pure functions of features or points: kernel distance, and coverage of known modes."""

import math

import numpy as np
import torch
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.statistics import wilson_interval
from earthworks.transport.clouds import check_clouds
from earthworks.wgan.measures.measure import RESAMPLES, Measure, percentiles

STANDARD_DEVIATIONS = 3.0  # a high-quality sample is this near its centre (PacGAN, VEEGAN)
PART = 1000  # samples per part of the kernel distance, the published subset size
MOST_PARTS, FEWEST_PARTS = 100, 10


def kernel_distance(real: Tensor, generated: Tensor, *, seed: int = 0) -> Measure:
    """The squared maximum mean discrepancy ("KID") of features real (n, d) and generated (m, d), unbiased:

        MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j),  k(x, y) = (x . y / d + 1)^3.

    Both samples are split, in an order drawn from `seed`, into equally many disjoint parts (10 to 100 of about 1,000,
    fewer parts of at least 2 where samples are few); the value is the mean over parts, details["standard_error"] is
    their standard deviation / sqrt(parts), the interval Student's. Disjoint, because the usual subsets, which share
    samples, understate the error. Unbiased at every n: values at different n are comparable, and equal distributions
    give 0 on average, negative values half the time. Units: features to the sixth. Float64, O(n^2 d / parts). Raises
    EarthworksError for bad clouds or fewer than 2 samples. Source: Bińkowski et al. 2018, section 4.
    """
    from scipy.special import stdtrit

    real, generated = features(real, generated)
    fewest, d = min(len(real), len(generated)), real.shape[1]
    if fewest < 2:
        raise EarthworksError(
            f"{len(real)} real and {len(generated)} generated samples: a kernel distance needs 2 of each"
        )
    num_parts = max(min(FEWEST_PARTS, fewest // 2), min(MOST_PARTS, fewest // PART))
    generator = torch.Generator().manual_seed(seed)
    parts = [
        z[torch.randperm(len(z), generator=generator).to(z.device)].tensor_split(num_parts) for z in (real, generated)
    ]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / d + 1) ** 3

    def within(x: Tensor) -> Tensor:
        k = kernel(x, x)
        return (k.sum() - k.diagonal().sum()) / (len(x) * (len(x) - 1))

    found = torch.stack([within(x) + within(y) - 2 * kernel(x, y).mean() for x, y in zip(*parts)])
    value, error, half = float(found.mean()), math.nan, math.nan
    if num_parts > 1:
        error = float(found.std()) / math.sqrt(num_parts)
        half = float(stdtrit(num_parts - 1, 0.975)) * error
    return Measure(
        name="kernel_distance",
        value=value,
        interval=(value - half, value + half),
        n=len(real),
        m=len(generated),
        details={"standard_error": error, "parts": num_parts},
    )


def mode_coverage(samples: Tensor, centres: Tensor, std: float, *, seed: int = 0) -> dict[str, Measure]:
    """Coverage of the modes of a mixture of Gaussians N(c_k, std^2 I) by samples (m, d), and its evenness; centres (K,
    d).

    A sample is of high quality within 3 std of its nearest centre, and then counts for that mode.
    `modes`: number of the K with at least one. `high_quality`: the share of samples; a perfect generator has
    1 - exp(-4.5) = 98.89 % of them in two dimensions (details["ceiling"]; more means modes that are too narrow).
    `reverse_kl`: KL(p | uniform) nats, p the shares of the modes among high-quality samples; a perfect generator has
    (K - 1) / 2m on average (details["floor"]); infinity where no sample is of high quality. O(m K d).

    Intervals: Wilson's for the share; for the others 2,000 multinomial resamples of the counts. That of `reverse_kl` is
    for another m samples, bias included, so compare it with the floor (the resamples have the bias twice and are shifted
    back by it). That of `modes` ends at the count, because missing modes cannot reappear: it shows how many of the
    modes found were found by luck, not how many more there are.
    Raises EarthworksError for different dimensions, bad samples, std not positive.
    Source: Lin et al. 2018 (PacGAN) and its program; Srivastava et al. 2017 (VEEGAN).
    """
    samples, centres = features(samples, centres)
    if not 0 < std < math.inf:
        raise EarthworksError(f"the standard deviation of the modes is {std}; expected a positive number")
    nearest = torch.cat([torch.cdist(part, centres).min(1, keepdim=True).values for part in samples.split(1 << 16)])
    which = torch.cat([torch.cdist(part, centres).argmin(1) for part in samples.split(1 << 16)])
    good = nearest[:, 0] < STANDARD_DEVIATIONS * std
    m, d = samples.shape
    share = int(good.sum()) / m
    ceiling = float(
        torch.special.gammainc(torch.tensor(d / 2.0).double(), torch.tensor(STANDARD_DEVIATIONS**2 / 2).double())
    )
    counts = torch.bincount(which[good], minlength=len(centres)).cpu().numpy()
    return {
        **histogram_coverage(counts, m, seed),
        "high_quality": Measure(
            name="high_quality",
            value=share,
            interval=wilson_interval(int(good.sum()), m),
            m=m,
            details={"ceiling": ceiling},
        ),
    }


def label_coverage(labels: Tensor, num_modes: int, *, seed: int = 0) -> dict[str, Measure]:
    """`modes` and `reverse_kl` of `mode_coverage` where a classifier gives the mode: labels (m,), integers below
    num_modes.

    For stacked MNIST the label is the number its three digits spell, num_modes 1,000: with 26,000 samples a perfect
    generator's divergence is 0.0192 on average, and the classifier's own errors add to it.
    """
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or labels.is_floating_point() or not len(labels):
        raise EarthworksError(f"labels of shape {tuple(labels.shape)}, {labels.dtype}: expected a list of integers")
    if int(labels.min()) < 0 or int(labels.max()) >= num_modes:
        raise EarthworksError(
            f"labels from {int(labels.min())} to {int(labels.max())}: expected 0 to {num_modes - 1} for {num_modes} modes"
        )
    counts = torch.bincount(labels.long(), minlength=num_modes).cpu().numpy()
    return histogram_coverage(counts, len(labels), seed)


def histogram_coverage(counts: np.ndarray, m: int, seed: int) -> dict[str, Measure]:
    """`modes` and `reverse_kl` from counts (K,) among m samples."""
    total, num_modes = int(counts.sum()), len(counts)
    modes, divergence = int((counts > 0).sum()), math.inf
    modes_interval = divergence_interval = (math.nan, math.nan)
    if total:
        divergence = float(reverse_kl(counts))
        resampled = np.random.default_rng(seed).multinomial(total, counts / total, size=RESAMPLES)
        modes_interval = percentiles((resampled > 0).sum(1))
        spread = reverse_kl(resampled)
        low, high = percentiles(divergence + spread - spread.mean())
        divergence_interval = max(low, 0.0), high
    floor = (num_modes - 1) / (2 * total) if total else math.nan
    return {
        "modes": Measure(
            name="modes",
            value=modes,
            interval=modes_interval,
            m=m,
            details={"of": num_modes, "counts": counts.tolist()},
        ),
        "reverse_kl": Measure(
            name="reverse_kl", value=divergence, interval=divergence_interval, m=m, details={"floor": floor}
        ),
    }


def reverse_kl(counts: np.ndarray) -> np.ndarray:
    """KL(p | uniform) = log K + sum_k p_k log p_k, nats, from counts (..., K)."""
    shares = counts / counts.sum(-1, keepdims=True)
    return np.log(counts.shape[-1]) + (shares * np.log(np.where(shares > 0, shares, 1.0))).sum(-1)


def features(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both as checked (n, d) and (m, d) in float64, without gradients."""
    real, generated = check_clouds(real, generated)
    return real.detach().double(), generated.detach().double()
