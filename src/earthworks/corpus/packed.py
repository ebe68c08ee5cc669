"""Packed tokens as training and validation read them (the layout is in packing.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus.records import Reading
from earthworks.corpus.sampling import Sampling, document_crops, subsets_of, window_starts
from earthworks.corpus.tokenizer import Tokenizer
from earthworks.runs import EarthworksError, read_json, verify_manifest
from earthworks.runs.files import MANIFEST

FORMAT = "earthworks packed tokens 1"
COUNTED = 1 << 22  # tokens counted at once


class Part:
    """The training or the validation tokens of a subset: counts, and the tokens memory-mapped."""

    def __init__(self, folder: Path, part: str, counts: dict[str, Any], dtype: np.dtype):
        self.documents: int = counts["documents"]
        self.tokens: int = counts["tokens"]
        self.bytes: int = counts["bytes"]
        self.words: int = counts["words"]
        self.table = np.load(folder / f"{part}-documents.npy", mmap_mode="r" if self.documents else None)
        self.shards = [np.asarray(np.memmap(folder / shard["file"], dtype, "r")) for shard in counts["shards"]]
        self.ends = np.cumsum([shard["tokens"] for shard in counts["shards"]])

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: tokens start .. stop - 1, from as many shards as they lie in."""
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        found = []
        for shard in range(first, last + 1):
            begin = int(self.ends[shard - 1]) if shard else 0
            found.append(self.shards[shard][max(start - begin, 0) : stop - begin])
        return np.concatenate(found).astype(np.int64)


@dataclass(slots=True)
class Subset:
    """One source of the corpus: its name, its share of the training samples, its two parts."""

    name: str
    weight: float
    train: Part
    validation: Part
    folder: Path


class PackedTokens:
    """A packed corpus, opened by `PackedTokens.open`. `subsets` are in the order of `--data`."""

    def __init__(self, path: Path, index: dict[str, Any], tokenizer: Tokenizer):
        self.path, self.index, self.tokenizer = path, index, tokenizer
        dtype = np.dtype(index["dtype"])
        self.subsets: list[Subset] = []
        self.reading = Reading()
        for entry in index["subsets"]:
            folder = path / entry["folder"]
            train, validation = (Part(folder, part, entry[part], dtype) for part in ("train", "validation"))
            self.subsets.append(Subset(entry["name"], entry["weight"], train, validation, folder))
            for name, count in entry["reading"].items():
                setattr(self.reading, name, getattr(self.reading, name) + count)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> "PackedTokens":
        """Open the folder that `pack` wrote; `verify` reads everything to compare SHA-256, otherwise sizes are."""
        path = Path(folder)
        if not is_packed(path):
            raise EarthworksError(f"{path} is not a folder of packed tokens: it has no index.json and tokenizer.json")
        index = read_json(path / "index.json")
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise EarthworksError(f"{path / 'index.json'} is of another format than {FORMAT!r}: pack the corpus again")
        if verify:
            verify_manifest(path)
        for name, expected in read_json(path / MANIFEST)["files"].items():
            size = (path / name).stat().st_size if (path / name).exists() else 0
            if size != expected["bytes"]:
                raise EarthworksError(
                    f"{path / name} has {size} bytes, not the {expected['bytes']} written: it was cut short or altered"
                )
        tokenizer = Tokenizer.load(path)
        if tokenizer.digest != index["tokenizer"]["digest"]:
            raise EarthworksError(f"{path / 'tokenizer.json'} is not the tokenizer these tokens were made with")
        return cls(path, index, tokenizer)

    @property
    def train_tokens(self) -> int:
        """Tokens to train on, of all subsets."""
        return sum(subset.train.tokens for subset in self.subsets)

    @property
    def has_validation(self) -> bool:
        """Whether anything was held out."""
        return any(subset.validation.documents for subset in self.subsets)

    def epochs(self, samples: int, context: int) -> dict[str, float]:
        """How often the tokens of each subset are read, on average, in that many training samples."""
        return {each.name: each.weight * samples * context / each.train.tokens for each in self.subsets}

    def token_frequencies(self) -> np.ndarray:
        """(vocabulary,) float64, sums to 1 and is nowhere 0: the share of each token in the training mixture,

        f_t = sum_s weight_s (n_st + 1) / (n_s + vocabulary).  Reads every training token."""
        vocabulary = self.tokenizer.vocabulary
        frequencies = np.zeros(vocabulary)
        for subset in self.subsets:
            counts = np.ones(vocabulary, np.int64)
            for shard in subset.train.shards:
                for start in range(0, len(shard), COUNTED):
                    counts += np.bincount(shard[start : start + COUNTED], minlength=vocabulary)
            frequencies += subset.weight * counts / counts.sum()
        return frequencies

    def windows(self, seed: int, start: int, count: int, context: int, sampling: Sampling = "windows") -> np.ndarray:
        """(count, context + 1) int64: samples start .. start + count - 1 of the run's endless sequence (sampling.py).

        Row = context inputs and, moved by one, context targets. Windows run across the ends of documents: `</s>` is a
        token like others, and attention is not masked there. Raises EarthworksError when a subset with a share in
        training is shorter than one window."""
        for subset in self.subsets:
            if subset.train.tokens <= context:
                raise EarthworksError(
                    f"the corpus is shorter than one context: {subset.name} has {subset.train.tokens} training tokens, "
                    f"--context {context} needs {context + 1}; give a smaller --context or more text"
                )
        rows = np.empty((count, context + 1), np.int64)
        which, rank = subsets_of(seed, start, count, np.array([subset.weight for subset in self.subsets]))
        for number, subset in enumerate(self.subsets):
            here = np.flatnonzero(which == number)
            if sampling == "documents":
                begins = subset.train.table[:, 0]
                for row, sample in zip(here, rank[here].tolist()):
                    crops = document_crops(seed, number, sample, begins, subset.train.tokens, context)
                    rows[row] = np.concatenate([subset.train.read(*crop) for crop in crops])
                continue
            first = window_starts(seed, number, rank[here], subset.train.tokens, context)
            for row, begin in zip(here, first.tolist()):
                rows[row] = subset.train.read(begin, begin + context + 1)
        return rows

    def named(self, name: str | None) -> list[Subset]:
        """The subset of that name, or all of them."""
        found = [subset for subset in self.subsets if name in (None, subset.name)]
        if not found:
            names = ", ".join(subset.name for subset in self.subsets)
            raise EarthworksError(f"{self.path} has no subset {name}; it has {names}")
        return found

    def validation_documents(self, subset: str | None = None) -> Iterator[tuple[np.ndarray, int, int]]:
        """(tokens with their end of document, bytes of the text as read, words) of each held-out document."""
        for part in (each.validation for each in self.named(subset)):
            ends = [*part.table[1:, 0].tolist(), part.tokens]
            for (begin, num_bytes, num_words), end in zip(part.table.tolist(), ends):
                yield part.read(begin, end), num_bytes, num_words

    def sample_text(self, subset: str | None = None) -> str:
        """The beginning of a subset's first held-out document (of the first subset that has one); may be empty."""
        for each in self.named(subset):
            path = each.folder / "validation-sample.txt"
            if path.exists():
                return path.read_bytes().decode()
        return ""


def is_packed(path: str | Path) -> bool:
    """Whether a folder holds packed tokens rather than documents."""
    return (Path(path) / "index.json").is_file() and (Path(path) / "tokenizer.json").is_file()
