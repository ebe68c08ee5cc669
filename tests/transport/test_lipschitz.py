import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from earthworks.runs import EarthworksError
from earthworks.transport.lipschitz import (
    GroupSort,
    bjorck,
    clip_weights,
    gradient_norms,
    gradient_penalty,
    gradients,
    interpolate,
    lower_bounds,
    orthonormalize,
    penalize,
    retract,
    spectral_normalize,
)


def linear(shape: tuple[int, ...], norm: float):
    """f(x) = <a, x> with |a| = norm over all axes of a sample."""
    a = torch.randn(shape, dtype=torch.float64)
    a = norm * a / a.norm()
    return lambda x: (x * a).flatten(1).sum(1)


def number(value: torch.Tensor) -> float:
    return value.item()


def critic(d: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 1)).double()


def image_critic() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 1)
    ).double()


@pytest.mark.parametrize("shape", [(1,), (5,), (32, 7), (3, 8, 8), (2, 3, 4, 5)])
@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_a_linear_critic_pays_the_square_of_its_excess_whatever_the_samples(shape, norm):
    # Norms over the channel axis alone, or one norm for the whole batch, would depend on shape and batch size.
    real, fake = torch.randn(6, *shape).double(), torch.randn(6, *shape).double()
    f = linear(shape, norm)
    assert number(gradient_penalty(f, real, fake)) == pytest.approx((norm - 1) ** 2, abs=1e-12)
    assert number(gradient_penalty(f, real, fake, sided="one")) == pytest.approx(max(0, norm - 1) ** 2, abs=1e-12)
    assert torch.allclose(gradient_norms(f, real), torch.full((6,), norm).double())


def test_the_mean_is_taken_after_the_norm():
    # Slopes +2 and -2: their mean is 0, and a norm of the mean gradient would say 1 instead of (2 - 1)^2.
    def f(x):
        return 2 * x.abs().flatten(1).sum(1)

    points = torch.tensor([[3.0], [-3.0]])
    assert gradient_penalty(f, points, points).item() == pytest.approx(1)


def test_each_pair_has_one_epsilon_for_all_its_pixels_and_another_than_its_neighbour():
    real, fake = torch.ones(200, 3, 5, 4), torch.zeros(200, 3, 5, 4)
    mixed = interpolate(real, fake, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert (mixed == mixed[:, :1]).all()
    epsilon = mixed[:, 0]
    assert epsilon.unique().numel() > 190
    ordered = epsilon.sort().values
    distance = (ordered - (torch.arange(200) + 0.5) / 200).abs().max()  # Kolmogorov-Smirnov against uniform
    assert distance < 1.63 / math.sqrt(200)  # its 1 % point


def test_epsilon_weighs_the_real_sample():
    real, fake, epsilon = torch.randn(4, 2, 3), torch.randn(4, 2, 3), torch.tensor([0.0, 0.25, 0.5, 1.0])
    expected = torch.stack([e * x + (1 - e) * y for e, x, y in zip(epsilon, real, fake)])
    assert torch.allclose(interpolate(real, fake, epsilon=epsilon), expected)


def test_the_same_generator_gives_the_same_penalty_and_another_another():
    real, fake = torch.randn(8, 3).double(), torch.randn(8, 3).double()
    first, again, other = (
        number(gradient_penalty(critic(), real, fake, generator=torch.Generator().manual_seed(s))) for s in (0, 0, 1)
    )
    assert first == again != other


def test_the_penalty_is_the_slow_plain_definition():
    f, real, fake, epsilon = critic(), torch.randn(5, 3).double(), torch.randn(5, 3).double(), torch.rand(5).double()
    total = 0.0
    for x, y, e in zip(real, fake, epsilon):
        z = e * x + (1 - e) * y
        slope = [(f(z + h) - f(z - h)).item() / 2e-6 for h in 1e-6 * torch.eye(3).double()]
        total += (math.hypot(*slope) - 1) ** 2
    assert number(gradient_penalty(f, real, fake, epsilon=epsilon)) == pytest.approx(total / 5, rel=1e-7)


def test_the_order_of_the_samples_is_immaterial_when_epsilon_moves_with_them():
    real, fake, epsilon = torch.randn(7, 3).double(), torch.randn(7, 3).double(), torch.rand(7).double()
    order = torch.randperm(7)
    one = gradient_penalty(critic(), real, fake, epsilon=epsilon)
    two = gradient_penalty(critic(), real[order], fake[order], epsilon=epsilon[order])
    assert number(one) == pytest.approx(number(two), rel=1e-12)


@pytest.mark.parametrize("sided", ["one", "two"])
def test_the_second_order_gradient_reaches_the_weights(sided):
    # Finite differences in every weight: a penalty without its graph would pass a test of values and train nothing.
    f, real, fake, epsilon = critic(), torch.randn(4, 3).double(), torch.randn(4, 3).double(), torch.rand(4).double()
    with torch.no_grad():
        f[4].weight.mul_(8)  # slopes on both sides of 1
    names = [name for name, _ in f.named_parameters()]

    def penalty(*weights):
        g = lambda x: torch.func.functional_call(f, dict(zip(names, weights)), x)  # noqa: E731
        return gradient_penalty(g, real, fake, sided=sided, epsilon=epsilon)

    weights = tuple(p.detach().clone().requires_grad_() for p in f.parameters())
    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights, atol=1e-4)


def test_leaky_networks_have_the_same_penalty_and_gradient_as_torch_gives_them():
    # The short cut for ReLU against torch's own double backward.
    f, real, fake = image_critic(), torch.randn(5, 2, 8, 8).double(), torch.randn(5, 2, 8, 8).double()
    epsilon = torch.rand(5).double()
    ours = gradient_penalty(f, real, fake, epsilon=epsilon)
    z = (epsilon.view(-1, 1, 1, 1) * real + (1 - epsilon.view(-1, 1, 1, 1)) * fake).requires_grad_()
    (g,) = torch.autograd.grad(f(z).sum(), z, create_graph=True)
    plain = (g.flatten(1).norm(dim=1) - 1).square().mean()
    assert number(ours) == pytest.approx(number(plain), rel=1e-12)
    weights = [p for name, p in f.named_parameters() if "weight" in name]
    for mine, theirs in zip(torch.autograd.grad(ours, weights), torch.autograd.grad(plain, weights)):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("activate", [F.relu, torch.relu, torch.Tensor.relu, nn.ReLU(inplace=True), nn.LeakyReLU(0.1)])
def test_every_spelling_of_relu_takes_the_short_way(activate):
    # On the short way nothing depends on the biases: torch's own double backward would find a gradient of zeros.
    first = nn.Linear(3, 9)
    penalty = gradient_penalty(lambda x: activate(first(x)).sum(1), torch.randn(4, 3), torch.randn(4, 3))
    weight, bias = torch.autograd.grad(penalty, [first.weight, first.bias], allow_unused=True)
    assert weight.abs().sum() > 0
    assert bias is None


def test_a_flat_critic_has_a_finite_gradient():
    flat = nn.Linear(3, 1)
    nn.init.zeros_(flat.weight)
    penalty = gradient_penalty(flat, torch.randn(4, 3), torch.randn(4, 3))
    penalty.backward()
    assert number(penalty) == 1
    assert flat.weight.grad is not None
    assert flat.weight.grad.isfinite().all()


def test_one_side_forgives_gentle_slopes_and_two_sides_do_not():
    norms = torch.tensor([0.0, 0.5, 1.0, 2.0])
    assert float(penalize(norms, "two")) == pytest.approx((1 + 0.25 + 0 + 1) / 4)
    assert float(penalize(norms, "one")) == pytest.approx(1 / 4)


def test_no_gradient_flows_into_the_samples():
    fake = torch.randn(4, 3, requires_grad=True)
    gradient_penalty(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.randn(4, 3), fake).backward()
    assert fake.grad is None


def test_a_batch_of_one_is_enough():
    points = torch.randn(1, 4).double()
    assert number(gradient_penalty(linear((4,), 2.0), points, points)) == pytest.approx(1)


def test_under_bf16_autocast_the_penalty_is_that_of_float32_within_bf16():
    f = image_critic().float()
    real, fake, epsilon = torch.randn(6, 2, 8, 8), torch.randn(6, 2, 8, 8), torch.rand(6)
    full = gradient_penalty(f, real, fake, epsilon=epsilon)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradient_penalty(f, real, fake, epsilon=epsilon)
    assert half.dtype == torch.float32
    assert number(half) == pytest.approx(number(full), rel=0.02)
    weights = [p for name, p in f.named_parameters() if "weight" in name]
    for a, b in zip(torch.autograd.grad(half, weights), torch.autograd.grad(full, weights)):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999


def test_under_fp16_autocast_the_penalty_is_computed_in_float32():
    f, points = nn.Linear(4, 1), torch.randn(6, 4)
    with torch.no_grad():
        f.weight.fill_(1e5)  # past the largest float16
    with torch.autocast("cpu", torch.float16):
        assert number(gradient_penalty(f, points, points)) == pytest.approx((2e5 - 1) ** 2, rel=1e-5)


def test_float16_weights_are_refused():
    with pytest.raises(EarthworksError, match="overflow float16"):
        gradient_penalty(nn.Linear(4, 1).half(), torch.randn(6, 4).half(), torch.randn(6, 4).half())


def test_batch_normalization_is_refused_and_layer_normalization_is_not():
    points = torch.randn(6, 4)
    with pytest.raises(EarthworksError, match=r"BatchNorm1d '1' mixes the samples"):
        gradient_penalty(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), points, points)
    gradient_penalty(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1)), points, points)


@pytest.mark.parametrize(
    ("real", "fake", "named", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(5, 3), {}, r"two non-empty batches of one shape, got \(4, 3\) and \(5, 3\)"),
        (torch.zeros(0, 3), torch.zeros(0, 3), {}, "one shape"),
        (torch.zeros(4, 3), torch.zeros(4, 3), {"epsilon": torch.rand(4, 1)}, "one number per pair"),
        (torch.zeros(4, 3), torch.zeros(4, 3), {"sided": "three"}, "'three'"),
    ],
)
def test_what_is_no_pair_of_batches_is_refused_in_a_sentence(real, fake, named, message):
    with pytest.raises(EarthworksError, match=message):
        gradient_penalty(nn.Linear(3, 1), real, fake, **named)


def test_a_score_for_every_feature_is_refused():
    with pytest.raises(EarthworksError, match="one raw score per sample"):
        gradient_penalty(nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 3))


def test_clipping_bounds_every_weight_and_leaves_small_ones():
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.mul_(10)
        layer.bias.fill_(0.005)
    clip_weights(layer, 0.01)
    assert layer.weight.abs().max() <= 0.01
    assert (layer.bias == 0.005).all()
    with pytest.raises(EarthworksError, match="c = 0"):
        clip_weights(layer, 0)


def test_spectral_norms_become_one():
    torch.manual_seed(0)
    network = spectral_normalize(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 1)), num_iterations=5)
    for _ in range(20):  # the power iteration continues from pass to pass
        network(torch.randn(2, 6))
    for layer in (network[0], network[2]):
        assert number(torch.linalg.matrix_norm(layer.weight, 2)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (1, 7), (7, 1)])
def test_bjorck_finds_the_polar_factor(shape):
    torch.manual_seed(0)
    w = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(w, full_matrices=False)
    assert torch.allclose(bjorck(w, num_iterations=40), u @ v, atol=1e-9)


@given(st.integers(0, 10_000), st.integers(0, 20), st.floats(1e-3, 1e3))
def test_however_few_the_iterations_no_singular_value_passes_one(seed, iterations, scale):
    w = scale * torch.randn(6, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert torch.linalg.matrix_norm(bjorck(w, num_iterations=iterations), 2) <= 1 + 1e-12


def test_after_a_retraction_few_iterations_are_enough():
    torch.manual_seed(0)
    network = orthonormalize(nn.Sequential(nn.Linear(64, 64)), num_iterations=4)
    for _ in range(8):
        retract(network)
    original = network[0].parametrizations["weight"].original
    with torch.no_grad():
        original.add_(0.005 * torch.randn(64, 64).sign())  # a step of Adam
    values = torch.linalg.svdvals(network[0].weight)
    assert values.min() > 0.999
    assert values.max() <= 1 + 1e-6


def test_a_retraction_leaves_spectral_normalization_alone():
    network = spectral_normalize(nn.Sequential(nn.Linear(6, 6)))
    before = network[0].parametrizations["weight"].original.clone()
    retract(network)
    assert (network[0].parametrizations["weight"].original == before).all()


@pytest.mark.parametrize("size", [2, 4, None])
def test_sorting_keeps_what_it_is_given_and_the_norm_of_gradients(size):
    torch.manual_seed(0)
    x = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    y = GroupSort(size)(x)
    assert torch.equal(y.sort(dim=1).values, x.sort(dim=1).values)
    cotangent = torch.randn_like(y)
    (g,) = torch.autograd.grad(y, x, cotangent)
    assert torch.allclose(g.norm(dim=1), cotangent.norm(dim=1))
    z = torch.randn(10, 8, dtype=torch.float64)
    assert ((y - GroupSort(size)(z)).norm(dim=1) <= (x - z).norm(dim=1) + 1e-12).all()
    if size:
        with pytest.raises(EarthworksError, match="groups"):
            GroupSort(size)(torch.randn(3, 7))


def test_an_orthonormal_sorting_network_is_never_steeper_than_one_and_keeps_slope_one():
    torch.manual_seed(0)
    network = orthonormalize(
        nn.Sequential(nn.Linear(16, 16), GroupSort(), nn.Linear(16, 16), GroupSort(), nn.Linear(16, 1)),
        num_iterations=40,
    ).double()
    norms = gradient_norms(network, 3 * torch.randn(500, 16).double())
    assert torch.allclose(norms, torch.ones(500).double(), atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, -1.0])
def test_bounds_from_any_critic_hold(scale):
    from scipy.optimize import linear_sum_assignment

    random = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=random, dtype=torch.float64)
    y = torch.randn(40, 3, generator=random, dtype=torch.float64) + 0.7
    y[0] = x[0]  # a pair at distance 0 bounds no slope
    distances = torch.cdist(x, y)
    rows, columns = linear_sum_assignment(distances.numpy())
    exact = distances[rows, columns].mean()
    bounds = lower_bounds(scale * f_of(x), scale * f_of(y), x, y)
    assert bounds.by_slope <= exact + 1e-12
    assert bounds.by_c_transform <= exact + 1e-12


def f_of(x):
    return -x.sum(1) - x[:, 0].sin()


def test_an_optimal_critic_proves_the_distance_itself():
    # Contraction along rays: f = |x| is optimal for every subset of points, so both bounds are the distance.
    x = torch.randn(50, 4, dtype=torch.float64)
    y = 0.3 * x
    for scores in (x.norm(dim=1), y.norm(dim=1)), (5 * x.norm(dim=1), 5 * y.norm(dim=1)):
        bounds = lower_bounds(*scores, x, y)
        assert float(bounds.by_slope) == pytest.approx(float(0.7 * x.norm(dim=1).mean()), rel=1e-9)
    bounds = lower_bounds(x.norm(dim=1), y.norm(dim=1), x, y)
    assert float(bounds.by_c_transform) == pytest.approx(float(0.7 * x.norm(dim=1).mean()), rel=1e-9)
    assert float(bounds.max_slope) == pytest.approx(1)


def test_a_critic_that_is_lower_on_x_proves_nothing():
    x, y = torch.zeros(3, 1), torch.ones(3, 1)
    bounds = lower_bounds(torch.zeros(3), torch.ones(3), x, y)
    assert float(bounds.by_slope) == 0


def test_bounds_in_blocks_are_the_bounds_at_once(monkeypatch):
    from earthworks.transport.lipschitz import bounds as module

    x, y = torch.randn(37, 2), torch.randn(23, 2)
    at_once = lower_bounds(f_of(x), f_of(y), x, y)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 23 * 5)
    in_blocks = lower_bounds(f_of(x), f_of(y), x, y)
    for name in ("by_slope", "by_c_transform", "max_slope"):
        assert float(getattr(at_once, name)) == pytest.approx(float(getattr(in_blocks, name)), rel=1e-12)
    with pytest.raises(EarthworksError, match="one score per point"):
        lower_bounds(f_of(x)[:5], f_of(y), x, y)


def test_gradients_are_those_of_each_point():
    points = torch.randn(6, 2, 3, dtype=torch.float64)
    g = gradients(lambda x: x.square().flatten(1).sum(1), points)
    assert torch.allclose(g, 2 * points)
