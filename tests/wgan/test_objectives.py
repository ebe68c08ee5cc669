"""Losses of critic and generator against closed forms."""

import math

import pytest
import torch

from earthworks.wgan.objectives import (
    OBJECTIVES,
    critic_loss,
    discriminator_loss,
    generator_loss,
    minimax_loss,
    non_saturating_loss,
)


def slope(loss, score: float) -> float:
    scores = torch.tensor([score], dtype=torch.float64, requires_grad=True)
    loss(scores).backward()
    return scores.grad.item()


def test_losses_are_those_of_the_logarithms_of_the_sigmoid():
    real, fake = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    assert discriminator_loss(real, fake).item() == pytest.approx(
        -(d_real.log().mean() + (1 - d_fake).log().mean()).item()
    )
    assert minimax_loss(fake).item() == pytest.approx((1 - d_fake).log().mean().item())
    assert non_saturating_loss(fake).item() == pytest.approx(-d_fake.log().mean().item())


def test_scores_at_which_a_sigmoid_is_0_or_1_have_exact_losses():
    sure, wrong = torch.tensor([1000.0]), torch.tensor([-1000.0])
    assert discriminator_loss(sure, wrong) == 0
    assert discriminator_loss(wrong, sure) == 2000
    assert minimax_loss(sure) == -1000
    assert non_saturating_loss(wrong) == 1000


def test_the_optimal_discriminator_reaches_2_log_2_minus_twice_jensen_shannon():
    p, q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    m = (p + q) / 2
    jensen_shannon = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    best = (p / q).log()  # D = p / (p + q)
    on_real, on_fake = best.repeat_interleave((10 * p).long()), best.repeat_interleave((10 * q).long())
    assert discriminator_loss(on_real, on_fake).item() == pytest.approx(2 * math.log(2) - 2 * jensen_shannon.item())


def test_a_discriminator_that_knows_nothing_has_loss_2_log_2():
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(2 * math.log(2))


def test_where_the_discriminator_is_sure_the_minimax_gradient_vanishes_and_no_other():
    for score in (-30.0, -3.0, 0.0, 3.0):
        assert slope(minimax_loss, score) == pytest.approx(-1 / (1 + math.exp(-score)), rel=1e-9)
        assert slope(non_saturating_loss, score) == pytest.approx(-1 / (1 + math.exp(score)), rel=1e-9)
        assert slope(generator_loss, score) == -1
    assert abs(slope(minimax_loss, -30.0)) < 1e-12


def test_a_constant_added_to_the_critic_changes_no_gradient_but_the_printed_generator_loss():
    real, fake = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert critic_loss(real + 7, fake + 7).item() == pytest.approx(critic_loss(real, fake).item())
    assert generator_loss(fake + 7).item() == pytest.approx(generator_loss(fake).item() - 7)


def test_the_wasserstein_critics_loss_is_minus_its_gap():
    assert critic_loss(torch.tensor([3.0, 5.0]), torch.tensor([1.0])) == -3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_critic_is_pulled_up_on_real_and_down_on_generated_and_the_generator_up(objective):
    losses = OBJECTIVES[objective]
    real, fake = torch.randn(2, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    on_real, on_fake = torch.autograd.grad(losses.critic(real, fake), (real, fake))
    assert (on_real < 0).all()
    assert (on_fake > 0).all()
    assert (torch.autograd.grad(losses.generator(fake), fake)[0] < 0).all()


def test_only_the_penalised_objectives_are_penalised_and_only_clip_clips():
    assert {name: losses.penalty for name, losses in OBJECTIVES.items() if losses.penalty} == {"gp": "two", "lp": "one"}
    assert [name for name, losses in OBJECTIVES.items() if losses.clips] == ["clip"]
