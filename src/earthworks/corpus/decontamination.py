"""Which training documents hold test items: the paper's rule, the stricter one, and the passages to show for it.

    index = index_items(read_items("eval/"))
    found = hits(texts, index)                         who shares n-grams with what, how many, where first
    contaminated(found, len(texts))                    the paper: a 13-gram Jaccard similarity above 0.8
    contaminated(found, len(texts), rule="any")        stricter: one shared 13-gram

The paper compares whole documents, so that a short test item inside a long page has a low similarity and stays; the stricter
rule finds it. N-grams are those of `bare_words`: case, punctuation and white space do not count. What a hash proposes is
compared word by word before it is a hit: no document is accused for a collision.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from earthworks.corpus.items import Item
from earthworks.corpus.rules import Texts, buffers
from earthworks.corpus.shingles import bare_words, shingles, word_spans
from earthworks.runs import EarthworksError

RULES = ("jaccard", "any")


@dataclass(frozen=True)
class ItemIndex:
    """The n-grams of test items.

    `keys` (k,) uint64: their hashes, sorted. Those of key i stand at `postings[begins[i] : begins[i + 1]]`: (text, word) where
    they begin, once for each text. Text t belongs to item `item_of[t]` and has `sizes[t]` distinct n-grams. `unchecked` names
    the items none of whose texts has n words: no n-gram can find them.
    """

    n: int
    items: list[Item]
    texts: list[str]
    item_of: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    begins: np.ndarray
    postings: np.ndarray
    unchecked: list[str]

    @cached_property
    def directory(self) -> tuple[np.ndarray, np.ndarray]:
        from earthworks.corpus.lookup import directory_of

        return directory_of(self.keys)

    @cached_property
    def words(self) -> dict[int, list[str]]:
        """Of the texts that were hit."""
        return {}

    def ngram(self, text: int, word: int) -> list[str]:
        if text not in self.words:
            self.words[text] = bare_words(self.texts[text])
        return self.words[text][word : word + self.n]


@dataclass(frozen=True)
class Hits:
    """Which document shares n-grams with which item: all (hits,), ordered by document, then item.

    `shared` counts distinct n-grams of the item; `jaccard` is the highest similarity of the document to a text of the item.
    The first shared passage begins at word `word` (of `bare_words`) and is `text[start:end]`, in code points: the n-grams
    that follow each other without a gap.
    """

    document: np.ndarray
    item: np.ndarray
    shared: np.ndarray
    jaccard: np.ndarray
    word: np.ndarray
    start: np.ndarray
    end: np.ndarray


def index_items(items: Iterable[Item], n: int = 13) -> ItemIndex:
    """Index the n-grams of test items, each of one text or several.

    O(bytes + m log m) for m n-grams. Memory: the texts, 16 bytes a posting and 24 bytes an n-gram.
    """
    items = list(items)
    texts, owners = [], []
    for place, item in enumerate(items):
        texts += item.texts
        owners += [place] * len(item.texts)
    hashes, offsets = shingles(texts, n)
    of = np.repeat(np.arange(len(texts)), np.diff(offsets))
    order = np.argsort(hashes, kind="stable")
    hashes, of, words = hashes[order], of[order], (np.arange(len(order)) - offsets[of])[order]
    fresh = np.r_[True, (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1])][: len(order)]
    hashes, of, words = hashes[fresh], of[fresh], words[fresh]
    begins = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]][: len(hashes)])
    sizes = np.bincount(of, minlength=len(texts))
    owner = np.array(owners, np.int64)
    checked = set(owner[sizes > 0].tolist())
    return ItemIndex(
        n=n,
        items=items,
        texts=texts,
        item_of=owner,
        sizes=sizes,
        keys=hashes[begins],
        begins=np.r_[begins, len(hashes)],
        postings=np.stack([of, words], 1).astype(np.int32),
        unchecked=[item.id for place, item in enumerate(items) if place not in checked],
    )


def hits(texts: Texts, index: ItemIndex) -> Hits:
    """Every pair of a document and an item that share an n-gram, the words themselves compared.

    O(bytes), compiled, for documents that share none; those that do are read again in Python.
    """
    from earthworks.corpus.lookup import look_up

    data, places = buffers(texts)
    hashes, offsets = shingles(texts, index.n)
    found = np.empty(len(hashes), np.int32)
    look_up(hashes, index.keys, *index.directory, found)
    suspects = np.flatnonzero(found >= 0)
    documents = np.searchsorted(offsets, suspects, "right") - 1
    rows: list[tuple] = []
    for document in np.unique(documents).tolist():
        begin, end = offsets[document], offsets[document + 1]
        text = data[places[document] : places[document + 1]].tobytes().decode(errors="surrogatepass")
        size = len(np.unique(hashes[begin:end]))
        rows += document_hits(document, text, size, found[begin:end], index)
    columns = list(zip(*rows)) or [()] * 7
    kinds = (np.int64, np.int64, np.int64, np.float64, np.int64, np.int64, np.int64)
    return Hits(*(np.array(column, kind) for column, kind in zip(columns, kinds)))


def document_hits(document: int, text: str, size: int, found: np.ndarray, index: ItemIndex) -> list[tuple]:
    """The rows of `Hits` of one document of `size` distinct n-grams; found[k]: the key of the n-gram at word k, or -1."""
    spans = word_spans(text)
    keys_of: dict[int, dict[int, set[int]]] = {}  # item: text: keys of shared n-grams
    where: dict[int, set[int]] = {}  # item: words at which a shared n-gram begins
    for at in np.flatnonzero(found >= 0).tolist():
        key = int(found[at])
        ngram = [word for word, _, _ in spans[at : at + index.n]]
        for of, word in index.postings[index.begins[key] : index.begins[key + 1]].tolist():
            if index.ngram(of, word) == ngram:
                item = int(index.item_of[of])
                keys_of.setdefault(item, {}).setdefault(of, set()).add(key)
                where.setdefault(item, set()).add(at)
    rows = []
    for item in sorted(keys_of):
        shared = len(set().union(*keys_of[item].values()))
        jaccard = max(len(keys) / (size + index.sizes[of] - len(keys)) for of, keys in keys_of[item].items())
        first = last = min(where[item])
        while last + 1 in where[item]:
            last += 1
        rows.append((document, item, shared, jaccard, first, spans[first][1], spans[last + index.n - 1][2]))
    return rows


def contaminated(hits: Hits, num_documents: int, rule: str = "jaccard", threshold: float = 0.8) -> np.ndarray:
    """Which documents a rule drops: (num_documents,) bool. `jaccard`: similarity above `threshold`; `any`: any hit."""
    if rule not in RULES:
        raise EarthworksError(f"the decontamination rule is {rule!r}; it must be one of {', '.join(RULES)}")
    drops = hits.document if rule == "any" else hits.document[hits.jaccard > threshold]
    return np.bincount(drops, minlength=num_documents) > 0


def context(text: str, start: int, end: int, margin: int = 80) -> tuple[str, str, str]:
    """What stands before a passage, the passage, and what follows, the two sides cut to `margin` code points."""
    return text[max(0, start - margin) : start], text[start:end], text[end : end + margin]
