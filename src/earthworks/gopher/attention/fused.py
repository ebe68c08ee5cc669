"""Relative attention by torch's own fused kernels, in two ways (docs/attention.md derives both).

`augmented`: a sine of a difference is a sum of products, so the position term is a scalar product of longer vectors,

    (q_i + v)·r_{i-j}  =  x_i · cos(j omega) + y_i · sin(j omega)
    x_i = a_s sin(i omega) + a_c cos(i omega),    y_i = a_c sin(i omega) - a_s cos(i omega),    [a_s, a_c] = w_r^T (q_i + v)

and the whole is plain causal attention of q' = [q + u; x; y] and k' = [k; cos(j omega); sin(j omega)].

`sdpa`: the position term is formed for all pairs, shifted once, and given to the kernel as an additive mask.

Axes: b batch, h heads, i queries, j keys, d d_head, p d_position.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from earthworks.gopher.attention.positions import sinusoid, visible_keys
from earthworks.runs import EarthworksError


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax_j( scale q_i·k_j ) v_j over the keys j <= i: no positions; scale is 1/sqrt(d_head) unless given.

    Shapes as in `relative_attention`; here too a query that sees no key gives zeros.
    """
    time_q, time_k = q.shape[2], k.shape[2]
    if key_mask is None and time_q in (1, time_k):
        return F.scaled_dot_product_attention(q, k, v, is_causal=time_q > 1, scale=scale)
    visible = visible_keys(time_q, time_k, key_mask, q.device)
    if key_mask is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    k, v = erase_hidden(k, key_mask), erase_hidden(v, key_mask)
    blind = ~visible.any(-1, keepdim=True)  # the kernel may look at anything; the result is zeroed
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible | blind, scale=scale).masked_fill(blind, 0.0)


def augmented_attention(
    q: Tensor, k: Tensor, v: Tensor, w_r: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Plain attention over d_head + d_position features. Its keys' new part is the same for all batches and heads.

    Values are padded with zeros to the width of the keys: torch's flash kernels need one width, and otherwise fall back
    to a T x T matrix.
    """
    time_q, time_k, d_head, d_position = q.shape[2], k.shape[2], q.shape[3], w_r.shape[2]
    features = sinusoid(torch.arange(time_k, device=q.device), d_position, torch.promote_types(q.dtype, torch.float32))
    sine, cosine = features.chunk(2, dim=-1)
    a = (q + position_bias[:, None]).to(q.dtype) @ w_r.to(q.dtype)
    a_sine, a_cosine = a.chunk(2, dim=-1)
    here_sine, here_cosine = sine[time_k - time_q :], cosine[time_k - time_q :]
    x = a_sine * here_sine + a_cosine * here_cosine
    y = a_cosine * here_sine - a_sine * here_cosine
    spare = -(d_head + d_position) % 8  # flash kernels on CUDA take multiples of 8
    key_features = torch.cat([cosine, sine, sine.new_zeros(time_k, spare)], dim=-1).to(q.dtype)
    query = torch.cat([(q + content_bias[:, None]).to(q.dtype), x.to(q.dtype), y.to(q.dtype)], dim=-1)
    key = torch.cat([k, key_features.expand(*k.shape[:2], -1, -1)], dim=-1)
    value = F.pad(v, (0, d_position + spare))
    out = causal_attention(F.pad(query, (0, spare)), key, value, key_mask, scale=1 / math.sqrt(d_head))
    return first_derivative_only(out[..., :d_head], "augmented")


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, content_bias: Tensor, position_bias: Tensor, key_mask: Tensor | None
) -> Tensor:
    """Keeps b·h·time_q·time_k numbers, half of them masked, for the backward pass."""
    time_q, time_k, d_head = q.shape[2], k.shape[2], q.shape[3]
    visible = visible_keys(time_q, time_k, key_mask, q.device)
    blind = ~visible.any(-1, keepdim=True)
    if key_mask is not None:
        k, v = erase_hidden(k, key_mask), erase_hidden(v, key_mask)
    # Distances descend and a spare column follows; read with rows one shorter, each row has moved by one more.
    descending = F.pad(table.flip(1), (0, 0, 0, 1))
    scaled = ((q + position_bias[:, None]) / math.sqrt(d_head)).to(q.dtype)
    by_distance = scaled @ descending.mT
    shifted = by_distance.flatten(-2)[..., time_q - 1 : time_q - 1 + time_q * time_k].unflatten(-1, (time_q, time_k))
    bias = shifted.masked_fill(~(visible | blind), -math.inf)
    out = F.scaled_dot_product_attention((q + content_bias[:, None]).to(q.dtype), k, v, attn_mask=bias)
    return first_derivative_only(out.masked_fill(blind, 0.0), "sdpa")


def erase_hidden(x: Tensor, key_mask: Tensor) -> Tensor:
    """Zero the masked keys (or values): kernels multiply them by zero, and zero times NaN is NaN."""
    return x.masked_fill(~key_mask[:, None, :, None], 0.0)


class FirstDerivativeOnly(torch.autograd.Function):
    """The identity, in front of kernels without a second derivative: raises an EarthworksError when one is taken."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, backend: str) -> Tensor:
        ctx.backend = backend
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        refuse_second_derivative(ctx.backend)
        return grad_outputs[0], None


def first_derivative_only(x: Tensor, backend: str) -> Tensor:
    out: Any = FirstDerivativeOnly.apply(x, backend)
    return out


def refuse_second_derivative(backend: str) -> None:
    """Call in a backward pass: EarthworksError when it is to be differentiated."""
    if torch.is_grad_enabled():
        raise EarthworksError(
            f"attention backend '{backend}' has a first derivative only; for higher ones use backend='math'"
        )
