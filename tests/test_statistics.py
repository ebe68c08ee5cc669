import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks import statistics
from earthworks.statistics import bootstrap_ratio, holm, sign_flip_test


def test_the_interval_agrees_with_the_normal_approximation():
    # R = mean(a) / mean(b); delta method: var R = var(a - R b) / (n mean(b)^2).
    random = np.random.default_rng(0)
    n = 2000
    b = random.uniform(500, 1500, n)
    a = b * random.normal(1.3, 0.4, n)
    ratio = a.sum() / b.sum()
    error = (a - ratio * b).std() / math.sqrt(n) / b.mean()
    low, high = bootstrap_ratio(a, b, num_resamples=20_000)
    assert low == pytest.approx(ratio - 1.96 * error, abs=0.06 * error)
    assert high == pytest.approx(ratio + 1.96 * error, abs=0.06 * error)
    low, high = bootstrap_ratio(a, b, num_resamples=20_000, level=0.68)
    assert high - low == pytest.approx(2 * 0.9945 * error, rel=0.03)


def test_nineteen_of_twenty_intervals_hold_the_true_ratio():
    random = np.random.default_rng(1)
    held = 0
    for trial in range(400):
        b = random.exponential(1000, 60) + 100  # long and short documents
        a = b * (2 + 0.5 * random.standard_normal(60))
        low, high = bootstrap_ratio(a, b, num_resamples=400, seed=trial)
        held += low <= 2 <= high
    assert 0.90 <= held / 400 <= 0.975


def test_long_documents_weigh_more():
    # One document of 10^6 bytes at 1 nat a byte among 50 of 10 bytes at 9: whenever it is drawn, the ratio is 1.
    low, _ = bootstrap_ratio([1e6] + [90.0] * 50, [1e6] + [10.0] * 50)
    assert low == pytest.approx(1, abs=0.01)


def test_documents_that_are_all_alike_leave_no_doubt():
    assert bootstrap_ratio([3.0] * 40, [2.0] * 40) == (1.5, 1.5)


@given(
    scale=st.floats(1e-3, 1e3),
    units=st.lists(st.tuples(st.floats(0, 100), st.floats(1, 100)), min_size=2, max_size=12),
)
def test_scaling_the_numerators_scales_the_interval(scale, units):
    a, b = np.array(units).T
    expected = scale * np.array(bootstrap_ratio(a, b, num_resamples=50))
    assert np.allclose(bootstrap_ratio(scale * a, b, num_resamples=50), expected, rtol=1e-9, atol=1e-12)


def test_the_interval_lies_between_the_extreme_units():
    low, high = bootstrap_ratio([1.0, 5.0, 2.0], [1.0, 1.0, 1.0], num_resamples=5000, level=0.999)
    assert (low, high) == (1, 5)  # 1/27 of the resamples are one unit three times: the interval reaches both ends


def test_one_document_has_no_interval():
    low, high = bootstrap_ratio([1.0], [2.0])
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    a = np.random.default_rng(0).normal(2, 1, 30)
    first = bootstrap_ratio(a, np.ones(30), seed=3)
    assert first == bootstrap_ratio(a, np.ones(30), seed=3)
    assert first != bootstrap_ratio(a, np.ones(30), seed=4)


def test_drawing_in_many_blocks_is_drawing_enough(monkeypatch):
    # With blocks of 7 rows, every one of 1,000 ratios must be filled: an unfilled one would be garbage.
    monkeypatch.setattr(statistics, "BLOCK", 7 * 50)
    a = np.random.default_rng(0).normal(2, 0.1, 50)
    low, high = bootstrap_ratio(a, np.ones(50), num_resamples=1000)
    assert low == pytest.approx(a.mean() - 1.96 * a.std() / math.sqrt(50), abs=0.008)
    assert high == pytest.approx(a.mean() + 1.96 * a.std() / math.sqrt(50), abs=0.008)


@pytest.mark.parametrize(
    ("numerators", "denominators"), [([], []), ([1.0, 2.0], [1.0]), ([1.0, 2.0], [1.0, 0.0]), ([[1.0]], [[1.0]])]
)
def test_what_is_no_list_of_ratios_is_refused(numerators, denominators):
    with pytest.raises(ValueError, match=r"equally long|positive"):
        bootstrap_ratio(numerators, denominators)


# Sign flips and Holm


def every_sign(differences: list[float]) -> float:
    """The exact p-value: all 2^n signs."""
    reached = [
        abs(sum(sign * each for sign, each in zip(signs, differences))) >= abs(sum(differences)) - 1e-9
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(reached) / len(reached)


@pytest.mark.parametrize("differences", [[1.0], [1, 1, 1, 1], [3, -1, 0.5, 2, 2], [0, 0, 1], [1, -1], [0.1, 0.2, -0.3]])
def test_the_sign_flip_test_counts_signs_that_reach_the_sum(differences):
    assert sign_flip_test(differences) == pytest.approx(every_sign(differences), abs=0.02)


def test_no_difference_at_all_has_p_one():
    assert sign_flip_test([0.0] * 50) == 1


def test_sign_flips_reject_one_in_twenty_where_nothing_differs():
    random = np.random.default_rng(0)
    p = np.array([sign_flip_test(random.standard_t(2, size=30), num_permutations=199) for _ in range(400)])
    assert abs(np.mean(p <= 0.05) - 0.05) <= 4 * np.sqrt(0.05 * 0.95 / 400)


def test_holms_worked_example():
    """0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1 made to ascend."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_holm_errs_once_in_twenty_families_at_most():
    p = np.random.default_rng(1).random((2000, 10))
    assert np.mean([min(holm(row)) <= 0.05 for row in p]) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2000)
