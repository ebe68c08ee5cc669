import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from earthworks.runs import EarthworksError
from earthworks.transport.result import OF_MEAN
from earthworks.transport.sinkhorn import sinkhorn_divergence
from earthworks.transport.solvers import entropic


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(x: torch.Tensor, y: torch.Tensor, p: float) -> float:
    """W_p^p of equally many points, by assignment."""
    costs = torch.cdist(x, y).numpy() ** p
    return float(costs[linear_sum_assignment(costs)].mean())


@pytest.mark.parametrize("regularization", [0.5, 5.0, 50.0])
@pytest.mark.parametrize("d", [1, 2, 16])
def test_a_translation_costs_its_length_squared_at_every_regularization(regularization, d):
    x, move = cloud(60, d), cloud(1, d, seed=1)
    y = (x + move)[torch.randperm(60)]
    found = sinkhorn_divergence(x, y, regularization=regularization, tolerance=1e-10)
    assert found.converged
    assert float(found) == pytest.approx(float(move.square().sum()), rel=1e-8)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("regularization", [0.01, 1.0, 100.0])
def test_one_point_moves_as_a_whole(p, regularization):
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    found = sinkhorn_divergence(x, y, p=p, regularization=regularization)
    assert float(found) == pytest.approx(5.0**p, rel=1e-6)
    assert found.details["entropic_cost"] == pytest.approx(5.0**p, rel=1e-6)


def test_all_mass_to_one_point_has_only_one_coupling():
    x, y = cloud(50, 3), cloud(1, 3, seed=1)
    found = sinkhorn_divergence(x, y, tolerance=1e-10)
    mean_cost = float((x - y).square().sum(1).mean())
    assert found.details["entropic_cost"] == pytest.approx(mean_cost, rel=1e-9)
    assert found.details["lower_bound"] == pytest.approx(math.sqrt(mean_cost), rel=1e-9)
    assert found.details["upper_bound"] == pytest.approx(math.sqrt(mean_cost), rel=1e-9)


@pytest.mark.parametrize(("eps", "variances"), [(0.5, (1.0, 1.0)), (2.0, (1.0, 4.0)), (8.0, (0.25, 2.0))])
def test_gaussians_have_the_closed_form(eps, variances):
    """Densities on a grid fine enough to be Gaussians (Janati et al. 2020):

    OT_eps = m^2 + A + B - D + s^2 (1 - log 2 s^2) + s^2 log(D + s^2), D = (4 A B + s^4)^1/2, eps = 2 s^2, up to
    the change of the reference measure, whose terms cancel in the divergence; and debiased, the sum has no constants.
    """
    (a, b), move = variances, 1.5
    grid = torch.arange(-13, 15, 0.08, dtype=torch.float64)[:, None]

    def weights(mean: float, variance: float) -> torch.Tensor:
        density = torch.exp(-((grid[:, 0] - mean) ** 2) / (2 * variance))
        return density / density.sum()

    def closed(m: float, a: float, b: float) -> float:
        s2 = eps / 2
        root = math.sqrt(4 * a * b + s2 * s2)
        return m * m + a + b - root + s2 * (1 - math.log(2 * s2)) + s2 * math.log(root + s2)

    found = sinkhorn_divergence(
        grid, grid, a=weights(0, a), b=weights(move, b), regularization=eps, tolerance=1e-11, max_iterations=20_000
    )
    assert found.details["entropic_cost"] == pytest.approx(closed(move, a, b), abs=1e-6)
    divergence = closed(move, a, b) - closed(0, a, a) / 2 - closed(0, b, b) / 2
    assert float(found) == pytest.approx(divergence, abs=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_with_little_regularization_it_is_the_transport_cost(p):
    x, y = cloud(40, 2), cloud(40, 2, seed=1) + 1
    truth = exact(x, y, p)
    errors = [
        abs(float(sinkhorn_divergence(x, y, p=p, regularization=eps, max_iterations=50_000)) - truth)
        for eps in (1.0, 0.1, 0.01)
    ]
    assert errors[2] < 0.01 * truth
    assert errors[0] > errors[1] > errors[2]


def test_no_bias_at_p_1_where_one_descent_of_annealing_loses_a_third():
    # Two clouds in the plane, blur 0.05: solvers that stop after one descent give 0.61 to 0.82 of 0.947.
    x, y = cloud(200, 2), cloud(200, 2, seed=1) + torch.tensor([0.9, 0.0])
    truth = exact(x, y, 1)
    found = sinkhorn_divergence(x, y, p=1, regularization=0.01, max_iterations=50_000)
    assert found.converged
    assert float(found) == pytest.approx(truth, rel=0.02)


@pytest.mark.parametrize("p", [1, 2])
def test_the_bracket_holds_the_distance_and_the_plan_is_a_coupling(p):
    x, y = cloud(50, 3), cloud(50, 3, seed=1) + 0.5
    for max_iterations in (1, 5000):  # converged or not
        found = sinkhorn_divergence(x, y, p=p, max_iterations=max_iterations)
        distance = exact(x, y, p) ** (1 / p)
        assert found.details["lower_bound"] <= distance + 1e-12
        assert distance <= found.details["upper_bound"] + 1e-12
        assert found.plan is not None
        assert (found.plan >= 0).all()
        assert torch.allclose(found.plan.sum(0), torch.full((50,), 0.02, dtype=torch.float64), atol=1e-14)
        assert torch.allclose(found.plan.sum(1), torch.full((50,), 0.02, dtype=torch.float64), atol=1e-14)
        cost = float((found.plan * torch.cdist(x, y) ** p).sum())
        assert found.details["upper_bound"] == pytest.approx(cost ** (1 / p), rel=1e-12)
    assert found.details["upper_bound"] < 1.1 * distance
    assert found.details["lower_bound"] > 0.9 * distance


def test_a_solver_that_ran_out_of_iterations_says_so():
    x, y = cloud(100, 2), cloud(100, 2, seed=1) + 1
    found = sinkhorn_divergence(x, y, regularization=0.01, max_iterations=3)
    assert not found.converged
    assert found.details["violation"] > 1e-6
    assert found.details["iterations"] == 3
    assert "NOT converged" in found.solver
    assert sinkhorn_divergence(x, y, regularization=1.0).converged


def test_the_reported_violation_is_that_of_the_marginals():
    x, y = cloud(30, 2), cloud(20, 2, seed=1) + 1
    found = sinkhorn_divergence(x, y, regularization=0.05, max_iterations=7)
    assert found.potentials is not None
    f, g = (z - 0.0 for z in found.potentials)
    plan = torch.exp((f[:, None] + g - torch.cdist(x, y) ** 2) / 0.05) / 600
    violation = (plan.sum(1) - 1 / 30).abs().sum() + (plan.sum(0) - 1 / 20).abs().sum()
    assert found.details["violation"] == pytest.approx(float(violation), rel=1e-6)


def test_over_relaxation_changes_the_road_and_not_the_place(monkeypatch):
    x, y = cloud(80, 2), cloud(80, 2, seed=1) + 1
    monkeypatch.setattr(entropic, "NEWTON", 0)
    options = {"regularization": 0.2, "tolerance": 1e-10, "max_iterations": 20_000}
    quick = sinkhorn_divergence(x, y, **options)
    monkeypatch.setattr(entropic, "STRONGEST", 1.0)
    plain = sinkhorn_divergence(x, y, **options)
    assert float(quick) == pytest.approx(float(plain), rel=1e-9)
    assert quick.details["iterations"] < plain.details["iterations"] / 2


@pytest.mark.parametrize("share", [0.05, 0.01, 0.002])
def test_newton_ends_where_iteration_would_take_hundreds_of_thousands(share):
    # A plan that is nearly a permutation: x + m in 16 dimensions, neighbours far apart.
    x, move = cloud(60, 16), cloud(1, 16, seed=1)
    y = (x + move)[torch.arange(60).flip(0)]
    regularization = share * float((torch.cdist(x, y) ** 2).median())
    found = sinkhorn_divergence(x, y, regularization=regularization, tolerance=1e-9)
    assert found.converged
    assert found.details["iterations"] < 100
    assert float(found) == pytest.approx(float(move.square().sum()), rel=1e-8)


@pytest.mark.parametrize("p", [1, 2])
def test_samples_with_heavy_tails_converge(p):
    """Cauchy-like clouds, whose largest cost is 10^4 times the median: from afar, Newton's method alone gets lost."""
    x, y = (cloud(150, 3, seed) / cloud(150, 1, seed + 9).abs() for seed in (0, 1))
    for share in (0.05, 0.001):
        regularization = share * float((torch.cdist(x, y) ** p).median())
        found = sinkhorn_divergence(x, y, p=p, regularization=regularization)
        assert found.converged
        assert found.details["iterations"] < 160
        assert found.details["lower_bound"] <= exact(x, y, p) ** (1 / p) <= found.details["upper_bound"]
    assert float(found) == pytest.approx(exact(x, y, p), rel=0.01)


def test_parts_of_the_plan_that_touch_nothing_else_do_not_stop_newton():
    # One pair at 10^3: its plan to the others is below 10^-300, and so is the Laplacian's entry for it.
    x, y = cloud(30, 2), cloud(30, 2, seed=1)
    x[0], y[0] = torch.tensor([1e3, 0]), torch.tensor([1e3, 1])
    found = sinkhorn_divergence(x, y, regularization=0.002)
    assert found.converged
    assert float(found) == pytest.approx(exact(x, y, 2), rel=0.01)


def test_newton_and_iteration_meet(monkeypatch):
    x, y = cloud(40, 2), cloud(30, 2, seed=1) + 1
    weights = torch.softmax(cloud(1, 40, seed=2)[0], 0) * (torch.arange(40) % 7 > 0)
    options = {"a": weights / weights.sum(), "regularization": 0.02, "tolerance": 1e-10, "max_iterations": 200_000}
    monkeypatch.setattr(entropic, "PATIENCE", 0)
    short = sinkhorn_divergence(x, y, **options)
    monkeypatch.setattr(entropic, "NEWTON", 0)
    long = sinkhorn_divergence(x, y, **options)
    assert short.converged
    assert long.converged
    assert float(short) == pytest.approx(float(long), rel=1e-9)
    assert short.details["iterations"] < 40


def test_costs_that_are_not_kept_give_the_same(monkeypatch):
    x, y = cloud(70, 3).requires_grad_(), cloud(50, 3, seed=1) + 1
    kept = sinkhorn_divergence(x, y, p=1)
    (slope,) = torch.autograd.grad(kept.value, x)
    monkeypatch.setattr(entropic, "STORED", 0)
    monkeypatch.setattr(entropic, "BLOCK", 7 * 50)
    again = sinkhorn_divergence(x, y, p=1)
    (slope_again,) = torch.autograd.grad(again.value, x)
    assert float(again) == pytest.approx(float(kept), rel=1e-9)
    assert torch.allclose(slope_again, slope, atol=1e-9)
    assert again.details["upper_bound"] == pytest.approx(kept.details["upper_bound"], rel=1e-9)
    assert again.plan is None


def test_scalings_that_outgrow_float64_are_taken_into_the_potentials(monkeypatch):
    x, y = cloud(40, 2), cloud(40, 2, seed=1) * 2 + 1
    monkeypatch.setattr(entropic, "NEWTON", 0)
    far = sinkhorn_divergence(x, y, regularization=0.5)
    monkeypatch.setattr(entropic, "RANGE", 0.01)  # absorbed at every window
    again = sinkhorn_divergence(x, y, regularization=0.5)
    assert far.converged
    assert again.converged
    assert float(again) == pytest.approx(float(far), rel=1e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_gradients_agree_with_finite_differences(p):
    x, y = cloud(6, 2).requires_grad_(), (cloud(5, 2, seed=1) + 1).requires_grad_()
    logits = cloud(1, 6, seed=2)[0].requires_grad_()

    def value(x: torch.Tensor, y: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        options = {"regularization": 0.3, "tolerance": 1e-12, "max_iterations": 20_000}
        return sinkhorn_divergence(x, y, p=p, a=torch.softmax(logits, 0), **options).value

    assert torch.autograd.gradcheck(value, (x, y, logits), atol=1e-6)


def test_the_gradient_of_a_translation_points_along_it():
    x, move = cloud(30, 4), torch.tensor([1.0, 0.0, -2.0, 0.5], dtype=torch.float64)
    y = (x + move).requires_grad_()
    sinkhorn_divergence(x, y, regularization=3.0, tolerance=1e-11).value.backward()
    assert y.grad is not None
    assert torch.allclose(y.grad, (2 * move / 30).expand(30, 4), atol=1e-8)


@pytest.mark.parametrize("p", [1, 1.5, 2])
def test_equal_clouds_are_at_zero_with_gradient_zero(p):
    x = cloud(20, 2)
    y = x.clone().requires_grad_()
    found = sinkhorn_divergence(x, y, p=p, tolerance=1e-12)
    found.value.backward()
    assert float(found) == pytest.approx(0, abs=1e-10)
    assert y.grad is not None
    assert y.grad.abs().max() < 1e-8


def test_duplicates_are_weight():
    x, y = cloud(6, 2), cloud(9, 2, seed=1)
    repeated = torch.cat([x, x[:2], x[:1]])  # 3 of the first, 2 of the second
    weights = torch.tensor([3, 2, 1, 1, 1, 1]).double() / 9
    options = {"regularization": 0.2, "tolerance": 1e-11}
    expected = float(sinkhorn_divergence(repeated, y, **options))
    assert float(sinkhorn_divergence(x, y, a=weights, **options)) == pytest.approx(expected, rel=1e-8)


def test_points_without_weight_are_not_there():
    x, y = cloud(6, 2), cloud(5, 2, seed=1)
    weights = torch.tensor([0.5, 0.5, 0, 0, 0, 0]).double()
    options = {"regularization": 0.2, "tolerance": 1e-11}
    expected = sinkhorn_divergence(x[:2], y, **options)
    found = sinkhorn_divergence(x, y, a=weights, **options)
    assert float(found) == pytest.approx(float(expected), rel=1e-8)
    assert found.details["lower_bound"] == pytest.approx(expected.details["lower_bound"], rel=1e-6)
    assert found.details["upper_bound"] == pytest.approx(expected.details["upper_bound"], rel=1e-6)


def test_far_from_the_origin_nothing_cancels():
    x, y = cloud(40, 3), cloud(40, 3, seed=1) + 1
    near = float(sinkhorn_divergence(x, y, regularization=0.5))
    assert float(sinkhorn_divergence(x + 1e6, y + 1e6, regularization=0.5)) == pytest.approx(near, rel=1e-7)
    single = sinkhorn_divergence((x + 100).float(), (y + 100).float(), regularization=0.5)
    assert float(single) == pytest.approx(near, rel=1e-4)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.sampled_from([1, 2]), st.integers(0, 10**6))
def test_it_is_symmetric_not_negative_and_blind_to_order(n, m, d, p, seed):
    x, y = cloud(n, d, seed), cloud(m, d, seed + 1) * 1.5 + 0.3
    found = float(sinkhorn_divergence(x, y, p=p))
    scale = float((x.mean(0) - y.mean(0)).norm() + 1) ** p
    assert found >= -1e-6 * scale
    assert float(sinkhorn_divergence(y, x, p=p)) == pytest.approx(found, abs=1e-4 * scale)
    shuffled = x[torch.from_numpy(np.random.default_rng(seed).permutation(n))]
    assert float(sinkhorn_divergence(shuffled, y, p=p)) == pytest.approx(found, abs=1e-4 * scale)


def test_the_default_strength_follows_the_scale_of_the_data():
    x, y = cloud(50, 2), cloud(50, 2, seed=1) + 1
    one, ten = sinkhorn_divergence(x, y), sinkhorn_divergence(10 * x, 10 * y)
    assert ten.details["regularization"] == pytest.approx(100 * one.details["regularization"])
    assert float(ten) == pytest.approx(100 * float(one), rel=1e-6)
    median = float((torch.cdist(x, y) ** 2).median())
    assert one.details["regularization"] == pytest.approx(0.05 * median)
    assert float(sinkhorn_divergence(torch.zeros(3, 2), torch.zeros(4, 2))) == 0


def test_the_statistic_uses_the_strength_of_the_first_samples():
    x, y = cloud(30, 2), cloud(30, 2, seed=1) + 1
    found = sinkhorn_divergence(x, y)
    assert found.statistic is not None
    assert float(found.statistic(x, y)) == float(found)
    expected = float(sinkhorn_divergence(3 * x, 3 * y, regularization=found.details["regularization"]))
    assert float(found.statistic(3 * x, 3 * y)) == expected


def test_agrees_with_pot():
    ot = pytest.importorskip("ot")
    x, y = cloud(40, 2), cloud(30, 2, seed=1) + 1
    costs = (torch.cdist(x, y) ** 2).numpy()
    a, b = np.full(40, 1 / 40), np.full(30, 1 / 30)
    plan = ot.sinkhorn(a, b, costs, 0.5, method="sinkhorn_log", stopThr=1e-12, numItermax=10_000)
    expected = (plan * costs).sum() + 0.5 * (plan * np.log(plan / np.outer(a, b))).sum()
    found = sinkhorn_divergence(x, y, regularization=0.5, tolerance=1e-11)
    assert found.details["entropic_cost"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regularization": 0.0}, "regularization is 0.0; expected a positive number"),
        ({"regularization": math.nan}, "regularization is nan"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        ({"p": 0.5}, "p is 0.5"),
        ({"a": torch.tensor([0.5, 0.2, 0.2])}, "sum to 0.9"),
    ],
)
def test_what_cannot_be_is_one_sentence(options, sentence):
    with pytest.raises(EarthworksError, match=sentence):
        sinkhorn_divergence(torch.randn(3, 2), torch.randn(4, 2), **options)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_is_of_the_mean_at_this_n_and_not_of_the_distributions_in_five_dimensions(shift):
    """S_eps of the distributions is shift^2 (a translation); samples of 60 are further apart, as is the interval."""
    moved = torch.tensor([shift, 0, 0, 0, 0], dtype=torch.float64)
    found = [
        sinkhorn_divergence(cloud(60, 5, 2 * k), cloud(60, 5, 2 * k + 1) + moved, regularization=0.3) for k in range(40)
    ]
    mean = sum(map(float, found)) / len(found)
    intervals = [each.assess(num_permutations=1).interval for each in found]
    assert sum(low <= mean <= high for low, high in intervals) >= 34
    assert mean > shift**2 + 1
    assert found[0].interval_of == OF_MEAN
