import math

import numpy as np
import pytest
import torch
from known import normal

from earthworks.runs import EarthworksError
from earthworks.transport import (
    gaussian_wasserstein,
    jensen_shannon,
    max_sliced_wasserstein,
    permutation_test,
    sliced_wasserstein,
    wasserstein,
    wasserstein_1d,
)
from earthworks.transport.resampling import bootstrap_interval, influence_interval
from earthworks.transport.result import OF_DISTRIBUTIONS, OF_MEAN, Distance
from earthworks.transport.sliced import random_directions, weight_slopes


def plain(**given) -> Distance:
    return Distance(
        **{"name": "length", "value": torch.tensor(2.0), "kind": "distance", "n": 3, "m": 4, "d": 2, **given}
    )


def test_it_prints_as_one_honest_line():
    assert str(plain()) == "length = 2 (distance; n=3, m=4, d=2)"
    assert str(plain(solver="sort", kind="upper bound")) == "length = 2 (upper bound; n=3, m=4, d=2; sort)"
    assert "NOT converged" in str(plain(converged=False))
    known = {"null": torch.tensor([0.1, 0.2]), "p_value": 0.005, "interval": (1.9, 2.1)}
    line = "length = 2 (distance; n=3, m=4, d=2; null 0.15, p 0.005; 95 % interval{} [1.9, 2.1])"
    assert str(plain(**known, interval_of=OF_DISTRIBUTIONS)) == line.format("")
    assert str(plain(**known, interval_of=OF_MEAN)) == line.format(" at this n")


@pytest.mark.parametrize(
    "measure",
    [
        wasserstein,
        lambda x, y: wasserstein(x, y, p=2),
        sliced_wasserstein,
        max_sliced_wasserstein,
        gaussian_wasserstein,
    ],
)
def test_the_null_is_that_of_the_permutation_test(measure):
    x, y = normal(12, 2), normal(15, 2, 1) + 0.5
    result = measure(x, y).assess(20, seed=5)
    test = permutation_test(x, y, measure, num_permutations=20, seed=5)
    assert torch.allclose(result.null, test.null, rtol=1e-9, atol=1e-12)
    assert result.p_value == test.p_value
    assert result.assess(20, seed=5) is result
    low, high = result.interval
    assert low <= float(result) <= high


def held(pairs, measure, truth: float) -> float:
    """The share of intervals that hold `truth`."""
    intervals = [measure(x, y).assess(50, seed=seed).interval for seed, (x, y) in enumerate(pairs)]
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.slow
def test_intervals_on_a_line_contain_the_distance_between_the_distributions():
    shifted = [(normal(80, 1, 2 * k), normal(90, 1, 2 * k + 1) + 0.6) for k in range(100)]
    assert held(shifted, wasserstein_1d, 0.6) >= 0.86
    assert held(shifted, lambda x, y: wasserstein(x, y, p=2), 0.6) >= 0.86
    wider = [(normal(80, 1, 2 * k), 2 * normal(90, 1, 2 * k + 1)) for k in range(100)]
    assert held(wider, wasserstein_1d, math.sqrt(2 / math.pi)) >= 0.86


def test_intervals_of_equal_distributions_contain_zero():
    equal = [(normal(60, 1, 2 * k), normal(60, 1, 2 * k + 1)) for k in range(100)]
    assert held(equal, wasserstein_1d, 0.0) >= 0.89


def test_intervals_of_sliced_and_gaussian_distances_contain_those_between_the_distributions():
    pairs = [(normal(80, 4, 2 * k), normal(80, 4, 2 * k + 1) + 0.5) for k in range(50)]
    directions = random_directions(20, 4, 0)
    truth = float((0.5 * directions.sum(1)).square().mean().sqrt())
    assert held(pairs, lambda x, y: sliced_wasserstein(x, y, directions=directions), truth) >= 0.9
    assert held(pairs, gaussian_wasserstein, 1.0) >= 0.9


@pytest.mark.parametrize(("d", "p"), [(2, 1), (2, 2), (8, 2)])
def test_intervals_of_the_exact_distance_hold_its_mean_over_samples_of_these_sizes(d, p):
    pairs = [(normal(60, d, 2 * k), normal(60, d, 2 * k + 1) + 0.5) for k in range(400)]
    results = [wasserstein(x, y, p=p) for x, y in pairs]
    mean = np.mean([float(each) for each in results[200:]])
    intervals = [each.assess(1).interval for each in results[:200]]
    assert 0.90 <= np.mean([low <= mean <= high for low, high in intervals]) <= 0.99
    assert results[0].interval_of == OF_MEAN


def test_on_a_line_potentials_and_bootstrap_see_the_same_spread():
    x, y = normal(150, 1)[:, 0], 1.5 * normal(200, 1, 1)[:, 0] + 1
    pool = torch.cat([x, y])
    value = float(wasserstein_1d(x, y))
    low, high = influence_interval(value, *weight_slopes(x, y, 1))
    _, upper = bootstrap_interval(value, lambda i, j: wasserstein_1d(pool[i], pool[j]), 150, 200, 800, 0)
    assert upper - value == pytest.approx(high - value, rel=0.1)
    assert high - value == pytest.approx(value - low)


def test_one_point_has_a_value_and_no_interval():
    for result in (wasserstein(normal(1, 2), normal(5, 2, 1)), wasserstein_1d(normal(1, 1), normal(5, 1, 1))):
        result.assess(10)
        assert all(math.isnan(end) for end in result.interval[1:])
        assert 0 < result.p_value <= 1


def test_weights_and_histograms_have_no_null():
    x, y = normal(4, 2), normal(4, 2, 1)
    a = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    for weighted in (wasserstein(x, y, a=a), wasserstein_1d(x[:, 0], y[:, 0], b=a), sliced_wasserstein(x, y, a=a)):
        with pytest.raises(EarthworksError, match="no null and no interval: it has weights"):
            weighted.assess()
    with pytest.raises(EarthworksError, match="no null"):
        jensen_shannon(torch.tensor([0.5, 0.5]), torch.tensor([0.1, 0.9])).assess()


def test_large_pools_are_not_kept_as_one_matrix(monkeypatch):
    x, y = normal(12, 2), normal(15, 2, 1)
    kept = wasserstein(x, y).assess(5).null
    monkeypatch.setattr("earthworks.transport.exact.KEPT", 10)
    assert torch.allclose(wasserstein(x, y).assess(5).null, kept)


def test_a_figure_shows_the_plan_and_the_null(tmp_path):
    x, y = normal(30, 2), normal(30, 2, 1) + 1
    result = wasserstein(x, y)
    axes = result.plot()
    arrows = axes.collections[0]
    assert arrows.N == 30
    moved = np.stack([arrows.U, arrows.V], 1)
    assert np.hypot(*moved.T).mean() == pytest.approx(float(result))  # the mean arrow is the distance
    result.assess(30)
    axes = result.plot()
    assert sum(bar.get_height() for bar in axes.patches if bar.get_width() < 1e9 and bar.get_y() == 0) >= 30
    path = result.figure(tmp_path / "plan.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_says_so(tmp_path):
    result = wasserstein(normal(5, 3), normal(5, 3, 1))
    with pytest.raises(EarthworksError, match="no plan in two dimensions"):
        result.plot()
    with pytest.raises(EarthworksError, match="nothing to draw"):
        result.figure(tmp_path / "a.png")
    with pytest.raises(EarthworksError, match=r"ending in \.png"):
        result.assess(2).figure(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
