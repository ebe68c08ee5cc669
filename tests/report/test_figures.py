import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.report import figures
from earthworks.report.figures import DASHES, PALETTE, draw, finite, smooth, thin


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@given(st.integers(0, 5000), st.floats(-1e6, 1e6))
def test_the_smoothed_constant_is_that_constant(n, value):
    assert (smooth(np.full(n, value)) == value).all()


def test_smoothing_is_the_mean_over_the_window():
    y = np.random.default_rng(0).normal(size=250)
    half = int(0.1 * 250 / 2)
    slow = [y[max(0, i - half) : i + half + 1].mean() for i in range(250)]
    assert np.allclose(smooth(y, 0.1), slow, rtol=0, atol=1e-12)


def test_smoothing_leaves_a_line_straight_inside():
    y = np.linspace(3, 9, 1000)
    assert np.allclose(smooth(y)[20:-20], y[20:-20])


@given(st.integers(0, 9000), st.integers(0, 2**32 - 1))
def test_thinning_keeps_the_ends_and_the_extremes_and_few_points(n, seed):
    y = np.random.default_rng(seed).normal(size=n)
    x = np.arange(n) * 2.0
    x_kept, y_kept = thin(x, y)
    assert len(x_kept) <= 2000
    assert (np.diff(x_kept) > 0).all()
    assert (y_kept == y[(x_kept / 2).astype(int)]).all()  # points of the curve, not means
    if n:
        assert (x_kept[0], x_kept[-1]) == (x[0], x[-1])
        assert (y_kept.min(), y_kept.max()) == (y.min(), y.max())


def test_a_short_curve_is_not_thinned():
    x = np.arange(2000.0)
    assert thin(x, x)[0] is x


def test_one_spike_in_a_million_steps_is_drawn():
    y = np.zeros(1_000_000)
    y[654_321] = 7
    x_kept, y_kept = thin(np.arange(1e6), y)
    assert x_kept[y_kept == 7] == [654_321]


def test_only_points_with_both_coordinates_are_drawn():
    x, y = finite(np.array([1, 2, 3, np.nan, 5]), np.array([1, np.nan, np.inf, 4, 5.0]))
    assert (x.tolist(), y.tolist()) == ([1, 5], [1, 5])


@pytest.mark.parametrize("name", [name for name in PALETTE if name != "grid"])
def test_every_line_stands_out_from_paper_and_from_night(name):
    light, dark = PALETTE[name]
    assert contrast(light, "#fcfcfa") >= 4.4
    assert contrast(dark, "#15191d") >= 4.5


def test_series_are_told_apart_without_colour():
    assert len({str(dash) for dash in DASHES}) == len(DASHES) == len(figures.SERIES)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 1.2, "linear"),
        (3.0, 5.9, "linear"),
        (2.0, 4.1, "log"),
        (1.0, 15.0, "log"),
        (1e-6, 1e3, "log"),
        (0.0, 5.0, "linear"),
        (-1, 5, "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_that_can_be_seen(low, high, expected):
    found = []

    def paint(axes):
        axes[0, 0].plot([0, 1], [low, high])
        figures.log_axis(axes[0, 0])
        found.append(axes[0, 0].get_yscale())

    draw("axis", "An axis.", paint)
    assert found == [expected]


def test_a_panel_without_points_is_drawn_empty():
    def paint(axes):
        figures.noisy_curve(axes[0, 0], np.array([1.0]), np.array([np.nan]), figures.SERIES[0])
        figures.log_axis(axes[0, 0])
        figures.count_axis(axes[0, 0], "step")

    assert "step" in draw("empty", "Nothing.", paint).svg


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw("nothing", "Nothing.", lambda axes: None)
    assert dict(matplotlib.rcParams) == before
