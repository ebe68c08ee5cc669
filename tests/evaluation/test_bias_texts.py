"""Sentiment, fairness and dialects, against closed forms."""

import math

import bias_examples as examples
import numpy as np
import pytest
from bias_examples import Known, chance
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from earthworks.evaluation.bias.continuations import measure_bold, measure_templates
from earthworks.evaluation.bias.dialect import measure_dialects
from earthworks.evaluation.bias.fairness import group_fairness, individual_fairness, measure_fairness
from earthworks.evaluation.bias.groups import bold_prompts, template_prompts
from earthworks.evaluation.bias.sentiment import LexiconSentiment, checked
from earthworks.runs import EarthworksError

SENTIMENT = LexiconSentiment({"good": 2.0, "bad": -3.0}, "two words")


@pytest.fixture
def data(tmp_path):
    return examples.everything(tmp_path)


# Sentiment


@pytest.mark.parametrize(
    ("text", "total"),
    [
        ("", 0),
        ("a plain day", 0),
        ("Good.", 2),
        ("good, good; bad", 1),
        ("not good", -0.74 * 2),
        ("not at all good", -0.74 * 2),
        ("not what one would call good", 2),
        ("very good", 2.293),
        ("very bad", -3.293),
        ("slightly bad", -2.707),
        ("isn’t very good", -0.74 * 2.293),
    ],
)
def test_sentiment_is_the_normalised_sum_of_valences(text, total):
    assert SENTIMENT(text) == pytest.approx(0.5 + total / (2 * math.sqrt(total**2 + 15)), rel=1e-12)


def test_the_scorer_says_how_good_it_is(data):
    found = checked(LexiconSentiment.load(data), data)
    assert found["auc"] == 1
    assert found["checked_on"] == "20 film-review sentences"
    (data / "sentence_polarity_train.jsonl.gz").unlink()
    assert checked(LexiconSentiment.load(data), data)["auc"] is None


def test_the_opinion_lexicon_replaces_vaders(tmp_path):
    examples.write(tmp_path / "lexicons" / "opinion_positive-words.txt", "; a heading\n\nkind\n")
    examples.write(tmp_path / "lexicons" / "opinion_negative-words.txt", "unkind\n")
    sentiment = LexiconSentiment.load(tmp_path)
    assert "Hu and Liu" in sentiment.name
    assert sentiment("kind") == pytest.approx(1 - sentiment("unkind"))
    assert sentiment("a heading") == 0.5


# Fairness


@pytest.mark.parametrize("sizes", [(6, 6, 6), (3, 5, 8)])
def test_groups_a_shift_apart_are_that_far_from_each_other(sizes):
    """Points 0, c and 3c: pairs at c, 2c, 3c; the pool's distances follow from its quantiles."""
    c = 0.1
    groups = [np.full(n, place) for n, place in zip(sizes, (0, c, 3 * c))]
    assert individual_fairness(groups) == pytest.approx(2 * c)
    pool = np.concatenate(groups)
    assert group_fairness(groups) == pytest.approx(np.mean([np.abs(pool - group[0]).mean() for group in groups]))


@given(st.lists(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=6), min_size=2, max_size=4))
def test_fairness_is_the_mean_of_scipys_distances(groups):
    arrays = [np.array(group) for group in groups]
    pairs = [wasserstein_distance(a, b) for i, a in enumerate(groups) for b in groups[:i]]
    assert individual_fairness(arrays) == pytest.approx(np.mean(pairs), abs=1e-9)
    pooled = [each for group in groups for each in group]
    expected = np.mean([wasserstein_distance(group, pooled) for group in groups])
    assert group_fairness(arrays) == pytest.approx(expected, abs=1e-9)


def test_groups_of_one_law_lie_within_their_null():
    """Of 60 measurements without a difference about one in twenty has p <= 0.05."""
    labels = [name for name in "abc" for _ in range(12)]
    p = []
    for seed in range(60):
        scores = np.random.default_rng(seed).random((36, 2))
        p.append(measure_fairness("", scores, labels, num_permutations=99)["individual_fairness"]["p_value"])
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 60)
    assert 0.3 < np.mean(p) < 0.7


def test_what_templates_explain_is_not_taken_for_a_difference_between_groups():
    """Templates differ by more than groups: exchanging within a template sees the groups, across templates it does not."""
    strata = [template for template in range(10) for _ in range(2)]
    labels = ["a", "b"] * 10
    scores = [[template / 10 + 0.2 * (label == "b")] * 3 for template, label in zip(strata, labels)]
    within = measure_fairness("", scores, labels, strata, num_permutations=999)["individual_fairness"]
    across = measure_fairness("", scores, labels, num_permutations=999)["individual_fairness"]
    assert within["value"] == across["value"] == pytest.approx(0.2)
    assert within["p_value"] <= 0.01 < 0.05 < across["p_value"]


def test_one_group_alone_cannot_be_compared():
    with pytest.raises(EarthworksError, match="at least two groups, got 1"):
        measure_fairness("art", [[0.5], [0.5]], ["a", "a"])


# Continuations


def test_a_model_that_praises_one_gender_is_seen(data):
    def written(prompt: str, draw: int) -> str:
        return "good" if "Female" in prompt else "bad"

    result = measure_templates(Known(write=written), data, num=2)
    gender = result["attributes"]["gender"]
    assert (gender["templates"], gender["prompts"], gender["samples"]) == (8, 96, 192)
    assert gender["individual_fairness"]["value"] == pytest.approx(SENTIMENT("good") - SENTIMENT("bad"))
    assert gender["individual_fairness"]["p_value"] == 1 / 2000
    assert gender["groups"]["female"]["mean"] > 0.5 > gender["groups"]["male"]["mean"]
    country = result["attributes"]["country"]
    assert country["individual_fairness"] == {"value": 0, "null_mean": 0, "p_value": 1}
    assert country["without_sentiment"] == 0
    assert len(result["texts"]) == sum(each["samples"] for each in result["attributes"].values())


def test_noise_is_not_a_difference(data):
    noise = Known(write=lambda prompt, draw: "good" if chance(prompt, draw) < 0.5 else "bad")
    result = measure_bold(noise, data, num=2)
    assert min(each["p_value"] for each in result["findings"]) > 0.01
    assert result["attributes"]["art"]["prompts"] == 24


def test_prompts_of_one_stratum_differ_in_the_group_alone(data):
    for prompts in template_prompts(data, seed=1).values():
        groups = {prompt.group for prompt in prompts}
        strata = {prompt.stratum for prompt in prompts}
        assert len(prompts) == len(groups) * len(strata)
        assert len({(prompt.group, prompt.stratum) for prompt in prompts}) == len(prompts)


def test_an_empty_group_is_one_sentence(data):
    examples.write(data / "bold_prompts" / "void.json", '{"painters": {"a": ["a began as"]}, "singers": {}}')
    with pytest.raises(EarthworksError, match="the group singers has no prompts"):
        bold_prompts(data)


# Dialects


def corpus(folder, name: str, texts: list[str]) -> str:
    examples.write_records(folder / name, [{"text": text} for text in texts])
    return str(folder / name)


def test_the_gap_is_the_difference_of_bits_per_byte(tmp_path):
    """A model that pays 3 bits a byte for the one and 2 for the other, ä being two bytes."""
    first = corpus(tmp_path, "a.jsonl", [f"ä word {n}" * (1 + n % 3) for n in range(12)])
    second = corpus(tmp_path, "b.jsonl", [f"other text {n}" for n in range(9)])
    model = Known(lambda _, text: -math.log(2) * len(text.encode()) * (3 if "ä" in text else 2))
    result = measure_dialects(model, first, second)
    assert [row["bits_per_byte"] for row in result["corpora"].values()] == pytest.approx([3, 2])
    (gap,) = result["findings"]
    assert gap["value"] == pytest.approx(1)
    assert gap["interval"] == pytest.approx([1, 1])
    assert gap["p_value"] == 1 / 2000


def test_one_dialect_twice_has_no_gap(tmp_path):
    texts = [f"a text of length {n}" for n in range(20)]
    first, second = corpus(tmp_path, "a.jsonl", texts), corpus(tmp_path, "b.jsonl", texts)
    (gap,) = measure_dialects(Known(lambda _, text: -len(text) - 20 * chance(text)), first, second)["findings"]
    assert gap["value"] == 0
    assert gap["p_value"] == 1


def test_a_dialect_of_one_document_is_refused(tmp_path):
    first, second = corpus(tmp_path, "a.jsonl", ["one"]), corpus(tmp_path, "b.jsonl", ["one", "two"])
    with pytest.raises(EarthworksError, match="has 1 document"):
        measure_dialects(Known(), first, second)
