"""Small data in the shapes of the real collections, with mild words, and scorers with known answers."""

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from earthworks.evaluation.likelihood.scorer import Likelihood

WOMEN = {"nurse": 90.0, "baker": 60.0, "teacher": 75.0}
MEN = {"driver": 10.0, "cook": 40.0, "guard": 20.0}
PRONOUNS = {"male": "he", "female": "she", "neutral": "they"}


class Known:
    """A Scorer from a likelihood and, optionally, a function of (prompt, draw) that generates text."""

    def __init__(
        self,
        likelihood: Callable[[str, str], float] = lambda context, text: -1.0,
        write: Callable[[str, int], str] = lambda prompt, draw: "a plain day",
    ):
        self.likelihood, self.write = likelihood, write

    def score(self, pairs: Sequence[tuple[str, str]], progress: object = None) -> list[Likelihood]:
        return [Likelihood(self.likelihood(context, text)) for context, text in pairs]

    def generate(self, prompts: Sequence[str], *, num: int, **_: Any) -> list[list[str]]:
        return [[self.write(prompt, draw) for draw in range(num)] for prompt in prompts]


def chance(*key: object) -> float:
    """A pseudo-random number in [0, 1) from any value."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def ignorant(seed: int) -> Known:
    return Known(lambda context, text: -1 - chance(seed, context, text))


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content, encoding="utf-8")


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    write(path, "".join(json.dumps(record) + "\n" for record in records))


def winogender(folder: Path) -> None:
    rows = ["sentid\tsentence"]
    for occupation in (*WOMEN, *MEN):
        for other in ("visitor", "someone"):
            for answer, end in ((0, "was at work"), (1, "was on the way")):
                rows += [
                    f"{occupation}.{other}.{answer}.{gender}.txt\tThe {occupation} told the {other} that {pronoun} {end}."
                    for gender, pronoun in PRONOUNS.items()
                ]
    write(folder / "winogender" / "all_sentences.tsv.gz", "\n".join(rows) + "\n")
    rows = ["occupation\tbergsma_pct_female\tbls_pct_female\tbls_year"]
    rows += [f"{occupation}\t50\t{share}\t2015" for occupation, share in {**WOMEN, **MEN}.items()]
    write(folder / "winogender" / "occupations-stats.tsv.gz", "\n".join(rows) + "\n")


def word_lists(folder: Path) -> None:
    write(folder / "word_lists" / "female_occupations.txt.gz", "\n".join(WOMEN))
    write(folder / "word_lists" / "male_occupations.txt.gz", "\n".join(MEN))
    for gender in ("female", "male"):
        names = [f"{gender.title()}{each}" for each in "abcdefgh"]
        write(folder / "word_lists" / f"names_{gender}.txt.gz", "\n".join(names))


def crows_pairs(folder: Path, num: int = 40) -> None:
    records = [
        {"sent_more": f"the red ones are late, {n}", "sent_less": f"the blue ones are late, {n}"}
        | {"bias_type": ("age", "religion")[n % 2], "stereo_antistereo": "stereo"}
        for n in range(num)
    ]
    write_records(folder / "crows_pairs.jsonl.gz", records)


def bbq(folder: Path, templates: int = 10) -> list[dict[str, Any]]:
    """For every template: each polarity, ambiguous and with either answer given."""
    records = [
        {
            **{"context": f"A red and a blue one met, {template}.", "question": f"Who was {polarity}?"},
            **{"ans0": "The red one", "ans1": "The blue one", "ans2": "Not known", "label": label},
            "answer_info": {"ans0": ["red", "red"], "ans1": ["blue", "blue"], "ans2": ["Not known", "unknown"]},
            "additional_metadata": {"stereotyped_groups": ["red"]},
            **{"question_polarity": polarity, "question_index": str(template)},
            "context_condition": "ambig" if label == 2 else "disambig",
        }
        for template in range(templates)
        for polarity in ("neg", "nonneg")
        for label in (2, 2, 0, 1)
    ]
    write_records(folder / "bbq" / "Colour.jsonl.gz", records)
    return records


def bold(folder: Path) -> None:
    groups = {name: {f"{name}{n}": [f"{name} {n} began as "] for n in range(12)} for name in ("painters", "singers")}
    write(folder / "bold_prompts" / "art.json.gz", json.dumps(groups))


def lexicon(folder: Path) -> None:
    write(folder / "lexicons" / "vader_lexicon.txt.gz", "good\t2.0\t0.5\t[2]\nbad\t-3.0\t0.5\t[-3]\n")
    records = [{"text": f"a {'good' if n % 2 else 'bad'} film {n}", "label": n % 2} for n in range(20)]
    write_records(folder / "sentence_polarity_train.jsonl.gz", records)


def everything(folder: Path) -> Path:
    for make in (winogender, word_lists, crows_pairs, bbq, bold, lexicon):
        make(folder)
    return folder


def labelled(num: int = 400, seed: int = 0) -> list[dict[str, Any]]:
    """Texts of which "grumpy" and "nasty" make the toxic ones."""
    toxic = [n % 4 == 0 for n in range(num)]
    return [
        {
            "text": f"{('nasty', 'grumpy')[n % 8 // 4] if t else 'pleasant'} talk about {int(chance(seed, n) * 30)} and {n}"
        }
        | {"label": int(t)}
        for n, t in enumerate(toxic)
    ]


def hatecheck(folder: Path, sensible: bool) -> None:
    """If `sensible`, hateful texts have the words of `labelled`'s toxic ones, otherwise the harmless ones do."""
    rows = ["functionality,case_id,test_case,label_gold,target_ident"]
    for n in range(60):
        hateful = n % 2 == 0
        word = "nasty" if hateful == sensible else "pleasant"
        target = ("painters", "singers", "")[n % 3]
        rows.append(f"kind,{n},a {word} case {n},{'hateful' if hateful else 'non-hateful'},{target}")
    write(folder / "hatecheck.csv.gz", "\n".join(rows) + "\n")
