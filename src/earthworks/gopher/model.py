"""Gopher (Rae et al. 2021): GPT-2's decoder with two changes, RMSNorm for LayerNorm and Transformer-XL relative positions.

    x <- x + Attention(RMSNorm(x))
    x <- x + FeedForward(RMSNorm(x))          num_layers times, then logits = RMSNorm(x) E^T + c

Single-device: the model knows neither mesh nor checkpoint. Names carry their shape:
b batch, t time, d d_model, f feed-forward width, h heads, k d_head, v vocabulary, n tokens of a batch in a row.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earthworks.gopher.attention.relative import causal_attention, relative_attention
from earthworks.gopher.cache import Cache, LayerCache
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.loss import cross_entropy, token_losses
from earthworks.runs import EarthworksError

INITIAL_STD = 0.02  # GPT-2's; the paper gives none


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """y = g * x / sqrt(mean(x^2) + epsilon) over the last axis (Zhang & Sennrich 2019, eq. 4, with an epsilon).

    With g = 1 and epsilon = 0 this is the bare x / RMS(x):

    >>> x = torch.tensor([3.0, 4.0])
    >>> rms_norm(x, torch.ones(2), 0.0)          # RMS(x) = sqrt((9 + 16) / 2) = 3.5355
    tensor([0.8485, 1.1314])
    >>> rms_norm(10 * x, torch.ones(2), 0.0)     # the scale of x does not matter
    tensor([0.8485, 1.1314])

    Statistics in float32 at least. Differentiable once: the backward is written by hand, because autograd's own keeps
    five intermediates of the size of x.
    """
    return RootMeanSquareNorm.apply(x, gain, epsilon)


class RootMeanSquareNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        inverse = (
            torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        )
        ctx.save_for_backward(x, gain, inverse)
        return (wide * inverse).mul_(gain).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        if torch.is_grad_enabled():  # `inverse` is without a graph: a second derivative would be wrong in silence
            raise EarthworksError("rms_norm has no second derivative; use plain torch operations where you need one")
        # with n = x * inverse:  dg = sum dy n,  dx = inverse * (g dy - n mean(n g dy))
        x, gain, inverse = ctx.saved_tensors
        normal = x * inverse
        d_y = d_y.to(normal.dtype)
        d_gain = (d_y * normal).reshape(-1, x.shape[-1]).sum(0)
        d_x = d_y * gain
        along = (d_x * normal).mean(-1, keepdim=True)
        d_x = d_x.sub_(normal.mul_(along)).mul_(inverse)
        return d_x.to(x.dtype), d_gain.to(gain.dtype), None


class RMSNorm(nn.Module):
    """`rms_norm` with a learned gain."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.gain, self.epsilon)


def make_norm(config: GopherConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.d_model, config.norm_epsilon)
    return nn.LayerNorm(config.d_model, eps=config.norm_epsilon)


class Attention(nn.Module):
    """Causal attention with the four-term score of Transformer-XL (Dai et al. 2019, eq. 4); u and v one pair a layer."""

    def __init__(self, config: GopherConfig):
        super().__init__()
        d, a = config.d_model, config.d_attention
        self.num_heads, self.d_head, self.max_distance = config.num_heads, config.d_head, config.max_distance
        self.query_key_value = nn.Linear(d, 3 * a, bias=False)
        self.output = nn.Linear(a, d)
        self.relative = config.positions == "relative"
        if self.relative:
            self.position = nn.Linear(config.position_width, a, bias=False)  # W_R
            self.content_bias = nn.Parameter(torch.zeros(config.num_heads, config.d_head))  # u
            self.position_bias = nn.Parameter(torch.zeros(config.num_heads, config.d_head))  # v

    def forward(self, x_btd: Tensor, cache: LayerCache | None = None) -> Tensor:
        b, t, _ = x_btd.shape
        q_bhtk, k_bhtk, v_bhtk = (
            part.view(b, t, self.num_heads, self.d_head).transpose(1, 2)
            for part in self.query_key_value(x_btd).chunk(
                3, dim=-1
            )  # its backward is one `cat`, an unpacked view's two copies
        )
        key_mask = None
        if cache is not None:
            k_bhtk, v_bhtk, key_mask = cache.append(k_bhtk, v_bhtk)
        if self.relative:
            table = cache.position_table(self.w_r, self.max_distance) if cache is not None else None
            y_bhtk = relative_attention(
                q_bhtk,
                k_bhtk,
                v_bhtk,
                self.w_r,
                self.content_bias,
                self.position_bias,
                table=table,
                key_mask=key_mask,
                max_distance=self.max_distance,
            )
        else:
            y_bhtk = causal_attention(q_bhtk, k_bhtk, v_bhtk, key_mask=key_mask)
        return self.output(y_bhtk.transpose(1, 2).reshape(b, t, -1))

    @property
    def w_r(self) -> Tensor:
        """W_R by head, (heads, d_head, d_position)."""
        return self.position.weight.view(self.num_heads, self.d_head, -1)


class FeedForward(nn.Module):
    """W_2 GELU(W_1 x + b_1) + b_2, four times as wide inside."""

    def __init__(self, config: GopherConfig):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_feedforward)
        self.down = nn.Linear(config.d_feedforward, config.d_model)

    def forward(self, x_btd: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_btd)))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on the normalised stream and added back to it."""

    def __init__(self, config: GopherConfig):
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.feedforward_norm = make_norm(config)
        self.feedforward = FeedForward(config)

    def forward(self, x_btd: Tensor, cache: LayerCache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(self.attention_norm(x_btd), cache)
        return x_btd + self.feedforward(self.feedforward_norm(x_btd))


class Gopher(nn.Module):
    """A Gopher of any size: `Gopher(GopherConfig.preset("44M"))`.

    Initialisation, ours to decide since the paper gives none: every matrix and the embedding N(0, 0.02^2), the two
    matrices of a layer that write to the residual stream divided by sqrt(2 num_layers) (GPT-2), gains 1, biases, u and v 0.
    """

    def __init__(self, config: GopherConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.d_model)
        if config.positions == "absolute":
            self.positions = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = make_norm(config)
        if not config.tied:
            self.unembedding = nn.Linear(config.d_model, config.vocabulary, bias=False)
        self.logit_bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.initialise()

    def initialise(self) -> None:
        """Draw fresh weights from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            for writer in (block.attention.output, block.feedforward.down):
                nn.init.normal_(writer.weight, std=INITIAL_STD / math.sqrt(2 * self.config.num_layers))

    @property
    def output_weight(self) -> Tensor:
        """E, (vocabulary, d_model): the embedding itself when tied."""
        return self.embedding.weight if self.config.tied else self.unembedding.weight

    def embedded(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Input of the first layer; `places` are the positions of the tokens in their rows, for absolute ones."""
        x = self.embedding(tokens)
        if self.config.positions != "absolute":
            return x
        if int(places.max()) >= self.config.context:
            raise EarthworksError(
                f"a model with absolute positions reads at most its context of {self.config.context} tokens"
            )
        return x + self.positions(places)

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """tokens (batch, time) int64 -> the normalised last layer (batch, time, d_model).

        With a cache, `tokens` continue where the cache ends, and are appended to it.
        """
        places = cache.places(tokens) if cache is not None else torch.arange(tokens.shape[1], device=tokens.device)
        x_btd = self.embedded(tokens, places)
        for layer, block in enumerate(self.blocks):
            x_btd = block(x_btd, cache.layer(layer) if cache is not None else None)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.final_norm(x_btd)

    def forward(self, tokens: Tensor, cache: Cache | None = None, last: int | None = None) -> Tensor:
        """tokens (batch, time) int64 -> logits (batch, time, vocabulary) float32, of the `last` positions only if given."""
        h_btd = self.hidden(tokens, cache)
        if last is not None:
            h_btd = h_btd[:, -last:]
        return F.linear(h_btd, self.output_weight, self.logit_bias).float()

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats a token; targets (batch, time) int64, -100 where there is nothing to predict."""
        h_nd = self.hidden(tokens).flatten(0, 1)
        return cross_entropy(h_nd, self.output_weight, self.logit_bias, targets.flatten())

    @torch.no_grad()
    def token_losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of every single token, (batch, time) float32 nats, without a gradient."""
        h_nd = self.hidden(tokens).flatten(0, 1)
        return token_losses(h_nd, self.output_weight, self.logit_bias, targets.flatten()).view_as(targets)
