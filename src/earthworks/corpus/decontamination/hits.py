"""Detection of test items in training documents: the paper's rule, a stricter one, and the shared passages.

    index = index_items(read_items("eval/"))
    found = hits(texts, index)                         pairs that share n-grams: how many, and where first
    contaminated(found, len(texts))                    the paper: a 13-gram Jaccard similarity above 0.8
    contaminated(found, len(texts), rule="any")        stricter: one shared 13-gram

The paper compares whole documents, so a short test item inside a long page has a low similarity and stays; the stricter
rule finds it. N-grams are those of `bare_words`: case, punctuation and white space do not count. Matches of hashes are
confirmed word by word, so hash collisions never cause a hit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

from earthworks.corpus.decontamination.items import Item
from earthworks.corpus.dedup.shingles import bare_words, distinct, folding_table, shingles
from earthworks.corpus.rules.profiles import Texts, buffers
from earthworks.runs import EarthworksError

RULES = ("jaccard", "any")
AT_ONCE = 1000  # items indexed at once, whose texts are held in memory


@dataclass(frozen=True)
class ItemIndex:
    """The n-grams of test items.

    `keys` (k,) uint64: their hashes, sorted; `owners[begins[i] : begins[i + 1]]` are the items that contain key i.
    `directory` and `bitmap` are for lookup among the keys (hash_set.py). `unchecked` names the items whose texts all have
    fewer than n words, which no n-gram can find.
    """

    n: int
    items: list[Item]
    keys: np.ndarray
    begins: np.ndarray
    owners: np.ndarray
    directory: np.ndarray
    bitmap: np.ndarray
    unchecked: list[str]


@dataclass(frozen=True)
class Hits:
    """Pairs of a document and an item that share n-grams: all (hits,), ordered by document, then item.

    `shared` counts distinct n-grams of the item; `jaccard` is the highest similarity of the document to a text of the item.
    The first shared passage starts at word `word` (of `bare_words`) and is `text[start:end]`, in code points: the run of
    consecutive shared n-grams.
    """

    document: np.ndarray
    item: np.ndarray
    shared: np.ndarray
    jaccard: np.ndarray
    word: np.ndarray
    start: np.ndarray
    end: np.ndarray


def index_items(items: Iterable[Item], n: int = 13) -> ItemIndex:
    """Index the n-grams of all texts of all items.

    O(bytes + m log m) for m pairs of an n-gram and an item. Memory: the items, 4 bytes per pair and 20 to 32 per n-gram;
    three times that for the pairs during construction.
    """
    from earthworks.corpus.decontamination.hash_set import directory_of

    source, found = iter(items), []
    all_hashes, all_owners = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    while block := list(islice(source, AT_ONCE)):
        texts = [item.texts for item in block]
        hashes, offsets = shingles([text for each in texts for text in each], n)
        ends = offsets[np.cumsum([0, *map(len, texts)])]  # the n-grams of an item are contiguous
        hashes, ends = distinct(hashes, ends)
        all_hashes.append(hashes)
        all_owners.append(np.repeat(np.arange(len(found), len(found) + len(block), dtype=np.int32), np.diff(ends)))
        found += block
    hashes, owners = np.concatenate(all_hashes), np.concatenate(all_owners)
    checked = np.bincount(owners, minlength=len(found)) > 0
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    begins = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
    keys = hashes[begins]
    return ItemIndex(
        n=n,
        items=found,
        keys=keys,
        begins=np.r_[begins, len(hashes)],
        owners=owners[order],
        **dict(zip(("directory", "bitmap"), directory_of(keys))),
        unchecked=[item.id for item, has_ngrams in zip(found, checked) if not has_ngrams],
    )


def hits(texts: Texts, index: ItemIndex) -> Hits:
    """Every pair of a document and an item that share an n-gram, confirmed by comparing words.

    O(bytes), compiled, for documents without hits, plus about 0.1 ms per pair.
    """
    from earthworks.corpus.decontamination.hash_set import look_up

    data, places = buffers(texts)
    hashes, offsets = shingles(texts, index.n)
    found = np.empty(len(hashes), np.int32)
    look_up(hashes, index.keys, index.directory, index.bitmap, found)
    documents = np.searchsorted(offsets, np.flatnonzero(found >= 0), "right") - 1
    rows: list[tuple] = []
    for document in np.unique(documents).tolist():
        own = slice(offsets[document], offsets[document + 1])
        text = data[places[document] : places[document + 1]]
        rows += [(document, *row) for row in document_hits(text, hashes[own], found[own], index)]
    columns = list(zip(*rows)) or [()] * 7
    kinds = (np.int64, np.int64, np.int64, np.float64, np.int64, np.int64, np.int64)
    return Hits(*(np.array(column, kind) for column, kind in zip(columns, kinds)))


def document_hits(text: np.ndarray, hashes: np.ndarray, found: np.ndarray, index: ItemIndex) -> list[tuple]:
    """The rows of `Hits` of one document in UTF-8, whose n-gram at word k has hashes[k] and the key found[k] or -1.

    Memory: 16 bytes per word; only words of distinct n-grams that an item has are made strings."""
    spans = Spans(text)
    size = len(np.unique(hashes))
    proposed = np.flatnonzero(found >= 0)
    keys, first = np.unique(found[proposed], return_index=True)
    places: dict[int, list[int]] = {}  # item: first position of each of its n-grams, by hash
    for key, place in zip(keys.tolist(), proposed[first].tolist()):
        for item in index.owners[index.begins[key] : index.begins[key + 1]].tolist():
            places.setdefault(item, []).append(place)
    rows = []
    for item in sorted(places):
        ngrams = {int(hashes[place]): spans.words(place, index.n) for place in places[item]}
        shared, jaccard = common(ngrams, size, index.items[item], index.n)
        if not shared:
            continue
        first_place = min(place for place in places[item] if int(hashes[place]) in shared)
        last = first_place + run_length(hashes[first_place:], shared) - 1
        begin, end = int(spans.begins[first_place]), int(spans.ends[last + index.n - 1])
        rows.append((item, len(shared), jaccard, first_place, begin, end))
    points = code_points(text, sorted({place for row in rows for place in row[4:]}))
    return [(*row[:4], points[row[4]], points[row[5]]) for row in rows]


class Spans:
    """`word_spans` of a text in UTF-8: starts and ends of its words in bytes, and the words on demand."""

    def __init__(self, text: np.ndarray):
        from earthworks.corpus.dedup.hashing import word_places

        self.text = text
        begins, ends = np.empty((2, len(text) // 2 + 1), np.int64)
        count = word_places(text, 0, len(text), folding_table(), begins, ends)
        self.begins, self.ends = begins[:count], ends[:count]

    def words(self, first: int, count: int) -> list[str]:
        part = self.text[self.begins[first] : self.ends[first + count - 1]]
        return bare_words(part.tobytes().decode(errors="surrogatepass"))


def run_length(hashes: np.ndarray, shared: set[int]) -> int:
    """Number of leading hashes that are in a set."""
    known, length, step = np.array(list(shared), np.uint64), 0, 64
    while length < len(hashes):
        inside = np.isin(hashes[length : length + step], known)
        if not inside.all():
            return length + int(np.argmin(inside))
        length, step = length + len(inside), 2 * step
    return length


def code_points(text: np.ndarray, places: list[int]) -> dict[int, int]:
    """Number of code points before each of some ascending byte positions, in one pass over the bytes."""
    found, last, total = {}, 0, 0
    for place in places:
        total += int(np.count_nonzero(text[last:place] & 0xC0 != 0x80))
        found[place] = total
        last = place
    return found


def common(ngrams: dict[int, list[str]], size: int, item: Item, n: int) -> tuple[set[int], float]:
    """The n-grams that an item shares with a document of `size` distinct ones, and the highest similarity of its texts."""
    texts = item.texts
    hashes, offsets = shingles(texts, n)
    shared: set[int] = set()
    words = cache(lambda text: bare_words(texts[text]))
    proposed = np.flatnonzero(np.isin(hashes, np.array(list(ngrams), np.uint64)))
    _, first = np.unique(hashes[proposed], return_index=True)
    for place in proposed[first].tolist():
        text = int(np.searchsorted(offsets, place, "right")) - 1
        word = place - int(offsets[text])
        if words(text)[word : word + n] == ngrams[int(hashes[place])]:
            shared.add(int(hashes[place]))
    hashes, offsets = distinct(hashes, offsets)
    within = np.r_[0, np.cumsum(np.isin(hashes, np.array(list(shared), np.uint64)))]
    both = within[offsets[1:]] - within[offsets[:-1]]
    return shared, float((both / np.maximum(size + np.diff(offsets) - both, 1)).max())


def contaminated(hits: Hits, num_documents: int, rule: str = "jaccard", threshold: float = 0.8) -> np.ndarray:
    """Which documents a rule drops: (num_documents,) bool. `jaccard`: similarity above `threshold`; `any`: any hit."""
    if rule not in RULES:
        raise EarthworksError(f"the decontamination rule is {rule!r}; it must be one of {', '.join(RULES)}")
    drops = hits.document if rule == "any" else hits.document[hits.jaccard > threshold]
    return np.bincount(drops, minlength=num_documents) > 0


def context(text: str, start: int, end: int, margin: int = 80) -> tuple[str, str, str]:
    """The text before a passage, the passage, and the text after it, both sides cut to `margin` code points."""
    return text[max(0, start - margin) : start], text[start:end], text[end : end + margin]
