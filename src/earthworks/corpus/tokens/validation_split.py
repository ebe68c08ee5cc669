"""The split into training and validation parts, and the sample of text for training the tokenizer.

A document's part is decided by h = BLAKE2b(text), keyed with the seed, not by its name or position. So exact copies are
always in the same part, whatever their source, and the order of files does not matter.
"""

import hashlib
import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from earthworks.corpus.document import Document, LongDocument
from earthworks.corpus.readers.any_source import read_texts
from earthworks.corpus.readers.records import Reading
from earthworks.corpus.readers.sources import Source
from earthworks.corpus.tokens.tokenizer import chunks_of
from earthworks.runs import EarthworksError
from earthworks.runs.progress import note_once

PARTS = ("train", "validation")


@dataclass(slots=True)
class Split:
    """`parts(text)` is (training part, validation part): one of them is empty unless the text is the only one of its
    source, which is cut."""

    fraction: float
    seed: int
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # h of the documents held out, sorted
    cut: set[int] = field(default_factory=set)  # h of the texts to cut
    surveyed: dict[str, tuple[int, int]] = field(default_factory=dict)  # by source: documents, and the sum of h
    long: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # by LongDocument: h, characters

    def parts(self, text: str) -> tuple[str, str]:
        key = text_hash(text, self.seed)
        if key in self.cut:
            end = self.place(len(text))
            return text[:end], text[end:]
        return ("", text) if self.holds_out(key) else (text, "")

    def place(self, characters: int) -> int:
        """Number of characters for training in a text that is cut."""
        return max(min(int(characters * (1 - self.fraction)), characters - 1), 1)

    def holds_out(self, key: int) -> bool:
        place = int(np.searchsorted(self.held_out, np.uint64(key)))
        return place < len(self.held_out) and int(self.held_out[place]) == key

    def read(self, source: Source, reading: Reading | None = None) -> Iterator[tuple[str, Iterable[str]]]:
        """The part, `train` or `validation`, and the text in blocks, of every document of a source, or of each piece if
        it is cut. The blocks must be read before the next document is requested.

        Raises EarthworksError if these are not the documents that were split."""
        read = total = 0
        parts = PARTS  # of a text that is cut: its end is held out once, regardless of the number of copies
        for document in read_texts(source.location, reading):
            if isinstance(document, Document):
                key = text_hash(document.text, self.seed) if self.fraction else 0
                if key in self.cut:
                    yield from ((part, [text]) for part, text in zip(parts, self.parts(document.text)) if text)
                    parts = PARTS[:1]
                else:
                    yield "validation" if self.holds_out(key) else "train", [document.text]
            else:
                digest = text_digest(self.seed)
                yield from self.long_parts(source, document, digest, Reading() if reading is None else reading, parts)
                key = key_of(digest) if self.fraction else 0
                parts = PARTS[:1] if key in self.cut else parts
            read, total = read + 1, (total + key) % (1 << 64)
        if self.surveyed.get(source.location, (read, total)) != (read, total):
            raise EarthworksError(
                f"{source.location} changed while it was read: its documents are not those that were split into "
                "training and validation; rerun the command when nothing writes there",
                exit_code=1,
            )

    def long_parts(
        self,
        source: Source,
        document: LongDocument,
        digest: "hashlib.blake2b",
        reading: Reading,
        parts: tuple[str, ...],
    ) -> Iterator[tuple[str, Iterable[str]]]:
        """`read` for one long text, whose blocks all go into the digest."""
        blocks = hashed(document.blocks(reading), digest) if self.fraction else document.blocks(reading)
        key, characters = self.long.get((source.location, document.id), (0, 0))
        if key in self.cut:
            yield from zip(parts, cut_after(blocks, self.place(characters)))
        else:
            yield "validation" if self.holds_out(key) else "train", blocks
        for _ in blocks:  # the rest, if the caller stopped early
            pass


def cut_after(blocks: Iterator[str], characters: int) -> tuple[Iterator[str], Iterator[str]]:
    """The first characters of a text in blocks, and the rest; must be read in this order."""
    rest: list[str] = []

    def first() -> Iterator[str]:
        left = characters
        for block in blocks:
            yield block[:left]
            if len(block) >= left:
                rest.append(block[left:])
                return
            left -= len(block)

    def second() -> Iterator[str]:
        yield from rest
        yield from blocks

    return first(), second()


def split_sources(sources: list[Source], fraction: float, seed: int) -> Split:
    """Hold out about `fraction` of each source's bytes as whole documents, in the order of h.

    A document is skipped if it would overshoot by more than the missing amount, so that one large document among a few
    does not fill the validation part alone. Both parts get a document if a source has two different ones. A source of a
    single text is cut: the first int(n (1 - fraction)) of its n characters are for training (also of its copies, with a
    notice) and the rest is held out once. Texts that also occur in an earlier source stay in their part. Reads everything
    once and keeps 16 bytes per document.
    Raises EarthworksError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise EarthworksError(f"--validation {fraction}: expected a fraction from 0 (hold nothing out) to below 1")
    split = Split(fraction, seed)
    seen = np.empty(0, np.uint64)
    for source in sources if fraction else []:
        keys, sizes = survey(source, split)
        new, held = ~np.isin(keys, seen), np.isin(keys, split.held_out)
        if len(keys) == 1 and new.all():
            split.cut.add(int(keys[0]))
            if (copies := split.surveyed[source.location][0]) > 1:
                note_once(
                    f"notice: {source.location} contains only {copies:,} copies of one document: its end is held out once, "
                    "and removed from all copies for training"
                )
        else:
            most = int(new.sum()) - bool((new | held).all())  # some text must be left for training
            picked = chosen(sizes[new], fraction * sizes.sum() - sizes[held].sum(), most)
            split.held_out = np.union1d(split.held_out, keys[new][picked])
        seen = np.union1d(seen, keys)
    return split


def survey(source: Source, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """h of each distinct text of a source, ascending, and the UTF-8 bytes of all its copies."""
    hashes, sizes = array("Q"), array("q")
    for document in read_texts(source.location):
        digest = text_digest(split.seed)
        if isinstance(document, Document):
            content = document.text.encode()
            digest.update(content)
            sizes.append(len(content))
        else:
            counts = Reading()
            characters = sum(len(block) for block in hashed(document.blocks(counts), digest))
            split.long[source.location, document.id] = key_of(digest), characters
            sizes.append(counts.bytes)
        hashes.append(key_of(digest))
    split.surveyed[source.location] = len(hashes), sum(hashes) % (1 << 64)
    keys, copies = np.unique(np.frombuffer(hashes, np.uint64), return_inverse=True)
    return keys, np.bincount(copies, np.frombuffer(sizes, np.int64))


def chosen(sizes: np.ndarray, missing: float, most: int) -> list[int]:
    """Indices in order, at least one and at most `most`, with a total size close to `missing`."""
    if missing <= 0 or most <= 0:
        return []
    taken: list[int] = []
    for index, size in enumerate(sizes):
        if missing <= 0 or len(taken) == most:
            break
        if size < 2 * missing:
            taken.append(index)
            missing -= size
    return taken or [int(np.argmin(sizes))]


def text_hash(text: str, seed: int) -> int:
    """64 bits of BLAKE2b, keyed with the seed."""
    digest = text_digest(seed)
    digest.update(text.encode())
    return key_of(digest)


def text_digest(seed: int) -> "hashlib.blake2b":
    """The digest before any UTF-8 of a text."""
    return hashlib.blake2b(digest_size=8, key=str(seed).encode())


def key_of(digest: "hashlib.blake2b") -> int:
    return int.from_bytes(digest.digest(), "little")


def hashed(blocks: Iterable[str], digest: "hashlib.blake2b") -> Iterator[str]:
    """The blocks, each after updating the digest with it."""
    for block in blocks:
        digest.update(block.encode())
        yield block


def sample_text(
    sources: list[Source],
    *,
    seed: int,
    validation: float = 0.0,
    max_characters: int = 20_000_000,
    split: Split | None = None,
) -> list[str]:
    """A seeded sample of the training part, for `Tokenizer.train`, without the text held out by `pack` under the same
    `validation` and `seed`, or by `split`, made by `split_sources` from them.

    Weighted sources have their share of the sample, by repetition if they are too small: the prose of python-docs, weighted
    0.7, then takes 2 % fewer tokens than with a tokenizer trained on both subsets in their original proportion. Long texts
    are sampled in pieces of about 64 k characters. Reads everything twice, or once if `split` is given."""
    split = split_sources(sources, validation, seed) if split is None else split
    pieces = [training_pieces(source, split) for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    if len(weights) < len(sources):
        return smallest_hashes(itertools.chain.from_iterable(pieces), seed, max_characters)
    shares = [weight / sum(weights) for weight in weights]
    found = [smallest_hashes(each, seed, share * max_characters) for each, share in zip(pieces, shares)]
    total = sum(len(text) for texts in found for text in texts)
    return [text for texts, share in zip(found, shares) for text in repeated(texts, share * total)]


def training_pieces(source: Source, split: Split) -> Iterator[str]:
    """The training texts of a source, long ones in pieces."""
    for part, blocks in split.read(source):
        if part == "train":
            yield from chunks_of(blocks)


def smallest_hashes(texts: Iterable[str], seed: int, max_characters: float) -> list[str]:
    """The texts with the smallest hashes that fit: a uniform sample, independent of the order, in one pass."""
    heap: list[tuple[int, str]] = []
    held = 0
    for text in texts:
        heapq.heappush(heap, (-text_hash(text, seed + 1), text))
        held += len(text)
        while held > max_characters and len(heap) > 1:
            held -= len(heapq.heappop(heap)[1])
    return [text for _, text in sorted(heap, reverse=True)]


def repeated(texts: list[str], characters: float) -> Iterator[str]:
    """The texts, repeated up to a number of characters."""
    for text in itertools.cycle(texts):
        if characters <= 0:
            return
        yield text
        characters -= len(text)
