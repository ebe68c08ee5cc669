"""AUC against its definition, and the linear classifier: training, its own tests, and storage."""

import itertools
import json
import math

import bias_examples as examples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.evaluation import train_classifier
from earthworks.evaluation.toxicity.classifier import LinearClassifier, headline, no_claim
from earthworks.evaluation.toxicity.labelled import read_labelled
from earthworks.runs import EarthworksError
from earthworks.statistics import auc


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=20))
def test_auc_is_the_share_of_pairs_in_order(rows):
    positive = [score for score, label in rows if label]
    negative = [score for score, label in rows if not label]
    value, (low, high) = auc([score for score, _ in rows], [label for _, label in rows])
    if not positive or not negative:
        assert math.isnan(value)
        return
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(positive, negative)]
    assert value == pytest.approx(np.mean(pairs))
    assert math.isnan(low) or 0 <= low <= value + 1e-9 <= high + 2e-9 <= 1 + 3e-9


@pytest.mark.parametrize(
    ("scores", "labels", "value"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0),
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
    ],
)
def test_known_areas(scores, labels, value):
    assert auc(scores, labels)[0] == value


def test_delongs_interval_holds_the_area_of_two_normals():
    """Positives N(1, 1) against negatives N(0, 1): AUC = Phi(1 / sqrt 2) = 0.7602."""
    random = np.random.default_rng(0)
    truth = np.arange(120) < 40
    held = 0
    for _ in range(400):
        low, high = auc(random.normal(size=120) + truth, truth)[1]
        held += low <= 0.76025 <= high
    assert abs(held / 400 - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / 400)


# The classifier


@pytest.fixture
def data(tmp_path):
    examples.write_records(tmp_path / "mine.jsonl.gz", examples.labelled())
    return tmp_path


@pytest.mark.parametrize(("sensible", "area"), [(True, 1.0), (False, 0.0)])
def test_a_classifier_says_what_it_is_worth_on_texts_of_others(data, sensible, area):
    examples.hatecheck(data, sensible)
    rows = [
        "rev_id,comment,toxic",
        *(f"{n},a {'grumpy' if n % 3 else 'pleasant'} note {n},{bool(n % 3)}" for n in range(30)),
    ]
    examples.write(data / "wiki_comments_toxicity.csv", "\n".join(rows))
    classifier = train_classifier([data / "mine.jsonl.gz"], against=data)
    measured = classifier.measured
    assert measured["held_out"]["auc"] == 1
    assert 30 < measured["held_out"]["n"] < 90
    assert measured["cross_corpus"]["wiki_comments_toxicity.csv"]["auc"] == 1
    assert measured["hatecheck"]["auc"] == area
    assert (no_claim(measured) is None) == sensible
    lines = "\n".join(headline(measured))
    assert "HateCheck" in lines
    assert f"AUC {area:.3f}" in lines
    assert "400 texts, 100 toxic" in lines


def test_without_hatecheck_nothing_is_claimed(data):
    measured = train_classifier([data / "mine.jsonl.gz"]).measured
    assert "AUC on HateCheck is not known" in str(no_claim(measured))
    assert any("HateCheck" in line and "not measured" in line for line in headline(measured))


@pytest.mark.parametrize(("area", "silent"), [(0.649, True), (0.65, False), (None, True)])
def test_the_bar_is_sixty_five_hundredths(area, silent):
    assert (no_claim({"hatecheck": {"auc": area}}) is not None) == silent


def test_one_half_is_even_odds_whatever_the_share_of_toxic_texts(data):
    """A quarter of the texts is toxic; a text without any known word sits at 1/2, not at 1/4."""
    classifier = train_classifier([data / "mine.jsonl.gz"])
    unknown, toxic, harmless = classifier(["zzzz", "nasty talk", "pleasant talk"])
    assert 0.35 < unknown < 0.65
    assert toxic > 0.5 > harmless


def test_probabilities_are_the_stated_formula(data):
    """Terms counted, logarithms taken, idf, length 1 in either view, logistic: by hand for one text of one word."""
    classifier = train_classifier([data / "mine.jsonl.gz"])
    places, start = [], 0
    for view, terms in classifier.terms.items():
        wanted = {"nasty"} if view == "words" else {f" {'nasty'} "[i : i + n] for n in (2, 3, 4) for i in range(8 - n)}
        places.append([start + index for index, term in enumerate(terms) if term in wanted])
        start += len(terms)
    score = classifier.intercept
    for rows in places:
        x = classifier.idf[rows]
        score += x @ classifier.weights[rows] / np.linalg.norm(x)
    assert classifier(["nasty"])[0] == pytest.approx(1 / (1 + math.exp(-score)), rel=1e-9)


def test_what_is_saved_is_what_was_trained(data):
    classifier = train_classifier([data / "mine.jsonl.gz"])
    classifier.save(data / "kept")
    assert {file.suffix for file in (data / "kept").iterdir()} == {".safetensors", ".json"}
    again = LinearClassifier.load(data / "kept")
    texts = ["nasty", "pleasant talk about 3", ""]
    assert np.array_equal(classifier(texts), again(texts))
    assert again.measured == json.loads(json.dumps(classifier.measured))


def test_the_same_files_train_the_same_classifier(data):
    first, second = (train_classifier([data / "mine.jsonl.gz"]) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)
    assert first.terms == second.terms


def test_copies_of_a_text_are_never_on_both_sides(data):
    """Random labels cannot be learned, unless the held-out texts are copies of those trained on."""
    records = [
        {"text": f"{n} {'  ' * copy}Word", "label": int(examples.chance(n) < 0.5)}
        for n in range(300)
        for copy in range(3)
    ]
    examples.write_records(data / "copies.jsonl", records)
    held = train_classifier([data / "copies.jsonl"]).measured["held_out"]
    assert held["interval"][0] <= 0.6


def test_an_altered_classifier_is_refused(data):
    train_classifier([data / "mine.jsonl.gz"]).save(data / "kept")
    file = data / "kept" / "classifier.json"
    file.write_text(file.read_text().replace("nasty", "tasty"))
    with pytest.raises(EarthworksError, match=r"classifier.json does not match"):
        LinearClassifier.load(data / "kept")


def test_hatecheck_is_not_for_training(data):
    examples.hatecheck(data, True)
    with pytest.raises(EarthworksError, match="tests a classifier"):
        train_classifier([data / "hatecheck.csv.gz"])


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"title": "a", "score": 1}], "has the fields title, score; expected text and label"),
        ([{"text": "a", "label": "perhaps"}], "neither a number nor true or false"),
        ([{"text": "a", "label": 1}, {"text": "b"}], "neither a number nor true or false"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 0}], "has no toxic texts"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": 1}], "too few"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, records, words):
    examples.write_records(tmp_path / "odd.jsonl", records)
    with pytest.raises(EarthworksError, match=words):
        train_classifier([tmp_path / "odd.jsonl"])


@pytest.mark.parametrize(
    ("toxic", "other"),
    [
        ({"text": "a", "label": 1}, {"text": "a", "label": "False"}),
        ({"comment_text": "a", "target": "0.5"}, {"comment_text": "a", "target": 0.49}),
        ({"comment": "a", "toxic": True}, {"comment": "a", "toxic": "0"}),
        (
            {"text": "a", "label": 0, "hate_speech": 3, "offensive_language": 0, "neither": 0},
            {"text": "a", "label": 2, "hate_speech": 0, "offensive_language": 0, "neither": 3},
        ),
    ],
)
def test_labels_are_read_as_their_collections_mean_them(tmp_path, toxic, other):
    examples.write_records(tmp_path / "some.jsonl", [toxic, other])
    assert read_labelled(tmp_path / "some.jsonl").toxic == [True, False]


def test_the_command_trains_and_says_what_it_is_worth(command, data):
    examples.hatecheck(data, False)
    done = command(f"evaluate classifier {data / 'mine.jsonl.gz'} --output {data / 'kept'} --against {data}")
    assert done.code == 0, done.err
    assert "No claim about toxicity follows" in done.out
    assert LinearClassifier.load(data / "kept").measured["hatecheck"]["auc"] == 0
    again = command(f"evaluate classifier {data / 'mine.jsonl.gz'} --output {data / 'kept'}")
    assert again.refuses("already exists")


def test_the_bars_on_real_data(real_data):
    """Held out .94, tweets to Wikipedia .87; and HateCheck, near chance, forbids every claim."""
    folder = real_data / "bias"
    measured = train_classifier([folder / "offensive_tweets_train.jsonl.gz"], against=folder).measured
    assert measured["held_out"]["auc"] > 0.94
    assert measured["cross_corpus"]["wiki_comments_toxicity.csv.gz"]["auc"] > 0.87
    assert measured["hatecheck"]["auc"] < 0.65
    assert "No claim" in str(no_claim(measured))
