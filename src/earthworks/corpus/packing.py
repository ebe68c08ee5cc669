"""Documents into packed token shards: a folder that training, validation and resuming read from.

    index.json                          counts, weights, tokenizer digest, what was replaced or left out
    tokenizer.json
    manifest.json                       size and SHA-256 of every file
    SUBSET/train-00000.bin ...          tokens, little-endian uint16 (uint32 from 65,536 tokens of vocabulary)
    SUBSET/train-documents.npy          int64 (documents, 3): first token, bytes of the text as read, words
    SUBSET/validation-...               the same for what is held out
    SUBSET/validation-sample.txt        the first 4,096 characters of the first validation document

The tokens of every document are followed by one end of document. Bytes are those of the UTF-8 text before NFKC: what
bits per byte are counted over.
"""

import io
import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus.packed import FORMAT, PackedTokens
from earthworks.corpus.reading import read
from earthworks.corpus.records import Reading
from earthworks.corpus.source import Source
from earthworks.corpus.splitting import Split, split_sources
from earthworks.corpus.tokenizer import Tokenizer, chunks
from earthworks.runs import Progress, new_folder
from earthworks.runs.files import one_sentence, write_through

SHARD = 1 << 26  # tokens of a file: 128 MB as uint16, held in memory until written
BATCH = 1 << 22  # characters encoded at once
SAMPLE = 4096


def pack(
    sources: list[Source],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
) -> PackedTokens:
    """Read, split (`split_sources`), tokenize and write everything; the folder appears whole or not at all.

    `validation` is the fraction of bytes to hold out, 0 for none. `progress` advances by megabytes.
    Memory: one document, one batch, two shards. Raises EarthworksError for a source without text.
    """
    dtype = np.dtype("<u2") if tokenizer.vocabulary <= 1 << 16 else np.dtype("<u4")
    subsets = []
    with new_folder(folder) as temporary:
        split = split_sources(sources, validation, seed)
        write_through(temporary / "tokenizer.json", tokenizer.file_content())
        for source, name in zip(sources, folder_names(sources)):
            with one_sentence(Path(folder)):
                (temporary / name).mkdir()
            reading = Reading()
            parts = {part: PartWriter(temporary / name, part, dtype) for part in ("train", "validation")}
            for batch in batches(pieces(source, split, reading, temporary / name)):
                encoded = tokenizer.encode_batch([text for _, text, _ in batch])
                for (part, text, counts), tokens in zip(batch, encoded):
                    parts[part].extend(tokens)
                    if counts is not None:
                        parts[part].end_document(tokenizer.end_of_document, *counts)
                    if progress is not None:
                        progress.advance(len(text.encode()) / 1e6)
            subsets.append(
                {"name": source.name, "location": source.location, "folder": name, "weight": source.weight}
                | {part: writer.finish() for part, writer in parts.items()}
                | {"reading": asdict(reading)}
            )
        shares = [subset["weight"] or subset["train"]["tokens"] for subset in subsets]
        for subset, share in zip(subsets, shares):
            subset["weight"] = share / sum(shares)
        index = {
            "format": FORMAT,
            "tokenizer": {"kind": tokenizer.kind, "vocabulary": tokenizer.vocabulary, "digest": tokenizer.digest},
            "dtype": dtype.str,
            "validation": validation,
            "seed": seed,
            "subsets": subsets,
        }
        write_through(temporary / "index.json", (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())
    return PackedTokens.open(folder)


def folder_names(sources: list[Source]) -> list[str]:
    """File-system safe, distinct names of the subsets."""
    names: list[str] = []
    for source in sources:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip(".-")[:100] or "subset"
        names.append(safe if safe not in names else f"{safe}-{len(names)}")
    return names


Piece = tuple[str, str, tuple[int, int] | None]  # part, text, and after the last of a document its (bytes, words)


def pieces(source: Source, split: Split, reading: Reading, folder: Path) -> Iterator[Piece]:
    """The texts of a source in pieces short enough to encode, each with the part it belongs to."""
    sampled = False
    for document in read(source.location, reading):
        for part, text in zip(("train", "validation"), split.parts(document.text)):
            if not text:
                continue
            if part == "validation" and not sampled:
                sampled = True
                write_through(folder / "validation-sample.txt", text[:SAMPLE].encode())
            num_bytes = num_words = 0
            within = False  # a word goes on from the piece before
            held = None
            for piece in chunks(text):
                if held is not None:
                    yield part, held, None
                num_bytes += len(piece.encode())
                num_words += len(piece.split()) - (within and not piece[0].isspace())
                within = not piece[-1].isspace()
                held = piece
            assert held is not None
            yield part, held, (num_bytes, num_words)


def batches(items: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces together until they make up BATCH characters."""
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += len(item[1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class PartWriter:
    """The shards and the document table of one part of one subset."""

    def __init__(self, folder: Path, part: str, dtype: np.dtype):
        self.folder, self.part, self.dtype = folder, part, dtype
        self.buffer = bytearray()
        self.shards: list[dict[str, Any]] = []
        self.documents = array("q")
        self.tokens = self.begun = self.bytes = self.words = 0

    def extend(self, tokens: np.ndarray) -> None:
        self.buffer += tokens.astype(self.dtype).tobytes()
        self.tokens += len(tokens)
        full = SHARD * self.dtype.itemsize
        while len(self.buffer) >= full:
            self.write(self.buffer[:full])
            del self.buffer[:full]

    def end_document(self, end: int, num_bytes: int, num_words: int) -> None:
        self.extend(np.array([end]))
        self.documents.extend((self.begun, num_bytes, num_words))
        self.begun = self.tokens
        self.bytes += num_bytes
        self.words += num_words

    def write(self, data: bytes | bytearray) -> None:
        name = f"{self.part}-{len(self.shards):05d}.bin"
        write_through(self.folder / name, memoryview(data))
        self.shards.append({"file": name, "tokens": len(data) // self.dtype.itemsize})

    def finish(self) -> dict[str, Any]:
        """Write what is left; the counts for the index."""
        if self.buffer:
            self.write(self.buffer)
        table = io.BytesIO()
        np.save(table, np.frombuffer(self.documents, np.int64).reshape(-1, 3), allow_pickle=False)
        write_through(self.folder / f"{self.part}-documents.npy", table.getvalue())
        counts = {"documents": len(self.documents) // 3, "tokens": self.tokens, "bytes": self.bytes}
        return counts | {"words": self.words, "shards": self.shards}
