"""W(c x, c y) = c W(x, y) for points of any floating-point magnitude, or an error; never NaN, infinity or a hang."""

import json
import math

import numpy as np
import pytest
import torch
from known import normal

from earthworks.runs import EarthworksError
from earthworks.transport import (
    Moments,
    critic_estimate,
    divergence_frontier,
    frechet_distance,
    gaussian_wasserstein,
    jensen_shannon,
    max_sliced_wasserstein,
    permutation_test,
    sinkhorn_divergence,
    sliced_wasserstein,
    wasserstein,
    wasserstein_1d,
)
from earthworks.transport.clouds import times
from earthworks.transport.lipschitz import lower_bounds

DISTANCES = {  # name: the distance, and its degree of homogeneity
    "wasserstein_1": (lambda x, y: wasserstein(x, y, p=1), 1),
    "wasserstein_2": (lambda x, y: wasserstein(x, y, p=2), 1),
    "wasserstein_3.5": (lambda x, y: wasserstein(x, y, p=3.5), 1),
    "on a line": (lambda x, y: wasserstein_1d(x[:, 0], y[:, 0], p=2), 1),
    "sliced_1": (lambda x, y: sliced_wasserstein(x, y, p=1, num_directions=20), 1),
    "sliced_2": (lambda x, y: sliced_wasserstein(x, y, num_directions=20), 1),
    "max_sliced": (lambda x, y: max_sliced_wasserstein(x, y), 1),
    "sinkhorn_1": (lambda x, y: sinkhorn_divergence(x, y, p=1), 1),
    "sinkhorn_2": (lambda x, y: sinkhorn_divergence(x, y), 2),
    "gaussian": (lambda x, y: gaussian_wasserstein(x, y), 1),
    "frechet": (lambda x, y: frechet_distance(x, y), 2),
    "moments": (lambda x, y: frechet_distance(Moments().update(x), Moments().update(y)), 2),
    "frontier": (lambda x, y: divergence_frontier(x, y, num_clusters=3, num_seeds=1), 0),
    "critic": (lambda x, y: critic_estimate(x, y, steps=5), 1),
}
EXPONENTS = {torch.float64: (-1000, -400, -40, 40, 300, 1018), torch.float32: (-120, -40, 40, 120)}


@pytest.mark.parametrize("dtype", EXPONENTS, ids=str)
@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("m", [12, 9], ids=["equal numbers", "different numbers"])
def test_points_multiplied_by_a_constant_are_as_many_times_as_far_apart(name, dtype, m):
    measure, degree = DISTANCES[name]
    x, y = normal(12, 3).to(dtype), (1.5 * normal(m, 3, 1) + 1).to(dtype)
    known = measure(x, y)
    for exponent in EXPONENTS[dtype]:
        if degree == 2 and abs(exponent) > 500:
            with pytest.raises(EarthworksError, match="float64"):
                measure(times(x, exponent), times(y, exponent))
            continue
        found = measure(times(x, exponent), times(y, exponent))
        assert times(float(found), -degree * exponent) == pytest.approx(float(known), rel=1e-6)
        if found.samples is None:
            continue
        known.assess(5)
        found.assess(5)
        back = [times(end, -degree * exponent) for end in found.interval]
        assert back == pytest.approx(known.interval, rel=1e-6, abs=1e-6 * float(known))
        assert times(found.null, -degree * exponent).tolist() == pytest.approx(known.null.tolist(), rel=1e-6)
        assert found.p_value == known.p_value


@pytest.mark.parametrize("largest", [1e-320, 1e-300, 1e155, 1e200, 1.7e308])
def test_a_pair_of_points_a_known_distance_apart(largest):
    x, y = torch.tensor([[largest], [0.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    assert float(wasserstein_1d(x, y)) == pytest.approx(largest / 2, rel=1e-3)
    assert float(gaussian_wasserstein(x, y)) == pytest.approx(largest / math.sqrt(2), rel=1e-3)
    flat_x, flat_y = torch.cat([x, 0 * x], 1), torch.cat([y, 0 * y], 1)
    assert float(wasserstein(flat_x, flat_y, p=2)) == pytest.approx(largest / math.sqrt(2), rel=1e-3)
    assert float(max_sliced_wasserstein(flat_x, flat_y)) == pytest.approx(largest / math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("kind", ["constant", "one point", "duplicates", "one dimension", "one value apart"])
@pytest.mark.parametrize("size", [1e-320, 1.0, 1e308])
def test_clouds_with_nothing_in_them_to_divide_by_give_a_number_or_a_sentence(name, kind, size):
    x, y = {
        "constant": (torch.ones(6, 2), torch.ones(6, 2)),
        "one point": (torch.ones(1, 2), -torch.ones(1, 2)),
        "duplicates": (torch.ones(6, 2), torch.tensor([[1.0, 1], [0, 0], [1, 1]])),
        "one dimension": (torch.linspace(-1, 1, 6)[:, None], torch.zeros(6, 1)),
        "one value apart": (torch.tensor([[1.0, 1]] * 6), torch.tensor([[1.0, 1]] * 5 + [[1.0, -1]])),
    }[kind]
    measure, degree = DISTANCES[name]
    try:
        found = measure(x.double() * size, y.double() * size)
        if found.samples is not None:
            found.assess(5)
    except EarthworksError as error:
        sentence = str(error)
    else:
        sentence = ""
    if sentence:
        assert "\n" not in sentence
        assert kind == "one point" or degree == 2 or "float64" in sentence
        return
    assert math.isfinite(float(found))
    if found.null is not None:
        assert found.null.isfinite().all()
        assert min(found.n, found.m) == 1 or all(map(math.isfinite, found.interval))
    if kind == "constant" and name != "critic":
        assert float(found) == pytest.approx(0, abs=1e-6 * size)


def test_gradients_reach_points_of_any_magnitude():
    for distance in (wasserstein, sliced_wasserstein, gaussian_wasserstein):
        slopes = []
        for exponent in (0, 600, -600):
            x = times(normal(6, 2), exponent).requires_grad_()
            distance(x, times(normal(6, 2, 1), exponent)).value.backward()
            slopes.append(x.grad)
        assert torch.allclose(slopes[0], slopes[1], rtol=1e-12)
        assert torch.allclose(slopes[0], slopes[2], rtol=1e-12)


def test_details_of_a_solver_are_in_the_units_of_the_points():
    x, y = normal(8, 2), normal(8, 2, 1) + 1
    near, far = sinkhorn_divergence(x, y), sinkhorn_divergence(times(x, 400), times(y, 400))
    for key in ("regularization", "entropic_cost"):
        assert times(far.details[key], -800) == pytest.approx(near.details[key])
    assert times(far.details["upper_bound"], -400) == pytest.approx(near.details["upper_bound"])
    given = sinkhorn_divergence(times(x, 400), times(y, 400), regularization=far.details["regularization"])
    assert float(given) == float(far)
    with pytest.raises(EarthworksError, match="regularization 1 is of another order than the costs"):
        sinkhorn_divergence(times(x, 800), times(y, 800), regularization=1.0)
    f, g = wasserstein(times(x, 400), times(y, 400), p=2).potentials
    assert times(float((f + g).mean()), -800) == pytest.approx(float(wasserstein(x, y, p=2)) ** 2)
    assert wasserstein(times(x, 800), times(y, 800), p=2).potentials is None
    critic = critic_estimate(times(x, 800), times(y, 800), steps=5)
    assert times(critic.potential(times(x, 800)), -800).isfinite().all()


def test_bounds_from_a_critic_scale_with_points_and_scores():
    x, y = normal(8, 2), normal(8, 2, 1) + 1
    near = lower_bounds(x[:, 0], y[:, 0], x, y)
    far = lower_bounds(*(times(each, 600) for each in (x[:, 0], y[:, 0], x, y)))
    assert float(near.max_slope) == float(far.max_slope)
    assert times(float(far.by_c_transform), -600) == float(near.by_c_transform)


def test_few_points_are_matched_as_well_when_they_are_near_each_other():
    """Network simplex and linear program take costs below an absolute bound for 0: at 1e-12 the first was off by half."""
    x, y = normal(12, 3), normal(9, 3, 1) + 1
    known = float(wasserstein(x, y, p=2))
    assert float(wasserstein(1e-12 * x, 1e-12 * y, p=2)) == pytest.approx(1e-12 * known, rel=1e-12)


def test_the_smallest_probability_has_no_infinite_divergence():
    p = torch.tensor([5e-324, 1.0], dtype=torch.float64)
    assert float(jensen_shannon(p, torch.tensor([0.0, 1.0], dtype=torch.float64))) == pytest.approx(0, abs=1e-300)


def test_a_statistic_that_is_nan_has_no_p_value():
    with pytest.raises(EarthworksError, match="NaN"):
        permutation_test(normal(5, 1), normal(5, 1, 1), lambda x, y: math.nan, num_permutations=3)
    assert permutation_test(normal(5, 1), normal(5, 1, 1), lambda x, y: math.inf, num_permutations=3).p_value == 1


@pytest.mark.parametrize(("size", "dtype"), [(1e120, "f8"), (1e-120, "f8"), (1e25, "f4"), (1e-30, "f4")])
def test_measure_prints_numbers_of_very_large_and_very_small_points(command, tmp_path, size, dtype):
    for name, seed in (("a", 0), ("b", 1)):
        np.save(tmp_path / f"{name}.npy", (normal(10, 2, seed).numpy() + seed).astype(dtype) * np.array(size, dtype))
    few = {"num_permutations": 9, "num_directions": 10}
    outcome = command("transport measure --json", tmp_path / "a.npy", tmp_path / "b.npy", **few)
    for each in json.loads(outcome.out):
        assert all(0 <= value < math.inf for value in (each["value"], each["null"], *each["interval"]))


def test_measure_refuses_points_whose_squares_no_float_holds(command, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        np.save(tmp_path / f"{name}.npy", 1e200 * normal(10, 2, seed).numpy())
    outcome = command("transport measure", tmp_path / "a.npy", tmp_path / "b.npy")
    assert outcome.refuses("sinkhorn_divergence", "too large for a float64", "scale both clouds by a constant")


def test_one_point_has_a_distance_and_no_interval(command, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 2)))
    np.save(tmp_path / "b.npy", np.ones((1, 2)))
    outcome = command("transport measure --num_permutations 3", tmp_path / "a.npy", tmp_path / "b.npy")
    assert "none: one point" in outcome.out
    assert "nan" not in outcome.out
