import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import normal, shuffled

from earthworks.runs import EarthworksError
from earthworks.transport import max_sliced_wasserstein, sliced_wasserstein, wasserstein, wasserstein_1d
from earthworks.transport import sliced as module


def sliced(x, y, **options) -> float:
    return float(sliced_wasserstein(x, y, **options))


def max_sliced(x, y, **options) -> float:
    return float(max_sliced_wasserstein(x, y, **options))


@pytest.mark.parametrize("d", [2, 5, 64])
def test_the_mean_shadow_of_a_translation(d):
    # SW_2^2 = |m|^2 / d,  SW_1 = |m| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)).
    x, shift = normal(60, d), normal(1, d, 1)
    length = float(shift.norm())
    second = sliced_wasserstein(x, shuffled(x + shift), num_directions=4000)
    assert float(second) == pytest.approx(length / math.sqrt(d), abs=4 * second.details["standard_error"])
    first = sliced_wasserstein(x, shuffled(x + shift), p=1, num_directions=4000)
    expected = length * math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    assert float(first) == pytest.approx(expected, abs=4 * first.details["standard_error"])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_two_values_from_other_directions_differ_by_their_standard_error(p):
    x, y = normal(40, 6), 1.5 * normal(50, 6, 1) + 0.3
    results = [sliced_wasserstein(x, y, p=p, num_directions=100, seed=seed) for seed in range(100)]
    spread = torch.tensor([float(each) for each in results]).std()
    claimed = sum(each.details["standard_error"] for each in results) / 100
    assert claimed == pytest.approx(float(spread), rel=0.25)


def test_isotropic_gaussians():
    # SW_2^2 = |m1 - m2|^2 / d + (s1 - s2)^2; the samples are large, so their own bias is below the tolerance.
    x, y = normal(20_000, 3), 2 * normal(20_000, 3, 1) + 1
    assert sliced(x, y) == pytest.approx(math.sqrt(1 + 1), rel=0.03)


def test_given_axes_the_slices_are_the_coordinates():
    x, y = normal(30, 3), normal(30, 3, 1)
    for p in (1, 2):
        coordinates = [float(wasserstein_1d(x[:, k], y[:, k], p=p)) ** p for k in range(3)]
        axes = torch.eye(3, dtype=torch.float64)
        assert sliced(x, y, p=p, directions=axes) == pytest.approx((sum(coordinates) / 3) ** (1 / p), rel=1e-12)


def test_in_one_dimension_it_is_the_distance_on_the_line():
    x, y = normal(30, 1), normal(41, 1, 1)
    assert sliced(x, y, p=1) == pytest.approx(float(wasserstein_1d(x, y)), rel=1e-12)
    assert max_sliced(x, y, p=1) == pytest.approx(float(wasserstein_1d(x, y)), rel=1e-12)


def test_a_point_taken_k_times_is_a_point_of_weight_k():
    x, y = normal(5, 3), normal(8, 3, 1)
    times = torch.tensor([1, 3, 1, 2, 1])
    assert sliced(x, y, a=times / 8.0) == pytest.approx(sliced(x.repeat_interleave(times, 0), y), rel=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1.0, 2.0]))
def test_shadows_are_shorter_than_what_throws_them(seed, n, m, p):
    x, y = normal(n, 3, seed), normal(m, 3, seed + 1) + 0.5
    exact, mean = float(wasserstein(x, y, p=p)), sliced(x, y, p=p)
    assert mean <= exact + 1e-9
    largest = max_sliced_wasserstein(x, y, p=p)
    assert mean <= float(largest) + 1e-9 <= exact + 2e-9
    direction = torch.tensor(largest.details["direction"], dtype=torch.float64)
    assert float(direction.norm()) == pytest.approx(1, abs=1e-12)
    assert float(wasserstein_1d(x @ direction, y @ direction, p=p)) == pytest.approx(float(largest), rel=1e-12)
    assert sliced(x, y, p=p) == pytest.approx(sliced(y, x, p=p), abs=1e-12)


@pytest.mark.parametrize("d", [2, 16, 64])
def test_the_longest_shadow_of_a_translation_is_its_length(d):
    x, shift = normal(100, d), torch.nn.functional.normalize(normal(1, d, 1))
    for p in (1, 2):
        assert max_sliced(x, shuffled(x + shift), p=p) == pytest.approx(1, rel=1e-9)


def test_the_best_of_200_random_directions_finds_a_third_of_it():
    d = 64
    x, shift = normal(100, d), torch.nn.functional.normalize(normal(1, d, 1))
    along = module.projected_costs(x, x + shift, module.random_directions(200, d, 0), 2)
    assert 0.25 < float(along.max().sqrt()) < 0.5


def test_a_stretched_axis_is_found_among_many():
    # Equal means, one of 30 variances ninefold: W_2 along that axis is 3 - 1 = 2 (scaling, hence exact on the samples).
    x, stretch = normal(400, 30), torch.ones(30, dtype=torch.float64)
    stretch[17] = 3
    result = max_sliced_wasserstein(x, shuffled(x * stretch), p=2)
    expected = 2 * float(x[:, 17].square().mean().sqrt())
    assert expected * (1 - 1e-3) <= float(result) <= 1.05 * expected
    assert abs(result.details["direction"][17]) > 0.95


@pytest.mark.parametrize("p", [1, 2])
def test_ascent_finds_what_a_fine_grid_of_directions_finds(p):
    angles = torch.linspace(0, math.pi, 2000, dtype=torch.float64)
    grid = torch.stack([angles.cos(), angles.sin()], 1)
    for seed in range(10):
        x, y = normal(40, 2, seed), normal(30, 2, seed + 100) * torch.tensor([1.0, 2.0]) + 0.2
        best = float(module.projected_costs(x, y, grid, p).max()) ** (1 / p)
        assert max_sliced(x, y, p=p) >= best * (1 - 2e-3)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("m", [6, 4])
def test_gradients_are_the_finite_differences(p, m):
    x, y = normal(6, 3).requires_grad_(), (normal(m, 3, 1) + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: sliced_wasserstein(x, y, p=p, num_directions=5).value, (x, y))


@pytest.mark.parametrize("p", [1, 2])
def test_the_longest_shadow_changes_as_it_would_if_its_direction_stayed(p):
    # Envelope theorem: the direction is optimal, so to first order its change changes nothing.
    x, y, push = normal(60, 2), 1.5 * normal(60, 2, 1) + 1, normal(60, 2, 2)

    def value(step):
        return max_sliced_wasserstein(x + step * push, y, p=p, num_steps=300).value

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(step), step)
    difference = (value(1e-3) - value(-1e-3)) / 2e-3
    assert float(slope) == pytest.approx(float(difference), rel=0.01)


def test_equal_clouds_have_value_and_gradient_zero():
    x = normal(5, 3).requires_grad_()
    for function in (sliced_wasserstein, max_sliced_wasserstein):
        value = function(x, x.detach().flip(0)).value
        (gradient,) = torch.autograd.grad(value, x)
        assert value == 0
        assert (gradient == 0).all()


def test_the_same_directions_are_used_again_and_blocks_change_nothing(monkeypatch):
    x, y = normal(50, 4), normal(30, 4, 1)
    result = sliced_wasserstein(x, y, seed=3)
    assert float(result) == sliced(x, y, seed=3) != sliced(x, y, seed=4)
    assert float(result.statistic(x, y)) == float(result)
    monkeypatch.setattr(module, "BLOCK", 7 * 50)
    assert sliced(x, y, seed=3) == pytest.approx(float(result), rel=1e-14)


def test_pot_agrees():
    ot = pytest.importorskip("ot")
    x, y, directions = normal(30, 5), normal(45, 5, 1), module.random_directions(50, 5, 0)
    for p in (1, 2):
        theirs = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), p=p, projections=directions.numpy().T)
        assert sliced(x, y, p=p, directions=directions) == pytest.approx(float(theirs), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"num_directions": 0}, "num_directions is 0"),
        ({"directions": torch.ones(4, 3)}, "unit vectors"),
        ({"directions": torch.eye(3)[:, :2]}, r"expected \(L, 3\)"),
        ({"p": 0}, "p is 0"),
        ({"a": torch.ones(4)}, "sum to 4"),
    ],
)
def test_what_cannot_be_sliced_is_refused(options, complaint):
    with pytest.raises(EarthworksError, match=complaint):
        sliced_wasserstein(normal(4, 3), normal(4, 3, 1), **options)
