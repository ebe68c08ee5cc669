"""Credit of options, by hand, and comparison of written answers."""

import random

import pytest

from earthworks.evaluation.tasks.answers import last_number, matches
from earthworks.evaluation.tasks.items import Item
from earthworks.evaluation.tasks.metrics import chance, credit, credits_of, majority
from earthworks.statistics import wilson_interval


def item(options, gold):
    return Item(0, contexts=["q"] * len(options), continuations=[" " + o for o in options], options=options, gold=gold)


# options, gold, log P(option | context), log P(option): credit by raw, per character, per byte, unconditional
BY_HAND = [
    (["a", "b"], 0, [-1.0, -2.0], [-1.0, -1.0], (1, 1, 1, 1)),
    (["a", "bbbb"], 1, [-1.0, -2.0], [-1.0, -1.0], (0, 1, 1, 0)),  # -1/1 against -2/4
    (["é", "bb"], 1, [-1.0, -1.5], [-1.0, -1.0], (0, 1, 0, 0)),  # é: one character, two bytes: -1 and -0.5
    (["a", "b"], 1, [-1.0, -2.0], [-1.0, -4.0], (0, 0, 0, 1)),  # the second gained most by the context
    (["a", "b"], 0, [-1.0, -1.0], [-2.0, -2.0], (0.5, 0.5, 0.5, 0.5)),
    (["a", "b", "c"], 2, [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], (1 / 3,) * 4),
    (["aa", "b"], 0, [-2.0, -1.0], [-1.0, -1.0], (0, 0.5, 0.5, 0)),  # -2/2 = -1/1
    (["a", "b", "c", "d"], 3, [-4.0, -3.0, -2.0, -1.0], [-9.0, -1.0, -1.0, -1.0], (1, 1, 1, 0)),
    (["abcd", "ab"], 0, [-2.0, -1.0], [-3.0, -1.0], (0, 0.5, 0.5, 1)),
    (["日本", "ab"], 0, [-3.0, -2.0], [-3.0, -2.0], (0, 0, 1, 0.5)),  # six bytes: -0.5 against -1
]


@pytest.mark.parametrize(("options", "gold", "given", "alone", "wanted"), BY_HAND)
def test_ten_items_by_hand(options, gold, given, alone, wanted):
    found = credits_of(item(options, gold), given, alone)
    rules = ("raw", "per_character", "per_byte", "unconditional")
    assert found == pytest.approx(dict(zip(rules, wanted)))


def test_shuffling_options_and_gold_together_changes_nothing():
    draw = random.Random(0)
    for options, gold, given, alone, _ in BY_HAND:
        order = list(range(len(options)))
        draw.shuffle(order)
        shuffled = credits_of(
            item([options[i] for i in order], order.index(gold)), [given[i] for i in order], [alone[i] for i in order]
        )
        assert shuffled == pytest.approx(credits_of(item(options, gold), given, alone))


def test_a_difference_that_is_no_rounding_is_no_tie():
    assert credit([-100.0, -100.0 - 1e-5], 1) == 0
    assert credit([-100.0, -100.0 - 1e-12], 1) == 0.5
    assert credit([float("-inf"), -1.0], 1) == 1


def test_chance_and_majority():
    items = [item(["a", "b"], 0), item(["a", "b"], 0), item(["a", "b", "c", "d"], 1)]
    assert chance(items) == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    assert majority(items) == pytest.approx(2 / 3)
    assert majority(items[:2]) is None  # by construction of the file: nothing to be learned from


@pytest.mark.parametrize(
    ("written", "accepted", "right"),
    [
        (" The  Beatles.", ["beatles"], True),
        ("Paris, France", ["Paris"], False),
        ("", ["the"], False),
        ("14 december 1972 utc", ["December 1972", "14 December 1972 UTC"], True),
    ],
)
def test_written_answers_are_compared_without_case_articles_and_punctuation(written, accepted, right):
    assert matches(written, accepted) is right


def test_the_last_number_counts():
    assert last_number("3 + 4 = 7, so 1,207.50.") == pytest.approx(1207.5)
    assert last_number("none") is None
    assert matches("The answer is 18.0 eggs", ["18"], "number")
    assert not matches("18 and then 19", ["18"], "number")


def test_wilson_interval_solves_its_equation_and_never_shrinks_to_a_point():
    z = 1.959963984540054
    for successes, n in ((0, 50), (50, 50), (7, 20), (2.5, 9)):
        low, high = wilson_interval(successes, n)
        for p in (low, high):
            inside = 0 < p < 1
            assert abs(successes / n - p) == pytest.approx(z * (p * (1 - p) / n) ** 0.5, abs=1e-12) or not inside
        assert 0 <= low < high <= 1
    assert wilson_interval(0, 50) == (0.0, pytest.approx(0.0713, abs=1e-4))
