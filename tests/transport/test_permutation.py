import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import normal

from earthworks.runs import EarthworksError
from earthworks.transport import permutation_test, sliced_wasserstein, wasserstein_1d


def means_apart(x, y):
    return (x.mean(0) - y.mean(0)).norm()


def test_of_400_pairs_from_one_distribution_a_test_at_5_percent_rejects_2_to_8_percent():
    rejected = 0
    for seed in range(400):
        x, y = normal(20, 2, 2 * seed), normal(15, 2, 2 * seed + 1).exp() * 0 + normal(15, 2, 2 * seed + 1)
        rejected += permutation_test(x, y, means_apart, num_permutations=99, seed=seed).p_value <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_clouds_a_unit_apart_are_always_told_apart():
    # d = 2, n = 200: power 1.
    for seed in range(20):
        x, y = normal(200, 2, 2 * seed), normal(200, 2, 2 * seed + 1)
        assert permutation_test(x, y + torch.tensor([1.0, 0.0]), num_permutations=40, seed=seed).p_value == 1 / 41


def test_the_p_value_nears_that_of_all_divisions():
    x, y = torch.tensor([0.1, 0.9, 2.0, 2.5]).double(), torch.tensor([1.7, 3.0, 3.1]).double()
    pool, value = torch.cat([x, y]), float(wasserstein_1d(x, y))
    reached = divisions = 0
    for chosen in itertools.combinations(range(7), 4):
        rest = [k for k in range(7) if k not in chosen]
        reached += float(wasserstein_1d(pool[list(chosen)], pool[rest])) >= value - 1e-12
        divisions += 1
    test = permutation_test(x, y, wasserstein_1d, num_permutations=3000)
    assert test.p_value == pytest.approx(reached / divisions, abs=0.025)
    assert test.value == value
    assert len(test.null) == 3000


@settings(max_examples=50)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 30))
def test_no_p_value_is_zero_and_one_point_everywhere_gives_one(n, m, num_permutations):
    test = permutation_test(torch.ones(n, 2), torch.ones(m, 2), num_permutations=num_permutations)
    assert test.p_value == 1
    far = permutation_test(torch.zeros(n), torch.arange(m) + 9.0, num_permutations=num_permutations)
    assert 1 / (1 + num_permutations) <= far.p_value <= 1


def test_a_statistic_may_give_a_number_a_tensor_or_a_distance():
    x, y = normal(10, 2), normal(12, 2, 1)
    answers = [
        permutation_test(x, y, statistic, num_permutations=20)
        for statistic in (
            None,
            lambda x, y: sliced_wasserstein(x, y, p=1),
            lambda x, y: sliced_wasserstein(x, y, p=1).value,
            lambda x, y: float(sliced_wasserstein(x, y, p=1)),
        )
    ]
    assert len({(each.value, each.p_value, tuple(each.null.tolist())) for each in answers}) == 1


def test_the_seed_decides_the_divisions():
    x, y = normal(10, 2), normal(12, 2, 1)
    first, again, other = (permutation_test(x, y, means_apart, seed=seed).null for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_permutations_are_refused():
    with pytest.raises(EarthworksError, match="num_permutations is 0"):
        permutation_test(normal(3, 2), normal(3, 2), means_apart, num_permutations=0)
