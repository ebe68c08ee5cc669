"""Cost of training a Gopher, in operations and in memory, from its shape alone."""

from earthworks.gopher.attention.choice import WORTH_COMPILING
from earthworks.gopher.attention.skewed import KEEP
from earthworks.gopher.config import GopherConfig
from earthworks.gopher.loss import CHUNK_ELEMENTS


def forward_flops(config: GopherConfig, context: int) -> float:
    """Floating-point operations of one token's forward pass, averaged over a context of T tokens:

    2 N_products + L (2 a (T + 1) [scores and values, causal] + a (T + 1) [positions] ) with N_products the weights that a
    token is multiplied by (everything but the embedding look-up and W_R, which acts on distances, once a step).
    """
    layers, d, a = config.num_layers, config.d_model, config.d_attention
    products = layers * (4 * d * a + 8 * d * d) + config.vocabulary * d
    attention = layers * a * (context + 1) * (3 if config.positions == "relative" else 2)
    return 2 * products + attention


def training_flops(config: GopherConfig, context: int) -> float:
    """Forward and backward: three times the forward pass."""
    return 3 * forward_flops(config, context)


WEIGHT_BYTES = {"fp32": 4, "bf16": 4, "bf16-sr": 2, "bf16-master": 2 + 4}  # of a parameter; bf16-master's copy included


def training_memory(
    config: GopherConfig, batch: int, context: int, *, optimizer: str, precision: str, device: str
) -> float:
    """Predicted bytes at the peak of a step: weights, gradients and moments (float32), and what the forward pass
    of `batch` sequences keeps for the backward one: per token and layer 2d (norms) + 3a + a (attention) + 4d + 4d
    (feed-forward before and after GELU) + 2d (residual stream), the probabilities of attention where `skewed` keeps them,
    three times the logits of one chunk, and the gradient of the logits' matrix once more, which the loss makes first.
    """
    copies = 2 if optimizer == "muon" else 3  # gradient, one or two moments
    weights = (WEIGHT_BYTES[precision] + 4.0 * copies) * config.num_parameters()
    width = 4 if precision == "fp32" else 2
    per_token = config.num_layers * (12 * config.d_model + 4 * config.d_attention)
    kept = config.positions == "relative" and context <= (WORTH_COMPILING - 1 if device == "cpu" else KEEP)
    probabilities = config.num_layers * config.num_heads * context * context if kept else 0
    activations = width * batch * (context * per_token + probabilities)
    logits = 3 * min(CHUNK_ELEMENTS, batch * context * config.vocabulary)
    return weights + activations + 4.0 * (logits + config.vocabulary * config.d_model)
