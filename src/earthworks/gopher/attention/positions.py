"""Positions in relative attention: S(Delta), its projection r_Delta, and the keys visible to a query."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from earthworks.runs import EarthworksError

BASE = 10000.0  # of the wavelengths, Vaswani et al. 2017, section 3.5; kept by Dai et al. 2019


def sinusoid(distances: Tensor, d_position: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """S(Delta) = [sin(Delta omega), cos(Delta omega)], omega_m = 10000^(-2m / d_position), m < d_position / 2.

    distances (n,), of any real dtype -> (n, d_position) of `dtype`, on the same device. Angles are formed in float64
    and only sine and cosine are rounded: the error of float32 angles grows with Delta. Raises EarthworksError when
    d_position is odd.
    """
    if d_position % 2:
        raise EarthworksError(f"d_position is {d_position}; it must be even: a sine and a cosine for each frequency")
    device = "cpu" if distances.device.type == "mps" else distances.device  # Apple's GPUs have no float64
    omega = BASE ** (-torch.arange(0, d_position, 2, dtype=torch.float64, device=device) / d_position)
    angles = distances.to(device, torch.float64)[:, None] * omega
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(distances.device, dtype)


def position_table(w_r: Tensor, num_distances: int, max_distance: int | None = None) -> Tensor:
    """r_Delta = w_r S(min(Delta, max_distance)) for Delta = 0, ..., num_distances - 1.

    w_r (heads, d_head, d_position) -> (heads, num_distances, d_head), differentiable in w_r. Projected once per layer,
    it serves a whole generation as `table`. Cost: num_distances·heads·d_head·d_position multiplications.
    """
    heads, d_head, d_position = w_r.shape
    farthest = num_distances - 1 if max_distance is None else max_distance
    features = clamped_sinusoid(num_distances, farthest, d_position, w_r.dtype, w_r.device)
    r = F.linear(features, w_r.reshape(heads * d_head, d_position))
    return r.view(num_distances, heads, d_head).transpose(0, 1)


@functools.lru_cache(maxsize=2)
def clamped_sinusoid(n: int, farthest: int, d_position: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """S(min(Delta, farthest)) for Delta < n. Cached, since every layer needs the same one in every step: sines in float64
    would take as long as a product of the layer."""
    with torch.inference_mode(False), torch.no_grad():
        return sinusoid(torch.arange(n, device=device).clamp(max=farthest), d_position, dtype)


def rows_in_reach(table: Tensor, time_k: int, max_distance: int | None) -> Tensor:
    """The rows r_min(Delta, max_distance), Delta < time_k, of a table that may be longer than needed."""
    farthest = time_k - 1 if max_distance is None else min(time_k - 1, max_distance)
    if farthest >= table.shape[1]:
        raise EarthworksError(
            f"the position table holds {table.shape[1]} distances, but {farthest + 1} are needed: "
            f"make it with position_table(w_r, {farthest + 1})"
        )
    if farthest == time_k - 1:
        return table[:, :time_k]
    return table[:, torch.arange(time_k, device=table.device).clamp(max=farthest)]


def visible_keys(time_q: int, time_k: int, key_mask: Tensor | None, device: torch.device) -> Tensor:
    """True where query i, of the last time_q of time_k, sees key j: (time_q, time_k) or (b, 1, time_q, time_k)."""
    causal = torch.ones(time_q, time_k, dtype=torch.bool, device=device).tril(time_k - time_q)
    return causal if key_mask is None else causal & key_mask[:, None, None, :]
