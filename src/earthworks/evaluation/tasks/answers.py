"""Compare written answers to open questions with the accepted ones."""

import re
import string
from collections.abc import Sequence
from decimal import Decimal

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Lower-case the answer; drop ASCII punctuation, the articles a, an, the, and extra white space, as SQuAD
    (Rajpurkar et al. 2016) and TriviaQA do."""
    words = answer.lower().translate(PUNCTUATION).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def last_number(text: str) -> Decimal | None:
    """`last_number("so 1,200 - 8 = 1,192.")` -> 1192."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def matches(written: str, accepted: Sequence[str], extract: str | None = None) -> bool:
    """Whether the answer equals an accepted one after normalisation; `extract="number"` compares the last numbers."""
    if extract == "number":
        number = last_number(written)
        return number is not None and any(number == last_number(answer) for answer in accepted)
    given = normalized(written)
    return bool(given) and any(given == normalized(answer) for answer in accepted)
