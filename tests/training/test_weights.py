"""Stochastic rounding is unbiased and leaves alone what bf16 holds; a float32 copy loses nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from earthworks.runs import EarthworksError
from earthworks.training.optimizer import Optimizer
from earthworks.training.weights import MasterWeights, StochasticWeights, Weights, stochastic_round

CPU = torch.device("cpu")
LARGEST = 255 * 2.0**120  # eight significant bits and the largest exponent
SHAPES = {"blocks.0.up.weight": (12, 5), "blocks.0.down.weight": (5, 12), "embedding.weight": (7, 5), "gain": (5,)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_bits(*bits: int) -> Tensor:
    return torch.tensor([b - (1 << 32) if b >> 31 else b for b in bits], dtype=torch.int32).view(torch.float32)


def neighbours(x: float) -> tuple[float, float]:
    """The bf16 numbers towards zero and away from it, by arithmetic: 8 significant bits, no exponent below 2^-126."""
    unit = 2.0 ** (max(math.frexp(x)[1], -125) - 8)
    toward = math.trunc(x / unit) * unit
    return toward, toward + math.copysign(unit, x)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "magnitude",
    [
        *(1 + 2**-9, 1 + 2**-7 - 2**-12, 2 - 2**-12, math.pi, 1e-4),
        *(2.0**-126 * (1 + 2**-8), 2.0**-126 - 2.0**-135, 1e-40, 3e-41),  # at the smallest exponent and subnormal
        *(LARGEST - 2.0**118, 2.5e38),  # just below the largest, where a carry would make infinity
    ],
)
def test_each_neighbour_is_taken_as_often_as_makes_the_mean_right(sign, magnitude):
    """Of n roundings a binomial number go away from zero: within five standard deviations of n times their share."""
    x = torch.tensor(sign * magnitude, dtype=torch.float32)
    n = 40_001
    rounded = stochastic_round(x.expand(n), generator()).double()
    toward, away = neighbours(float(x))
    share = (float(x) - toward) / (away - toward)
    assert 0 < share < 1
    assert set(rounded.tolist()) == {toward, away}
    k = int((rounded == away).sum())
    assert abs(k - n * share) < 5 * math.sqrt(n * share * (1 - share))
    error = abs(float(rounded.mean()) - float(x))
    assert error < 5 * abs(away - toward) * math.sqrt(share * (1 - share) / n)


def test_the_four_numbers_of_one_random_word_are_all_fair_and_do_not_go_together():
    x = torch.full((4 * 20_000,), 1 + 2**-8)  # halfway
    up = (stochastic_round(x, generator()) > 1).double().view(-1, 4)
    assert (up.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(20_000)
    assert (torch.corrcoef(up.T) - torch.eye(4)).abs().max() < 5 / math.sqrt(20_000)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 2**32))
@settings(max_examples=100)
def test_a_number_becomes_one_of_its_two_neighbours(x, seed):
    rounded = float(stochastic_round(torch.tensor([x], dtype=torch.float32), generator(seed)))
    if abs(x) <= LARGEST:
        assert rounded in neighbours(x) if x else rounded == 0
    else:
        assert abs(rounded) >= LARGEST


def test_what_bf16_holds_never_moves():
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    every = every[~every.isnan()]  # infinities, both zeros and all subnormals are among the rest
    for seed in range(20):
        rounded = stochastic_round(every.float(), generator(seed))
        assert torch.equal(rounded.view(torch.int16), every.view(torch.int16))


def test_beyond_the_largest_number_rounding_is_torchs_and_nan_stays():
    beyond = of_bits(0x7F7F0001, 0x7F7F7FFF, 0x7F7F8001, 0x7F7FFFFF)
    beyond = torch.cat([beyond, -beyond])
    nan = of_bits(0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF)
    for seed in range(20):
        assert torch.equal(stochastic_round(beyond, generator(seed)), beyond.bfloat16())
        assert stochastic_round(nan, generator(seed)).isnan().all()


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 7), ()])
def test_any_shape_and_layout_is_rounded_element_by_element(shape):
    x = torch.randn(shape, generator=generator(1)).mT if len(shape) > 1 else torch.randn(shape, generator=generator(1))
    rounded = stochastic_round(x, generator())
    assert rounded.shape == x.shape
    assert ((rounded.float() - x).abs() <= 2**-7 * x.abs()).all()


def make(kind: str, weights: Weights, rate: float = 0.02) -> tuple[dict[str, Tensor], Optimizer]:
    random = generator(5)
    parameters = {name: torch.randn(shape, generator=random).requires_grad_() for name, shape in SHAPES.items()}
    optimizer = Optimizer(kind, parameters.items(), learning_rate=rate, weight_decay=0.1, weights=weights)  # pyright: ignore
    return parameters, optimizer


def give_gradients(step: int, parameters: dict[str, Tensor]) -> None:
    random = generator(1000 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=random)


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_a_master_moves_as_float32_weights_do_and_the_weights_are_the_nearest_to_it(kind):
    exact, reference = make(kind, Weights())
    masters = MasterWeights()
    working, optimizer = make(kind, masters)
    for step in range(6):
        give_gradients(step, exact)
        give_gradients(step, working)
        reference.step(0.5)
        optimizer.step(0.5)
        for name in SHAPES:
            assert torch.equal(masters.state()[f"{name}/master"], exact[name])
            assert working[name].dtype == torch.bfloat16
            assert torch.equal(working[name], exact[name].bfloat16())


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
def test_an_update_rounded_by_chance_is_right_on_average(kind):
    """From weights that bf16 holds, one update by 400 generators: the mean is within five standard errors of float32's,
    whose size is known from the two neighbours."""
    exact, reference = make(kind, Weights())
    with torch.no_grad():
        for parameter in exact.values():
            parameter.copy_(parameter.bfloat16())
    give_gradients(0, exact)
    reference.step(1.0)
    total = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    n = 400
    for seed in range(n):
        working, optimizer = make(kind, StochasticWeights(seed, CPU))
        give_gradients(0, working)
        optimizer.step(1.0)
        for name in SHAPES:
            total[name] += working[name].detach().double()
    for name in SHAPES:
        for mean, x in zip((total[name] / n).flatten().tolist(), exact[name].flatten().tolist()):
            toward, away = neighbours(x)
            share = (x - toward) / (away - toward)
            deviation = abs(away - toward) * math.sqrt(max(share * (1 - share), 1 / n) / n)
            assert abs(mean - x) < 5 * deviation


def test_updates_below_the_last_bit_are_lost_by_the_nearest_and_kept_by_chance():
    """100 updates of -1e-4 from 1, whose bf16 neighbour below is 1 - 2^-8: 0.99, or still 1."""
    parameter = torch.ones(4096, requires_grad=True)
    optimizer = Optimizer("adam", [("x", parameter)], learning_rate=1e-4, weights=StochasticWeights(0, CPU))
    nearest = torch.ones(4096, dtype=torch.bfloat16)
    for _ in range(100):
        parameter.grad = torch.ones(4096)
        optimizer.step(1.0)
        nearest -= 1e-4
    assert nearest.eq(1).all()
    values = parameter.detach().double()
    # a step of 2^-8 with probability p has variance 2^-16 p (1 - p); 100 of them, over 4,096 weights
    deviation = 2**-8 * math.sqrt(100 * (1e-4 * 2**8) / 4096)
    assert abs(float(values.mean()) - 0.99) < 5 * deviation
    assert values.std() > 0


@pytest.mark.parametrize("weights", [MasterWeights(), StochasticWeights(0, CPU)])
def test_gradients_of_bf16_weights_add_up_in_float32(weights):
    """In bf16 the sum of ones stops at 256."""
    parameter = torch.ones(3, requires_grad=True)
    Optimizer("adam", [("x", parameter)], learning_rate=1, weights=weights)
    for _ in range(300):
        (parameter * 1).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [300.0] * 3


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("weights", [MasterWeights, lambda: StochasticWeights(3, CPU)])
def test_an_optimizer_of_bf16_weights_resumes_to_the_bit(kind, weights):
    whole, first = make(kind, weights())
    for step in range(3):
        give_gradients(step, whole)
        first.step(1.0)
    broken, second = make(kind, weights())
    second.load_state({name: value.clone() for name, value in first.state().items()})
    with torch.no_grad():
        for name in SHAPES:
            broken[name].copy_(whole[name])
    for step in range(3, 6):
        for parameters, optimizer in ((whole, first), (broken, second)):
            give_gradients(step, parameters)
            optimizer.step(0.5)
        assert all(torch.equal(whole[name], broken[name]) for name in SHAPES)
    moments = [value for name, value in first.state().items() if name.endswith(("exp_avg", "exp_avg_sq", "buffer"))]
    assert moments
    assert all(value.dtype == torch.float32 for value in moments)


@pytest.mark.parametrize(
    ("saved", "loading", "missing"),
    [
        (Weights, MasterWeights, "no float32 copy"),
        (Weights, lambda: StochasticWeights(0, CPU), "no generator"),
        (MasterWeights, Weights, "the first is blocks.0.down.weight/master"),
    ],
)
def test_the_state_of_another_precision_is_one_sentence(saved, loading, missing):
    parameters, optimizer = make("adam", saved())
    give_gradients(0, parameters)
    optimizer.step(1.0)
    with pytest.raises(EarthworksError, match=missing):
        make("adam", loading())[1].load_state(optimizer.state())
