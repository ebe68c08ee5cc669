"""Test items in documents: against sets of tuples, at every place they can stand, and never by a collision of hashes."""

import gzip
import io
import json
import lzma
import tracemalloc
from itertools import permutations

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_shingles import TEXTS

from earthworks.corpus.decontamination import hits as decontamination
from earthworks.corpus.decontamination import items
from earthworks.corpus.decontamination.hash_set import directory_of, look_up
from earthworks.corpus.decontamination.hits import Hits, contaminated, context, hits, index_items
from earthworks.corpus.decontamination.items import Item, groups_of, read_items
from earthworks.corpus.dedup.shingles import bare_words, word_spans
from earthworks.corpus.readers import records
from earthworks.corpus.readers.streams import lines
from earthworks.runs import EarthworksError


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = bare_words(text)
    return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]


def passage(id: str, text: str) -> Item:
    return Item(id, ((text,),))


def pairs(found: Hits) -> list[tuple[int, int]]:
    return list(zip(found.document.tolist(), found.item.tolist()))


def w(numbers) -> str:
    return " ".join(f"w{each}" for each in numbers)


@given(
    st.lists(TEXTS, max_size=5),
    st.lists(st.lists(st.lists(TEXTS, max_size=2), max_size=3), max_size=4),
    st.integers(1, 3),
)
def test_hits_are_the_ngrams_in_common(texts, items, n):
    texts = [*texts, *(text + " " + text for group in items[:2] for each in group for text in each)]
    index = index_items([Item(str(k), tuple(map(tuple, groups))) for k, groups in enumerate(items)], n)
    found = hits(texts, index)
    row = 0
    for document, text in enumerate(texts):
        own = ngrams(text, n)
        for number, item in enumerate(index.items):
            sets = [set(ngrams(each, n)) for each in item.texts]
            shared = set(own) & set().union(*sets)
            if not shared:
                continue
            assert (found.document[row], found.item[row], found.shared[row]) == (document, number, len(shared))
            assert found.jaccard[row] == max(len(set(own) & each) / len(set(own) | each) for each in sets)
            first = last = next(k for k, ngram in enumerate(own) if ngram in shared)
            while last + 1 < len(own) and own[last + 1] in shared:
                last += 1
            spans = word_spans(text)
            assert (found.word[row], found.start[row], found.end[row]) == (
                first,
                spans[first][1],
                spans[last + n - 1][2],
            )
            row += 1
    assert row == len(found.document)
    assert index.unchecked == [item.id for item in index.items if not any(ngrams(each, n) for each in item.texts)]


def test_the_papers_rule_is_about_whole_documents():
    item = w(range(40))
    index = index_items([passage("a", item)])
    texts = [item, item.upper() + " !", item + " " + w(range(100, 200)), w(range(35)), w(range(12)), w(range(500, 600))]
    found = hits(texts, index)
    assert found.jaccard.tolist() == [1, 1, 28 / 128, 23 / 28]
    assert contaminated(found, 6).tolist() == [True, True, False, True, False, False]
    assert contaminated(found, 6, threshold=0.83).tolist() == [True, True, False, False, False, False]
    assert contaminated(found, 6, rule="any").tolist() == [True, True, True, True, False, False]


@pytest.mark.parametrize("at", ["start", "middle", "end"])
@pytest.mark.parametrize("words", [13, 14, 60])
def test_an_item_is_found_wherever_it_stands(at, words):
    around = ["\u4e2d\u6587 " + w(range(1000, 1100)), "\u00e9t\u00e9\n\n" + w(range(2000, 2100))]
    item = ", ".join(f"Word{k}" for k in range(words))
    text = {
        "start": item + "\n" + around[0],
        "middle": f"{around[0]} \u2014 {item}. {around[1]}",
        "end": f"{around[0]} {item}",
    }[at]
    found = hits([around[0], text], index_items([passage("other", w(range(50))), passage("item", item)]))
    assert pairs(found) == [(1, 1)]
    assert found.shared.tolist() == [words - 12]
    before, passage_found, after = context(text, found.start[0], found.end[0], margin=9)
    assert passage_found.rstrip(",.") == item
    assert len(before) <= 9 >= len(after)
    assert text.count(before + passage_found + after) == 1


def test_twelve_words_in_common_are_not_enough():
    item, other = w(range(13)), w([*range(12), 99])
    assert pairs(hits([other], index_items([passage("a", item)]))) == []


def test_items_too_short_are_named():
    index = index_items([passage("short", w(range(12))), passage("dots", ". " * 50), passage("long", w(range(13)))])
    assert index.unchecked == ["short", "dots"]
    assert pairs(hits([w(range(12)), w(range(14))], index)) == [(1, 2)]


def test_no_items_and_no_documents():
    nothing = index_items([])
    assert pairs(hits([w(range(40)), ""], nothing)) == []
    found = hits([], index_items([passage("a", w(range(13)))]))
    assert contaminated(found, 0).shape == (0,)


def test_a_collision_of_hashes_is_no_hit(monkeypatch):
    """Every n-gram given one of four hashes: what is proposed falsely is thrown out word by word."""
    real = decontamination.shingles

    def colliding(texts, n):
        hashes, offsets = real(texts, n)
        return hashes & np.uint64(3), offsets

    monkeypatch.setattr(decontamination, "shingles", colliding)
    index = index_items([passage("a", w(range(40)))])
    assert pairs(hits([w(range(1000, 1100))], index)) == []


@given(st.sets(st.integers(0, 2**64 - 1), max_size=60), st.lists(st.integers(0, 2**64 - 1), max_size=60))
def test_the_lookup_is_a_dictionary(keys, others):
    known = np.array(sorted(keys), np.uint64)
    asked = np.array([*keys, *others, *(key ^ 1 for key in keys), *(key ^ 1 << 63 for key in keys)], np.uint64)
    found = np.empty(len(asked), np.int32)
    look_up(asked, known, *directory_of(known), found)
    places = {key: place for place, key in enumerate(known.tolist())}
    assert found.tolist() == [places.get(key, -1) for key in asked.tolist()]


# Items


RECORD = {
    "id": 7,
    "question": "Which way?",
    "choices": {"text": ["up the hill", "down"], "label": [1, 2]},
    "facts": [["a", ["b"]], {"c": "d"}],
    "empty": "  ",
    "gold": None,
}


def test_a_record_is_its_strings_alone_in_pairs_and_in_a_row():
    groups = groups_of(RECORD)
    item = Item("x", groups)
    assert groups == (("Which way?",), ("up the hill", "down"), ("a", "b", "d"))
    strings = ["Which way?", "up the hill", "down", "a", "b", "d"]
    joined = [["Which way?"], ["up the hill", "down"], ["a", "b", "d"]]
    expected = strings + [" ".join(" ".join(group) for group in order) for order in permutations(joined)]
    expected += [f"{a} {b}" for one, other in permutations(joined, 2) for a in one for b in other]
    assert item.texts == expected


@given(st.lists(st.lists(st.text("abc ", min_size=1), min_size=1, max_size=2), min_size=1, max_size=4), st.randoms())
def test_the_order_of_keys_does_not_change_what_is_a_test_item(fields, random):
    record = {str(k): field for k, field in enumerate(fields)}
    names = list(record)
    random.shuffle(names)
    texts = [Item("x", groups_of(each)).texts for each in (record, {name: record[name] for name in names})]
    assert set(texts[0]) == set(texts[1])


def test_a_question_and_its_answer_are_found_whichever_the_file_names_first():
    question = {"query": w(range(20)), "choices": [w(range(20, 30)), w(range(40, 45)), w(range(50, 55))]}
    text = f"{question['query']} {question['choices'][0]}"
    for record in (question, dict(reversed(question.items()))):
        found = hits([text], index_items([Item("q", groups_of(record))]))
        assert found.jaccard.tolist() == [1.0]


def test_a_document_that_says_one_word_for_ever_takes_the_memory_of_its_hashes():
    """17 bytes a word and not a Python object for each: 200,000 words stand for 200 MB of them."""
    items = [passage(str(k), "the " * (13 + k)) for k in range(3)]
    tracemalloc.start()
    found = hits(["the " * 200_000 + "end"], index_items(items))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shared.tolist() == [1, 1, 1]
    assert found.end.tolist() == [4 * 200_000 - 1] * 3
    assert peak < 30e6


def test_items_are_read_from_files_of_every_kind(tmp_path):
    lines = "".join(json.dumps({"q": f"question {k}", "a": [f"answer {k}"]}) + "\n\n" for k in range(3)).encode()
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "deep" / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.xz").write_bytes(lzma.compress(lines))
    (tmp_path / "d.txt").write_text("one item\nof two lines")
    (tmp_path / "notes.md").write_text("not one")
    pyarrow.parquet.write_table(pa.table({"q": ["x", "y"], "a": [["1"], ["2", "3"]]}), tmp_path / "e.parquet")
    found = list(read_items(str(tmp_path)))
    names = [f"{file}:{line}" for file in ("a.jsonl", "c.jsonl.xz", "deep/b.jsonl.gz") for line in (1, 3, 5)]
    assert [item.id for item in found] == [*names[:6], "d.txt", *names[6:], "e.parquet:1", "e.parquet:2"]
    assert found[1].groups == (("question 1",), ("answer 1",))
    assert found[6].texts == ["one item\nof two lines"]
    assert found[-1].groups == (("y",), ("2", "3"))
    assert [item.id for item in read_items(str(tmp_path / "d.txt"))] == ["d.txt"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none", None, "does not exist"),
        ("a.md", b"x", "unsupported file type"),
        ("a.jsonl", b"[1]\n", "not an object"),
        ("a.jsonl", b"{\n", "is not JSON"),
        ("a.jsonl.gz", b"not gzip", "cannot be decompressed"),
        ("a.parquet", b"not parquet", "not a readable Parquet file"),
        ("a.jsonl", b'{"q":' + b"[" * 900 + b"]" * 900 + b"}", "nested too deeply"),
        ("a.jsonl", b'{"q": "' + b"x" * 5000 + b'"}\n', "line 1 of .* has more than 4,096 bytes: split it"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, name, content, sentence):
    monkeypatch.setattr(items, "lines", lambda source: lines(source, 4096))
    monkeypatch.setattr(items, "LONGEST_LINE", 4096)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EarthworksError, match=sentence):
        list(read_items(str(tmp_path / name)))


def test_tables_of_test_items_are_refused_where_documents_would_be(tmp_path):
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["q", "q"]), file)
    with pytest.raises(EarthworksError, match="2 columns named q; expected one"):
        list(read_items(str(file)))
    pyarrow.parquet.write_table(pa.table({"q": ["a"], "at": pa.array([2**62], pa.timestamp("us"))}), file)
    with pytest.raises(EarthworksError, match="not a readable Parquet file"):
        list(read_items(str(file)))


def test_strings_of_test_items_that_are_not_utf8_are_read(tmp_path):
    broken = pa.array([b"caf\xe9 au lait"]).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"q": broken, "a": [["1", "2"]]}), tmp_path / "a.parquet")
    assert [item.groups for item in read_items(str(tmp_path / "a.parquet"))] == [(("caf\ufffd au lait",), ("1", "2"))]


def test_a_table_of_test_items_is_read_a_few_rows_at_a_time():
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"a": [["y" * 500_000, "z" * 500_000]] * 30}), sink, use_dictionary=False)
    metadata = pyarrow.parquet.ParquetFile(sink).metadata
    assert records.rows_at_once(metadata, ["a"], "a.parquet") == 67


def test_unknown_rules_are_refused():
    with pytest.raises(EarthworksError, match="'all'; it must be one of jaccard, any"):
        contaminated(hits([], index_items([])), 0, rule="all")


@pytest.mark.slow
def test_every_real_test_item_of_13_words_is_found(real_data):
    """Its first two fields that hold text, pasted between other words."""
    items = list(read_items(str(real_data / "eval")))
    index = index_items(items)
    unchecked = set(index.unchecked)
    random = np.random.default_rng(0)
    texts, expected = [], []
    for place in random.permutation(len(items))[:3000].tolist():
        text = " ".join(group[0] for group in items[place].groups[:2])
        if len(bare_words(text)) >= 13:
            assert items[place].id not in unchecked
            texts.append(f"{w(range(30))} {text} {w(range(30))}")
            expected.append((len(texts) - 1, place))
    assert len(expected) > 1000
    assert set(expected) <= set(pairs(hits(texts, index)))
