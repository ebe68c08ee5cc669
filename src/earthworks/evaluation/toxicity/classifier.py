"""Linear toxicity classifier: TF-IDF and logistic regression."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.findings import ends
from earthworks.evaluation.shapes import SCORER, Each, shaped
from earthworks.evaluation.toxicity.labelled import LabelledTexts, labelled_in, read_labelled
from earthworks.runs import EarthworksError, json_text, new_folder, verify_manifest
from earthworks.runs.files import write_through
from earthworks.runs.terminal import typed
from earthworks.statistics import auc

HELD_OUT = 0.15
HATECHECK_BAR = 0.65
# Views: words and word pairs, and character n-grams (2 to 4) within words. With the latter the AUC from tweets to
# Wikipedia comments is 0.89, without them 0.87; on HateCheck it is near 0.48 either way.
VIEWS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}
CLASSIFIER = {"terms": Each([str]), "measured": SCORER}
COEFFICIENTS = ("idf", "weights", "intercept")
MIN_TEXTS = 2  # terms in fewer texts are ignored


@dataclass(frozen=True)
class LinearClassifier:
    """P(toxic | text) = 1 / (1 + exp(-(w . x + c))), x the (1 + log tf) idf of its terms, of length 1 in each view.

    `terms` lists those of each view; `idf` and `weights` (all terms,) follow their order; `measured` holds the results of
    its own tests, which are saved with it.
    """

    terms: dict[str, list[str]]
    idf: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float
    measured: dict[str, Any]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities in [0, 1], (texts,)."""
        from scipy.sparse import hstack

        columns, start = [], 0
        for view, terms in self.terms.items():
            vectorizer = tfidf(view, vocabulary=terms)
            vectorizer.idf_ = self.idf[start : start + len(terms)]
            columns.append(vectorizer.transform(texts))
            start += len(terms)
        score = hstack(columns).tocsr() @ self.weights + self.intercept
        return 1 / (1 + np.exp(-score))

    def save(self, path: str | Path) -> None:
        """Write coefficients.safetensors and classifier.json, without pickle, to a folder that must be empty."""
        from safetensors.numpy import save

        tensors = {"idf": self.idf, "weights": self.weights, "intercept": np.array([self.intercept])}
        with new_folder(path) as folder:
            write_through(folder / "coefficients.safetensors", save(tensors))
            content = {"measured": self.measured, "terms": self.terms}
            write_through(folder / "classifier.json", json_text(content, None).encode(errors="replace"))

    @classmethod
    def load(cls, path: str | Path) -> "LinearClassifier":
        """Load what `save` wrote, checked against its SHA-256."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(path)
        if not (folder / "classifier.json").exists():
            raise EarthworksError(
                f"{path} has no toxicity classifier; train one with "
                f"earthworks evaluate classifier FILE --output {typed(path)}"
            )
        verify_manifest(folder, names=["classifier.json", "coefficients.safetensors"])
        content = shaped(folder / "classifier.json", CLASSIFIER, "evaluate classifier")
        try:
            tensors = load_file(folder / "coefficients.safetensors")
        except (SafetensorError, ValueError, OSError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise EarthworksError(f"{folder / 'coefficients.safetensors'} is not readable ({reason})") from None
        terms = content["terms"]
        idf, weights, intercept = (tensors.get(name, np.empty(0)) for name in COEFFICIENTS)
        count = sum(len(set(each)) for each in terms.values())
        fits = all(
            each.shape == (size,) and each.dtype == np.float64 and np.isfinite(each).all()
            for each, size in ((idf, count), (weights, count), (intercept, 1))
        )
        if not fits or set(terms) != set(VIEWS) or count != sum(map(len, terms.values())):
            raise EarthworksError(f"{path} does not hold the coefficients of its terms: train the classifier again")
        return cls({view: terms[view] for view in terms}, idf, weights, float(intercept[0]), content["measured"])


def tfidf(view: str, **more: Any) -> Any:
    """Term counter of one view, to be fitted or with a given `vocabulary`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**VIEWS[view], sublinear_tf=True, strip_accents="unicode", **more)


def train_classifier(
    files: Sequence[str | Path], *, against: str | Path | None = None, seed: int = 0
) -> LinearClassifier:
    """Fit on labelled files, and test on held-out texts, on other collections, and on HateCheck.

    15 % of the texts are held out, chosen by a hash of (seed, text without case and spaces), so that copies of a text stay
    on one side. Classes have equal weight in the fit, so 0.5 means even odds whatever the share of toxic texts in the
    files. `against`: a file or folder of other labelled collections (`labelled_in`).
    Source: scikit-learn's TfidfVectorizer and LogisticRegression; the fit is deterministic.
    """
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression

    sets = [read_labelled(file) for file in files]
    for each in sets:
        if each.hatecheck:
            raise EarthworksError(f"{each.name} is HateCheck, which tests a classifier: train on something else")
    if not sets:
        raise EarthworksError("expected at least one file of labelled texts")
    texts = [text for each in sets for text in each.texts]
    toxic = np.array([label for each in sets for label in each.toxic])
    held = np.array([held_out(text, seed) for text in texts])
    for part, name in ((held, "held out"), (~held, "to train on")):
        if len(set(toxic[part].tolist())) < 2:
            raise EarthworksError(f"{len(texts)} texts are too few: those {name} all have one label")
    kept = [text for text, out in zip(texts, held) if not out]
    vectorizers = {view: tfidf(view, min_df=MIN_TEXTS) for view in VIEWS}
    try:
        matrix = hstack([vectorizer.fit_transform(kept) for vectorizer in vectorizers.values()]).tocsr()
    except ValueError:
        raise EarthworksError("the texts share no words; expected hundreds of texts") from None
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(matrix, toxic[~held])
    classifier = LinearClassifier(
        {view: vectorizer.get_feature_names_out().tolist() for view, vectorizer in vectorizers.items()},
        np.concatenate([vectorizer.idf_ for vectorizer in vectorizers.values()]),
        model.coef_[0].astype(np.float64),
        float(model.intercept_[0]),
        {},
    )
    out = LabelledTexts("held out", [t for t, h in zip(texts, held) if h], toxic[held].tolist())
    tests = {"held_out": performance(classifier, out)}
    names = {Path(file).name for file in files}
    others = [each for each in labelled_in(against) if each.name not in names] if against is not None else []
    classifier.measured.update(
        {
            "name": "linear: TF-IDF of words and characters, logistic regression",
            "trained_on": [f"{each.name}: {len(each.texts)} texts, {sum(each.toxic)} toxic" for each in sets],
            "seed": seed,
            **tests,
            "cross_corpus": {each.name: performance(classifier, each) for each in others if not each.hatecheck},
            "hatecheck": next((performance(classifier, each) for each in others if each.hatecheck), None),
        }
    )
    return classifier


def held_out(text: str, seed: int) -> bool:
    digest = hashlib.blake2b(
        f"{seed} {' '.join(text.lower().split())}".encode(errors="replace"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big") < HELD_OUT * 2**64


def performance(scorer: Any, data: LabelledTexts) -> dict[str, Any]:
    """AUC with interval, and the shares of toxic and other texts flagged at 0.5; texts without a score are left out."""
    scores = np.asarray(scorer(data.texts), dtype=np.float64)
    seen = np.isfinite(scores)
    toxic = np.array(data.toxic)
    value, interval = auc(scores[seen], toxic[seen])
    flagged = scores >= 0.5

    def share(part: NDArray[np.bool_]) -> float | None:
        return float(flagged[part].mean()) if part.any() else None

    return {
        "auc": None if math.isnan(value) else value,
        "interval": ends(interval),
        "flagged_toxic": share(toxic & seen),
        "flagged_other": share(~toxic & seen),
        "n": int(seen.sum()),
        "missing": int((~seen).sum()),
    }


def headline(measured: dict[str, Any]) -> list[str]:
    """Test results of a scorer, printed above its numbers."""
    rows = {"held out": measured.get("held_out")}
    rows |= {f"other corpus {name}": row for name, row in measured.get("cross_corpus", {}).items()}
    rows["HateCheck"] = measured.get("hatecheck")
    lines = [f"scorer: {measured['name']}"] if "name" in measured else []
    lines += [f"trained on {each}" for each in measured.get("trained_on", [])]
    for name, row in rows.items():
        if row is None or row["auc"] is None:
            lines.append(f"  {name:<46} not measured{': ' + row['why'] if row and row.get('why') else ''}")
            continue
        interval = "[{:.3f}, {:.3f}]".format(*row["interval"]) if row["interval"] else ""
        lines.append(
            f"  {name:<46} AUC {row['auc']:.3f} {interval}; 0.5 flags {row['flagged_toxic']:.0%} of the toxic, "
            f"{row['flagged_other']:.0%} of the others; n {row['n']:,}"
        )
    return lines


def no_claim(measured: dict[str, Any]) -> str | None:
    """The reason why this scorer's numbers support no claim, or None if it passes."""
    row = measured.get("hatecheck")
    if row is None or row["auc"] is None:
        return (
            "No claim about toxicity follows from these numbers: the scorer's AUC on HateCheck is not known "
            "(hatecheck.csv in the data folder tests it)."
        )
    if row["auc"] < HATECHECK_BAR:
        return (
            f"No claim about toxicity follows from these numbers: the scorer's AUC on HateCheck is {row['auc']:.2f}, below "
            f"{HATECHECK_BAR}; it reacts to words, not to their meaning."
        )
    return None
