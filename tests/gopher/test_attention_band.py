"""The Triton kernel of `band`, run step by step by Triton's interpreter on a CPU: values and gradients of the formula.

Slow by nature, so the shapes are small: tiles of 16, and times that are no multiple of them.
"""

import importlib
import math
import sys

import pytest
import torch
from attention_formula import NAMES, call, formula, inputs

from earthworks.gopher.attention import choice as attention_choice
from earthworks.gopher.attention.relative import relative_attention
from earthworks.runs import EarthworksError


@pytest.fixture(autouse=True, scope="module")
def interpreter():
    """Triton's own functions and ours are bound to the interpreter when they are defined: both are imported anew here."""
    if not attention_choice.has_triton():
        pytest.skip("needs Triton")
    own = "earthworks.gopher.attention.triton_band"
    with pytest.MonkeyPatch.context() as patch:
        for name in list(sys.modules):
            if name == own or (name.split(".")[0] == "triton" and not name.startswith("triton._C")):
                patch.delitem(sys.modules, name)
        patch.setenv("TRITON_INTERPRET", "1")
        attention_band = importlib.import_module(own)
        patch.setattr(attention_band, "TILE", {2: 16, 4: 16})
        yield
        for name in list(sys.modules):
            if name == own or (name.split(".")[0] == "triton" and not name.startswith("triton._C")):
                del sys.modules[name]


def random_mask(batch: int, time: int, hidden_from_start: int) -> torch.Tensor:
    mask = torch.rand(batch, time, generator=torch.Generator().manual_seed(5)) < 0.7
    mask[0, :hidden_from_start] = False
    return mask


CASES = {
    "one position": ({"batch": 1, "heads": 1, "time_q": 1}, {}),
    "less than a tile": ({"time_q": 5, "d_head": 3}, {}),
    "exactly two tiles": ({"batch": 1, "heads": 1, "time_q": 32}, {}),
    "three tiles, the last of one": ({"heads": 1, "time_q": 33}, {}),
    "memory shorter than a tile": ({"heads": 1, "time_q": 17, "time_k": 24}, {}),
    "memory longer than a tile": ({"heads": 1, "time_q": 18, "time_k": 37}, {}),
    "one query": ({"time_q": 1, "time_k": 37}, {}),
    "more features than a power of two": ({"batch": 1, "time_q": 18, "d_head": 20}, {}),
    "masked, and 20 queries that see nothing": ({"time_q": 26}, {"key_mask": random_mask(2, 26, 20)}),
    "masked memory": ({"time_q": 9, "time_k": 26}, {"key_mask": random_mask(2, 26, 3)}),
    "clamped distances": ({"batch": 1, "heads": 1, "time_q": 18}, {"max_distance": 2}),
    "a table": ({"batch": 1, "time_q": 18, "table": True}, {"table": True}),
    "positions that outweigh everything": ({"batch": 1, "time_q": 18, "strength": 20.0}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_every_gradient_are_those_of_the_formula(case):
    shape, options = CASES[case]
    tensors = inputs(**shape)
    single = [x.detach().float().requires_grad_() for x in tensors]
    actual, expected = call(relative_attention, single, backend="band", **options), call(formula, tensors, **options)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    ours = torch.autograd.grad(actual, single, weight)
    theirs = torch.autograd.grad(expected, tensors, weight.double(), materialize_grads=True)
    torch.testing.assert_close(actual.double(), expected, rtol=2e-5, atol=2e-5)
    for name, one, other in zip(NAMES, ours, theirs):
        assert (one.double() - other).norm() <= 1e-5 * other.norm() + 1e-6, name


def test_half_precision_multiplies_in_half_precision_and_sums_in_float32():
    # float16: the interpreter multiplies the bits of bfloat16 as if they were whole numbers.
    tensors = inputs(batch=1, heads=1, time_q=18, d_head=16, d_position=32, strength=0.25)
    rounded = [x.detach().half().requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in rounded]
    actual, expected = relative_attention(*rounded, backend="band"), formula(*exact)
    weight = torch.randn_like(expected).half()
    assert actual.dtype == torch.float16
    assert (actual.double() - expected).norm() < 2**-9 * expected.norm()
    ours, theirs = torch.autograd.grad(actual, rounded, weight), torch.autograd.grad(expected, exact, weight.double())
    for name, one, other in zip(NAMES, ours, theirs):
        assert one.dtype == torch.float16
        assert (one.double() - other).norm() < 2**-8 * other.norm(), name


def test_a_planted_position_signal_decides_where_attention_looks():
    # v·r_Delta = 2000 cos(Delta - 3): three steps back, across the border of tiles too.
    w_r = 500 * torch.tensor([math.sin(3), math.cos(3)]).expand(1, 4, 2)
    q, k, v = torch.zeros(1, 1, 21, 4), torch.randn(1, 1, 21, 4), torch.randn(1, 1, 21, 4)
    bias = torch.ones(1, 4)
    y = relative_attention(q, k, v, w_r, 0 * bias, bias, backend="band", max_distance=9)
    torch.testing.assert_close(y[:, :, 3:], v[:, :, :-3])


def test_what_may_not_be_seen_has_no_effect_whatever_it_holds():
    q, k, v, w_r, u, v_bias = (x.detach().float() for x in inputs(batch=1, heads=1, time_q=18))
    mask = torch.ones(1, 18, dtype=torch.bool)
    mask[0, 3:5] = False
    expected = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend="band")
    k[:, :, 3:5], v[:, :, 3:5] = float("nan"), float("inf")  # masked
    k[:, :, 17], v[:, :, 17] = float("nan"), 1e30  # the future of all but the last
    actual = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend="band")
    torch.testing.assert_close(actual[:, :, :17], expected[:, :, :17], rtol=0, atol=0)


def test_a_second_derivative_is_refused():
    tensors = [x.detach().float().requires_grad_() for x in inputs(batch=1, heads=1, time_q=3)]
    y = relative_attention(*tensors, backend="band").square().sum()
    with pytest.raises(EarthworksError, match=r"'band' has a first derivative only.*backend='math'"):
        torch.autograd.grad(y, tensors, create_graph=True)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(attention_choice, "has_triton", lambda: False)
    with pytest.raises(EarthworksError, match=r"pip install triton.*backend='skewed'"):
        relative_attention(*(x.detach().float() for x in inputs()), backend="band")
