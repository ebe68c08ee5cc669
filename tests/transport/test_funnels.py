import pytest
import torch

from earthworks.runs import EarthworksError
from earthworks.transport.known_pairs import Funnels

SIZES = [(1, 3), (2, 4), (2, 16), (4, 16), (16, 16), (64, 4)]


def drawn(dimension: int, num_funnels: int, n: int = 200):
    funnels = Funnels.random(dimension, num_funnels, seed=0)
    x = funnels.sample(n, torch.Generator().manual_seed(1))
    return funnels, x, funnels.contract(x)


@pytest.mark.parametrize("size", SIZES)
def test_the_potential_is_tight_on_every_pair(size):
    funnels, x, y = drawn(*size)
    assert torch.allclose(funnels.potential(x) - funnels.potential(y), (x - y).norm(dim=1), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_the_map_is_optimal(size):
    # Assignment over all couplings of these points finds nothing cheaper than the map.
    from scipy.optimize import linear_sum_assignment

    _, x, y = drawn(*size)
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(cost)
    assert cost[rows, columns].mean() == pytest.approx(float((x - y).norm(dim=1).mean()), abs=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_mass_stays_in_its_funnel_and_in_the_domain(size):
    funnels, x, y = drawn(*size)
    assert torch.equal(funnels.funnel_values(x).argmin(1), funnels.funnel_values(y).argmin(1))
    assert (y.abs() <= 2.5).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_is_a_unit_vector_and_that_of_the_potential(size):
    funnels, x, _ = drawn(*size)
    g = funnels.gradient(x)
    assert torch.allclose(g.norm(dim=1), torch.ones(len(x)).double())
    step = 1e-6 * torch.randn_like(x)
    slope = (funnels.potential(x + step) - funnels.potential(x - step)) / 2
    assert torch.allclose(slope, (g * step).sum(1), atol=1e-11)


@pytest.mark.parametrize("size", [*SIZES, (2, 64)])
def test_a_ray_ends_where_bisection_finds_another_funnel_or_the_wall(size):
    funnels, x, _ = drawn(*size)
    rays = funnels.rays(x)

    def inside(r):
        points = rays.start + r[:, None] * rays.direction
        values = funnels.funnel_values(points)
        own = values.gather(1, rays.active[:, None])[:, 0]
        return (own <= values.amin(1) + 1e-13) & (points.abs() <= 2.5).all(1)

    low, high = rays.distance, torch.full_like(rays.distance, 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = torch.where(inside(middle), middle, low), torch.where(inside(middle), high, middle)
    assert torch.allclose(rays.length, low, atol=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3, 16])
@pytest.mark.parametrize("exponent", [2.0, 8.0])
def test_one_funnel_on_a_ball_has_a_closed_form(dimension, exponent):
    # R (d / (d + 1) - d / (d + q)).
    funnels = Funnels(torch.zeros(1, dimension).double(), torch.zeros(1).double(), 2.0, exponent, "ball")
    distance, error = funnels.distance()
    expected = 2 * (dimension / (dimension + 1) - dimension / (dimension + exponent))
    assert distance == pytest.approx(expected, abs=4 * error)
    assert error < 0.005


@pytest.mark.parametrize(
    ("size", "published"), [((2, 16), 0.466), ((4, 16), 1.003), ((16, 16), 1.738), ((64, 4), 1.411)]
)
def test_the_distances_are_near_those_of_the_published_pairs(size, published):
    # Their centres were drawn from the same distribution; in two dimensions one draw differs from another by a quarter.
    distances = [Funnels.random(*size, seed=seed).distance(n=1 << 12)[0] for seed in range(8)]
    assert sum(distances) / 8 == pytest.approx(published, rel=0.15)


def test_a_funnel_that_is_nowhere_active_changes_nothing():
    funnels, x, y = drawn(2, 4)
    more = Funnels(
        torch.cat([funnels.centres, torch.zeros(1, 2)]), torch.cat([funnels.offsets, torch.full((1,), 99.0)])
    )
    assert torch.allclose(more.contract(x), y)


def test_the_centre_stays_where_it_is():
    funnels, _, _ = drawn(2, 4)
    active = funnels.funnel_values(funnels.centres).argmin(1) == torch.arange(4)
    centres = funnels.centres[active]
    assert torch.equal(funnels.contract(centres), centres)


def test_samples_of_the_same_seed_are_not_the_centres():
    funnels = Funnels.random(2, 4, seed=5)
    x = funnels.sample(4, torch.Generator().manual_seed(5))
    assert torch.cdist(x, funnels.centres).min() > 1e-3


def test_nothing_is_no_pair():
    with pytest.raises(EarthworksError, match="at least one dimension"):
        Funnels.random(0, 4, seed=0)
