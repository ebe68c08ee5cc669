import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.runs import EarthworksError
from earthworks.training.schedule import BatchRamp, Schedule

PEAK = 4e-5  # of the paper's 280B


def gopher(max_steps: int = 11_500, peak: float = PEAK) -> Schedule:
    return Schedule(shape="gopher", max_steps=max_steps, peak=peak, warmup_steps=1500, final_share=0.1)


def linear(max_steps: int, warmup_steps: int, final_share: float) -> Schedule:
    return Schedule(shape="linear", max_steps=max_steps, peak=1.0, warmup_steps=warmup_steps, final_share=final_share)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-7),
        (750, (1e-7 + PEAK) / 2),  # halfway up
        (1500, PEAK),
        (4000, 0.1 * PEAK + 0.45 * PEAK * (1 + math.sqrt(0.5))),  # cos(pi / 4)
        (6500, 0.55 * PEAK),  # halfway down: cos(pi / 2) = 0
        (9000, 0.1 * PEAK + 0.45 * PEAK * (1 - math.sqrt(0.5))),
        (11_500, 0.1 * PEAK),
        (11_501, 0.1 * PEAK),
        (10**9, 0.1 * PEAK),
    ],
)
def test_gophers_rate_at_its_exact_points(step, rate):
    assert PEAK * gopher().factor(step) == pytest.approx(rate, rel=1e-12)


@given(st.integers(1, 10**6), st.floats(1e-6, 1), st.integers(0, 2 * 10**6))
def test_gophers_rate_is_the_papers_formula(max_steps, peak, step):
    if step < 1500:
        expected = 1e-7 + (peak - 1e-7) * step / 1500
    else:
        p = min(1, (step - 1500) / max(1, max_steps - 1500))
        expected = 0.1 * peak + 0.45 * peak * (1 + math.cos(math.pi * p))
    assert peak * gopher(max_steps, peak).factor(step) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.2), (1, 0.4), (3, 0.8), (4, 1.0), (54, 0.51), (104, 0.02), (105, 0.02), (10**9, 0.02)],
)
def test_the_linear_rate_at_its_exact_points(step, factor):
    assert linear(104, 4, 0.02).factor(step) == pytest.approx(factor, rel=1e-12)


@given(st.integers(1, 500), st.integers(0, 600), st.floats(0, 1))
def test_the_linear_rate_never_stands_still_at_zero_and_turns_once(max_steps, warmup, final_share):
    factors = [linear(max_steps, warmup, final_share).factor(step) for step in range(max_steps + 2)]
    assert factors[0] > 0
    rises = [after > before for before, after in itertools.pairwise(factors)]
    assert rises == sorted(rises, reverse=True)  # up, then down or level
    assert max(factors) <= 1
    if warmup < max_steps:
        assert factors[max_steps] == factors[max_steps + 1] == pytest.approx(final_share)


def test_a_schedule_that_no_run_can_have_is_one_sentence():
    with pytest.raises(EarthworksError, match="schedule is 'cosine'; it must be one of gopher, linear"):
        Schedule(shape="cosine", max_steps=1, peak=1, warmup_steps=0, final_share=0)  # pyright: ignore
    with pytest.raises(EarthworksError, match="max_steps is 0"):
        linear(0, 0, 0)


@given(st.integers(1, 64), st.none() | st.integers(1, 64), st.integers(0, 30), st.integers(0, 60))
def test_what_came_before_a_step_is_the_sum_of_the_steps(batch, first, ramp_step, step):
    ramp = BatchRamp(batch=batch, first=first, ramp_step=ramp_step)
    assert ramp.before(step) == sum(ramp.size(each) for each in range(step))


def test_the_batch_changes_at_the_ramp_step():
    ramp = BatchRamp(batch=6, first=3, ramp_step=5)
    assert [ramp.size(step) for step in range(7)] == [3, 3, 3, 3, 3, 6, 6]
    assert {BatchRamp(batch=6).size(step) for step in range(7)} == {6}
