"""Lexicon-based sentiment: word valences with negation and intensifiers."""

import math
import re
from pathlib import Path
from typing import Any

from earthworks.evaluation.example_files import find, lines_of, number_of, records_of
from earthworks.evaluation.findings import ends
from earthworks.runs import EarthworksError
from earthworks.statistics import auc

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Constants from Hutto and Gilbert 2014, based on human ratings.
NORMALIZER = 15
NEGATED = -0.74
INTENSITY = 0.293
REACH = 3  # number of words before a valence in which a negation reverses it
NEGATIONS = frozenset(("not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "nowhere", "without"))
NEGATIONS |= {"hardly", "barely", "scarcely", "rarely", "seldom", "cannot", "ain't", "can't", "shan't", "won't"}
NEGATIONS |= {
    f"{verb}n't"
    for verb in ("are", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must", "need", "should")
    + ("was", "were", "would")
}
STRONGER = frozenset(
    ("absolutely", "completely", "deeply", "enormously", "entirely", "especially", "extremely", "fully")
)
STRONGER |= {
    "greatly",
    "highly",
    "hugely",
    "incredibly",
    "intensely",
    "more",
    "most",
    "particularly",
    "purely",
    "quite",
}
STRONGER |= {"really", "remarkably", "so", "thoroughly", "totally", "utterly", "very"}
WEAKER = frozenset(
    ("almost", "fairly", "less", "little", "marginally", "occasionally", "partly", "slightly", "somewhat")
)


class LexiconSentiment:
    """s(text) = 1/2 + x / (2 sqrt(x^2 + 15)) in [0, 1], x the sum of its words' valences; 1/2 if none has one.

    A valence is raised or lowered by 0.293 for an intensifier right before it, and multiplied by -0.74 for a negation among
    the three words before it. Lexicon, constants and the two main rules are those of VADER (Hutto and Gilbert 2014), the
    lists of negations and intensifiers are ours; VADER's rules for capitals, punctuation, `but` and idioms are not
    implemented, so scores differ from VADER's. O(words).
    """

    def __init__(self, valences: dict[str, float], name: str):
        self.valences, self.name = valences, name

    @classmethod
    def load(cls, folder: Path) -> "LexiconSentiment":
        """The VADER lexicon in lexicons/ (valence -4 to 4); without it, the opinion lexicon of Hu and Liu 2004 (+-2)."""
        try:
            path = find(folder, "lexicons/vader_lexicon.txt")
        except EarthworksError:
            signs = {"opinion_positive-words": 2.0, "opinion_negative-words": -2.0}
            valences = {
                word: valence
                for name, valence in signs.items()
                for word in lines_of(find(folder, f"lexicons/{name}.txt"))
                if not word.startswith(";")
            }
            return cls(valences, "lexicon of Hu and Liu 2004, rules after VADER")
        rows = [line.split("\t") for line in lines_of(path)]
        if any(len(row) < 2 for row in rows):
            raise EarthworksError(f"{path} is not a VADER lexicon: expected lines with word, tab, valence")
        valences = {row[0]: number_of(row[1], f"the line of {row[0]!r} in {path}") for row in rows}
        return cls(valences, "VADER's lexicon, main rules after VADER")

    def __call__(self, text: str) -> float:
        words = [word.replace("’", "'") for word in WORD.findall(text.lower())]
        total = 0.0
        for place, word in enumerate(words):
            valence = self.valences.get(word, 0.0)
            if not valence:
                continue
            before = words[place - 1] if place else ""
            if before in STRONGER or before in WEAKER:
                valence += math.copysign(INTENSITY, valence) * (1 if before in STRONGER else -1)
            if NEGATIONS.intersection(words[max(0, place - REACH) : place]):
                valence *= NEGATED
            total += valence
        return 0.5 + 0.5 * total / math.sqrt(total * total + NORMALIZER)


def checked(sentiment: LexiconSentiment, folder: Path) -> dict[str, Any]:
    """Name of the scorer and, if film-review sentences are available, its AUC on them."""
    result: dict[str, Any] = {"name": sentiment.name, "auc": None}
    try:
        path = find(folder, "sentence_polarity_train.jsonl")
    except EarthworksError:
        return {**result, "checked_on": "nothing: sentence_polarity_train.jsonl does not exist"}
    records = records_of(path, "text", other=("label",))
    scores = [sentiment(record["text"]) for record in records]
    labels = [number_of(record["label"], f"the field label of {path}") != 0 for record in records]
    if len(set(labels)) < 2:
        return {**result, "checked_on": f"nothing: all of {path.name} has one label"}
    value, interval = auc(scores, labels)
    return {**result, "auc": value, "interval": ends(interval), "checked_on": f"{len(records)} film-review sentences"}
