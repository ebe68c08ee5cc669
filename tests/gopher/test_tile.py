"""Products of small matrices in registers, against numpy in float64."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earthworks.compilation import compiled
from earthworks.gopher.kernels.tile import ROWS, WIDTH, maximum, multiply, narrowed, pack_columns, pack_rows, up_to


@given(
    st.integers(1, 2 * ROWS + 1), st.integers(1, 2 * WIDTH + 1), st.integers(1, 9), st.booleans(), st.integers(0, 99)
)
def test_a_product_of_any_size_is_that_of_numpy_and_adds_to_what_was_there(m, n, k, add, seed):
    random = np.random.default_rng(seed)
    rows, columns = up_to(m, ROWS), up_to(n, WIDTH)
    a, b = random.standard_normal((rows, k)).astype("f"), random.standard_normal((k, n)).astype("f")
    before = random.standard_normal((rows, columns)).astype("f")
    c = before.copy()
    panels = np.zeros(k * columns, np.float32)
    pack_rows(b.ravel(), 0, n, k, n, panels, k)
    multiply(c.ravel(), 0, columns, a.ravel(), 0, k, 1, panels, 0, k * WIDTH, m, n, k, int(add))
    expected = a.astype(float) @ b + (before[:, :n] if add else 0)
    np.testing.assert_allclose(c[:, :n], expected, rtol=1e-5, atol=1e-5)


def test_the_left_operand_is_read_along_columns_and_diagonals():
    random = np.random.default_rng(0)
    x, b = random.standard_normal((30, 40)).astype("f"), random.standard_normal((7, WIDTH)).astype("f")
    c = np.zeros((ROWS, WIDTH), np.float32)
    multiply(c.ravel(), 0, WIDTH, x.ravel(), 3, 1, 40, b.ravel(), 0, 0, ROWS, WIDTH, 7, 0)  # A_ik = x[k, 3 + i]
    np.testing.assert_allclose(c, x[:7, 3 : 3 + ROWS].T.astype(float) @ b, rtol=1e-5, atol=1e-5)
    multiply(c.ravel(), 0, WIDTH, x.ravel(), 20, -1, 41, b.ravel(), 0, 0, ROWS, WIDTH, 7, 0)  # A_ik = x[k, 20 - i + k]
    diagonals = np.array([[x[k, 20 - i + k] for k in range(7)] for i in range(ROWS)])
    np.testing.assert_allclose(c, diagonals.astype(float) @ b, rtol=1e-5, atol=1e-5)


def test_results_may_be_written_with_rows_of_any_length():
    """One number longer than the matrix has them: each row then starts one place further right than the one above."""
    random = np.random.default_rng(0)
    a, b = random.standard_normal((ROWS, 5)).astype("f"), random.standard_normal((5, WIDTH)).astype("f")
    c = np.zeros((ROWS, 3 * WIDTH), np.float32)
    multiply(c.ravel(), 0, 3 * WIDTH + 1, a.ravel(), 0, 5, 1, b.ravel(), 0, 0, ROWS, WIDTH, 5, 0)
    expected = a.astype(float) @ b
    for i in range(ROWS):
        np.testing.assert_allclose(c[i, i : i + WIDTH], expected[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, WIDTH), (WIDTH + 3, 2 * WIDTH - 1), (40, 7)])
def test_panels_hold_rows_and_columns_in_either_order(n, d):
    x = np.random.default_rng(0).standard_normal((n, d)).astype("f")
    rows = np.zeros((up_to(d, WIDTH) // WIDTH, n, WIDTH), np.float32)
    pack_rows(x.ravel(), 0, d, n, d, rows.ravel(), n)
    np.testing.assert_array_equal(rows.transpose(1, 0, 2).reshape(n, -1)[:, :d], x)
    columns = np.zeros((up_to(n, WIDTH) // WIDTH, d, WIDTH), np.float32)
    for first, direction, expected in ((0, 1, x), (n - 1, -1, x[::-1])):
        pack_columns(x.ravel(), 0, d, n, d, columns.ravel(), first, direction)
        np.testing.assert_array_equal(columns.transpose(1, 0, 2).reshape(d, -1)[:, :n], expected.T)


def test_numbers_are_rounded_to_bfloat16_as_torch_does():
    @compiled
    def narrow(x, y):
        for i in range(len(x)):
            y[i] = narrowed(x[i], y)

    scales = 10.0 ** torch.arange(-40, 40).repeat_interleave(125)
    numbers = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * scales
    halfway = torch.arange(1, 600) * 2.0**-8  # of which many are halfway between two numbers of bfloat16
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e-45])
    x = torch.cat([numbers, halfway, special])
    y = np.zeros(len(x), np.uint16)
    narrow(x.numpy(), y)
    assert torch.equal(torch.from_numpy(y.view(np.int16)), x.bfloat16().view(torch.int16))
    nan = np.array([0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)  # the first would be carried to -0
    y = np.zeros(3, np.uint16)
    narrow(nan, y)
    assert torch.from_numpy(y.view(np.int16)).view(torch.bfloat16).isnan().all()


def test_the_greatest_of_numbers_is_nan_if_one_is():
    @compiled
    def greatest(x):
        highest = np.float32(-np.inf)
        for i in range(len(x)):
            highest = maximum(highest, x[i])
        return highest

    x = np.random.default_rng(0).standard_normal(203).astype("f")
    assert greatest(x) == x.max()
    assert greatest(np.full(70, -np.inf, np.float32)) == -np.inf
    for place in (0, 100, 202):
        y = x.copy()
        y[place] = np.nan
        assert np.isnan(greatest(y))


@pytest.mark.slow
@pytest.mark.parametrize(("features", "rows", "width"), [({"avx2": True}, 6, 16), ({}, 12, 8)])
def test_all_of_it_holds_for_processors_with_narrower_registers(features, rows, width, tmp_path):
    script = f"""
        import pathlib, sys
        import pytest
        from llvmlite import binding
        binding.get_host_cpu_features = lambda: binding.FeatureMap({features})
        from earthworks.gopher.kernels import tile
        assert (tile.ROWS, tile.WIDTH) == ({rows}, {width})
        folder = pathlib.Path({str(Path(__file__).parent)!r})
        tests = [str(folder / name) for name in ("test_tile.py", "test_stored_weights.py", "test_attention_tiled.py")]
        sys.exit(pytest.main(["-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]))
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment)


def test_up_to_is_the_next_multiple():
    assert [up_to(n, 4) for n in range(6)] == [0, 4, 4, 4, 4, 8]
