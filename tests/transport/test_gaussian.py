import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment

from earthworks.runs import EarthworksError
from earthworks.transport.gaussian import Moments, frechet_distance, frechet_null, gaussian_wasserstein


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Correlated, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, dtype=torch.float64, generator=generator) / math.sqrt(d)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) @ mix + torch.randn(d, generator=generator)


def textbook(x: torch.Tensor, y: torch.Tensor, correction: int) -> float:
    """|m - l|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) by SciPy's matrix square root."""
    a, b = (torch.atleast_2d(torch.cov(z.T, correction=correction)).numpy() for z in (x, y))
    half = sqrtm(a).real
    cross = sqrtm(half @ b @ half).real
    return float((x.mean(0) - y.mean(0)).square().sum()) + float((a + b - 2 * cross).trace())


def exact_squared(x: torch.Tensor, y: torch.Tensor) -> float:
    costs = (torch.cdist(x, y) ** 2).numpy()
    return float(costs[linear_sum_assignment(costs)].mean())


@pytest.mark.parametrize(("n", "m", "d"), [(100, 80, 5), (40, 300, 16), (9, 9, 1), (70, 70, 64)])
def test_agrees_with_matrix_square_roots(n, m, d):
    x, y = cloud(n, d), 2 * cloud(m, d, seed=1)
    assert float(gaussian_wasserstein(x, y)) ** 2 == pytest.approx(textbook(x, y, 0), rel=1e-7)
    assert float(frechet_distance(x, y)) == pytest.approx(textbook(x, y, 1), rel=1e-7)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 30), (20, 200), (1, 5)])
def test_fewer_points_than_dimensions(n, m):
    # The eigenvalue route takes roots of round-off zeros: it is good to 1e-5 here, the nuclear norm to rounding.
    x, y = cloud(n, 64), cloud(m, 64, seed=1)
    a, b = (torch.cov(z.T, correction=0).reshape(64, 64) for z in (x, y))
    roots = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum() if n > 1 else torch.tensor(0.0)
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * roots
    assert float(gaussian_wasserstein(x, y)) ** 2 == pytest.approx(float(expected), abs=1e-5)


def test_a_scaled_and_shifted_cloud():
    x = cloud(50, 3)
    move = torch.tensor([1.0, -2.0, 2.0])
    assert float(gaussian_wasserstein(x, x + move)) == pytest.approx(3, abs=1e-12)
    spread = float((x - x.mean(0)).square().sum(1).mean())
    stretched = 2.5 * (x - x.mean(0)) + x.mean(0)
    assert float(gaussian_wasserstein(x, stretched)) == pytest.approx(1.5 * math.sqrt(spread), abs=1e-12)


def test_an_affine_monotone_map_is_measured_exactly():
    # y = x A, A symmetric positive: the exact distance of the samples is attained by the Gaussians'
    x = cloud(40, 4)
    a = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = x @ (a @ a.T)
    truth = math.sqrt(float((x - y).square().sum(1).mean()))
    assert float(gaussian_wasserstein(x, y)) == pytest.approx(truth, rel=1e-10)
    assert math.sqrt(exact_squared(x, y)) == pytest.approx(truth, rel=1e-10)


@settings(max_examples=150)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 10**6))
def test_it_is_below_the_exact_distance_of_any_samples(n, d, seed):
    """Gelbrich's bound, which covariances divided by n - 1 would break at such n."""
    x, y = cloud(n, d, seed), cloud(n, d, seed + 1).abs()
    assert float(gaussian_wasserstein(x, y)) ** 2 <= exact_squared(x, y) + 1e-9


def test_covariances_of_n_minus_1_do_break_the_bound_at_6_points():
    broken = 0
    for seed in range(200):
        x = cloud(6, 2, seed)
        y = 3 * x  # the bound is tight here
        broken += float(frechet_distance(x, y)) > exact_squared(x, y) + 1e-9
    assert broken > 100


def test_identical_clouds_are_at_zero_to_rounding():
    for n, d in ((100, 8), (5, 64), (1, 3)):
        x = cloud(n, d)
        assert float(gaussian_wasserstein(x, x)) < 1e-12 * (1 + float(x.norm()))


def test_far_from_the_origin_nothing_cancels():
    x, y = cloud(200, 4), cloud(200, 4, seed=1)
    near = float(frechet_distance(x, y))
    assert float(frechet_distance(x + 1e6, y + 1e6)) == pytest.approx(near, rel=1e-8)
    merged = frechet_distance(Moments().update(x + 1e6), Moments().update(y + 1e6))
    assert float(merged) == pytest.approx(near, rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(7, 5, 3), (3, 5, 6), (2, 9, 4), (6, 6, 1)])
def test_gradients_agree_with_finite_differences(n, m, d):
    x, y = cloud(n, d).requires_grad_(), cloud(m, d, seed=1).requires_grad_()

    def values(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gaussian_wasserstein(x, y).value, frechet_distance(x, y).value

    assert torch.autograd.gradcheck(values, (x, y))


def test_gradients_stay_finite_at_distance_zero_and_for_constant_features():
    x = torch.cat([cloud(20, 3), torch.ones(20, 2)], 1)
    y = x.clone().requires_grad_()
    gaussian_wasserstein(x, y).value.backward()
    assert y.grad is not None
    assert y.grad.isfinite().all()
    y = (x + torch.tensor([1.0, 0, 0, 0, 0])).requires_grad_()
    frechet_distance(x, y).value.backward()
    assert y.grad is not None
    assert torch.allclose(y.grad, torch.tensor([2 / 20, 0, 0, 0, 0]).double().expand(20, 5), atol=1e-10)


@pytest.mark.parametrize("batches", [[100], [1, 99], [30, 30, 40], [1] * 100])
def test_streamed_moments_are_those_of_one_pass(batches):
    x = cloud(100, 6) + 1e5
    moments = Moments()
    for batch in x.split(batches):
        moments.update(batch)
    assert moments.n == 100
    assert torch.allclose(moments.mean, x.mean(0), rtol=1e-14)
    assert torch.allclose(moments.covariance, torch.cov(x.T), rtol=1e-9, atol=1e-9)


def test_merging_workers_is_streaming_alone():
    x = cloud(100, 6)
    left, right = Moments().update(x[:37]), Moments().update(x[37:60]).update(x[60:])
    before = right.covariance.clone()
    left.merge(right).merge(Moments())
    assert Moments().merge(left).n == 100
    assert torch.allclose(left.covariance, torch.cov(x.T), rtol=1e-12)
    assert torch.equal(right.covariance, before)  # what is merged is left as it was
    copy = Moments().merge(right)
    copy.update(x)
    assert torch.equal(right.covariance, before)


def test_samples_and_moments_give_the_same_distance():
    x, y = cloud(300, 20), cloud(200, 20, seed=1)
    expected = float(frechet_distance(x, y))
    streamed = frechet_distance(Moments().update(x[:11]).update(x[11:]), Moments().update(y))
    assert float(streamed) == pytest.approx(expected, rel=1e-9)
    assert float(frechet_distance(x, Moments().update(y))) == pytest.approx(expected, rel=1e-9)
    assert streamed.details["null"] == pytest.approx(frechet_distance(x, y).details["null"], rel=1e-9)
    assert (streamed.n, streamed.m, streamed.d) == (300, 200, 20)


def test_the_null_of_unit_covariance_has_a_closed_form():
    d, n, m = 16, 4000, 3000
    expected = (1 / n + 1 / m) * (d + (d * d + d) / 4)
    assert frechet_null(torch.ones(d), n, m) == pytest.approx(expected, rel=1e-12)
    assert frechet_null(torch.zeros(3), 10, 10) == 0


def test_two_samples_of_one_gaussian_are_the_null_apart():
    spectrum = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1]).double()
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        x, y = (torch.randn(n, 5, generator=generator, dtype=torch.float64) * spectrum.sqrt() for n in (400, 800))
        found.append(float(frechet_distance(x, y)))
    values = torch.tensor(found)
    error = float(values.std()) / math.sqrt(300)
    assert float(values.mean()) == pytest.approx(frechet_null(spectrum, 400, 800), abs=3 * error)
    assert frechet_distance(x, y).details["null"] == pytest.approx(frechet_null(spectrum, 400, 800), rel=0.15)


def test_too_few_points_for_a_covariance_are_said():
    x, y = cloud(20, 64), cloud(200, 64, seed=1)
    found = frechet_distance(x, y)
    assert found.details["rank_deficient"]
    assert "singular covariance: fewer than 65 points" in found.solver
    assert not frechet_distance(y, y).details["rank_deficient"]
    with pytest.raises(EarthworksError, match="64 features needs more than 64 samples for a covariance; got 20"):
        frechet_distance(Moments().update(x), Moments().update(y))
    with pytest.raises(EarthworksError, match="at least 2"):
        frechet_distance(x[:1], y)


def test_bad_features_are_one_sentence():
    with pytest.raises(EarthworksError, match="features of dimension 3 cannot be added to features of dimension 2"):
        Moments().update(torch.randn(5, 2)).update(torch.randn(5, 3))
    with pytest.raises(EarthworksError, match="x has features of dimension 2, y of dimension 3"):
        frechet_distance(Moments().update(torch.randn(9, 2)), Moments().update(torch.randn(9, 3)))
    with pytest.raises(EarthworksError, match="NaN"):
        Moments().update(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(EarthworksError, match="needs more than 0 samples"):
        frechet_distance(Moments(), Moments())
