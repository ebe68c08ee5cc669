import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.report.numbers import flatten, known, setting, short, significant, with_interval


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (12_345, "12,345"),
        (999_499, "999,499"),
        (999_999, "1.00 M"),
        (3_412_992, "3.41 M"),
        (9_999_999, "10.0 M"),
        (43_720_448, "43.7 M"),
        (99_960_000, "100 M"),
        (417_000_000, "417 M"),
        (999_600_000, "1.00 B"),
        (279_697_162_240, "280 B"),
        (3e12, "3.00 T"),
    ],
)
def test_counts_have_three_digits_and_a_letter(count, text):
    assert short(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.4, "1,234"),
        (16.44, "16.4"),
        (1.826, "1.83"),
        (0.00312, "0.00312"),
        (1.2e-4, "1.20e-04"),
        (2e7, "2.00e+07"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert significant(value) == text


@given(st.floats(1e-12, 1e12))
def test_three_digits_are_within_half_a_percent(value):
    assert float(significant(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


def test_a_number_is_followed_by_its_interval_if_there_is_one():
    assert with_interval(1.8213, [1.7911, 1.8544]) == "1.82 [1.79, 1.85]"
    assert with_interval(1.8213, [1.7911, 1.8544], decimals=3) == "1.821 [1.791, 1.854]"
    for absent in (None, [], [math.nan, math.nan], [None, None]):
        assert with_interval(1.8213, absent) == "1.82"


def test_only_finite_numbers_are_known():
    assert [known(value) for value in (0, -1.5, math.nan, math.inf, None, "1", True, [1])] == [True, True] + [False] * 6


def test_settings_are_shown_as_they_would_be_typed():
    shown = [
        setting(value) for value in ("my text.txt", 1e-7, True, None, [1, 2], ["train", "--data", "my text.txt"], {})
    ]
    assert shown == ["my text.txt", "1e-07", "true", "null", "[1, 2]", "train --data 'my text.txt'", "{}"]


def test_nested_keys_are_joined_by_dots_in_order():
    nested = {"b": 1, "model": {"d_model": 2, "norm": {"eps": 3}, "none": {}}, "a": [4]}
    assert flatten(nested) == {"b": 1, "model.d_model": 2, "model.norm.eps": 3, "model.none": {}, "a": [4]}
    assert next(iter(flatten(nested))) == "b"
