import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from earthworks.runs import EarthworksError
from earthworks.transport.divergences.f_divergences import jensen_shannon, kullback_leibler, total_variation

DIVERGENCES = (jensen_shannon, kullback_leibler, total_variation)


def histogram(points: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Shares of the rows of `support` among `points`."""
    return (points[:, None] == support).all(2).double().mean(0)


@pytest.mark.parametrize("theta", [1e-6, 0.5, 100.0])
def test_parallel_lines_are_log_2_apart_however_near(theta):
    """Example 1 of the WGAN paper, on 200 points of each line: JS = log 2, KL = infinity both ways, TV = 1."""
    z = torch.linspace(0, 1, 200, dtype=torch.float64)
    line, moved = torch.stack([0 * z, z], 1), torch.stack([0 * z + theta, z], 1)
    support = torch.cat([line, moved])
    p, q = histogram(line, support), histogram(moved, support)
    assert float(jensen_shannon(p, q)) == pytest.approx(math.log(2), abs=1e-15)
    assert float(kullback_leibler(p, q)) == math.inf
    assert float(kullback_leibler(q, p)) == math.inf
    assert float(total_variation(p, q)) == pytest.approx(1, abs=1e-15)


def test_lines_that_coincide_are_at_zero():
    p = torch.full((200,), 1 / 200, dtype=torch.float64)
    assert [float(divergence(p, p)) for divergence in DIVERGENCES] == [0, 0, 0]


@pytest.mark.parametrize("shift", [0.25, 0.5, 0.75])
def test_uniforms_shifted_by_a_are_a_apart_in_variation_and_a_log_2_in_jensen_shannon(shift):
    # U[0, 1] and U[a, 1 + a] on bins of width 1/8
    edges = torch.arange(0, 2, 1 / 8, dtype=torch.float64)
    p, q = ((edges >= low) & (edges < low + 1) for low in (0.0, shift))
    p, q = p.double() / 8, q.double() / 8
    assert float(total_variation(p, q)) == pytest.approx(shift, abs=1e-15)
    assert float(jensen_shannon(p, q)) == pytest.approx(shift * math.log(2), abs=1e-15)
    assert float(kullback_leibler(p, q)) == math.inf


def test_bernoulli_by_hand():
    p, q = torch.tensor([0.75, 0.25]).double(), torch.tensor([0.5, 0.5]).double()
    assert float(kullback_leibler(p, q)) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-15)
    assert float(kullback_leibler(q, p)) == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2), abs=1e-15)
    assert float(total_variation(p, q)) == 0.25
    mixture = torch.tensor([0.625, 0.375]).double()
    halves = [float(kullback_leibler(each, mixture)) for each in (p, q)]
    assert float(jensen_shannon(p, q)) == pytest.approx(sum(halves) / 2, abs=1e-15)


def test_the_optimal_discriminator_attains_twice_jensen_shannon_minus_log_4():
    """Goodfellow et al. 2014, theorem 1: max_D E_p log D + E_q log(1 - D) = 2 JS - 2 log 2 at D = p / (p + q)."""
    p, q = torch.rand(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = p / p.sum(), q / q.sum()
    discriminator = p / (p + q)
    value = (p * discriminator.log() + q * (1 - discriminator).log()).sum()
    assert float(value) == pytest.approx(2 * float(jensen_shannon(p, q)) - 2 * math.log(2), abs=1e-14)


def test_bins_that_one_side_leaves_empty_count_nothing_to_its_entropy():
    p, q = torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([0.25, 0.75, 0.0]).double()
    assert float(kullback_leibler(p, q)) == pytest.approx(math.log(4), abs=1e-15)
    assert float(kullback_leibler(q, p)) == math.inf


weights = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12).filter(
    lambda pairs: all(map(sum, zip(*pairs)))
)


@given(weights)
def test_bounds_symmetry_and_pinsker(pairs):
    p, q = (torch.tensor(counts).double() / sum(counts) for counts in zip(*pairs))
    js, kl, tv = (float(divergence(p, q)) for divergence in DIVERGENCES)
    assert -1e-15 <= js <= math.log(2) + 1e-15
    assert 0 <= tv <= 1 + 1e-15
    assert js == pytest.approx(float(jensen_shannon(q, p)), abs=1e-15)
    assert tv == pytest.approx(float(total_variation(q, p)), abs=1e-15)
    assert kl >= 2 * tv**2 - 1e-14  # Pinsker
    assert tv**2 / 2 - 1e-14 <= js <= tv * math.log(2) + 1e-14  # Lin 1991


@given(weights)
def test_merging_bins_brings_distributions_no_further_apart(pairs):
    p, q = (torch.tensor(counts).double() / sum(counts) for counts in zip(*pairs))
    merged_p, merged_q = (torch.stack([each[::2].sum(), each[1::2].sum()]) for each in (p, q))
    for divergence in DIVERGENCES:
        assert float(divergence(merged_p, merged_q)) <= float(divergence(p, q)) + 1e-14


def test_gradients_agree_with_finite_differences():
    logits = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for divergence in DIVERGENCES:

        def value(logits: torch.Tensor, divergence=divergence) -> torch.Tensor:
            return divergence(*torch.softmax(logits, 1)).value

        assert torch.autograd.gradcheck(value, (logits,))


def test_empty_bins_do_not_spoil_the_gradient():
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]).double(), torch.tensor([0.2, 0.0, 0.8, 0.0]).double().requires_grad_()
    jensen_shannon(p, q).value.backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


@pytest.mark.parametrize(
    ("p", "q", "sentence"),
    [
        ([0.5, 0.5], [1.0], "same bins"),
        ([], [], "same bins"),
        ([0.5, 0.6], [0.5, 0.5], "p sums to 1.1, expected 1: divide counts by their sum"),
        ([0.5, 0.5], [1.5, -0.5], "q has negative or NaN"),
        ([0.5, math.nan], [0.5, 0.5], "p has negative or NaN"),
    ],
)
def test_what_is_no_pair_of_histograms_is_one_sentence(p, q, sentence):
    for divergence in DIVERGENCES:
        with pytest.raises(EarthworksError, match=sentence):
            divergence(torch.tensor(p), torch.tensor(q))
