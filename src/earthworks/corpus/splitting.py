"""What is held out for validation, and what the tokenizer may learn from.

A document's place is decided by h = BLAKE2b(text), keyed with the seed: by neither its name nor its position, so exact
copies of a document are always on one side, in whichever source they stand, and the order of files does not matter.
"""

import hashlib
import heapq
import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from earthworks.corpus.reading import read
from earthworks.corpus.source import Source
from earthworks.corpus.tokenizer import chunks
from earthworks.runs import EarthworksError


@dataclass(slots=True)
class Split:
    """`parts(text)` is (training part, validation part): one of them is empty unless the text is its source's only one,
    which is cut."""

    fraction: float
    seed: int
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))  # h of the documents held out, sorted
    cut: set[int] = field(default_factory=set)  # h of the texts to cut

    def parts(self, text: str) -> tuple[str, str]:
        key = text_hash(text, self.seed)
        if key in self.cut:
            end = min(int(len(text) * (1 - self.fraction)), len(text) - 1)
            return text[: max(end, 1)], text[max(end, 1) :]
        place = int(np.searchsorted(self.held_out, np.uint64(key)))
        if place < len(self.held_out) and int(self.held_out[place]) == key:
            return "", text
        return text, ""


def split_sources(sources: list[Source], fraction: float, seed: int) -> Split:
    """Hold out about `fraction` of each source's bytes, by whole documents in the order of h.

    A document is passed over when it would overshoot by more than what is missing, so that one large document among a
    few does not fill the validation part alone. Both parts get a document when a source has two different ones. A
    source of a single text is cut: the first int(n (1 - fraction)) of its n characters train. Texts that an earlier
    source has too stay where they are. Reads everything once and keeps 16 bytes a document.
    Raises EarthworksError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise EarthworksError(f"--validation {fraction}: expected a fraction from 0 (hold nothing out) to below 1")
    split = Split(fraction, seed)
    seen = np.empty(0, np.uint64)
    for source in sources if fraction else []:
        keys, sizes = survey(source, seed)
        new, held = ~np.isin(keys, seen), np.isin(keys, split.held_out)
        if len(keys) == 1 and new.all():
            split.cut.add(int(keys[0]))
        else:
            most = int(new.sum()) - bool((new | held).all())  # something must be left to train on
            picked = chosen(sizes[new], fraction * sizes.sum() - sizes[held].sum(), most)
            split.held_out = np.union1d(split.held_out, keys[new][picked])
        seen = np.union1d(seen, keys)
    return split


def survey(source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """h of each different text of a source, ascending, and the UTF-8 bytes of all its copies."""
    hashes, sizes = array("Q"), array("q")
    for document in read(source.location):
        hashes.append(text_hash(document.text, seed))
        sizes.append(len(document.text.encode()))
    keys, copies = np.unique(np.frombuffer(hashes, np.uint64), return_inverse=True)
    return keys, np.bincount(copies, np.frombuffer(sizes, np.int64))


def chosen(sizes: np.ndarray, missing: float, most: int) -> list[int]:
    """Indices in order, at least one and at most `most`, whose sizes together come near `missing`."""
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
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest(), "little")


def sample_text(
    sources: list[Source], *, seed: int, validation: float = 0.0, max_characters: int = 20_000_000
) -> list[str]:
    """A seeded sample of the training part, for `Tokenizer.train`, without what `pack` holds out under the same
    `validation` and `seed`.

    Of weighted sources each has its share of the sample, by repetition where it is too small: the prose of python-docs,
    weighted 0.7, then takes 2 % fewer tokens than with a tokenizer that saw both subsets as they are. Long texts are
    sampled in pieces of about 64 k characters. Reads everything twice, once to find the split."""
    split = split_sources(sources, validation, seed)
    pieces = [training_pieces(source, split) for source in sources]
    weights = [source.weight for source in sources if source.weight is not None]
    if len(weights) < len(sources):
        return smallest_hashes(itertools.chain.from_iterable(pieces), seed, max_characters)
    shares = [weight / sum(weights) for weight in weights]
    found = [smallest_hashes(each, seed, share * max_characters) for each, share in zip(pieces, shares)]
    total = sum(len(text) for texts in found for text in texts)
    return [text for texts, share in zip(found, shares) for text in repeated(texts, share * total)]


def training_pieces(source: Source, split: Split) -> Iterator[str]:
    """What a source has to train on, long texts in pieces."""
    for document in read(source.location):
        yield from chunks(split.parts(document.text)[0])


def smallest_hashes(texts: Iterable[str], seed: int, max_characters: float) -> list[str]:
    """The texts with the smallest hashes that fit: a uniform sample that depends on no order, in one pass."""
    heap: list[tuple[int, str]] = []
    held = 0
    for text in texts:
        heapq.heappush(heap, (-text_hash(text, seed + 1), text))
        held += len(text)
        while held > max_characters and len(heap) > 1:
            held -= len(heapq.heappop(heap)[1])
    return [text for _, text in sorted(heap, reverse=True)]


def repeated(texts: list[str], characters: float) -> Iterator[str]:
    """The texts over and over, up to a number of characters."""
    for text in itertools.cycle(texts):
        if characters <= 0:
            return
        yield text
        characters -= len(text)
