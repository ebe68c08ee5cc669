"""What the spans mark adds up to the rule's value."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rules import ATOMS, EXAMPLES, TEXTS, kernel

from earthworks.corpus.rules.quality import bare
from earthworks.corpus.rules.repetition import REPETITION_LIMITS
from earthworks.corpus.rules.spans import RULES, counted_spans
from earthworks.corpus.rules.text_units import characters, lines, paragraphs
from earthworks.runs import EarthworksError


def value_from_spans(text: str, rule: str) -> float:
    marked = [text[start:end] for start, end in counted_spans(text, rule)]
    words, size = len(text.split()), characters(text)
    if rule in ("hash_ratio", "ellipsis_ratio"):
        return len(marked) / words if words else 0
    if rule in ("bullet_lines", "ellipsis_lines", "dup_line"):
        return len(marked) / len(lines(text)) if words else 0
    if rule == "dup_para":
        return len(marked) / len(paragraphs(text)) if words else 0
    if rule == "alpha_words":
        return (words - len(marked)) / words if words else 0
    if rule == "stop_words":
        return len(set(map(bare, marked)))
    return sum(map(characters, marked)) / size if size else 0


@given(
    st.one_of(TEXTS, st.lists(st.one_of(ATOMS, st.sampled_from(["\n", "\r\n", " ", "..."])), max_size=40).map("".join))
)
def test_spans_give_back_the_value_of_every_rule(text):
    found = kernel(text)
    for rule in RULES:
        marked = counted_spans(text, rule)
        assert all(0 <= start < end <= len(text) for start, end in marked)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(marked))
        if rule in ("words", "mean_word_length"):
            assert marked == []
        else:
            assert value_from_spans(text, rule) == found[rule]


@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_examples_are_marked(example):
    text = EXAMPLES[example][0]
    found = kernel(text)
    assert {rule: value_from_spans(text, rule) for rule in REPETITION_LIMITS} == {
        rule: found[rule] for rule in REPETITION_LIMITS
    }


def test_what_is_marked_where():
    text = "\u2022 The cat\n\n* 12 ...\nthe cat\r\n \u2022 The cat \n"

    def marked(rule: str) -> list[str]:
        return [text[start:end] for start, end in counted_spans(text, rule)]

    assert marked("bullet_lines") == ["\u2022", "*", "\u2022"]
    assert marked("ellipsis_lines") == ["..."]
    assert marked("alpha_words") == ["\u2022", "*", "12", "...", "\u2022"]
    assert marked("stop_words") == ["The", "the", "The"]
    assert marked("dup_line") == ["\u2022 The cat"]
    assert counted_spans(text, "dup_line")[0][0] == text.rindex("\u2022")
    assert marked("top_3") == ["\u2022 The cat", "\u2022 The cat"]
    assert marked("dup_5") == []
    assert counted_spans("a b#", "hash_ratio") == [(3, 4)]


def test_another_profile_and_an_unknown_rule_are_one_sentence():
    with pytest.raises(EarthworksError, match="spans exist only for the profile 'literal'"):
        counted_spans("a", "words", "dolma")
    with pytest.raises(EarthworksError, match="the rule is 'dup_11'; it must be one of words, "):
        counted_spans("a", "dup_11")
