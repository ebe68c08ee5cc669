"""Who says what is toxic: a classifier of ours, one of the Hugging Face library, or any callable."""

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
    """A sequence classifier by its name on the hub or its folder: the probability of its label `toxic` (`hate`, ...).

    Models whose labels exclude each other give a softmax, multi-label ones a sigmoid. Raises EarthworksError without the
    extra `hf`, where the model cannot be had (no network is a common reason), or has no label of such a name.
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
    """The scorer that a name or callable stands for, and what tests on labelled texts gave (`headline` prints it).

    `linear` trains ours on offensive_tweets_train of the data folder (10 s); the folder of a trained one; `hf:NAME` a
    classifier of Hugging Face. Other scorers than ours are tested here, on the labelled collections of the data folder.
    """
    if isinstance(scorer, str) and scorer == "linear":
        folder = Path(data) / "bias" if (Path(data) / "bias").is_dir() else Path(data)
        files = sorted(folder.glob("offensive_tweets_train.*"))
        if not files:
            raise EarthworksError(
                f"{folder} has no offensive_tweets_train.jsonl to train a scorer on; name one with --scorer, "
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
    """The performance of a scorer that may fail, and `why` some texts have no score."""
    scores, why = scores_of(score, data.texts, f"testing on {data.name}", timeout=timeout)
    return {**performance(lambda _: scores, data), "why": why}


def scores_of(
    scorer: ToxicityScorer, texts: Sequence[str], what: str = "scoring", *, timeout: float = 120.0
) -> tuple[NDArray[np.float64], str | None]:
    """The scores of texts, (texts,), NaN where there is none, and one sentence on what is missing, or None.

    A batch that has no answer within `timeout` seconds, or raises, ends the scoring: what follows is missing. An answer of
    the wrong length is missing as a whole, of its values those that are NaN or outside [0, 1].
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
                reasons["answered with what are not numbers"] = None
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
    """The scorer's answer, or a string that says why there is none. A scorer that hangs is left behind in its thread."""
    box: list[Any] = []

    def ask() -> None:
        try:
            box.append(scorer(batch))
        except Exception as error:  # whatever a foreign scorer raises becomes a sentence
            box.append(f"failed ({type(error).__name__}: {' '.join(str(error).split())[:120]})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return box[0] if box else f"timed out after {timeout:g} s"
