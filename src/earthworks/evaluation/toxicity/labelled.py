"""Texts labelled toxic or not, in the formats of known collections."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earthworks.evaluation.example_files import records_of
from earthworks.runs import EarthworksError

# Identity terms that define subgroups if a collection names none: a subset of the list of Dixon et al. 2018.
IDENTITY = (
    "women",
    "men",
    "muslim",
    "christian",
    "jewish",
    "black",
    "white",
    "gay",
    "lesbian",
    "transgender",
    "disabled",
)
IDENTITY += ("immigrant", "asian", "mexican", "old", "young")
TERM = re.compile(rf"\b({'|'.join(IDENTITY)})(?:s|es)?\b")


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """`texts`, whether each is `toxic`, the identity `groups` it mentions, and whether this is HateCheck."""

    name: str
    texts: list[str]
    toxic: list[bool]
    groups: list[frozenset[str]] = field(default_factory=list)
    hatecheck: bool = False


def truth(value: Any) -> bool:
    """Parse a label; numbers of at least 0.5 are true."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "toxic"):
        return True
    if word in ("false", "no", "non-toxic"):
        return False
    if not math.isfinite(number := float(word)):
        raise ValueError(f"{word} is not a label")
    return number >= 0.5


# (fields that identify the format, field of the text, whether it is toxic); the first that fits is used
SHAPES: tuple[tuple[tuple[str, ...], str, Callable[[dict[str, Any]], bool]], ...] = (
    (("test_case", "label_gold"), "test_case", lambda record: record["label_gold"] == "hateful"),  # HateCheck
    (
        ("hate_speech", "offensive_language", "neither", "label", "text"),
        "text",
        lambda r: int(r["label"]) != 2,
    ),  # Davidson
    (("comment_text", "target"), "comment_text", lambda record: truth(record["target"])),  # Civil Comments
    (("comment_text", "toxicity"), "comment_text", lambda record: truth(record["toxicity"])),
    (("comment_text", "toxic"), "comment_text", lambda record: truth(record["toxic"])),  # Jigsaw
    (("comment", "toxic"), "comment", lambda record: truth(record["toxic"])),  # Wikipedia's talk pages
    (("text", "toxic"), "text", lambda record: truth(record["toxic"])),
    (("text", "label"), "text", lambda record: truth(record["label"])),
)


def read_labelled(path: str | Path) -> LabelledTexts:
    """A .jsonl, .csv or .tsv file (also compressed) of labelled texts.

    Known formats: `text` or `comment` or `comment_text` with `toxic`, `label`, `target` or `toxicity` (1, true or a number
    of at least 0.5 is toxic); the tweets of Davidson et al. 2017 (hate or offensive is toxic); HateCheck (Röttger et al.
    2021). Records without text are left out. Raises EarthworksError for other formats, or if all labels are the same.
    """
    path = Path(path)
    if not path.is_file():
        raise EarthworksError(f"{path} is not a file; expected a .jsonl, .csv or .tsv of labelled texts")
    records = records_of(path)
    shape = next((shape for shape in SHAPES if all(name in records[0] for name in shape[0])), None)
    if shape is None:
        raise EarthworksError(
            f"{path} has the fields {', '.join(records[0])}; expected text and label (1 toxic, 0 not)"
        )
    _, text, toxic = shape
    texts: list[str] = []
    labels: list[bool] = []
    groups = []
    for number, record in enumerate(records, 1):
        content = record.get(text)
        if content is None or content == "":
            continue
        if not isinstance(content, str):
            raise EarthworksError(
                f"record {number} of {path} has {str(content)[:40]} in the field {text}; expected text"
            )
        try:
            labels.append(toxic(record))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise EarthworksError(
                f"record {number} of {path} has a label that is neither a number nor true or false"
            ) from None
        texts.append(content)
        groups.append(groups_of(record, content))
    if not texts:
        raise EarthworksError(f"{path} has no record with text in the field {text}")
    if len(set(labels)) < 2:
        raise EarthworksError(f"{path} has {'only' if labels[0] else 'no'} toxic texts; expected both kinds")
    return LabelledTexts(path.name, texts, labels, groups, "test_case" in shape[0])


def groups_of(record: dict[str, Any], text: str) -> frozenset[str]:
    """HateCheck's target, otherwise the identity terms in the text."""
    if "target_ident" in record:
        return frozenset([str(record["target_ident"])] if record["target_ident"] else [])
    return frozenset(TERM.findall(text.lower()))


def labelled_in(place: str | Path) -> list[LabelledTexts]:
    """The texts of a file, or of those files in a folder (or its bias/) that are named like known collections."""
    path = Path(place)
    if path.is_file():
        return [read_labelled(path)]
    folder = path / "bias" if (path / "bias").is_dir() else path
    names = ("offensive_tweets", "wiki_comments", "hatecheck", "civil_comments", "jigsaw")
    return [read_labelled(file) for file in sorted(folder.glob("*")) if file.is_file() and file.name.startswith(names)]
