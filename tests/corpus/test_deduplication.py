"""Exact and near duplicates against brute force over sets of tuples, and the faults that public tools had."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shingles import TEXTS

from earthworks.corpus.dedup import duplicates as deduplication
from earthworks.corpus.dedup.duplicates import (
    Evidence,
    exact_duplicates,
    exact_keys,
    near_duplicates,
    priorities,
    propose,
)
from earthworks.corpus.dedup.minhash import band_keys, bands_for, signatures, signed
from earthworks.corpus.dedup.shingles import bare_words, distinct, shingles
from earthworks.runs import EarthworksError


def near(texts: list[str], n: int = 13, seed: int = 0, threshold: float = 0.8, rows: int | None = None) -> Evidence:
    """The whole of it, exact copies included."""
    bands, steep = bands_for()
    rows = rows or steep
    keys = signatures(texts, n)
    bands = keys.shape[1] // rows
    groups = propose(list(band_keys(keys, rows).T), bands, signed(keys))
    return near_duplicates(
        groups,
        priorities(exact_keys(texts), seed),
        lambda candidates: distinct(*shingles([texts[k] for k in candidates], n)),
        threshold,
    )


def ngrams(text: str, n: int = 13) -> set[tuple[str, ...]]:
    words = bare_words(text)
    return {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}


def similarity(left: set, right: set) -> Fraction:
    return Fraction(len(left & right), len(left | right)) if left or right else Fraction(0)


def brute_force(texts: list[str], n: int, seed: int, threshold: Fraction) -> set[int]:
    """The documents dropped when every pair is proposed."""
    priority = priorities(exact_keys(texts), seed)
    sets = [ngrams(text, n) for text in texts]
    kept, dropped = [], set()
    for document in np.argsort(priority, kind="stable").tolist():
        if any(similarity(sets[document], sets[other]) > threshold for other in kept):
            dropped.add(document)
        else:
            kept.append(document)
    return dropped


def w(numbers) -> str:
    return " ".join(f"w{each}" for each in numbers)


def corpus(seed: int, families: int = 12, members: int = 8) -> list[str]:
    """Families of texts that differ in a few words, a cut or an addition; all similarities occur."""
    random = np.random.default_rng(seed)
    texts = []
    for family in range(families):
        length = int(random.integers(14, 160))
        base = [f"{family}x{k}" for k in range(length)]
        for _ in range(members):
            words = list(base)
            for _ in range(int(random.integers(0, 3))):
                words[int(random.integers(length))] = f"new{random.integers(10**9)}"
            cut = int(random.integers(0, 1 + length // 8))
            texts.append(" ".join(words[cut:]))
    order = random.permutation(len(texts))
    return [texts[k] for k in order]


# Exactly


@given(st.lists(TEXTS, max_size=8))
def test_keys_are_equal_exactly_where_collapsed_texts_are(texts):
    texts = [*texts, *(f" {text.replace(' ', '  ')}\n" for text in texts)]
    keys = [tuple(key) for key in exact_keys(texts).tolist()]
    collapsed = [" ".join(text.split()) for text in texts]
    assert len(set(zip(collapsed, keys))) == len(set(collapsed)) == len(set(keys))


def test_both_halves_of_a_key_tell_texts_apart():
    """Texts that differ in the high bits of bytes eight apart, which one multiplication a block would confuse."""
    texts = [f"{a}bcdefgh{b}bc{c}efgh{d}" for a in "aA!" for b in "aAqQ0" for c in "abc`" for d in "xX"]
    keys = exact_keys([*texts, *map(str, range(100_000))])
    for half in (0, 1):
        assert len(np.unique(keys[:, half])) == len(keys)
    assert not np.isin(keys[:, 0], keys[:, 1]).any()


def test_case_and_punctuation_make_another_text_and_white_space_does_not():
    keys = exact_keys(["one two", " one\u3000\n two\u0085", "One two", "one two.", "onetwo", ""])
    assert len(np.unique(keys[:, 0])) == 5
    assert np.array_equal(keys[0], keys[1])


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(0, 3), st.randoms())
def test_one_of_each_exact_group_stays_and_it_is_the_same_in_any_order(texts, seed, random):
    keys = exact_keys(texts)
    names = [f"file:{k}" for k in range(len(texts))]
    kept = exact_duplicates(keys, priorities(exact_keys(names), seed))
    assert [texts[k] for k in kept] == texts
    assert (kept[kept] == kept).all()
    assert len(set(kept.tolist())) == len(set(texts))
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = exact_duplicates(keys[order], priorities(exact_keys([names[k] for k in order]), seed))
    assert {order[k]: order[shuffled[k]] for k in range(len(order))} == dict(enumerate(kept.tolist()))


def test_every_copy_is_as_likely_to_stay():
    keys = exact_keys(["same"] * 4)
    names = exact_keys([f"id {k}" for k in range(4)])
    stayed = np.bincount([exact_duplicates(keys, priorities(names, seed))[0] for seed in range(2000)], minlength=4)
    assert abs(stayed - 500).max() < 4 * (2000 * 0.25 * 0.75) ** 0.5


# Nearly


@pytest.mark.parametrize("crowd", [deduplication.CROWD, 2], ids=["groups", "crowds"])
@pytest.mark.parametrize("seed", range(6))
def test_near_duplicates_are_those_of_brute_force(seed, crowd, monkeypatch):
    """With one row a band every similar pair is proposed; groups are compared one by one, or by their rare n-grams."""
    monkeypatch.setattr(deduplication, "CROWD", crowd)
    texts = corpus(seed)
    for threshold in (0.5, 0.8):
        found = near(texts, n=5, seed=seed, threshold=threshold, rows=1)
        expected = brute_force(texts, 5, seed, Fraction(str(threshold)))
        assert set(found.dropped.tolist()) == expected
        assert 10 < len(expected) < len(texts)
        sets = [ngrams(text, 5) for text in texts]
        for dropped, kept, shared, union in zip(found.dropped, found.kept, found.shared, found.union):
            assert (len(sets[dropped] & sets[kept]), len(sets[dropped] | sets[kept])) == (shared, union)
            assert kept not in expected
            assert Fraction(int(shared), int(union)) > Fraction(str(threshold))


def test_what_stays_does_not_depend_on_the_order_of_the_documents():
    texts = corpus(3)
    found = near(texts)
    order = np.random.default_rng(1).permutation(len(texts))
    shuffled = near([texts[k] for k in order])
    assert len(found.dropped) > 10
    pairs = {
        (int(order[d]), int(order[k]), int(s)) for d, k, s in zip(shuffled.dropped, shuffled.kept, shuffled.shared)
    }
    as_text = {(texts[d], texts[k], s) for d, k, s in pairs}
    assert as_text == {(texts[d], texts[k], int(s)) for d, k, s in zip(found.dropped, found.kept, found.shared)}


def test_another_seed_keeps_other_members_of_the_same_families():
    texts = corpus(4)
    assert near(texts, seed=0).dropped.tolist() != near(texts, seed=1).dropped.tolist()


def test_no_group_loses_every_member():
    """text-dedup once removed every member of a cluster (its issue 129)."""
    texts = [w(range(100))] * 5 + [w(range(1000, 1100))] * 3
    found = near(texts)
    assert len(found.dropped) == 6
    assert set(found.kept.tolist()) == set(range(8)) - set(found.dropped.tolist())
    assert (found.jaccard == 1).all()


def test_members_alike_only_through_another_stay():
    """A ~ B ~ C and A, C unlike: verified clusters were once merged again into one (text-dedup, pull request 132)."""
    a, b, c = w(range(0, 200)), w(range(15, 215)), w(range(30, 230))
    sets = [ngrams(text) for text in (a, b, c)]
    assert similarity(sets[0], sets[1]) > Fraction(4, 5) < similarity(sets[1], sets[2])
    assert similarity(sets[0], sets[2]) < Fraction(4, 5)
    dropped = {tuple(near([a, b, c], seed=seed, rows=1).dropped.tolist()) for seed in range(40)}
    assert dropped == {(1,), (0, 2)}  # B, when it is not first; else both that resemble it


def test_the_threshold_itself_is_not_too_similar():
    """4/5 as a float is below 0.8 as a decimal or not, depending on how it is computed; whole numbers know."""
    left, right = w([*range(90), 900, 901, 902]), w([*range(90)])
    for shared, extra in [(8, 2), (80, 20), (800, 200)]:
        both = range(shared)
        left, right = w(both), w(range(shared + extra))
        sets = ngrams(left, 1), ngrams(right, 1)
        assert similarity(*sets) == Fraction(4, 5)
        assert len(near([left, right], n=1, rows=1).dropped) == 0
        assert len(near([left, w(range(shared + extra - 1))], n=1, rows=1).dropped) == 1


def test_documents_without_ngrams_or_left_out_take_no_part():
    short, text = w(range(12)), w(range(50))
    assert len(near([short, short, "", ""]).dropped) == 0
    keys = signatures([text] * 3)
    groups = propose(list(band_keys(keys, 7).T), 18, np.array([True, False, True]))
    assert groups.candidates.tolist() == [0, 2]


def test_nothing_and_one_document():
    for texts in ([], [w(range(50))]):
        found = near(texts)
        assert len(found.dropped) == found.candidates == found.comparisons == 0


def test_similar_texts_in_many_alphabets_and_line_ends():
    """Byte and character offsets were once mixed up (text-dedup, issue 14): letters of one to four bytes are alike."""
    for letter in ("e", "\u00e9", "\u4e2d", "\U0001d4b3"):
        words = [letter * (1 + k % 9) + str(k) for k in range(300)]
        other = [*words[:150], "other", *words[151:]]
        found = near([" ".join(words), "\r\n".join(other)])
        assert (found.shared.tolist(), found.union.tolist()) == ([275], [301])


@pytest.mark.parametrize(("size", "changed"), [(400, 1), (1200, 5)])
def test_planted_near_duplicates_are_found(size, changed):
    random = np.random.default_rng(0)
    texts, expected = [], 0
    for k in range(300):
        words = [f"{k}q{random.integers(10**6)}" for _ in range(size)]
        other = list(words)
        for place in random.choice(size, changed, replace=False):
            other[place] = "planted"
        texts += [" ".join(words), " ".join(other)]
        expected += similarity(ngrams(texts[-1]), ngrams(texts[-2])) > Fraction(85, 100)
    found = near(texts)
    assert expected > 250
    assert len(found.dropped) >= 0.98 * expected
    assert (found.dropped // 2 == found.kept // 2).all()


def test_a_crowd_of_unlike_documents_with_much_in_common_is_walked_in_linear_time():
    """Ten thousand pages of one menu, each 0.73 like every other, and one real copy: 50 million pairs."""
    menu = w(range(300))
    texts = [menu + " " + w(range(1000 * k, 1000 * k + 53)) for k in range(1, 10_001)]
    texts.append(texts[5000] + " end")
    found = near(texts)
    assert found.candidates > 9_000
    assert found.comparisons < 10_000
    assert {*found.dropped.tolist(), *found.kept.tolist()} == {5000, 10_000}


def test_a_crowd_of_copies_is_compared_once_each():
    texts = [f"x{k} {w(range(300))}" for k in range(5_000)]
    found = near(texts)
    assert len(found.dropped) == found.comparisons == 4_999
    assert len(np.unique(found.kept)) == 1


def test_bands_may_be_read_one_at_a_time():
    texts = corpus(0)
    keys = signatures(texts)
    bands = band_keys(keys, 7)
    read = []

    def band(number: int) -> np.ndarray:
        read.append(number)
        return bands[:, number]

    ours, theirs = propose(band, 18, signed(keys)), propose(list(bands.T), 18, signed(keys))
    assert read == list(range(18))
    assert np.array_equal(ours.groups, theirs.groups)


def test_ngrams_may_lie_on_disk(tmp_path):
    texts = corpus(1)
    bands = band_keys(signatures(texts), 7)
    groups = propose(list(bands.T), 18, signed(signatures(texts)))

    def shingles_of(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for name, array in zip(("hashes", "offsets"), distinct(*shingles([texts[k] for k in candidates]))):
            np.save(tmp_path / name, array)
        return np.load(tmp_path / "hashes.npy", mmap_mode="r"), np.load(tmp_path / "offsets.npy", mmap_mode="r")

    found = near_duplicates(groups, priorities(exact_keys(texts), 0), shingles_of)
    assert len(found.dropped) > 10
    assert np.array_equal(found.dropped, near(texts).dropped)


def test_groups_are_the_documents_with_equal_keys():
    random = np.random.default_rng(0)
    bands = random.integers(0, 60, (3, 100)).astype(np.uint64)
    mask = random.random(100) < 0.8
    found = propose(list(bands), 3, mask)
    members: dict[int, set[int]] = {}
    for k, document in enumerate(found.candidates.tolist()):
        for group in found.groups[found.places[k] : found.places[k + 1]].tolist():
            members.setdefault(group, set()).add(document)
    expected = [
        {int(d) for d in np.flatnonzero((keys == key) & mask)} for keys in bands for key in np.unique(keys[mask])
    ]
    assert sorted(map(sorted, members.values())) == sorted(sorted(each) for each in expected if len(each) > 1)
    assert [len(members[k]) for k in range(len(found.sizes))] == found.sizes.tolist()


def test_memory_is_what_the_docstring_says():
    """36 bytes per document while a band is sorted, 40 bytes per membership."""
    random = np.random.default_rng(0)
    documents = 200_000
    mask = np.ones(documents, bool)
    for distinct_keys in (10**15, documents // 4):
        bands = [random.integers(0, distinct_keys, documents).astype(np.uint64) for _ in range(4)]
        tracemalloc.start()
        found = propose(bands, 4, mask)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 36 * documents + 40 * len(found.groups)


@settings(max_examples=50)
@given(st.lists(TEXTS, max_size=6), st.integers(1, 3))
def test_any_unicode_is_compared_as_sets_of_words(texts, n):
    texts = [*texts, *(text + " more" for text in texts)]
    found = near(texts, n=n, rows=1, threshold=0.6)
    assert set(found.dropped.tolist()) == brute_force(texts, n, 0, Fraction(3, 5))
    for dropped, kept in zip(found.dropped, found.kept):
        assert similarity(ngrams(texts[dropped], n), ngrams(texts[kept], n)) > Fraction(3, 5)


def test_bad_thresholds_are_refused():
    with pytest.raises(EarthworksError, match="threshold is 80"):
        near(["a"], threshold=80)
