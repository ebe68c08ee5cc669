"""Relative attention against the formula, written out key by key in float64, in values and in every gradient."""

import math
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from attention_formula import assert_same_values_and_gradients, call, formula, inputs, position_features
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from earthworks.gopher.attention import choice as attention_choice
from earthworks.gopher.attention import skewed as attention_skewed
from earthworks.gopher.attention.positions import sinusoid
from earthworks.gopher.attention.relative import causal_attention, position_table, relative_attention
from earthworks.gopher.attention.skewed import SPARE, skew
from earthworks.runs import EarthworksError

backends = pytest.mark.parametrize("backend", ["math", "skewed", "augmented", "sdpa"])
with_tables = pytest.mark.parametrize("backend", ["math", "skewed", "sdpa"])
written_out = pytest.mark.parametrize("backend", ["math", "skewed"])  # the others end in kernels of torch's
LEFT_PADDED = [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]]
WITH_HOLES = [[0, 1, 0, 0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1]]
CASES = {
    "one block": ({}, {}, 64),
    "time is no multiple of the block": ({}, {}, 3),
    "time is a multiple of the block": ({"time_q": 6}, {}, 3),
    "a block of one": ({}, {}, 1),
    "one position": ({"time_q": 1}, {}, 64),
    "one sequence, one head": ({"batch": 1, "heads": 1}, {}, 4),
    "memory": ({"time_q": 5, "time_k": 9}, {}, 2),
    "memory and one query": ({"time_q": 1, "time_k": 9}, {}, 2),
    "distances clamped": ({}, {"max_distance": 2}, 3),
    "all distances the same": ({}, {"max_distance": 0}, 3),
    "a clamp that is never reached": ({}, {"max_distance": 50}, 3),
    "left padding": ({"time_q": 9}, {"key_mask": torch.tensor(LEFT_PADDED).bool()}, 4),
    "masked holes": ({"time_q": 9}, {"key_mask": torch.tensor(WITH_HOLES).bool()}, 4),
    "masked memory": ({"time_q": 4, "time_k": 9}, {"key_mask": torch.tensor(WITH_HOLES).bool()}, 3),
    "table": ({"table": True}, {"table": True}, 3),
    "table, memory, clamp": ({"table": True, "time_q": 5, "time_k": 9}, {"table": True, "max_distance": 3}, 2),
}


def factors(options) -> bool:
    """Whether the position term is one of sines, which is what `augmented` needs."""
    return not options.get("table") and options.get("max_distance") in (None, 50)


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        (case, backend)
        for case, (_, options, _) in CASES.items()
        for backend in ("math", "skewed", "augmented", "sdpa")
        if backend != "augmented" or factors(options)
    ],
)
def test_values_and_every_gradient_are_those_of_the_formula(case, backend, monkeypatch):
    shape, options, block = CASES[case]
    monkeypatch.setattr(attention_skewed, "BLOCK", block)
    tensors = inputs(**shape)
    actual = call(relative_attention, tensors, backend=backend, **options)
    assert_same_values_and_gradients(actual, call(formula, tensors, **options), tensors)


@pytest.mark.parametrize("work", [1, 2**10])
@pytest.mark.parametrize("case", CASES)
def test_a_few_heads_and_sequences_at_a_time_give_what_all_at_once_give(case, work, monkeypatch):
    shape, options, block = CASES[case]
    monkeypatch.setattr(attention_skewed, "BLOCK", block)
    tensors = inputs(**({"batch": 3, "heads": 3} | shape))
    if "key_mask" in options:
        options = options | {"key_mask": options["key_mask"][[0, 1, 0]]}
    at_once = call(relative_attention, tensors, backend="skewed", **options)
    monkeypatch.setattr(attention_skewed, "WORK", work)
    in_parts = call(relative_attention, tensors, backend="skewed", **options)
    assert_same_values_and_gradients(in_parts, at_once, tensors)


@pytest.mark.parametrize("case", CASES)
def test_recomputed_blocks_give_the_gradients_of_kept_ones(case, monkeypatch):
    shape, options, block = CASES[case]
    monkeypatch.setattr(attention_skewed, "BLOCK", block)
    tensors = inputs(**shape)
    kept = call(relative_attention, tensors, backend="skewed", **options)
    monkeypatch.setattr(attention_skewed, "KEEP", 0)
    recomputed = call(relative_attention, tensors, backend="skewed", **options)
    assert_same_values_and_gradients(recomputed, kept, tensors)


@pytest.mark.parametrize("case", CASES)
def test_memory_that_was_never_written_is_never_read(case, monkeypatch):
    # In its deterministic mode torch fills every new tensor with NaN.
    shape, options, block = CASES[case]
    monkeypatch.setattr(attention_skewed, "BLOCK", block)
    tensors = inputs(**shape)
    results = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            y = call(relative_attention, tensors, backend="skewed", **options)
            results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@given(st.data())
def test_any_shape_agrees_with_the_formula(data):
    time_k = data.draw(st.integers(1, 12), "time_k")
    time_q = data.draw(st.integers(1, time_k), "time_q")
    batch, heads = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(1, 3), "heads")
    d_head, half = data.draw(st.integers(1, 5), "d_head"), data.draw(st.integers(1, 4), "d_position / 2")
    options = {"max_distance": data.draw(st.none() | st.integers(0, 13), "max_distance")}
    if data.draw(st.booleans(), "masked"):
        bits = data.draw(st.lists(st.booleans(), min_size=batch * time_k, max_size=batch * time_k), "key_mask")
        options["key_mask"] = torch.tensor(bits).view(batch, time_k)
    tensors = inputs(batch, heads, time_q, time_k, d_head, 2 * half, seed=data.draw(st.integers(0, 9), "seed"))
    expected = call(formula, tensors, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_skewed, "BLOCK", data.draw(st.integers(1, 13), "block"))
        patch.setattr(attention_skewed, "KEEP", data.draw(st.sampled_from([0, 256]), "keep"))
        patch.setattr(attention_skewed, "WORK", data.draw(st.sampled_from([1, 2**9, 2**19]), "work"))
        clamps = options["max_distance"] is not None and options["max_distance"] < time_k - 1
        others = ["math", "sdpa", "auto"] + ([] if clamps else ["augmented"])
        for backend in ("skewed", data.draw(st.sampled_from(others), "another backend")):
            actual = call(relative_attention, tensors, backend=backend, **options)
            assert_same_values_and_gradients(actual, expected, tensors)


@backends
def test_a_planted_position_signal_decides_where_attention_looks(backend, monkeypatch):
    # Content is nothing; v·r_Delta = 2000 cos(Delta - 3) peaks three steps back, by 80 above its nearest rival Delta = 9.
    # Without the position term the mean comes out.
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    time, d_head = 11, 4
    w_r = torch.zeros(1, d_head, 2)
    w_r[0] = 500 * torch.tensor([math.sin(3), math.cos(3)])  # cos(Delta - 3) = sin 3 sin Delta + cos 3 cos Delta
    q, k, v = torch.zeros(2, 1, time, d_head), torch.randn(2, 1, time, d_head), torch.randn(2, 1, time, d_head)
    bias = torch.ones(1, d_head)
    y = relative_attention(q, k, v, w_r, 0 * bias, bias, backend=backend)
    torch.testing.assert_close(y[:, :, 3:], v[:, :, :-3])


@with_tables
def test_one_over_root_d_head_multiplies_content_and_position(backend):
    # Two keys, values 0 and 1: the second query's output is the logistic function of the logit difference.
    q = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64).expand(1, 1, 2, 4)
    k = torch.stack([torch.arange(4.0), torch.ones(4)]).to(torch.float64)[None, None]
    v = torch.tensor([0.0, 1.0], dtype=torch.float64)[None, None, :, None].expand(1, 1, 2, 4)
    u, v_bias = torch.tensor([[[1.0, 0, 0, 0]], [[0, 2.0, 0, 0]]], dtype=torch.float64)
    table = torch.tensor([[[1.0, 2, 3, 4], [4, 3, 2, 1]]], dtype=torch.float64)
    # q + u = (1.5, -1, 2, .25), k_1 - k_0 = (1, 0, -1, -2): content -1.0
    # q + v = (.5, 1, 2, .25), r_0 - r_1 = (-3, -1, 1, 3): position 0.25
    y = relative_attention(q, k, v, None, u, v_bias, table=table, backend=backend)
    assert y[0, 0, 1, 0].item() == pytest.approx(1 / (1 + math.exp(-(-1.0 + 0.25) / 2)), rel=1e-14)


@with_tables
def test_the_table_ascends_from_distance_zero(backend):
    table = torch.zeros(1, 6, 2)
    table[0, 0, 0] = 500.0  # everybody looks at himself
    q, v = torch.ones(1, 1, 6, 2), torch.randn(1, 1, 6, 2)
    bias = torch.zeros(1, 2)
    torch.testing.assert_close(relative_attention(q, 0 * q, v, None, bias, bias, table=table, backend=backend), v)


@written_out
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -float("inf"), 1e9])
@pytest.mark.parametrize("block", [3, 64])
def test_keys_of_the_future_have_no_effect(garbage, block, backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", block)
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(time_q=8))
    for now in range(8):
        future = k.clone()
        future[:, :, now + 1 :] = garbage
        expected = relative_attention(q, k, v, w_r, u, v_bias, backend=backend)[:, :, : now + 1]
        actual = relative_attention(q, future, v, w_r, u, v_bias, backend=backend)[:, :, : now + 1]
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@backends
def test_values_of_the_future_have_no_effect(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 3)
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(time_q=8))
    expected = relative_attention(q, k, v, w_r, u, v_bias, backend=backend)
    v[:, :, 5:] = 1e30
    torch.testing.assert_close(
        relative_attention(q, k, v, w_r, u, v_bias, backend=backend)[:, :, :5], expected[:, :, :5]
    )


@backends
def test_masked_keys_have_no_effect_whatever_they_hold(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 3)
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(time_q=8))
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 2:4] = mask[1, :5] = False
    expected = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend=backend)
    k[~mask[:, None].expand(2, 2, 8)], v[~mask[:, None].expand(2, 2, 8)] = float("nan"), 1e30
    actual = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend=backend)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@backends
def test_a_hidden_key_never_wins_however_low_the_visible_ones_score(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 3)
    q, _, v, w_r, u, v_bias = (x.detach().float() for x in inputs(time_q=8))
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 0] = False
    y = relative_attention(
        torch.ones_like(q), torch.full_like(q, -1e9), v, 0 * w_r, 0 * u, 0 * v_bias, key_mask=mask, backend=backend
    )
    seen = torch.ones(8, 8).tril() * mask[:, None, None]
    mean = (seen / seen.sum(-1, keepdim=True).clamp(min=1)) @ v
    torch.testing.assert_close(y, mean)


@backends
def test_a_query_that_sees_no_key_gives_zeros_and_takes_no_gradient(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    tensors = inputs(time_q=9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :6] = False
    y = call(relative_attention, tensors, key_mask=mask, backend=backend)
    assert torch.equal(y[0, :, :6], torch.zeros_like(y[0, :, :6]))
    gradients = torch.autograd.grad(y[0, :, :6].sum(), tensors, retain_graph=True)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in torch.autograd.grad(y.square().sum(), tensors))


@backends
def test_only_differences_of_position_matter(backend, monkeypatch):
    # The same tokens, 5 slots further right behind padding, and as one sequence of a longer memory.
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(time_q=9))
    here = relative_attention(q, k, v, w_r, u, v_bias, backend=backend)
    mask = torch.arange(14).expand(2, 14) >= 5
    later = relative_attention(
        *(F.pad(x, (0, 0, 5, 0), value=3.0) for x in (q, k, v)), w_r, u, v_bias, key_mask=mask, backend=backend
    )
    torch.testing.assert_close(later[:, :, 5:], here, rtol=1e-12, atol=1e-12)


@backends
def test_without_biases_and_positions_it_is_plain_attention(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    q, k, v, w_r, u, v_bias = inputs(time_q=9)
    actual = relative_attention(q, k, v, 0 * w_r, 0 * u, 0 * v_bias, backend=backend)
    torch.testing.assert_close(actual, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-12, atol=1e-12)


@backends
def test_finite_differences_agree_with_the_gradient(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 2)
    tensors = inputs(batch=1, time_q=3, time_k=5, d_head=2, d_position=2, strength=1.0)
    options = {"key_mask": torch.tensor([[0, 1, 1, 1, 1]]).bool(), "backend": backend}
    if backend != "augmented":
        options["max_distance"] = 3
    assert torch.autograd.gradcheck(lambda *x: relative_attention(*x, **options), tensors)


def test_math_has_a_second_derivative():
    tensors = inputs(batch=1, heads=1, time_q=3, d_head=2, d_position=2, strength=1.0)
    assert torch.autograd.gradgradcheck(lambda *x: relative_attention(*x, backend="math"), tensors)


@pytest.mark.parametrize("backend", ["skewed", "augmented", "sdpa"])
def test_the_others_say_that_they_have_none(backend):
    tensors = inputs(batch=1, heads=1, time_q=3, d_head=2, d_position=2, strength=1.0)
    y = relative_attention(*tensors, backend=backend).square().sum()
    with pytest.raises(EarthworksError, match=rf"'{backend}' has a first derivative only.*backend='math'"):
        torch.autograd.grad(y, tensors, create_graph=True)


def test_math_works_under_function_transforms():
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(batch=3, time_q=4))
    attend = lambda q, k, v: relative_attention(q[None], k[None], v[None], w_r, u, v_bias, backend="math")[0]  # noqa: E731
    torch.testing.assert_close(
        torch.func.vmap(attend)(q, k, v), relative_attention(q, k, v, w_r, u, v_bias), rtol=1e-12, atol=1e-12
    )
    reverse = torch.func.jacrev(attend)(q[0], k[0], v[0])
    forward = torch.func.jacfwd(attend)(q[0], k[0], v[0])
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["math", "skewed", "sdpa", "auto"])
@pytest.mark.parametrize("chunks", [[1] * 34, [7, 1, 1, 5, 20]])
@pytest.mark.parametrize("max_distance", [None, 9])
def test_decoding_with_a_table_equals_reading_at_once(chunks, max_distance, backend, monkeypatch):
    # 34 positions, far past any "trained" length of 8; the table is longer than needed.
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    q, k, v, w_r, u, v_bias = (x.detach() for x in inputs(time_q=34))
    table = position_table(w_r, 50, max_distance)
    at_once = formula(q, k, v, w_r, u, v_bias, max_distance=max_distance)
    read, parts = 0, []
    for chunk in chunks:
        new, read = read, read + chunk
        part = relative_attention(
            q[:, :, new:read], k[:, :, :read], v[:, :, :read], None, u, v_bias, table=table, backend=backend
        )
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=2), at_once, rtol=1e-11, atol=1e-11)


@backends
def test_a_fused_projection_is_read_in_place_and_receives_its_gradient(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    x = torch.randn(2, 9, 3 * 3 * 4, dtype=torch.float64, requires_grad=True)
    views = x.view(2, 9, 3, 3, 4).permute(2, 0, 3, 1, 4)
    parameters = inputs(heads=3)[3:]
    strided = relative_attention(*views, *parameters, backend=backend)
    packed = formula(*(view.contiguous() for view in views), *parameters)
    torch.testing.assert_close(strided, packed, rtol=1e-11, atol=1e-11)
    weight = torch.randn(2, 9, 12, dtype=torch.float64)  # as the gradient comes back from the output projection
    ours, theirs = (
        torch.autograd.grad((y.transpose(1, 2).reshape(2, 9, 12) * weight).sum(), x)[0] for y in (strided, packed)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@backends
def test_float32_is_as_close_as_float32_can_be(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 8)
    tensors = inputs(time_q=21, d_head=16, d_position=32, strength=0.25)
    single = [x.detach().float().requires_grad_() for x in tensors]
    actual, expected = relative_attention(*single, backend=backend), formula(*tensors)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    for x, ours in zip(tensors, torch.autograd.grad(actual, single, weight.float())):
        theirs = torch.autograd.grad(expected, x, weight, retain_graph=True)[0]
        assert (ours.double() - theirs).norm() < 3e-6 * theirs.norm()


class Recorder(TorchDispatchMode):
    """Notes what every operation under it makes: softmax dtypes, and the largest tensor."""

    def __init__(self):
        super().__init__()
        self.softmax, self.products, self.largest = set(), set(), 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            name = operation.overloadpacket.__name__
            self.largest = max(self.largest, result.untyped_storage().nbytes() // result.element_size())
            if name in ("softmax", "_softmax"):
                self.softmax.add(result.dtype)
            if name in ("bmm", "baddbmm"):
                self.products.add(result.dtype)
        return result


@backends
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_multiplies_in_bfloat16_and_normalises_in_float32(backend, autocast, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 8)
    tensors = inputs(time_q=21, d_head=16, d_position=32, strength=0.25)
    rounded = [x.detach().bfloat16() for x in tensors]
    exact = [x.double().requires_grad_() for x in rounded]
    used = [x.float().requires_grad_() if autocast else x.requires_grad_() for x in rounded]
    with Recorder() as recorder:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            actual = relative_attention(*used, backend=backend)
        expected = formula(*exact)
        weight = torch.randn_like(expected).bfloat16()
        gradients = torch.autograd.grad(actual, used, weight.to(actual.dtype))
    assert actual.dtype == torch.bfloat16
    if backend in ("math", "skewed"):
        # float64 is the oracle's; skewed asks for the softmax in bfloat16, which is the next test's
        assert recorder.softmax == {torch.float32 if backend == "math" else torch.bfloat16, torch.float64}
        assert torch.bfloat16 in recorder.products
    assert (actual.double() - expected).norm() < 2**-6 * expected.norm()
    for x, ours in zip(exact, gradients):
        theirs = torch.autograd.grad(expected, x, weight.double(), retain_graph=True)[0]
        assert (ours.double() - theirs).norm() < 2**-5 * theirs.norm()


def test_the_softmax_of_bfloat16_logits_is_formed_in_float32_and_rounded_once():
    # A sum of 4,096 equal terms in bfloat16 would stop growing at 256. 2^-8: half the last place of bfloat16, at most.
    logits = torch.zeros(3, 4096, dtype=torch.bfloat16)
    logits[1:] = torch.randn(2, 4096, generator=torch.Generator().manual_seed(0))
    exact = logits.double().softmax(-1)
    p = torch.softmax(logits, -1, out=logits)
    assert ((p.double() - exact).abs() <= 1.01 * 2**-8 * exact).all()
    gradient = torch.randn(3, 4096, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = p.double() * (gradient.double() - (p.double() * gradient.double()).sum(-1, keepdim=True))
    torch.ops.aten._softmax_backward_data.out(gradient, p, -1, p.dtype, grad_input=gradient)
    assert ((gradient.double() - expected).abs() <= 1.01 * 2**-8 * expected.abs() + 1e-8).all()


def test_sums_over_blocks_are_kept_in_float32(monkeypatch):
    # One key, seen by 512 queries in 512 blocks, each adding 1/512: in bfloat16 the sum would stop at 256/512.
    monkeypatch.setattr(attention_skewed, "BLOCK", 1)
    q, k = torch.zeros(1, 1, 512, 4, dtype=torch.bfloat16), torch.zeros(1, 1, 512, 4, dtype=torch.bfloat16)
    v = torch.zeros(1, 1, 512, 4, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.zeros(1, 512, dtype=torch.bool)
    mask[0, 0] = True
    zero = torch.zeros(1, 4)
    y = relative_attention(q, k, v, torch.zeros(1, 4, 2), zero, zero, key_mask=mask, backend="skewed")
    (gradient,) = torch.autograd.grad(y, v, torch.full_like(y, 1 / 512))
    assert torch.equal(gradient[0, 0, 0], torch.ones(4, dtype=torch.bfloat16))


def test_half_precision_takes_no_gradient_dtype_from_its_neighbours():
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    w_r, u, v_bias = (x.detach().float().requires_grad_() for x in inputs(batch=1, time_q=5)[3:])
    gradients = torch.autograd.grad(relative_attention(q, k, v, w_r, u, v_bias).sum(), (q, k, v, w_r, u, v_bias))
    assert [g.dtype for g in gradients] == 3 * [torch.bfloat16] + 3 * [torch.float32]


@pytest.mark.parametrize("backend", ["skewed", "auto", "augmented"])
def test_nothing_that_grows_with_the_square_of_time_is_made_or_kept(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 16)
    monkeypatch.setattr(attention_skewed, "KEEP", 0)
    monkeypatch.setattr(attention_choice, "WORTH_COMPILING", 10**9)  # what `tiled` keeps: test_attention_tiled.py

    def measure(time: int, by: str) -> tuple[int, int]:
        """Numbers kept for the backward pass, and in the largest tensor of the forward and the backward pass."""
        tensors = [x.detach().float().requires_grad_() for x in inputs(1, 2, time, d_head=4, d_position=4)]
        kept = {}

        def pack(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // 4
            return x

        with Recorder() as recorder:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                y = relative_attention(*tensors, backend=by)
            y.sum().backward()
        return sum(kept.values()), recorder.largest

    kept, largest = zip(*(measure(time, backend) for time in (128, 256, 512)))
    assert kept[1] < 2.1 * kept[0]
    assert kept[2] < 2.1 * kept[1]
    assert all(size <= 2 * 16 * (time + SPARE) for size, time in zip(largest, (128, 256, 512)))
    kept, largest = zip(*(measure(time, "math") for time in (128, 256)))  # the same measure sees the square in `math`
    assert kept[1] > 3 * kept[0]
    assert largest[1] >= 2 * 256 * 256


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process as Linux counts it")
def test_the_process_never_holds_more_than_a_few_blocks_at_once():
    # A block of 64 queries x 12,288 keys is 3.1 MB, the whole square 604 MB. Taking the small blocks before the large
    # ones leaves holes that none of the later ones fits into: 107 to 271 MB grown instead of 18 to 25.
    script = """
        import torch
        from earthworks.gopher.attention.relative import relative_attention

        def peak():  # of this program alone: what getrusage gives starts with the parent's
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024

        def run(time):
            tensors = [torch.randn(1, 1, time, 4, requires_grad=True) for _ in range(3)]
            relative_attention(*tensors, torch.randn(1, 4, 8), torch.randn(1, 4), torch.randn(1, 4)).sum().backward()

        run(200)
        before = peak()
        run(2048)
        run(12288)
        print(peak() - before)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 60


@pytest.mark.parametrize(("c", "n", "spare"), [(1, 1, 1), (1, 5, 3), (4, 4, 1), (3, 8, 8)])
def test_the_skewed_view_shows_each_key_at_its_distance(c, n, spare):
    distance = torch.arange(n - 1, -1 - spare, -1).repeat(2, c, 1)  # n-1, ..., 0 and spare columns
    view = skew(distance.view(2, -1), c)
    assert view.untyped_storage().data_ptr() == distance.untyped_storage().data_ptr()
    for a in range(c):
        here = n - c + a
        assert view[0, a, : here + 1].tolist() == view[1, a, : here + 1].tolist() == list(range(here, -1, -1))


@pytest.mark.parametrize("far", [0, 2_000, 131_072 - 8])
def test_augmented_keeps_its_precision_at_far_positions(far):
    # Eight positions behind `far` hidden ones. Rounded to float32 the angles themselves would be off by 4e-3 at 131,072.
    tensors = [x.detach() for x in inputs(batch=1, time_q=8, d_head=8, d_position=16, strength=0.5)]
    q, k, v, w_r, u, v_bias = (x.float() for x in tensors)
    k, v = (F.pad(x, (0, 0, far, 0)) for x in (k, v))
    mask = torch.arange(far + 8)[None] >= far
    y = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend="augmented")
    assert (y.double() - formula(*tensors)).abs().max() < 3e-6


def test_the_sinusoid_concatenates_sines_and_cosines():
    expected = torch.tensor([position_features(d, 8) for d in (0, 1, 5, 40)], dtype=torch.float64)
    torch.testing.assert_close(
        sinusoid(torch.tensor([0, 1, 5, 40]), 8, torch.float64), expected, rtol=1e-15, atol=1e-15
    )
    assert expected[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-9)])
def test_far_angles_are_rounded_only_after_sine_and_cosine(dtype, error):
    far = [131_071, 1_000_003]
    exact = torch.tensor([position_features(d, 512) for d in far], dtype=torch.float64)
    assert (sinusoid(torch.tensor(far), 512, dtype).double() - exact).abs().max() <= 1.01 * error


def test_the_position_table_is_the_projected_sinusoid_by_distance():
    w_r = inputs(heads=3, d_head=5, d_position=8)[3]
    for max_distance in (None, 2):
        table = position_table(w_r, 6, max_distance)
        for distance in range(6):
            features = position_features(distance if max_distance is None else min(distance, max_distance), 8)
            expected = w_r @ torch.tensor(features, dtype=torch.float64)
            torch.testing.assert_close(table[:, distance], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("time_q", "time_k"), [(9, 9), (4, 9), (1, 9)])
def test_attention_without_positions_is_the_formula_with_no_position_term(time_q, time_k, masked):
    tensors = inputs(time_q=time_q, time_k=time_k)
    q, k, v, w_r, u, v_bias = tensors
    mask = torch.tensor(LEFT_PADDED).bool() if masked else None
    expected = formula(q, k, v, 0 * w_r, 0 * u, 0 * v_bias, key_mask=mask)
    actual = causal_attention(q, k, v, mask)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    weight = torch.randn_like(actual)
    ours, theirs = (torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (actual, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "flash"}, r"'flash'.*auto, math, skewed, tiled, augmented, sdpa, band"),
        (
            {"table": torch.zeros(2, 6, 4, dtype=torch.float64)},
            r"holds 6 distances, but 7 are needed.*position_table\(w_r, 7\)",
        ),
        ({"w_r": None}, "give w_r or table"),
        ({"w_r": torch.zeros(2, 4, 5, dtype=torch.float64)}, "d_position is 5; it must be even"),
        ({"q": torch.zeros(2, 2, 8, 4, dtype=torch.float64)}, "8 queries were given for 7 keys"),
    ],
)
def test_a_mistake_is_one_sentence(change, message):
    names = ("q", "k", "v", "w_r", "content_bias", "position_bias")
    with pytest.raises(EarthworksError, match=message):
        relative_attention(**(dict(zip(names, inputs())) | change))
