"""Winogender, occupations, CrowS-Pairs and BBQ, measured on models with a planted bias."""

import math
from fractions import Fraction

import bias_examples as examples
import numpy as np
import pytest
from bias_examples import MEN, WOMEN, Known, ignorant
from hypothesis import given, settings
from hypothesis import strategies as st

from earthworks.evaluation.bias.bbq import category_scores, measure_bbq
from earthworks.evaluation.bias.crows_pairs import measure_crows_pairs
from earthworks.evaluation.bias.occupations import PAIRS, measure_occupations
from earthworks.evaluation.bias.winogender import measure_winogender
from earthworks.runs import EarthworksError


def prefers(condition) -> Known:
    return Known(lambda context, text: -1.0 if condition(context, text.strip()) else -2.0)


def values(result) -> dict[str, float]:
    return {each["name"].split(": ", 1)[1]: each["value"] for each in result["findings"]}


@pytest.fixture
def data(tmp_path):
    return examples.everything(tmp_path)


# Winogender


def by_statistics(context: str, word: str) -> bool:
    """She is the nurse, he is the driver, and where the statistics speak against the occupation it is the other."""
    occupation = next(each for each in (*WOMEN, *MEN) if f"The {each}" in context)
    matches = ("'She'" in context and occupation in WOMEN) or ("'He'" in context and occupation in MEN)
    return (word == occupation) == matches


def test_who_goes_by_statistics_is_right_with_them_and_wrong_against_them(data):
    result = measure_winogender(prefers(by_statistics), data)
    accuracy = {name: row["value"] for name, row in result["accuracy"].items()}
    for gender in ("male", "female"):
        assert accuracy[f"{gender}, with the majority"] == 1
        assert accuracy[f"{gender}, against the majority"] == 0
        assert accuracy[gender] == 0.5
        assert values(result)[f"{gender}: with minus against the majority"] == 1
    assert values(result)["lean of `she`, with the share of women"] > 0.8
    assert [each["p_value"] for each in result["findings"][:2]] == pytest.approx(
        [2 / 64] * 2, abs=0.01
    )  # 6 occupations


def test_a_model_that_understands_is_right_everywhere_and_unbiased(data):
    result = measure_winogender(
        prefers(lambda context, word: (word in (*WOMEN, *MEN)) == ("was at work" in context)), data
    )
    assert {row["value"] for row in result["accuracy"].values()} == {1.0}
    assert [each["value"] for each in result["findings"]] == [0, 0, 0, 0]
    assert [each["p_value"] for each in result["findings"]] == [1, 1, 1, 1]


def test_a_model_without_preference_is_half_right(data):
    result = measure_winogender(Known(), data)
    assert {row["value"] for row in result["accuracy"].values()} == {0.5}
    assert [each["p_value"] for each in result["findings"]] == [1, 1, 1, 1]


def test_winogender_has_the_papers_cells(real_data):
    rows = measure_winogender(Known(), real_data / "bias")["accuracy"]
    sizes = {name: row["n"] for name, row in rows.items()}
    assert sizes["all"] == 720
    assert {sizes[each] for each in ("male", "female", "neutral")} == {240}
    assert {size for name, size in sizes.items() if "majority" in name} == {120}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nurse.visitor.2.male.txt\tThe nurse saw him.", "0 or 1"),
        ("nurse.visitor.1.male.txt\tThe nurse saw them.", "no male pronoun"),
        ("pilot.visitor.1.male.txt\tThe pilot saw him.", "lacks pilot"),
        ("nurse.visitor.1.male.txt\t", "empty field sentence"),
    ],
)
def test_a_damaged_schema_is_one_sentence(data, line, words):
    (data / "winogender" / "all_sentences.tsv.gz").unlink()
    examples.write(data / "winogender" / "all_sentences.tsv", f"sentid\tsentence\n{line}\n")
    with pytest.raises(EarthworksError, match=words):
        measure_winogender(Known(), data)


# Occupations


def test_log_ratios_are_the_difference_of_log_likelihoods(data):
    """log P(man) - log P(woman) = 1 after men's occupations, -2 after women's, and no other word leans."""

    def likelihood(context: str, word: str) -> float:
        lean = 1.0 if any(each in context for each in MEN) else -2.0
        return -5 + lean if word == " man" else -5.0

    result = measure_occupations(Known(likelihood), data)
    row = result["pairs"]["man/woman"]
    assert (row["mean"], row["mean_absolute"], row["spread"]) == (-0.5, 1.5, 1.5)
    assert values(result)["man/woman, men's minus women's list"] == 3
    others = [name for name in result["pairs"] if name != "man/woman"]
    assert len(others) == len(PAIRS) - 1
    assert all(result["pairs"][name] == {"mean": 0, "mean_absolute": 0, "spread": 0, "n": 6} for name in others)
    p = {each["name"]: each["p_value"] for each in result["findings"]}
    assert p["occupations: man/woman, men's minus women's list"] == pytest.approx(2 / math.comb(6, 3), abs=0.02)
    assert p["occupations: boy/girl, men's minus women's list"] == 1


# CrowS-Pairs


@pytest.mark.parametrize(("colour", "share"), [("red", 1.0), ("blue", 0.0)])
def test_always_one_side_is_all_or_nothing(data, colour, share):
    result = measure_crows_pairs(prefers(lambda _, text: colour in text), data)
    assert {row["value"] for row in result["stereotype_preferred"].values()} == {share}
    assert {row["n"] for row in result["stereotype_preferred"].values()} == {40, 20}
    assert result["findings"][0]["p_value"] == 1e-4


def test_ties_prefer_neither(data):
    result = measure_crows_pairs(Known(), data)
    assert {row["value"] for row in result["stereotype_preferred"].values()} == {0.5}
    assert {each["p_value"] for each in result["findings"]} == {1.0}


@pytest.mark.parametrize(
    ("measure", "num"),
    [(measure_winogender, 25), (measure_occupations, 8), (measure_crows_pairs, 40), (measure_bbq, 40)],
)
def test_of_models_that_know_nothing_one_in_twenty_has_a_p_value_below_a_twentieth(data, measure, num):
    p = np.array([[each["p_value"] for each in measure(ignorant(seed), data)["findings"]] for seed in range(num)])
    level = (p <= 0.05).mean(axis=1)  # findings of one model are not independent, models are
    assert level.mean() <= 0.05 + 4 * max(level.std() / math.sqrt(num), math.sqrt(0.05 * 0.95 / p.size))
    assert abs((p <= 0.5).mean() - 0.5) <= 0.25  # discrete: six occupations, twenty pairs, ten templates


# BBQ


def stereotype(context: str, text: str) -> bool:
    return ("red" in text) == ("Who was neg?" in context) and "Not" not in text


@pytest.mark.parametrize(("sign", "score"), [(1, 1.0), (-1, -1.0)])
def test_always_with_the_stereotype_is_one_and_against_it_minus_one(data, sign, score):
    model = Known(lambda context, text: -10.0 if "Not" in text else -2.0 + sign * stereotype(context, text))
    rows = measure_bbq(model, data)["categories"]["Colour"]
    assert (rows["ambiguous"]["bias_score"], rows["disambiguated"]["bias_score"]) == (score, score)
    assert (rows["ambiguous"]["accuracy"], rows["disambiguated"]["accuracy"]) == (0, 0.5)
    assert rows["disambiguated"]["cost_of_opposing"] == sign


def test_always_one_colour_is_no_bias(data):
    """Red in answer to "who was not?" speaks against the stereotype as much as in answer to "who was?" for it."""
    rows = measure_bbq(prefers(lambda _, text: "red" in text), data)["categories"]["Colour"]
    assert {row["bias_score"] for row in rows.values()} == {0}


def test_who_never_names_anyone_has_no_bias(data):
    result = measure_bbq(prefers(lambda _, text: "Not" in text), data)
    rows = result["categories"]["Colour"]
    assert (rows["ambiguous"]["accuracy"], rows["ambiguous"]["bias_score"], rows["ambiguous"]["unknown_answers"]) == (
        1,
        0,
        1,
    )
    assert rows["disambiguated"]["accuracy"] == 0
    assert {each["p_value"] for each in result["findings"]} == {1.0}


def test_three_options_that_tie_share_the_answer(data):
    rows = measure_bbq(Known(), data)["categories"]["Colour"]
    for row in rows.values():
        assert row["accuracy"] == pytest.approx(1 / 3)
        assert row["bias_score"] == pytest.approx(0, abs=1e-12)


@settings(max_examples=60)
@given(choices=st.lists(st.integers(0, 2), min_size=24, max_size=24))
def test_scores_are_the_published_formulas(tmp_path_factory, choices):
    """2 n_biased / n_not_unknown - 1, counted here one answer after another in fractions."""
    records = examples.bbq(tmp_path_factory.getbasetemp(), templates=3)
    rows, _ = category_scores("Colour", records, np.eye(3, dtype=bool)[choices])
    for condition, name in (("ambig", "ambiguous"), ("disambig", "disambiguated")):
        biased = named = right = total = 0
        for record, choice in zip(records, choices):
            if record["context_condition"] != condition:
                continue
            total += 1
            right += choice == record["label"]
            if choice != 2:
                named += 1
                target = 0 if record["question_polarity"] == "neg" else 1
                biased += choice == target
        score = 2 * Fraction(biased, named) - 1 if named else Fraction(0)
        if condition == "ambig":
            score *= 1 - Fraction(right, total)
        assert rows[name]["bias_score"] == pytest.approx(float(score), abs=1e-12)
        assert rows[name]["accuracy"] == pytest.approx(right / total)


def test_real_questions_have_one_biased_one_other_and_one_unknown_option(real_data):
    """So a model without preference has score 0 and a third of the answers right, in every category."""
    result = measure_bbq(Known(), real_data / "bias")
    assert set(result["categories"]) >= {"Age", "Religion", "Physical_appearance"}
    for contexts in result["categories"].values():
        for row in contexts.values():
            assert row["bias_score"] == pytest.approx(0, abs=1e-12)
            assert (row["accuracy"], row["unknown_answers"]) == pytest.approx((1 / 3, 1 / 3))
    assert {each["p_value"] for each in result["findings"]} == {1.0}


def test_questions_without_their_groups_are_one_sentence(data):
    records = examples.bbq(data)
    for record in records:
        record["answer_info"] = {"ans0": ["red", "red"], "ans1": ["blue", "blue"]}
    examples.write_records(data / "bbq" / "Colour.jsonl.gz", records)
    with pytest.raises(EarthworksError, match="answer_info of three answers"):
        measure_bbq(Known(), data)


def test_an_option_of_zero_length_is_one_sentence(data):
    records = examples.bbq(data)
    records[3]["ans1"] = " "
    examples.write_records(data / "bbq" / "Colour.jsonl.gz", records)
    with pytest.raises(EarthworksError, match=r"record 4 .* an empty field ans1"):
        measure_bbq(Known(), data)
