"""Reader of packed tokens for training and validation (the layout is in packing.py)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus.readers.records import Reading
from earthworks.corpus.sealing import has_shape
from earthworks.corpus.tokens.sample_order import Sampling, document_crops, subsets_of, window_starts
from earthworks.corpus.tokens.tokenizer import Tokenizer
from earthworks.runs import EarthworksError, read_json, read_regular, verify_manifest

KIND = "earthworks packed tokens"
FORMAT = f"{KIND} 1"
SAMPLE = "validation-sample.txt"
LONGEST_SAMPLE = 1 << 20  # bytes
COUNTED = 1 << 22  # tokens counted at once
COUNTS = dict.fromkeys(("documents", "tokens", "bytes", "words"), int)
PART = {**COUNTS, "shards": [{"file": str, "tokens": int}]}
SUBSET = {"name": str, "folder": str, "weight": float, "train": PART, "validation": PART, "reading": dict}
SHAPE = {"format": str, "tokenizer": {"digest": str}, "dtype": str, "subsets": [SUBSET]}


class Part:
    """The training or validation tokens of a subset: counts, and memory-mapped tokens.

    Raises EarthworksError if counts, files and table disagree, so that no position can be out of range."""

    def __init__(self, folder: Path, part: str, counts: dict[str, Any], dtype: np.dtype, vocabulary: int):
        self.documents: int = counts["documents"]
        self.tokens: int = counts["tokens"]
        self.bytes: int = counts["bytes"]
        self.words: int = counts["words"]
        self.vocabulary = vocabulary
        self.files = [*(folder / shard["file"] for shard in counts["shards"]), folder / f"{part}-documents.npy"]
        sizes = [shard["tokens"] for shard in counts["shards"]]
        if min(self.documents, self.tokens, self.bytes, self.words, *sizes) < 0 or sum(sizes) != self.tokens:
            raise altered(folder, f"counts {self.tokens} tokens of {part} and {sum(sizes)} in its files")
        for file, size in zip(self.files, sizes):
            if not size or file.stat().st_size != size * dtype.itemsize:
                raise altered(folder, f"counts {size} tokens in {file.name}, which has {file.stat().st_size} bytes")
        self.table = self.documents_table()
        self.shards = [np.asarray(np.memmap(file, dtype, "r")) for file in self.files[:-1]]
        self.ends = np.cumsum(sizes)

    def documents_table(self) -> np.ndarray:
        """(documents, 3) int64: first token, bytes, words; checked against the counts. Reads 24 bytes per document."""
        path = self.files[-1]
        try:  # mapped, so that a header with a false, large size costs nothing
            table = np.load(path, mmap_mode="r") if self.documents else np.empty((0, 3), np.int64)
        except (ValueError, OSError, EOFError) as error:
            raise EarthworksError(f"{path} is not a table of documents ({error}): it was altered") from None
        if table.shape != (self.documents, 3) or table.dtype != np.int64:
            raise altered(path, f"has {table.dtype} {table.shape}, but the index counts {self.documents} documents")
        begins = np.asarray(table[:, 0])
        rising = not self.documents or (
            begins[0] == 0 and begins[-1] < self.tokens and bool((begins[1:] > begins[:-1]).all())
        )
        if not rising or (table[:, 1:] < 0).any() or (bool(self.documents) != bool(self.tokens)):
            raise altered(path, "has documents that are not in order")
        if table[:, 1].sum() != self.bytes or table[:, 2].sum() != self.words:
            raise altered(path, f"has bytes or words other than the {self.bytes} and {self.words} counted")
        return table

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64: tokens start .. stop - 1, possibly from several shards."""
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        found = []
        for shard in range(first, last + 1):
            offset = int(self.ends[shard - 1]) if shard else 0
            found.append(self.shards[shard][max(start - offset, 0) : stop - offset])
        tokens = np.concatenate(found)
        if len(tokens) and tokens.max() >= self.vocabulary:  # takes 2 of 10 microseconds for a window of 2,049
            raise too_large(int(tokens.max()), self.files[first], self.vocabulary)
        return tokens.astype(np.int64)


def altered(path: Path, what: str) -> EarthworksError:
    return EarthworksError(f"{path} {what}: it was altered, pack the corpus again")


def too_large(token: int, path: Path, vocabulary: int) -> EarthworksError:
    return EarthworksError(
        f"token {token} in {path} is beyond the tokenizer's {vocabulary:,}: it was altered, pack the corpus again"
    )


@dataclass(slots=True)
class Subset:
    """One source of the corpus: its name, its share of the training samples, and its two parts."""

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
        self.compared: set[Path] = set()  # held-out files whose SHA-256 has been compared
        for entry in index["subsets"]:
            folder = path / entry["folder"]
            train, validation = (
                Part(folder, part, entry[part], dtype, tokenizer.vocabulary) for part in ("train", "validation")
            )
            self.subsets.append(Subset(entry["name"], entry["weight"], train, validation, folder))
            for name, count in entry["reading"].items():
                setattr(self.reading, name, getattr(self.reading, name) + count)

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False, compared: bool = False) -> "PackedTokens":
        """Open a folder written by `pack` after comparing its files with its manifest.

        Files are compared by size and the SHA-256 of 64 blocks; in full if their modification time differs, or with
        `verify`; not at all if the caller has `compared` them. The held-out part is compared in full when it is read.

        Raises EarthworksError if anything was altered or the index is inconsistent."""
        path = Path(folder)
        if not is_packed(path):
            raise EarthworksError(f"{path} is not a folder of packed tokens: it has no index.json and tokenizer.json")
        index = read_json(path / "index.json")
        form = index.get("format") if isinstance(index, dict) else None
        if form != FORMAT:
            raise EarthworksError(f"{path / 'index.json'} does not have the format {FORMAT!r}: pack the corpus again")
        names = checked(path, index)
        if not compared:
            verify_manifest(path, names=names, full=verify)
        tokenizer = Tokenizer.load(path)
        if tokenizer.digest != index["tokenizer"]["digest"]:
            raise EarthworksError(f"{path / 'tokenizer.json'} is not the tokenizer that produced these tokens")
        return cls(path, index, tokenizer)

    @property
    def train_tokens(self) -> int:
        """Number of training tokens of all subsets."""
        return sum(subset.train.tokens for subset in self.subsets)

    @property
    def has_validation(self) -> bool:
        """Whether anything was held out."""
        return any(subset.validation.documents for subset in self.subsets)

    def epochs(self, samples: int, context: int) -> dict[str, float]:
        """Average number of times that the tokens of each subset are read in the given number of training samples."""
        return {each.name: each.weight * samples * context / each.train.tokens for each in self.subsets}

    def token_frequencies(self) -> np.ndarray:
        """Share of each token in the training mixture, (vocabulary,) float64, positive, with sum 1:

        f_t = sum_s weight_s (n_st + 1) / (n_s + vocabulary).  Reads every training token."""
        vocabulary = self.tokenizer.vocabulary
        frequencies = np.zeros(vocabulary)
        for subset in self.subsets:
            counts = np.ones(vocabulary, np.int64)
            for shard in subset.train.shards:
                for start in range(0, len(shard), COUNTED):
                    found = np.bincount(shard[start : start + COUNTED], minlength=vocabulary)
                    if len(found) > vocabulary:
                        raise too_large(len(found) - 1, subset.folder, vocabulary)
                    counts += found
            frequencies += subset.weight * counts / counts.sum()
        return frequencies

    def windows(self, seed: int, start: int, count: int, context: int, sampling: Sampling = "windows") -> np.ndarray:
        """(count, context + 1) int64: samples start .. start + count - 1 of the infinite sequence of sample_order.py.

        Row = context inputs and, shifted by one, context targets. Windows cross document boundaries: `</s>` is an
        ordinary token, and attention is not masked there. Raises EarthworksError if a subset is shorter than one
        window."""
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
            self.compare(part.files if part.documents else [])
            ends = [*part.table[1:, 0].tolist(), part.tokens]
            for (begin, num_bytes, num_words), end in zip(part.table.tolist(), ends):
                yield part.read(begin, end), num_bytes, num_words

    def compare(self, files: list[Path]) -> None:
        """Compare files with their SHA-256, once, so that measurements are only made on unaltered files."""
        names = [file.relative_to(self.path).as_posix() for file in files if file not in self.compared]
        verify_manifest(self.path, names=names)
        self.compared.update(files)

    def sample_text(self, subset: str | None = None) -> str:
        """The start of a subset's first held-out document (of the first subset that has one); may be empty."""
        for each in self.named(subset):
            if each.validation.documents:
                sample = each.folder / SAMPLE
                self.compare([sample])
                return read_regular(sample, LONGEST_SAMPLE).decode(errors="replace")
        return ""


def checked(path: Path, index: dict[str, Any]) -> list[str]:
    """Names of the files listed by an index. Raises EarthworksError if the index cannot have been written by `pack`."""
    where = path / "index.json"
    if not has_shape(index, SHAPE) or index["dtype"] not in ("<u2", "<u4") or not index["subsets"]:
        raise altered(where, "is not the index of packed tokens")
    names = ["index.json", "tokenizer.json"]
    if abs(sum(subset["weight"] for subset in index["subsets"]) - 1) > 1e-6:
        raise altered(where, "has weights that do not add up to 1")
    known = {each.name for each in fields(Reading) if each.type in (int, "int")}
    for subset in index["subsets"]:
        weight, folder = subset["weight"], subset["folder"]
        if not (0 <= weight <= 1) or "/" in folder:
            raise altered(where, f"gives the subset {subset['name']!r} the weight {weight} and the folder {folder!r}")
        for part in ("train", "validation"):
            files = [shard["file"] for shard in subset[part]["shards"]]
            names += [f"{folder}/{name}" for name in (*files, f"{part}-documents.npy")]
            if any("/" in name for name in files):
                raise altered(where, f"names a file outside {folder!r}")
        if subset["validation"]["documents"]:
            names.append(f"{folder}/{SAMPLE}")
        reading = {name: count for name, count in subset["reading"].items() if name in known}
        if not all(type(count) is int and count >= 0 for count in reading.values()):
            raise altered(where, f"has an invalid count for the subset {subset['name']!r}")
        subset["reading"] = reading
    return names


def is_packed(path: str | Path) -> bool:
    """Whether a folder holds packed tokens rather than documents."""
    return (Path(path) / "index.json").is_file() and (Path(path) / "tokenizer.json").is_file()
