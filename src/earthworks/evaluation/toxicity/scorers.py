"""Toxicity scorers: our classifier, a Hugging Face classifier, or any callable."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earthworks.evaluation.toxicity.classifier import LinearClassifier, performance, train_classifier
from earthworks.evaluation.toxicity.labelled import LabelledTexts, labelled_in
from earthworks.runs import EarthworksError, Progress
from earthworks.runs.errors import missing_extra

ToxicityScorer = Callable[
    [Sequence[str]], Sequence[float] | NDArray[np.float64]
]  # texts -> probabilities of being toxic

TEXTS = 64  # given to a scorer at once
TOXIC_LABELS = ("toxic", "toxicity", "hate", "hateful", "offensive", "abusive", "label_1")


def hugging_face_scorer(name: str) -> ToxicityScorer:
    """A sequence classifier, by hub name or folder, as a scorer: the probability of its label `toxic` (`hate`, ...).

    Models with exclusive labels use a softmax, multi-label ones a sigmoid. Raises EarthworksError without the extra `hf`,
    if the model cannot be loaded (often for lack of a network), or if it has no such label.
    """
    try:
        from transformers import pipeline
    except ImportError:
        raise missing_extra("transformers", "hf", f"the toxicity scorer {name}") from None
    try:
        classify: Any = pipeline("text-classification", model=name, top_k=None, truncation=True)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise EarthworksError(f"the classifier {name} could not be loaded: {reason}") from None
    labels = [str(label) for label in classify.model.config.id2label.values()]
    label = next((each for wanted in TOXIC_LABELS for each in labels if each.lower() == wanted), None)
    if label is None:
        raise EarthworksError(f"the classifier {name} has the labels {', '.join(labels)}; expected one called toxic")

    def score(texts: Sequence[str]) -> list[float]:
        return [next(each["score"] for each in row if each["label"] == label) for row in classify(list(texts))]

    return score


def choose_scorer(
    scorer: str | ToxicityScorer, data: str | Path, *, timeout: float = 120.0, seed: int = 0
) -> tuple[ToxicityScorer, dict[str, Any]]:
    """The scorer for a name or callable, and its test results on labelled texts (printed by `headline`).

    `linear` trains ours on offensive_tweets_train of the data folder (10 s); a folder is that of a trained one; `hf:NAME` is
    a Hugging Face classifier. Scorers other than ours are tested here, on the labelled collections of the data folder.
    """
    if isinstance(scorer, str) and scorer == "linear":
        folder = Path(data) / "bias" if (Path(data) / "bias").is_dir() else Path(data)
        files = sorted(folder.glob("offensive_tweets_train.*"))
        if not files:
            raise EarthworksError(
                f"{folder} has no offensive_tweets_train.jsonl to train a scorer on; give --scorer a folder "
                "trained by earthworks evaluate classifier FILE --output FOLDER, or hf:NAME"
            )
        classifier = train_classifier(files[:1], against=data, seed=seed)
        return classifier, classifier.measured
    if isinstance(scorer, str) and not scorer.startswith("hf:"):
        classifier = LinearClassifier.load(scorer)
        return classifier, classifier.measured
    score = hugging_face_scorer(scorer[3:]) if isinstance(scorer, str) else scorer
    name = scorer if isinstance(scorer, str) else getattr(scorer, "__name__", type(scorer).__name__)
    sets = labelled_in(data)
    return score, {
        "name": name,
        "cross_corpus": {each.name: tested(score, each, timeout) for each in sets if not each.hatecheck},
        "hatecheck": next((tested(score, each, timeout) for each in sets if each.hatecheck), None),
    }


def tested(score: ToxicityScorer, data: LabelledTexts, timeout: float) -> dict[str, Any]:
    """The performance of a scorer that may fail, and `why`, the reason for missing scores."""
    scores, why = scores_of(score, data.texts, f"testing on {data.name}", timeout=timeout)
    return {**performance(lambda _: scores, data), "why": why}


def scores_of(
    scorer: ToxicityScorer, texts: Sequence[str], what: str = "scoring", *, timeout: float = 120.0
) -> tuple[NDArray[np.float64], str | None]:
    """The scores of texts, (texts,), NaN for missing ones, and a sentence on these, or None.

    A batch that raises or exceeds `timeout` seconds ends the scoring: it and all later texts have no score. An answer of
    the wrong length is dropped; otherwise, values that are NaN or outside [0, 1] are.
    """
    scores = np.full(len(texts), np.nan)
    reasons: dict[str, None] = {}
    with Progress(what, total=len(texts), unit="texts") as progress:
        for start in range(0, len(texts), TEXTS):
            batch = list(texts[start : start + TEXTS])
            answer = answered(scorer, batch, timeout)
            if isinstance(answer, str):
                reasons[answer] = None
                break
            try:
                values = np.asarray(answer, dtype=np.float64)
            except (TypeError, ValueError):
                reasons["answered with values that are not numbers"] = None
                continue
            if values.shape != (len(batch),):
                reasons[f"answered {len(batch)} texts with {values.size} scores"] = None
                continue
            sane = (values >= 0) & (values <= 1)  # False for NaN
            if not sane.all():
                reasons["gave scores that are NaN or outside [0, 1]"] = None
            scores[start : start + len(batch)][sane] = values[sane]
            progress.advance(len(batch))
    missing = int(np.isnan(scores).sum())
    if not missing:
        return scores, None
    return scores, f"the scorer {' and '.join(reasons)}: {missing:,} of {len(texts):,} texts have no score"


def answered(scorer: ToxicityScorer, batch: list[str], timeout: float) -> Any:
    """The scorer's answer, or the reason, as a string, why there is none. A hanging scorer is abandoned in its thread."""
    box: list[Any] = []

    def ask() -> None:
        try:
            box.append(scorer(batch))
        except Exception as error:  # a foreign scorer may raise anything
            box.append(f"failed ({type(error).__name__}: {' '.join(str(error).split())[:120]})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return box[0] if box else f"timed out after {timeout:g} s"
