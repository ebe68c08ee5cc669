import builtins
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import MAPS, normal, shuffled
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from earthworks.runs import EarthworksError
from earthworks.transport import wasserstein
from earthworks.transport.exact import ground_cost, linear_program
from earthworks.transport.solvers.assignment import assign


def clouds(most: int = 7, d: int = 2):
    """Two clouds of few points on a coarse lattice, so that ties and points in the same place are common."""
    numbers = st.integers(-3, 3).map(float)
    cloud = st.lists(st.tuples(*[numbers] * d), min_size=1, max_size=most)
    return st.tuples(cloud, cloud).map(lambda pair: tuple(torch.tensor(z, dtype=torch.float64) for z in pair))


def distance(x, y, **options) -> float:
    return float(wasserstein(x, y, **options))


@pytest.fixture
def without_pot(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "ot" or name.startswith("ot."):
            raise ImportError(name)
        return real(name, *rest, **named)

    for name in [each for each in sys.modules if each == "ot" or each.startswith("ot.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("n", [2, 37, 300])
@pytest.mark.parametrize("d", [2, 16, 64])
@pytest.mark.parametrize("pair", MAPS, ids=lambda pair: pair.__name__)
def test_mass_pushed_along_an_optimal_map_has_moved_as_far_as_the_map_moves_it(pair, n, d):
    x, y, first, second = pair(n, d)
    y = shuffled(y)
    for p, expected in ((1, first), (2, second)):
        if expected is not None:
            assert distance(x, y, p=p) == pytest.approx(expected, rel=1e-9)
            assert distance(y, x, p=p) == pytest.approx(expected, rel=1e-9)


def test_parallel_lines_are_theta_apart():
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    for theta in (-0.7, 0.0, 1e-9, 2.0):
        x, y = torch.stack([0 * t, t], 1), torch.stack([0 * t + theta, t], 1)
        assert distance(x, shuffled(y)) == pytest.approx(abs(theta), abs=1e-12)


@given(clouds(6))
def test_no_permutation_is_cheaper(pair):
    x, y = (z[: min(map(len, pair))] for z in pair)
    costs = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    cheapest = min(
        sum(costs[i, s] for i, s in enumerate(order)) for order in itertools.permutations(range(len(y)))
    ) / len(x)
    assert distance(x, y, p=2) ** 2 == pytest.approx(cheapest, abs=1e-9)


@settings(max_examples=100)
@given(clouds(), st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_plan_and_potentials_prove_each_other_optimal(pair, p):
    x, y = pair
    result = wasserstein(x, y, p=p)
    plan, (f, g) = result.plan, result.potentials
    costs = torch.from_numpy(ground_cost(x, y, p))
    scale = 1 + costs.max()
    assert torch.allclose(plan.sum(1), torch.full((len(x),), 1 / len(x), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(plan.sum(0), torch.full((len(y),), 1 / len(y), dtype=torch.float64), atol=1e-12)
    assert (plan >= 0).all()
    assert (plan > 0).sum() <= len(x) + len(y) - 1
    assert (costs - f[:, None] - g >= -1e-9 * scale).all()
    assert f.mean() + g.mean() == pytest.approx(float((plan * costs).sum()), abs=1e-9 * float(scale))
    assert float(result) ** p == pytest.approx(float((plan * costs).sum()), abs=1e-9 * float(scale))


HARD = {
    "gaussian": lambda r, n: cdist(r.standard_normal((n, 2)), r.standard_normal((n, 2)) + 1),
    "far from the origin": lambda r, n: cdist(r.standard_normal((n, 3)) + 1e6, r.standard_normal((n, 3)) + 1e6),
    "two scales": lambda r, n: cdist(*(r.standard_normal((n, 2)) * 10.0 ** r.integers(-6, 2, (n, 1)) for _ in "xy")),
    "heavy tails": lambda r, n: cdist(r.standard_t(0.5, (n, 2)), r.standard_t(0.5, (n, 2))),
    "few places": lambda r, n: cdist(r.integers(0, 2, (n, 2)), r.integers(0, 3, (n, 2))),
    "integers": lambda r, n: r.integers(0, 10, (n, n)).astype(float),
    "one price": lambda r, n: np.ones((n, n)),
    "zeros": lambda r, n: np.zeros((n, n)),
    "products": lambda r, n: np.outer(np.arange(1.0, n + 1), np.arange(1.0, n + 1)),
    "mostly zero": lambda r, n: 1e8 * (r.random((n, n)) < 1e-3),
}


@pytest.mark.parametrize("n", [1, 2, 3, 150])
@pytest.mark.parametrize("kind", HARD)
def test_the_matching_is_as_cheap_as_scipys_and_its_potentials_prove_it(kind, n):
    costs = HARD[kind](np.random.default_rng(n), n)
    columns, f, g = assign(costs.copy())
    rows, theirs = linear_sum_assignment(costs)
    assert sorted(columns) == list(range(n))
    scale = costs.max() + 1e-300
    assert costs[rows, columns].mean() == pytest.approx(costs[rows, theirs].mean(), rel=1e-12, abs=1e-13 * scale)
    assert (costs - f[:, None] - g).min() >= -1e-12 * scale
    assert f.mean() + g.mean() == pytest.approx(costs[rows, theirs].mean(), rel=1e-9, abs=1e-12 * scale)


def test_a_point_taken_k_times_is_a_point_of_weight_k():
    x, y = normal(5, 3), normal(8, 3, 1)
    times = torch.tensor([1, 3, 1, 2, 1])
    assert distance(x, y, a=times / 8.0, p=2) == pytest.approx(
        distance(x.repeat_interleave(times, 0), y, p=2), rel=1e-9
    )


def test_a_point_without_weight_does_not_count():
    x, y = normal(6, 2), normal(6, 2, 1)
    a = torch.tensor([0.5, 0, 0.25, 0.25, 0, 0], dtype=torch.float64)
    result = wasserstein(x, y, a=a)
    assert float(result) == pytest.approx(distance(x[a > 0], y, a=a[a > 0]), rel=1e-9)
    f, g = result.potentials
    assert (cdist(x, y) - f.numpy()[:, None] - g.numpy() >= -1e-9).all()


@pytest.mark.parametrize("p", [1, 2])
def test_without_pot_a_linear_program_gives_the_same(p, without_pot):
    x, y = normal(20, 3), normal(31, 3, 1)
    result = wasserstein(x, y, p=p)
    assert result.solver == "linear program"
    times = wasserstein(x.repeat_interleave(31, 0), y.repeat_interleave(20, 0), p=p)
    assert times.solver == "assignment"
    assert float(result) == pytest.approx(float(times), rel=1e-9)


def test_without_pot_large_clouds_of_different_sizes_are_refused_with_the_command_that_helps(without_pot):
    with pytest.raises(EarthworksError, match=r"between 300 and 201 points .* pip install 'earthworks\[ot\]'"):
        wasserstein(normal(300, 2), normal(201, 2))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 75)])
def test_pot_agrees(p, n, m):
    ot = pytest.importorskip("ot")
    x, y = normal(n, 5), normal(m, 5, 1)
    costs = cdist(x, y) ** p
    theirs = ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), costs) ** (1 / p)
    result = wasserstein(x, y, p=p)
    assert float(result) == pytest.approx(theirs, rel=1e-12)
    program = linear_program(costs, np.full(n, 1 / n), np.full(m, 1 / m))
    assert (costs[program.rows, program.columns] * program.mass).sum() == pytest.approx(theirs**p, rel=1e-9)


def test_pot_that_gives_up_is_an_error_and_not_a_number(monkeypatch):
    pytest.importorskip("ot")
    monkeypatch.setattr("earthworks.transport.exact.PIVOTS", 3)
    with pytest.raises(EarthworksError, match="did not converge"), pytest.warns(UserWarning, match="numItermax"):
        wasserstein(normal(30, 2), normal(40, 2))


@settings(max_examples=60)
@given(clouds(), st.floats(0, 6.3), st.floats(-3, 3), st.sampled_from([1.0, 2.0]))
def test_rotating_shifting_and_scaling_both_clouds_does_what_it_should(pair, angle, scale, p):
    x, y = pair
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    moved = distance(scale * x @ turn + 5, scale * y @ turn + 5, p=p)
    assert moved == pytest.approx(abs(scale) * distance(x, y, p=p), abs=1e-7)


@settings(max_examples=60)
@given(clouds(5), clouds(5))
def test_triangle_inequality_symmetry_order_and_bounds(pair, other):
    (x, y), (z, _) = pair, other
    forward = distance(x, y)
    assert forward == pytest.approx(distance(y, x), abs=1e-9)
    assert forward <= distance(x, z) + distance(z, y) + 1e-9
    assert forward <= distance(x, y, p=1.5) + 1e-9 <= distance(x, y, p=2) + 2e-9
    assert forward >= float((x.mean(0) - y.mean(0)).norm()) - 1e-9
    for f in (lambda u: u[:, 0], lambda u: (u - 1).norm(dim=1), lambda u: u.min(1).values):  # 1-Lipschitz
        assert forward >= abs(float(f(x).mean() - f(y).mean())) - 1e-9
    assert forward <= float(torch.cdist(x, y).mean()) + 1e-9  # the product plan
    centred = distance(x - x.mean(0), y - y.mean(0), p=2) ** 2 + float((x.mean(0) - y.mean(0)).square().sum())
    assert distance(x, y, p=2) ** 2 == pytest.approx(centred, abs=1e-9)


@given(clouds())
def test_a_cloud_is_at_distance_0_from_itself_in_any_order(pair):
    x, _ = pair
    assert distance(x, x.flip(0)) == 0
    assert distance(x, x.flip(0), p=2) == 0


def test_mass_that_both_distributions_share_need_not_move():
    # W_1 of mixtures a rho + (1 - a) mu, a rho + (1 - a) nu is (1 - a) W_1(mu, nu), exactly; W_2 is less than that.
    shared, x, y = normal(30, 2), normal(20, 2, 1), normal(20, 2, 2) + 1
    mixed = torch.cat([shared, x]), torch.cat([shared, y])
    assert distance(*mixed) == pytest.approx(0.4 * distance(x, y), rel=1e-9)
    assert distance(*mixed, p=2) ** 2 < 0.4 * distance(x, y, p=2) ** 2


def test_a_million_away_from_the_origin_nothing_is_lost():
    x, y, expected, _ = MAPS[0](50, 3)
    assert distance(x + 1e6, shuffled(y) + 1e6) == pytest.approx(expected, rel=1e-8)
    x, y = x.float(), y.float()
    assert distance(x, y) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("m", [6, 9])
def test_gradients_are_the_finite_differences(p, m):
    x, y = normal(6, 3).requires_grad_(), normal(m, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: wasserstein(x, y, p=p).value, (x, y))


def test_the_gradient_by_the_weights_is_the_potential():
    x, y = normal(5, 2), normal(6, 2, 1)
    start = torch.softmax(normal(2, 6, 2), 1)
    direction = normal(1, 5, 3)[0] * start[0, :5]
    direction = direction - direction.sum() / 5

    def cost(a):
        return wasserstein(x, y, p=2, a=a, b=start[1]).value ** 2

    a = (start[0, :5] / start[0, :5].sum()).requires_grad_()
    (slope,) = torch.autograd.grad(cost(a), a)
    step = 1e-5
    with torch.no_grad():
        difference = (cost(a + step * direction) - cost(a - step * direction)) / (2 * step)
    assert float(slope @ direction) == pytest.approx(float(difference), rel=1e-6)


def test_where_the_points_coincide_the_gradient_is_zero_and_not_nan():
    x = normal(4, 2)
    for p in (1, 1.5, 2):
        for y in (x.clone(), torch.cat([x[:2], x[2:] + 1])):
            u, v = x.clone().requires_grad_(), y.clone().requires_grad_()
            wasserstein(u, v, p=p).value.backward()
            assert u.grad.isfinite().all()
            assert (u.grad[:2] == 0).all()
    moved = x.clone().requires_grad_()
    wasserstein(moved, torch.cat([x[:2], x[2:] + 1])).value.backward()
    assert moved.grad[2:].norm(dim=1).tolist() == pytest.approx([0.25, 0.25])  # each moves a quarter of the mass


def test_the_result_has_the_dtype_of_the_samples_and_integers_are_taken_exactly():
    assert wasserstein(normal(5, 2).float(), normal(5, 2)).value.dtype == torch.float64
    assert wasserstein(normal(5, 2).float(), normal(5, 2).float()).value.dtype == torch.float32
    whole = wasserstein(torch.tensor([[0, 0], [3, 4]]), torch.tensor([[3, 4], [0, 5]]))
    assert float(whole) == 2.5


def test_images_are_points_of_as_many_dimensions_as_they_have_pixels():
    # A black image against one with a square of k white pixels, either sign: sqrt(k).
    black, white = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    white[0, :, 2:5, 2:5], white[1, :, 2:5, 2:5] = 1, -1
    result = wasserstein(black, white)
    assert float(result) == pytest.approx(3)
    assert result.d == 64


WRONG = {
    "empty": (torch.zeros(0, 2), torch.zeros(3, 2), {}, "x is empty"),
    "no dimension": (torch.zeros(3, 2), torch.zeros(3, 0), {}, "y is empty"),
    "nan": (torch.zeros(3, 2), torch.tensor([[0, 0], [0, math.nan]]), {}, "y holds NaN or infinity in 1 of 2 points"),
    "infinity": (torch.tensor([[math.inf, 0]]), torch.zeros(3, 2), {}, "the first is point 0"),
    "mismatch": (torch.zeros(3, 2), torch.zeros(3, 4), {}, "dimension 2, y of dimension 4"),
    "shape": (torch.zeros(3, 2, 2), torch.zeros(3, 4), {}, "has shape"),
    "order": (torch.zeros(3, 2), torch.zeros(3, 2), {"p": 0.5}, "p is 0.5"),
    "order of text": (torch.zeros(3, 2), torch.zeros(3, 2), {"p": "2"}, "p is '2'"),
    "text": ("points", torch.zeros(3, 2), {}, "x is a str, not an array of numbers"),
    "nothing": (torch.zeros(3, 2), None, {}, "y is a NoneType, not an array of numbers"),
    "ragged": (torch.zeros(3, 2), [[1.0], [1.0, 2.0]], {}, "y is a list, not an array of numbers"),
    "infinite order": (torch.zeros(3, 2), torch.zeros(3, 2), {"p": math.inf}, "finite order"),
    "sum": (torch.zeros(3, 2), torch.zeros(3, 2), {"a": torch.ones(3)}, "the weights a sum to 3; expected 1"),
    "negative": (torch.zeros(2, 2), torch.zeros(3, 2), {"a": torch.tensor([1.5, -0.5])}, "smallest is -0.5"),
    "nan weight": (torch.zeros(2, 2), torch.zeros(3, 2), {"a": torch.tensor([1.0, math.nan])}, "negative or NaN"),
    "count": (torch.zeros(3, 2), torch.zeros(3, 2), {"b": torch.ones(2) / 2}, "one for each of the 3 points"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_pair_of_clouds_is_refused_in_one_sentence(case):
    x, y, options, complaint = WRONG[case]
    with pytest.raises(EarthworksError, match=complaint):
        wasserstein(x, y, **options)
