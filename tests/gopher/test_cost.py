"""Predicted operations and bytes against those counted while a tiny Gopher trains."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from earthworks.gopher import Gopher, GopherConfig
from earthworks.gopher.attention import relative as attention
from earthworks.gopher.attention import skewed as attention_skewed
from earthworks.gopher.cost import forward_flops, training_flops, training_memory
from earthworks.training.optimizer import Optimizer
from earthworks.training.precision import autocast
from earthworks.training.weights import weights_for


def config(layers=2, heads=2, d_head=8, d=12, vocabulary=40, context=32, **change) -> GopherConfig:
    shape = {"num_layers": layers, "num_heads": heads, "d_head": d_head, "d_model": d}
    return GopherConfig(**shape, vocabulary=vocabulary, context=context, **change)


def counted(shape: GopherConfig, batch: int) -> int:
    """Operations of all matrix products in one forward and backward pass."""
    model = Gopher(shape)
    tokens = torch.randint(shape.vocabulary, (batch, shape.context))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(tokens, tokens).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("change", [{}, {"d_position": 6}, {"tied": False}, {"positions": "none"}, {"context": 7}])
def test_training_operations_are_those_counted_less_the_future_and_the_table_of_positions(change, monkeypatch):
    """Attention that computes the whole square, of which the prediction counts the causal half with its diagonal:
    (T - 1) / 2 keys fewer for each query. And the table W_R S, made once a step whatever the batch, is left out."""
    monkeypatch.setitem(attention.BACKENDS, "skewed", attention.math_attention)
    shape, batch = config(**change), 3
    time, a, layers = shape.context, shape.d_attention, shape.num_layers
    relative = shape.positions == "relative"
    future = 3 * layers * (3 if relative else 2) * a * time * (time - 1) * batch
    table = 2 * layers * 2 * time * shape.position_width * a if relative else 0  # forward, and backward to W_R alone
    assert counted(shape, batch) == training_flops(shape, time) * batch * time + future + table
    assert training_flops(shape, time) == 3 * forward_flops(shape, time)


@pytest.mark.parametrize("time", [192, 256])
def test_attention_in_blocks_computes_less_than_a_block_of_future_for_each_query(time, monkeypatch):
    """So the predicted operations are those really made, up to (BLOCK + SPARE) / T of the attention's share."""
    monkeypatch.setattr(attention, "choose", lambda case: "skewed")
    shape, batch = config(context=time, vocabulary=16), 2
    table = 4 * shape.num_layers * time * shape.position_width * shape.d_attention
    predicted = training_flops(shape, time) * batch * time
    scores = 3 * shape.num_layers * 3 * shape.d_attention * (time + 1) * batch * time
    assert scores > predicted / 3  # attention matters here
    excess = (counted(shape, batch) - table - predicted) / scores
    assert 0 <= excess <= (attention_skewed.BLOCK + attention_skewed.SPARE) / time


def test_the_products_of_a_large_model_are_six_operations_a_parameter():
    """At a short context what remains is 6 N: each weight multiplies once forward and twice backward."""
    for size in ("1.4B", "7.1B", "280B"):
        shape = GopherConfig.preset(size)
        n_position = shape.num_layers * shape.d_model * shape.d_attention
        expected = 6 * (shape.num_parameters(full=False) - n_position)
        assert training_flops(shape, 1) == pytest.approx(expected, rel=2e-3)


class Live(TorchDispatchMode):
    """The largest number of bytes that tensors held at one time."""

    def __init__(self, present: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in present:
            self.see(tensor)

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known[key] = weakref.ref(storage, lambda _: self.forget(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def forget(self, key: int, size: int) -> None:
        del self.known[key]
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.see(each)
        return result


@pytest.mark.parametrize(
    ("shape", "batch", "optimizer", "precision"),
    [
        (config(4, 4, 16, 64, 2000, 127), 8, "muon", "fp32"),  # probabilities and logits
        (config(4, 4, 16, 64, 2000, 256), 4, "muon", "fp32"),  # probabilities are not kept
        (config(4, 4, 16, 64, 2000, 256), 4, "muon", "bf16"),
        (config(3, 4, 16, 64, 257, 640), 2, "adamw", "fp32"),
        (config(2, 4, 32, 128, 20_000, 16), 1, "adam", "fp32"),  # weights and nothing else
        (config(2, 4, 32, 128, 20_000, 16), 1, "adam", "bf16-sr"),
        (config(2, 4, 32, 128, 20_000, 16), 1, "adam", "bf16-master"),
        (config(4, 2, 16, 32, 257, 300, positions="none", norm="layer"), 4, "adamw", "fp32"),  # activations
    ],
)
def test_predicted_memory_is_what_tensors_hold_at_the_peak(shape, batch, optimizer, precision):
    """Within a third; what the allocator and the libraries take in addition is not predicted."""
    torch.manual_seed(0)
    model = Gopher(shape)
    weights = weights_for(precision, 0, torch.device("cpu"))
    update = Optimizer(optimizer, model.named_parameters(), learning_rate=1e-3, weights=weights)
    tokens = torch.randint(shape.vocabulary, (batch, shape.context))
    with Live([*model.parameters(), *weights.state().values()]) as live:
        for _ in range(2):
            with autocast(precision, torch.device("cpu")):
                loss = model.loss(tokens, tokens)
            loss.backward()
            del loss
            update.step(1.0)
    predicted = training_memory(shape, batch, shape.context, optimizer=optimizer, precision=precision, device="cpu")
    assert 0.75 < predicted / live.peak < 1.33
