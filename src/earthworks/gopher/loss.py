"""Cross-entropy of a large vocabulary without ever holding batch x time x vocabulary logits."""

from typing import Any

import torch
from torch import Tensor

from earthworks.runs import EarthworksError

CHUNK_ELEMENTS = (
    1 << 22
)  # logits held at once, 16 MB in float32: small enough for a cache, large enough for the product


def cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """mean_n [ logsumexp(W h_n + c) - (W h_n + c)_{y_n} ], in nats a token.

    hidden (n, d), weight (vocabulary, d), bias (vocabulary), targets (n) int64; a target of -100 counts for nothing.
    The products run in autocast's dtype where that is on, else in that of `hidden`; everything after them in float32. The
    gradient is formed chunk by chunk in the forward pass, where the logits are (softmax minus one-hot), so the logits are
    computed once and memory is O(n d + vocabulary d + CHUNK_ELEMENTS) for any n; derivatives of the gradient are refused.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return CrossEntropy.apply(hidden.to(dtype), weight, bias, targets)


def chunks(num_tokens: int, vocabulary: int) -> range:
    """Starts of the chunks of tokens."""
    return range(0, num_tokens, chunk_length(vocabulary))


def chunk_length(vocabulary: int) -> int:
    return max(1, CHUNK_ELEMENTS // vocabulary)


def token_losses(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The loss of every single token, (n) float32 nats, in chunks and without a gradient: for scoring."""
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    for start in chunks(len(targets), len(weight)):
        part = slice(start, start + chunk_length(len(weight)))
        logits = torch.addmm(bias.to(hidden.dtype), hidden[part], weight.T.to(hidden.dtype)).float()
        losses[part] = torch.nn.functional.cross_entropy(logits, targets[part], reduction="none")
    return losses


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        vocabulary = len(weight)
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.promote_types(hidden.dtype, torch.float32)
            product_weight = weight.to(hidden.dtype)
            needs_gradient = any(ctx.needs_input_grad)
            total = torch.zeros((), dtype=wide, device=hidden.device)
            count = (targets != -100).sum().clamp(min=1)
            d_hidden = torch.empty_like(hidden) if needs_gradient else None
            d_weight = torch.zeros_like(weight, dtype=wide) if needs_gradient else None
            d_bias = torch.zeros_like(bias, dtype=wide) if needs_gradient else None
            for start in chunks(len(targets), vocabulary):
                part = slice(start, start + chunk_length(vocabulary))
                wanted = targets[part]
                kept = wanted != -100
                index = wanted.where(kept, 0)[:, None]
                log_p = (hidden[part] @ product_weight.T).to(wide).add_(bias)
                log_p = torch.log_softmax(log_p, -1)
                total -= (log_p.gather(1, index)[:, 0] * kept).sum()
                if d_hidden is not None and d_weight is not None and d_bias is not None:
                    d_logits = log_p.exp_().scatter_add_(1, index, torch.full_like(index, -1, dtype=wide))
                    d_logits.mul_((kept.to(wide) / count)[:, None])
                    d_bias += d_logits.sum(0)
                    d_logits = d_logits.to(hidden.dtype)
                    torch.mm(d_logits, product_weight, out=d_hidden[part])
                    d_weight += d_logits.T @ hidden[part]
            ctx.save_for_backward(d_hidden, d_weight, d_bias)
            return total / count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore
        if torch.is_grad_enabled():  # the gradients below carry no graph: a second derivative would be silently 0
            raise EarthworksError(
                "the chunked cross-entropy has no second derivative; use torch's cross_entropy for that"
            )
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        # in float32 as they were summed; autograd casts them where the parameter does not take its gradients so
        return d_hidden * gradient.to(d_hidden.dtype), d_weight * gradient, d_bias * gradient, None
