"""Matrices stored in panels, and their product with a few rows, against torch in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthworks.gopher.decoding.stored_weights import MOST, on_lines, product, quantise, share, store
from earthworks.gopher.kernels.tile import WIDTH


def as_stored(weight: torch.Tensor, form: str) -> torch.Tensor:
    if form == "int8":
        q, scale = quantise(weight)
        return q.double() * scale[:, None].double()
    return (weight.bfloat16() if form == "bf16" else weight).double()


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8"])
@given(
    rows=st.integers(1, 2 * MOST + 3),
    outputs=st.integers(1, 3 * WIDTH + 1),
    inputs=st.integers(1, 150),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_product_is_that_of_the_matrix_as_it_is_stored(form, rows, outputs, inputs, seed):
    """The second of two matrices, by a team of three, next to outputs that must not be touched."""
    random = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(outputs, inputs, generator=random), torch.randn(rows, inputs, generator=random)
    stored = store([torch.randn(5, 7, generator=random), weight], form, 2)
    y = np.full((rows, outputs + 1), 7, np.float32)
    sums = np.full(MOST * WIDTH, np.nan, np.float32)
    for me in range(3):
        first, last = share(me, 3, outputs)
        product(stored, 1, x.numpy(), sums, y, first, last)
    expected = x.double() @ as_stored(weight, form).T
    scale = (x.double().abs() @ as_stored(weight, form).T.abs()).clamp(min=1e-30)
    assert ((torch.from_numpy(y[:, :outputs]) - expected).abs() / scale).max() < 1e-5
    assert (y[:, outputs] == 7).all()


@pytest.mark.parametrize("outputs", [1, WIDTH - 1, WIDTH, 5 * WIDTH + 1])
@pytest.mark.parametrize("team", [1, 2, 3, 9])
def test_a_team_shares_out_every_output_once_in_whole_panels(team, outputs):
    parts = [share(me, team, outputs) for me in range(team)]
    assert [o for first, last in parts for o in range(first, last)] == list(range(outputs))
    assert all(first % WIDTH == 0 or first == last for first, last in parts)


def test_large_arrays_start_on_a_cache_line():
    for dtype in (np.float32, np.uint16, np.int8):
        space = on_lines((3, 1001), dtype)
        assert space.shape == (3, 1001)
        assert space.dtype == dtype
        assert space.ctypes.data % 64 == 0


@given(st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=100)
def test_int8_is_the_nearest_of_255_multiples_of_each_rows_scale(rows):
    weight = torch.tensor(rows)
    q, scale = quantise(weight)
    assert q.dtype == torch.int8
    assert q.min() >= -127
    torch.testing.assert_close(scale, weight.abs().amax(1) / 127)
    error = (q.double() * scale[:, None].double() - weight.double()).abs()
    assert (error <= scale[:, None].double() * (0.5 + 1e-5) + 1e-35).all()


def test_a_row_of_zeros_stays_zero():
    q, scale = quantise(torch.zeros(2, 4))
    assert q.eq(0).all()
    assert scale.eq(0).all()
