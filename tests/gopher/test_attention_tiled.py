"""The compiled backend, which has no float64, against the others in float64."""

import itertools
import math

import pytest
import torch
from attention_formula import NAMES, call, formula, inputs
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earthworks import compilation
from earthworks.gopher.attention.cpu_tiled import BLOCK, CHUNK, LENGTH, SPARE, STRIDE
from earthworks.gopher.attention.relative import relative_attention
from earthworks.gopher.kernels.tile import ROWS, WIDTH
from earthworks.runs import EarthworksError

LONG = 2 * CHUNK + BLOCK + 7
CASES = {
    "a few": ({"time_q": 7}, {}),
    "one position": ({"time_q": 1}, {}),
    "one block": ({"time_q": BLOCK}, {}),
    "one block and one more": ({"time_q": BLOCK + 1}, {}),
    "one chunk": ({"time_q": CHUNK}, {}),
    "one chunk and one more": ({"time_q": CHUNK + 1}, {}),
    "several chunks, one sequence, one head": ({"batch": 1, "heads": 1, "time_q": LONG}, {}),
    "heads as wide as a tile": ({"time_q": 60, "d_head": WIDTH, "strength": 0.2}, {}),
    "heads wider than two": ({"time_q": 60, "d_head": 2 * WIDTH + 3, "strength": 0.1}, {}),
    "memory": ({"time_q": 70, "time_k": LONG}, {}),
    "memory and few queries": ({"time_q": 2, "time_k": LONG}, {}),
    "more memory than a chunk, fewer queries than a tile": ({"time_q": 5, "time_k": CHUNK + 5}, {}),
    "distances clamped": ({"time_q": 100}, {"max_distance": 30}),
    "many sequences": ({"batch": 40, "heads": 1, "time_q": 20}, {}),
    "more heads than pieces": ({"batch": 2, "heads": 40, "time_q": 9}, {}),
    "table": ({"time_q": 60, "time_k": 80, "table": True}, {"table": True}),
}


def in_single(tensors: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [x.detach().to(dtype).requires_grad_() for x in tensors]


def assert_as_close_as_float32_can_be(tensors, *, tolerance=3e-6, dtype=torch.float32, **options):
    """Norms of differences from `math` in float64 on the same numbers, of the result and of every gradient.

    A sum of numbers that nearly cancel is as exact as the numbers are: so the norm of v, or of the largest gradient, counts.
    """
    single = in_single(tensors, dtype)
    exact = [x.detach().double().requires_grad_() for x in single]
    ours = call(relative_attention, single, backend="tiled", **options)
    theirs = call(relative_attention, exact, backend="math", **options)
    assert ours.dtype == dtype
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    assert (ours - theirs).norm() <= tolerance * (theirs.norm() + (exact[2].norm() if dtype == torch.float32 else 0))
    gradients = [torch.autograd.grad(y, x, weight.to(y.dtype)) for y, x in ((ours, single), (theirs, exact))]
    largest = max(x.norm() for x in gradients[1])
    for name, a, b in zip(NAMES, *gradients):
        assert a.dtype == dtype
        assert (a - b).norm() <= tolerance * (b.norm() + largest), f"d/d {name}: {(a - b).norm() / b.norm()}"


def test_the_sizes_fit_each_other():
    assert BLOCK % ROWS == CHUNK % WIDTH == CHUNK % ROWS == CHUNK % STRIDE == 0
    assert max(BLOCK, WIDTH) + ROWS < SPARE
    assert LENGTH >= SPARE + CHUNK


@pytest.mark.parametrize("case", CASES)
def test_values_and_every_gradient_are_those_of_the_formula(case):
    shape, options = CASES[case]
    assert_as_close_as_float32_can_be(inputs(**({"strength": 0.5} | shape)), **options)


def test_it_is_the_formula_itself():
    """`math` stands for the formula above, which is slow; here are both."""
    tensors = inputs(time_q=53, strength=0.5)
    torch.testing.assert_close(
        call(relative_attention, in_single(tensors), backend="tiled").double(),
        call(formula, tensors),
        rtol=2e-5,
        atol=2e-5,
    )


@pytest.mark.parametrize("case", ["one block and one more", "several chunks, one sequence, one head", "memory"])
def test_gradients_of_bfloat16_differ_by_its_rounding(case):
    """Y, which the backward pass multiplies by dY to have sum_j P dP, was rounded on its way out."""
    shape, options = CASES[case]
    tensors = inputs(**({"strength": 0.25} | shape))
    assert_as_close_as_float32_can_be(tensors, tolerance=2**-5, dtype=torch.bfloat16, **options)


def test_the_value_of_bfloat16_inputs_is_the_float32_one_rounded():
    tensors = [x.detach().bfloat16() for x in inputs(time_q=CHUNK + 9, table=True, strength=0.25)]
    ours = call(relative_attention, tensors, backend="tiled", table=True)
    exact = call(relative_attention, [x.float() for x in tensors], backend="tiled", table=True)
    assert torch.equal(ours, exact.bfloat16())


@given(st.data())
def test_any_shape_agrees_with_the_formula(data):
    time_k = data.draw(st.integers(1, 2 * BLOCK + 5), "time_k")
    time_q = data.draw(st.integers(1, time_k), "time_q")
    batch, heads = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(1, 3), "heads")
    d_head, half = data.draw(st.integers(1, WIDTH + 3), "d_head"), data.draw(st.integers(1, 4), "d_position / 2")
    options = {"max_distance": data.draw(st.none() | st.integers(0, time_k), "max_distance")}
    if data.draw(st.booleans(), "masked"):
        bits = data.draw(st.lists(st.booleans(), min_size=batch * time_k, max_size=batch * time_k), "key_mask")
        options["key_mask"] = torch.tensor(bits).view(batch, time_k)
    seed = data.draw(st.integers(0, 9), "seed")
    tensors = inputs(batch, heads, time_q, time_k, d_head, 2 * half, strength=1 / d_head, seed=seed)
    assert_as_close_as_float32_can_be(tensors, tolerance=1e-5, **options)


@pytest.mark.parametrize("seed", range(3))
def test_masked_keys_may_be_anywhere_and_hold_anything(seed):
    time = CHUNK + BLOCK
    mask = torch.rand(2, time, generator=torch.Generator().manual_seed(seed)) < 0.3
    mask[0, : CHUNK + 5] = False  # the first queries of a sequence see nothing, in their first chunk and beyond
    tensors = inputs(time_q=time, seed=seed, strength=0.5)
    assert_as_close_as_float32_can_be(tensors, key_mask=mask)
    q, k, v, w_r, u, v_bias = in_single(tensors)
    expected = relative_attention(q, k, v, w_r, u, v_bias, key_mask=mask, backend="tiled")
    hidden = ~mask[:, None, :, None]
    for garbage in (math.nan, math.inf, 1e30):
        again = in_single([q, k.masked_fill(hidden, garbage), v.masked_fill(hidden, garbage), w_r, u, v_bias])
        actual = relative_attention(*again, key_mask=mask, backend="tiled")
        assert torch.equal(actual, expected)
        gradients = torch.autograd.grad(actual.square().sum(), again)
        assert all(x.isfinite().all() for x in gradients)
        assert all((x.masked_fill(~hidden, 0.0) == 0).all() for x in gradients[1:3])


def test_a_query_that_sees_no_key_gives_zeros_and_takes_no_gradient():
    tensors = in_single(inputs(time_q=80))
    mask = torch.ones(2, 80, dtype=torch.bool)
    mask[0, :66] = False
    y = call(relative_attention, tensors, key_mask=mask, backend="tiled")
    assert torch.equal(y[0, :, :66], torch.zeros_like(y[0, :, :66]))
    gradients = torch.autograd.grad(y[0, :, :66].sum(), tensors, retain_graph=True)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e9])
def test_keys_of_the_future_have_no_effect(garbage):
    q, k, v, w_r, u, v_bias = (x.detach().float() for x in inputs(time_q=CHUNK + 60))
    for now in (0, 5, ROWS - 1, BLOCK - 1, BLOCK, CHUNK - 1, CHUNK, CHUNK + 58):
        future = k.clone()
        future[:, :, now + 1 :] = garbage
        expected, actual = (relative_attention(q, x, v, w_r, u, v_bias, backend="tiled") for x in (k, future))
        assert torch.equal(actual[:, :, : now + 1], expected[:, :, : now + 1])


def test_a_planted_position_signal_decides_where_attention_looks():
    # Content is nothing; v·r_Delta = 2000 cos(Delta - 3) peaks three steps back, by 80 above its nearest rival Delta = 9.
    time, d_head = 11, 4
    w_r = torch.zeros(1, d_head, 2)
    w_r[0] = 500 * torch.tensor([math.sin(3), math.cos(3)])
    q, k, v = torch.zeros(2, 1, time, d_head), torch.randn(2, 1, time, d_head), torch.randn(2, 1, time, d_head)
    bias = torch.ones(1, d_head)
    y = relative_attention(q, k, v, w_r, 0 * bias, bias, backend="tiled")
    torch.testing.assert_close(y[:, :, 3:], v[:, :, :-3])


def test_what_is_not_a_number_is_seen():
    """A run ends with a sentence when its loss is not finite: zeros instead would hide it."""
    tensors = [x.detach().float() for x in inputs(batch=1, heads=1, time_q=CHUNK + 60)]
    for which, place in itertools.product((0, 1), (0, 100, CHUNK + 2)):
        given = [x.clone() for x in tensors]
        given[which][0, 0, place] = math.nan
        y = relative_attention(*given, backend="tiled")
        assert y[0, 0, place].isnan().all()
        assert y[0, 0, :place].isfinite().all()
        assert y[0, 0, place + 1 :].isnan().all() == (which == 1)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_with_and_without_openmp_gives_the_same_bits(threads, monkeypatch):
    tensors = in_single(inputs(batch=3, heads=5, time_q=100, table=True))  # torch's own products do depend on them
    weight, results = torch.randn(3, 5, 100, 4), []
    for number, found in ((1, True), (2, True), (3, True), (3, False), (7, False)):
        threads(number)
        if not found:
            monkeypatch.setattr(compilation, "openmp", lambda: None)
        y = call(relative_attention, tensors, backend="tiled", table=True)
        results.append([y, *torch.autograd.grad(y, tensors, weight)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0]))


def test_memory_that_was_never_written_is_never_read():
    # In its deterministic mode torch fills every new tensor with NaN.
    tensors = in_single(inputs(time_q=101, d_head=5))
    mask = torch.ones(2, 101, dtype=torch.bool)
    mask[1, :77] = False
    results = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            y = call(relative_attention, tensors, key_mask=mask, backend="tiled")
            results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_a_fused_projection_is_read_in_place_and_receives_its_gradient():
    x = torch.randn(2, 70, 3 * 3 * 4, requires_grad=True)
    views = x.view(2, 70, 3, 3, 4).permute(2, 0, 3, 1, 4)
    parameters = in_single(inputs(heads=3)[3:])
    weight = torch.randn(2, 70, 12)  # as the gradient comes back from the output projection
    results = [
        torch.autograd.grad((y.transpose(1, 2).reshape(2, 70, 12) * weight).sum(), x)[0]
        for y in (
            relative_attention(*views, *parameters, backend="tiled"),
            relative_attention(*(view.contiguous() for view in views), *parameters, backend="math"),
        )
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    y = relative_attention(*views, *parameters, backend="tiled")
    torch.autograd.grad(y.sum(), x)  # whose gradient is one number, expanded


def test_numbers_of_a_transposed_axis_are_gathered_first():
    q, k, v, *parameters = in_single(inputs(time_q=70))
    apart = [x.detach().mT.contiguous().mT for x in (q, k, v)]
    assert all(x.stride(-1) != 1 for x in apart)
    torch.testing.assert_close(
        relative_attention(*apart, *parameters, backend="tiled"),
        relative_attention(q, k, v, *parameters, backend="tiled"),
    )


def test_an_empty_batch_is_an_empty_result():
    tensors = in_single(inputs(batch=0, time_q=5))
    y = call(relative_attention, tensors, backend="tiled")
    assert y.shape == (0, 2, 5, 4)
    assert all((g == 0).all() for g in torch.autograd.grad(y.sum(), tensors))


def test_what_is_kept_for_the_backward_pass_grows_with_time_and_not_with_its_square():
    kept = []
    for time in (128, 256, 512):
        sizes = {}

        def pack(x: Tensor, sizes=sizes) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            call(relative_attention, in_single(inputs(1, 2, time)), backend="tiled")
        kept.append(sum(sizes.values()))
    assert kept[2] < 2.1 * kept[1] < 4.4 * kept[0]


def test_it_says_that_it_has_no_second_derivative():
    tensors = in_single(inputs(batch=1, heads=1, time_q=3))
    y = relative_attention(*tensors, backend="tiled").square().sum()
    with pytest.raises(EarthworksError, match=r"'tiled' has a first derivative only.*backend='math'"):
        torch.autograd.grad(y, tensors, create_graph=True)
