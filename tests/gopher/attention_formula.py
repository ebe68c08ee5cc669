"""Relative attention written out key by key, and what every backend is held against it with."""

import math

import torch
from torch import Tensor

NAMES = ("q", "k", "v", "w_r or table", "content_bias", "position_bias")


def position_features(distance: int, width: int) -> list[float]:
    """S(distance): all sines, then all cosines."""
    angles = [distance * 10000.0 ** (-2 * m / width) for m in range(width // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def formula(q, k, v, w_r, u, v_bias, *, table=None, key_mask=None, max_distance=None) -> Tensor:
    """The oracle: every query looks at its visible keys and at nothing else."""
    batch, heads, time_q, d_head = q.shape
    time_k = k.shape[2]
    if table is None:
        features = torch.tensor([position_features(d, w_r.shape[-1]) for d in range(time_k)], dtype=torch.float64)
        table = torch.einsum("hkp,np->hnk", w_r, features)
    rows = []
    for b in range(batch):
        for h in range(heads):
            for i in range(time_q):
                here = time_k - time_q + i
                seen = [j for j in range(here + 1) if key_mask is None or key_mask[b, j]]
                if not seen:
                    rows.append(0.0 * v[b, h, 0])
                    continue
                clamped = [here - j if max_distance is None else min(here - j, max_distance) for j in seen]
                content = k[b, h, seen] @ (q[b, h, i] + u[h])
                position = table[h, clamped] @ (q[b, h, i] + v_bias[h])
                rows.append(((content + position) / math.sqrt(d_head)).softmax(0) @ v[b, h, seen])
    return torch.stack(rows).view(batch, heads, time_q, d_head)


def inputs(batch=2, heads=2, time_q=7, time_k=None, d_head=4, d_position=6, *, strength=2.0, table=False, seed=0):
    """Random tensors; `strength` makes the position term, of order strength x d_head, dominate the logits."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, time_q, d_head)] + 2 * [(batch, heads, time_k or time_q, d_head)]
    shapes += [(heads, time_k or time_q, d_head) if table else (heads, d_head, d_position)] + 2 * [(heads, d_head)]
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    tensors[3] *= strength
    return [x.requires_grad_() for x in tensors]


def call(function, tensors, table=False, **options) -> Tensor:
    q, k, v, w, u, v_bias = tensors
    return function(q, k, v, None if table else w, u, v_bias, table=w if table else None, **options)


def assert_same_values_and_gradients(actual: Tensor, expected: Tensor, tensors, tolerance=1e-11):
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    gradients = [
        torch.autograd.grad(y, tensors, weight, retain_graph=True, materialize_grads=True) for y in (actual, expected)
    ]
    for name, ours, theirs in zip(NAMES, *gradients):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"d/d {n}: {m}")
