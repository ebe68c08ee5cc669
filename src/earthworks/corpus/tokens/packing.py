"""Conversion of documents into packed token shards: a folder read by training, validation and resuming.

    index.json                          counts, weights, tokenizer digest, numbers of replaced or skipped items
    tokenizer.json
    manifest.json                       size and SHA-256 of every file
    SUBSET/train-00000.bin ...          tokens, little-endian uint16 (uint32 from 65,536 tokens of vocabulary)
    SUBSET/train-documents.npy          int64 (documents, 3): first token, bytes of the text as read, words
    SUBSET/validation-...               the same for held-out documents
    SUBSET/validation-sample.txt        the first 4,096 characters of the first validation document

The tokens of every document are followed by one end of document. Bytes are those of the UTF-8 text before NFKC, as used
for bits per byte.
"""

import io
import re
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from earthworks.corpus.document import Document, Extent, LongDocument
from earthworks.corpus.readers.records import Reading
from earthworks.corpus.readers.sources import Source
from earthworks.corpus.tokens.packed_tokens import FORMAT, PackedTokens
from earthworks.corpus.tokens.tokenizer import Tokenizer, batches, chunks_of
from earthworks.corpus.tokens.validation_split import Split, split_sources
from earthworks.runs import Progress, json_text, new_folder
from earthworks.runs.files import one_sentence, write_through

SHARD = 1 << 26  # tokens per file: 128 MB as uint16, held in memory until written
SAMPLE = 4096


def pack(
    sources: list[Source],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    progress: Progress | None = None,
    split: Split | None = None,
) -> PackedTokens:
    """Read, split (`split_sources`), tokenize and write all sources; the folder appears complete or not at all.

    `validation` is the fraction of bytes to hold out, 0 for none; `split`, made by `split_sources` from it and `seed`,
    saves reading everything another time. `progress` advances by megabytes.
    Memory: one batch, two shards, and one document or 16 MiB of a .txt file. Raises EarthworksError for a source without
    text, or whose documents changed after the split.
    """
    dtype = np.dtype("<u2") if tokenizer.vocabulary <= 1 << 16 else np.dtype("<u4")
    subsets = []
    with new_folder(folder) as temporary:
        split = split_sources(sources, validation, seed) if split is None else split
        assert (split.fraction, split.seed) == (validation, seed)
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
        write_through(temporary / "index.json", (json_text(index) + "\n").encode())
    return PackedTokens.open(folder)


def folder_names(sources: list[Source]) -> list[str]:
    """Distinct names of the subsets that are safe in file systems."""
    names: list[str] = []
    for source in sources:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip(".-")[:100] or "subset"
        names.append(safe if safe not in names else f"{safe}-{len(names)}")
    return names


Piece = tuple[str, str, tuple[int, int] | None]  # part, text, and for the last piece of a document its (bytes, words)


def pieces(source: Source, split: Split, reading: Reading, folder: Path) -> Iterator[Piece]:
    """The texts of a source in pieces short enough to encode, each with its part."""
    sampled = False
    for part, blocks in split.read(source, reading):
        extent = Extent()
        held = None
        for piece in chunks_of(blocks):
            if held is not None:
                yield part, held, None
            elif part == "validation" and not sampled:
                sampled = True
                write_through(folder / "validation-sample.txt", piece[:SAMPLE].encode())
            extent.add(piece)
            held = piece
        if held is not None:
            yield part, held, (extent.bytes, extent.words)


def tokens_of(document: Document | LongDocument, tokenizer: Tokenizer, reading: Reading) -> tuple[np.ndarray, int, int]:
    """A document's tokens, int32, without an end of document, and the numbers of bytes and words of its text as read."""
    extent = Extent()

    def pieces() -> Iterator[tuple[None, str]]:
        blocks = [document.text] if isinstance(document, Document) else document.blocks(reading)
        for piece in chunks_of(blocks):
            extent.add(piece)
            yield None, piece

    found = [np.empty(0, np.int32)]
    for batch in batches(pieces()):
        found += [tokens.astype(np.int32) for tokens in tokenizer.encode_batch([piece for _, piece in batch])]
    return np.concatenate(found), extent.bytes, extent.words


class PartWriter:
    """Writes the shards and the document table of one part of one subset."""

    def __init__(self, folder: Path, part: str, dtype: np.dtype):
        self.folder, self.part, self.dtype = folder, part, dtype
        self.buffer = bytearray()
        self.shards: list[dict[str, Any]] = []
        self.documents = array("q")
        self.tokens = self.start = self.bytes = self.words = 0

    def extend(self, tokens: np.ndarray) -> None:
        self.buffer += tokens.astype(self.dtype).tobytes()
        self.tokens += len(tokens)
        full = SHARD * self.dtype.itemsize
        while len(self.buffer) >= full:
            with memoryview(self.buffer) as tokens_held, tokens_held[:full] as shard:
                self.write(shard)
            del self.buffer[:full]

    def end_document(self, end: int, num_bytes: int, num_words: int) -> None:
        self.extend(np.array([end]))
        self.documents.extend((self.start, num_bytes, num_words))
        self.start = self.tokens
        self.bytes += num_bytes
        self.words += num_words

    def write(self, data: bytearray | memoryview) -> None:
        name = f"{self.part}-{len(self.shards):05d}.bin"
        write_through(self.folder / name, memoryview(data))
        self.shards.append({"file": name, "tokens": len(data) // self.dtype.itemsize})

    def finish(self) -> dict[str, Any]:
        """Write the rest; return the counts for the index."""
        if self.buffer:
            self.write(self.buffer)
        table = io.BytesIO()
        np.save(table, np.frombuffer(self.documents, np.int64).reshape(-1, 3), allow_pickle=False)
        write_through(self.folder / f"{self.part}-documents.npy", table.getvalue())
        counts = {"documents": len(self.documents) // 3, "tokens": self.tokens, "bytes": self.bytes}
        return counts | {"words": self.words, "shards": self.shards}
