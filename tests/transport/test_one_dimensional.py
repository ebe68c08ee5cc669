import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import normal

from earthworks.runs import EarthworksError
from earthworks.transport import wasserstein, wasserstein_1d
from earthworks.transport.exact import solve

NUMBERS = st.lists(st.integers(-4, 4).map(lambda k: k / 2), min_size=1, max_size=9)


def weighted(numbers: st.SearchStrategy) -> st.SearchStrategy:
    """Numbers and weights on them, some of which are 0."""
    pairs = numbers.flatmap(
        lambda z: st.tuples(st.just(z), st.lists(st.integers(0, 3), min_size=len(z), max_size=len(z)))
    )
    return pairs.filter(lambda pair: sum(pair[1]) > 0).map(
        lambda pair: (
            torch.tensor(pair[0], dtype=torch.float64),
            torch.tensor(pair[1], dtype=torch.float64) / sum(pair[1]),
        )
    )


def area_between_distribution_functions(x, y, a, b) -> float:
    """int |F - G|: independent of any sorting of quantiles."""
    points = torch.cat([x, y]).unique()
    F = torch.stack([a[x <= t].sum() for t in points])
    G = torch.stack([b[y <= t].sum() for t in points])
    return float(((F - G).abs()[:-1] * points.diff()).sum())


def distance(x, y, **options) -> float:
    return float(wasserstein_1d(x, y, **options))


@settings(max_examples=100)
@given(weighted(NUMBERS), weighted(NUMBERS))
def test_quantiles_distribution_functions_and_the_general_solver_agree(left, right):
    (x, a), (y, b) = left, right
    first = distance(x, y, a=a, b=b)
    assert first == pytest.approx(area_between_distribution_functions(x, y, a, b), abs=1e-12)
    for p in (1, 1.5, 2, 3):
        costs = np.abs(x.numpy()[:, None] - y.numpy()) ** p
        solution = solve(costs, a, b)
        cheapest = (costs[solution.rows, solution.columns] * solution.mass).sum()
        assert distance(x, y, p=p, a=a, b=b) ** p == pytest.approx(cheapest, abs=1e-9)


@given(NUMBERS, NUMBERS, st.sampled_from([1.0, 2.0, 2.5]))
def test_sort_merged_quantiles_and_weights_agree_for_uniform_samples(x, y, p):
    x, y = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    a, b = (torch.full((len(z),), 1 / len(z), dtype=torch.float64) for z in (x, y))
    plain = distance(x, y, p=p)
    assert distance(x, y, p=p, a=a, b=b) == pytest.approx(plain, abs=1e-12)
    # Each point as often as the other cloud has points: equal numbers, hence the sort.
    assert distance(x.repeat_interleave(len(y)), y.repeat_interleave(len(x)), p=p) == pytest.approx(plain, abs=1e-12)


@given(NUMBERS, NUMBERS)
def test_longer_orders_are_longer_distances_and_order_does_not_matter(x, y):
    x, y = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    assert distance(x, y) <= distance(x, y, p=1.5) + 1e-12 <= distance(x, y, p=4) + 2e-12
    assert distance(x.flip(0), y) == distance(x, y) == pytest.approx(distance(y, x), abs=1e-15)


def quantiles(inverse, n: int = 200_000) -> torch.Tensor:
    """A sample without noise: F^-1 at (k + 1/2) / n."""
    return inverse((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def gauss(mean: float, deviation: float) -> torch.Tensor:
    return quantiles(lambda t: mean + deviation * torch.special.ndtri(t))


def uniform(low: float, high: float) -> torch.Tensor:
    return quantiles(lambda t: low + (high - low) * t)


def exponential(rate: float) -> torch.Tensor:
    return quantiles(lambda t: -torch.log1p(-t) / rate)


def gaussian_first(delta: float, s: float) -> float:
    if s == 0:
        return abs(delta)
    Phi = 0.5 * math.erfc(delta / s / math.sqrt(2))  # Phi(-delta / s)
    return s * math.sqrt(2 / math.pi) * math.exp(-(delta**2) / (2 * s**2)) + delta * (1 - 2 * Phi)


@pytest.mark.parametrize(("delta", "s"), [(1.0, 0.0), (0.0, 0.5), (0.7, 0.5), (3.0, 0.2)])
def test_gaussians_on_a_line(delta, s):
    x, y = gauss(delta, 1 + s), gauss(0, 1)
    assert distance(x, y) == pytest.approx(gaussian_first(delta, s), abs=1e-4)
    assert distance(x, y, p=2) == pytest.approx(math.hypot(delta, s), abs=1e-4)


@pytest.mark.parametrize(("low", "high", "first"), [(2, 3, 2.0), (0.5, 1.5, 0.5), (-1, 3, (0.5**2 + 1.5**2) / 3)])
def test_uniform_distributions(low, high, first):
    delta, r = (low + high - 1) / 2, (high - low - 1) / 2
    assert distance(uniform(low, high), uniform(0, 1)) == pytest.approx(first, abs=1e-5)
    assert distance(uniform(low, high), uniform(0, 1), p=2) == pytest.approx(math.sqrt(delta**2 + r**2 / 3), abs=1e-5)


def test_exponential_distributions():
    assert distance(exponential(1.0), exponential(2.0)) == pytest.approx(0.5, abs=1e-4)
    assert distance(exponential(1.0), exponential(2.0), p=2) == pytest.approx(0.5 * math.sqrt(2), abs=1e-3)


def test_two_coins_differ_by_the_probability_that_must_move():
    places = torch.tensor([0.0, 1.0], dtype=torch.float64)
    a, b = torch.tensor([[0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    assert distance(places, places, a=a, b=b) == pytest.approx(0.6, rel=1e-12)
    assert distance(places, places, a=a, b=b, p=2) == pytest.approx(math.sqrt(0.6), rel=1e-12)


def test_histograms_on_a_grid_differ_by_the_step_times_their_cumulative_difference():
    a, b = (torch.softmax(z, 0) for z in normal(2, 30))
    grid = 0.25 * torch.arange(30, dtype=torch.float64)
    assert distance(grid, grid, a=a, b=b) == pytest.approx(0.25 * float((a - b).cumsum(0).abs().sum()), rel=1e-12)


@pytest.mark.parametrize("family", ["uniform", "normal"])
def test_two_samples_of_one_distribution_are_as_far_apart_as_theory_predicts(family):
    # sqrt(n) E W_1 -> (2 / sqrt pi) int sqrt(F (1 - F)): 0.4431 for U[0, 1], 1.822 (1.79 at n = 1000) for N(0, 1).
    generator = torch.Generator().manual_seed(0)
    draw = {"uniform": torch.rand, "normal": torch.randn}[family]
    mean = np.mean([distance(*draw(2, 1000, generator=generator, dtype=torch.float64)) for _ in range(600)])
    assert mean * math.sqrt(1000) == pytest.approx({"uniform": 0.4431, "normal": 1.79}[family], rel=0.05)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("m", [7, 5])
def test_gradients_are_the_finite_differences(p, m):
    x, y = normal(7, 1).requires_grad_(), normal(m, 1, 1).requires_grad_()
    a, b = (torch.softmax(normal(1, k, seed)[0], 0).requires_grad_() for k, seed in ((7, 2), (m, 3)))
    assert torch.autograd.gradcheck(lambda x, y: wasserstein_1d(x, y, p=p).value, (x, y))
    assert torch.autograd.gradcheck(
        lambda x, y, a, b: wasserstein_1d(x, y, p=p, a=a / a.sum(), b=b / b.sum()).value, (x, y, a, b)
    )


def test_where_the_points_coincide_the_gradient_is_zero_and_not_nan():
    for p in (1, 1.5, 2, 3):
        x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        wasserstein_1d(x, torch.tensor([2.0, 1.0, 0.0]), p=p).value.backward()
        assert x.grad.tolist() == [0, 0, 0]


def test_samples_are_left_as_they_were():
    x, y = normal(50, 1), normal(50, 1, 1)
    before = x.clone(), y.clone()
    wasserstein_1d(x, y)
    wasserstein_1d(x[:, 0], y[:30, 0])
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_sorting_in_threads_is_sorting(monkeypatch):
    from earthworks.transport import one_dimensional

    monkeypatch.setattr(one_dimensional, "MANY", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for rows in (normal(7, 40), normal(7, 2000), normal(2, 1500).float(), normal(2, 3, 1100)):
            before = rows.clone()
            assert torch.equal(one_dimensional.ordered(rows), rows.sort(-1).values)
            assert torch.equal(rows, before)
    finally:
        torch.set_num_threads(threads)


ROWS = {
    "normal": lambda g: g.standard_normal((3, 1500)),
    "heavy tails": lambda g: g.standard_cauchy((3, 1500)),
    "alike in the leading bits": lambda g: 1e6 + 1e-3 * g.standard_normal((3, 1500)),
    "descending": lambda g: -np.sort(g.standard_normal((3, 1500))),
    "ties": lambda g: g.integers(-3, 3, (3, 1500)).astype(float),
    "constant": lambda g: np.full((2, 1500), -0.25),
    "every magnitude": lambda g: g.standard_normal((3, 1500)) * 10.0 ** g.integers(-300, 300, (3, 1500)),
    "zeros of either sign": lambda g: np.where(g.random((2, 1500)) < 0.5, 0.0, -0.0),
    "infinite": lambda g: np.where(g.random((2, 1500)) < 0.1, np.inf, -g.random((2, 1500))),
    "a pair": lambda g: g.standard_normal((4, 2)),
    "one": lambda g: g.standard_normal((4, 1)),
    "denormal": lambda g: 5e-324 * g.integers(-9, 9, (2, 1500)),
}


@pytest.mark.parametrize("kind", ROWS)
def test_the_radix_sort_sorts(kind):
    from earthworks.transport.solvers.sorting import sort_rows

    rows = ROWS[kind](np.random.default_rng(0))
    expected = np.sort(rows)
    sort_rows(rows.view(np.uint64))
    assert np.array_equal(rows, expected)


def test_the_exact_distance_on_a_line_is_this_one():
    x, y = normal(20, 1), normal(33, 1, 1)
    assert float(wasserstein(x, y, p=2)) == distance(x, y, p=2)
    assert wasserstein(x, y).solver == "merged quantiles"
    assert wasserstein(x, x).solver == "sort"


def test_points_of_more_dimensions_are_sent_to_the_general_function():
    with pytest.raises(EarthworksError, match=r"d = 2.*use wasserstein"):
        wasserstein_1d(normal(3, 2), normal(3, 2))
