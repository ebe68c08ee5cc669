import json
import math
import random

import pytest

from earthworks.runs import EarthworksError
from earthworks.training.guard import PATIENCE, SPIKE, WINDOW, Guard


def filled(seed: int = 0) -> tuple[Guard, list[float]]:
    """A guard that has seen a full window of losses around 3."""
    guard = Guard()
    losses = [random.Random(seed + i).gauss(3, 0.1) for i in range(WINDOW)]
    assert all(guard.admits(loss, 1.0) for loss in losses)
    return guard, losses


@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.inf), (3.0, math.nan), (-math.inf, 1.0)]
)
def test_what_is_not_finite_is_refused_and_counted_from_the_first_step(loss, norm):
    guard = Guard()
    assert not guard.admits(loss, norm)
    assert guard.admits(3.0, 1.0)
    assert (guard.skipped, guard.in_a_row) == (1, 0)


def test_a_spike_is_eight_standard_deviations_above_the_mean_of_the_window():
    guard, losses = filled()
    mean = math.fsum(losses) / WINDOW
    deviation = math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / (WINDOW - 1))
    assert guard.spikes(mean + 1.001 * SPIKE * deviation)
    assert not guard.spikes(mean + 0.999 * SPIKE * deviation)
    assert not guard.spikes(mean - 100 * deviation)  # a fall is welcome
    assert not guard.admits(30.0, 1.0)
    assert guard.skipped == 1


def test_before_the_window_is_full_any_finite_loss_is_admitted():
    guard = Guard()
    assert all(guard.admits(loss, 1.0) for loss in [3.0, 1e9, 3.0])


def test_losses_that_hardly_differ_make_no_spike_of_a_small_step_up():
    """A deviation of nothing would refuse for ever: it counts as a thousandth of the mean at least."""
    guard = Guard()
    assert all(guard.admits(2.0, 1.0) for _ in range(WINDOW))
    assert guard.admits(2.015, 1.0)
    assert not guard.admits(2.1, 1.0)


def test_a_refused_loss_does_not_enter_the_window():
    guard, losses = filled()
    for _ in range(PATIENCE - 1):
        assert not guard.admits(1000.0, 1.0)
    assert list(guard.losses) == losses
    assert guard.admits(3.0, 1.0)
    assert guard.in_a_row == 0


def test_refusals_in_a_row_end_the_run_as_work_that_failed_and_those_apart_do_not():
    guard = Guard()
    for _ in range(3 * PATIENCE):
        assert not guard.admits(math.nan, 1.0)
        assert guard.admits(1.0, 1.0)
    for _ in range(PATIENCE - 1):
        assert not guard.admits(1.0, math.inf)
    with pytest.raises(EarthworksError, match=f"{PATIENCE} consecutive steps .*loss nan, gradient norm 1\\b") as error:
        guard.admits(math.nan, 1.0)
    assert error.value.exit_code == 1
    assert guard.skipped == 4 * PATIENCE


def test_a_guard_restored_from_its_state_decides_as_the_first_would():
    guard, _ = filled()
    assert not guard.admits(math.nan, 1.0)
    restored = Guard()
    restored.load_state(json.loads(json.dumps(guard.state())))  # as it stands in a checkpoint
    assert restored.state() == guard.state()
    for loss in (3.1, 3.9, 30.0, 3.0, math.nan, *[3.0] * WINDOW, 3.01):
        assert restored.admits(loss, 1.0) == guard.admits(loss, 1.0)
    assert restored.state() == guard.state()
    for _ in range(PATIENCE - 2):
        restored.admits(math.nan, 1.0)
    half = Guard()
    half.load_state(json.loads(json.dumps(restored.state())))
    assert not half.admits(math.nan, 1.0)
    with pytest.raises(EarthworksError):  # the count continues where the stopped run left it
        half.admits(math.nan, 1.0)
