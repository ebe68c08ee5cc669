import math

import pytest
import torch

from earthworks.runs import EarthworksError
from earthworks.transport.divergences import frontier as module
from earthworks.transport.divergences.frontier import area, divergence_frontier, frontier, quantise


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0])
def test_the_area_of_disjoint_distributions_is_one_over_a_binomial(scale, monkeypatch):
    # KL(P | l P + (1 - l) Q) = -log l: the curve is ((1 - l)^c, l^c), its area Gamma(c + 1)^2 / Gamma(2 c + 1)
    monkeypatch.setattr(module, "POINTS", 4000)
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    expected = math.gamma(scale + 1) ** 2 / math.gamma(2 * scale + 1)
    assert float(area(frontier(p, q, scale))) == pytest.approx(expected, rel=1e-5)


def test_equal_distributions_have_area_one():
    p = torch.tensor([0.2, 0.5, 0.3]).double()
    assert float(area(frontier(p, p, 5.0))) == pytest.approx(1, abs=1e-15)


def test_the_frontier_by_the_formula():
    p, q = torch.tensor([0.7, 0.3]).double(), torch.tensor([0.4, 0.6]).double()
    curve = frontier(p, q, 5.0)
    weight = 1 - 30 / (module.POINTS - 1)  # the 31st point
    mixture = weight * p + (1 - weight) * q
    kl = [float((each * (each / mixture).log()).sum()) for each in (q, p)]
    assert curve[30].tolist() == pytest.approx([math.exp(-5 * kl[0]), math.exp(-5 * kl[1])], rel=1e-12)
    assert (curve[1:, 0] >= curve[:-1, 0]).all()
    assert (curve[1:, 1] <= curve[:-1, 1]).all()


def test_one_hundred_points_are_enough(monkeypatch):
    p, q = torch.tensor([0.3, 0.5, 0.2, 0.0]).double(), torch.tensor([0.2, 0.3, 0.1, 0.4]).double()
    coarse = float(area(frontier(p, q, 5.0)))
    monkeypatch.setattr(module, "POINTS", 100_000)
    assert coarse == pytest.approx(float(area(frontier(p, q, 5.0))), abs=5e-5)


def test_counts_are_smoothed_by_a_half():
    # Two far clusters, 6 and 2 points of x in them, 0 and 4 of y: (6.5, 2.5) / 9 and (0.5, 4.5) / 5
    x = torch.cat([torch.zeros(6, 1), torch.full((2, 1), 100.0)])
    p, q = quantise(x, torch.full((4, 1), 100.0), 2, 0)
    assert sorted(p.tolist()) == pytest.approx([2.5 / 9, 6.5 / 9])
    assert sorted(q.tolist()) == pytest.approx([0.5 / 5, 4.5 / 5])
    assert float(p.sum()) == pytest.approx(1)


def test_distributions_further_apart_score_higher():
    x = cloud(400, 4)
    values = [float(divergence_frontier(x, cloud(400, 4, seed=1) + move)) for move in (0, 0.5, 1, 3)]
    assert values == sorted(values)
    assert values[0] < 0.15
    assert values[-1] > 0.8


def test_the_spread_over_clusterings_is_reported():
    x, y = cloud(300, 4), cloud(300, 4, seed=1) + 0.5
    found = divergence_frontier(x, y, num_seeds=4, seed=7)
    areas = torch.stack([area(frontier(*quantise(x, y, 30, 7 + i), 5.0)) for i in range(4)])
    assert found.details["num_clusters"] == 30
    assert float(found) == pytest.approx(1 - float(areas.mean()), abs=1e-12)
    assert found.details["standard_deviation"] == pytest.approx(float(areas.std()), abs=1e-12)
    assert float(found) == float(divergence_frontier(x, y, num_seeds=4, seed=7))
    assert found.statistic is not None
    assert float(found.statistic(x, y)) == float(found)


def test_missing_modes_and_junk_cost_alike_and_swapping_swaps_the_axes():
    p, q = torch.tensor([0.9, 0.1]).double(), torch.tensor([0.5, 0.5]).double()
    forward, backward = frontier(p, q, 5.0), frontier(q, p, 5.0)
    assert torch.allclose(forward, backward.flip(0, 1), atol=1e-12)
    assert float(area(forward)) == pytest.approx(float(area(backward)), abs=1e-12)


def test_fewer_distinct_points_than_clusters():
    assert float(divergence_frontier(torch.ones(1, 2), torch.ones(1, 2))) == pytest.approx(0)
    assert float(divergence_frontier(torch.zeros(50, 2), torch.ones(50, 2))) > 0.9


@pytest.mark.parametrize("options", [{"num_clusters": 1}, {"num_clusters": 0}, {"num_seeds": 0}, {"scale": 0.0}])
def test_what_cannot_be_is_one_sentence(options):
    with pytest.raises(EarthworksError, match="expected at least 2 clusters, 1 seed, a positive scale"):
        divergence_frontier(cloud(30, 2), cloud(30, 2), **options)
