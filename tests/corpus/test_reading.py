import gzip
import io
import itertools
import json
import lzma
import os
import random
import subprocess
import sys
import types
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus import Fault, Reading, files_of, read, read_input
from earthworks.corpus.document import LongDocument
from earthworks.corpus.readers import any_source as module
from earthworks.corpus.readers import records, streams
from earthworks.corpus.readers.hugging_face import hugging_face_parts
from earthworks.runs import EarthworksError

TEXTS = ["First, with an é.\r\nAnd a second line.\n", "日本語の文章", "x" * 3000 + "\n\n\t end", "Ünï"]


def jsonl(texts=TEXTS) -> bytes:
    return "".join(json.dumps({"text": text, "stars": 3}) + "\n" for text in texts).encode()


def parquet(texts=TEXTS, rows=2, **columns) -> bytes:
    sink = io.BytesIO()
    table = pyarrow.table({"text": texts, "unread": [b"\xff"] * len(texts)} | columns)
    pyarrow.parquet.write_table(table, sink, row_group_size=rows)
    return sink.getvalue()


def compress(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content[:20]) + gzip.compress(content[20:])  # two members, as `cat a.gz b.gz` makes
    if suffix == ".xz":
        return lzma.compress(content[:20]) + lzma.compress(content[20:])
    if suffix == ".zst":
        return zstandard.compress(content[:20]) + zstandard.compress(content[20:])
    return content


def texts_of(data, reading=None) -> list[str]:
    return [document.text for document in read(str(data), reading)]


def complaint(data) -> str:
    with pytest.raises(EarthworksError) as caught:
        list(read(str(data)))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_documents(tmp_path, kind, compression):
    if kind == ".txt":
        for number, text in enumerate(TEXTS):
            (tmp_path / f"{number}.txt{compression}").write_bytes(compress(text.encode(), compression))
        data = tmp_path
    else:
        data = tmp_path / f"all{kind}{compression}"
        data.write_bytes(compress(parquet() if kind == ".parquet" else jsonl(), compression))
    reading = Reading()
    assert texts_of(data, reading) == TEXTS
    assert reading == Reading(documents=4, bytes=sum(len(text.encode()) for text in TEXTS))
    assert reading.notice() is None


def test_urls_are_read_like_paths():
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/books/a.jsonl.gz", gzip.compress(jsonl(TEXTS[:2])))
    files.pipe("/books/deep/b.parquet", parquet(TEXTS[2:]))
    files.pipe("/books/readme.pdf", b"%PDF")
    reading = Reading()
    assert texts_of("memory://books", reading) == TEXTS
    assert reading.skipped_files == 1
    assert texts_of("memory://books/a.jsonl.gz") == TEXTS[:2]
    assert complaint("memory://nothing") == "memory://nothing does not exist"
    assert "cannot be opened" in complaint("nosuchprotocol://x")


def standard_input(monkeypatch, content: bytes) -> None:
    module.standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    monkeypatch.setattr(module, "standard_input", module.cache(module.standard_input.__wrapped__))


def test_standard_input_is_one_document_and_can_be_read_twice(monkeypatch):
    standard_input(monkeypatch, TEXTS[0].encode())
    assert [(d.id, d.text, d.source) for d in read("-")] == [("-", TEXTS[0], "-")]
    assert texts_of("-") == TEXTS[:1]


def test_empty_standard_input_is_one_sentence(monkeypatch):
    standard_input(monkeypatch, b"")
    assert complaint("-").startswith("- contains no text")


def test_a_local_hugging_face_data_set_is_read(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_dict({"text": TEXTS, "stars": [1, 2, 3, 4]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "several")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.jsonl").write_bytes(jsonl())
    for data in ("one", "several", "files"):
        documents = list(read(f"hf:{tmp_path / data}"))
        assert [document.text for document in documents] == TEXTS
        assert documents[2].metadata["stars"] == 3
    assert texts_of(f"hf:{tmp_path / 'several'}::test") == TEXTS[1:2]
    assert "could not be loaded" in complaint(f"hf:{tmp_path / 'several'}::nosuch")
    assert "could not be loaded" in complaint(f"hf:{tmp_path / 'nosuch'}")


def test_hugging_face_names_have_a_config_and_a_split():
    assert hugging_face_parts("hf:owner/name") == ("owner/name", None, "train")
    assert hugging_face_parts("hf:owner/name:small") == ("owner/name", "small", "train")
    assert hugging_face_parts("hf:owner/name:small:test") == ("owner/name", "small", "test")
    assert hugging_face_parts("hf:owner/name::test") == ("owner/name", None, "test")
    assert "expected hf:NAME" in complaint("hf:a:b:c:d")


def test_the_missing_extra_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert complaint("hf:owner/name") == "hf:owner/name needs the package datasets: pip install 'earthworks[hf]'"


def test_identity_comes_from_the_record_or_else_from_file_and_line(tmp_path):
    lines = [{"text": "a", "id": 7, "source": "web", "url": "u"}, {"content": "b"}, {"raw_content": "c"}]
    lines += [{"document": "d", "id": None}, {"text": "e", "content": "not this"}]
    (tmp_path / "part.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert [(d.id, d.text, d.source, d.metadata) for d in read(str(tmp_path))] == [
        ("7", "a", "web", {"url": "u"}),
        ("part.jsonl:3", "b", "part.jsonl", {}),
        ("part.jsonl:5", "c", "part.jsonl", {}),
        ("part.jsonl:7", "d", "part.jsonl", {}),
        ("part.jsonl:9", "e", "part.jsonl", {"content": "not this"}),
    ]
    columns = {"id": [5, 6, None, 8], "source": ["s", None, "t", "u"]}
    (tmp_path / "rows.parquet").write_bytes(parquet(**columns))
    documents = list(read(str(tmp_path / "rows.parquet")))
    assert [d.id for d in documents] == ["5", "6", "rows.parquet:2", "8"]
    assert [d.source for d in documents] == ["s", "rows.parquet", "t", "u"]
    assert documents[0].metadata == {}  # the other columns were not even read


def test_a_folder_is_read_in_sorted_order_without_hidden_and_foreign_files(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/y.TXT", "c/d/e.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("picture.png", "notes.md", "c/script.py"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    reading = Reading()
    documents = list(read(f"{tmp_path}/", reading))
    assert (
        [d.text for d in documents]
        == [d.id for d in documents]
        == ["a.txt", "a/y.TXT", "a/z.txt", "b.txt", "c/d/e.txt"]
    )
    assert reading.skipped_files == 4  # the three, and the link, which is not followed
    assert reading.empty_documents == 1
    assert reading.notice() == (
        "4 files were skipped (not .txt, .jsonl, .parquet, .html or .warc, also with .gz, .xz or .zst); 1 empty documents were skipped"  # noqa: E501
    )


def test_a_relative_path_names_its_documents_the_same(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert [d.id for d in read("in")] == [d.id for d in read("./in/")] == [d.id for d in read(str(tmp_path / "in"))]


def test_undecodable_bytes_are_replaced_one_by_one_and_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xe6\x97 ok \xed\xa0\x80 \xf0\x9f\x98\x80")
    reading = Reading()
    assert texts_of(tmp_path / "a.txt", reading) == ["caf\ufffd \ufffd\ufffd ok \ufffd\ufffd\ufffd \U0001f600"]
    assert reading.replaced_bytes == 6
    assert reading.notice() == "6 undecodable bytes became U+FFFD"


def test_bad_utf8_and_lone_surrogates_in_json_are_replaced_and_counted(tmp_path):
    lines = [
        b'{"text": "caf\xe9 au lait"}',
        rb'{"text": "a \ud800 b \ud83d\ude00", "title": "\udfff"}',
        b'{"text": "ok"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    reading = Reading()
    documents = list(read(str(tmp_path / "a.jsonl"), reading))
    assert [d.text for d in documents] == ["caf\ufffd au lait", "a \ufffd b \U0001f600", "ok"]
    assert documents[1].metadata == {"title": "\ufffd"}
    assert reading.replaced_bytes == 3
    (tmp_path / "b.parquet").write_bytes(parquet(text=pyarrow.array([b"caf\xe9", b"x", b"y", b"z"])))
    assert texts_of(tmp_path / "b.parquet", reading)[0] == "caf\ufffd"
    assert reading.replaced_bytes == 4


def test_a_byte_order_mark_is_dropped_and_line_ends_are_kept(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(["x\r\ny"]))
    assert texts_of(tmp_path) == ["one\r\ntwo\rthree\n", "x\r\ny"]


def test_records_without_text_are_left_out_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": ""}\n{"text": "x"}\n')
    (tmp_path / "b.parquet").write_bytes(parquet([None, "y"]))
    reading = Reading()
    assert texts_of(tmp_path, reading) == ["x", "y"]
    assert reading.empty_documents == 3


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    assert complaint(tmp_path / "none.txt").endswith("none.txt does not exist")
    os.mkfifo(tmp_path / "pipe.txt")
    assert "pipe.txt cannot be read: it is not a regular file" in complaint(tmp_path / "pipe.txt")
    assert "contains no text" in complaint(write(tmp_path / "empty.txt", b""))
    assert "contains no text" in complaint(write(tmp_path / "empty.jsonl", b""))
    assert "contains no text" in complaint(write(tmp_path / "empty.jsonl.gz", gzip.compress(b"")))
    assert "unsupported file type: " in complaint(write(tmp_path / "a.docx", b"PK"))
    assert "binary file (it contains NUL bytes)" in complaint(write(tmp_path / "b.txt", b"ab\0cd"))
    assert "a PDF" in complaint(write(tmp_path / "c.txt", b"%PDF-1.7 x"))
    assert "rename it to end in .gz" in complaint(write(tmp_path / "d.txt", gzip.compress(b"x")))
    assert "rename it to end in .zst" in complaint(write(tmp_path / "e.jsonl", zstandard.compress(b"x")))
    assert "UTF-16" in complaint(write(tmp_path / "f.txt", "text".encode("utf-16")))
    assert "a Parquet file" in complaint(write(tmp_path / "g.jsonl", parquet()))
    assert "not a readable Parquet file" in complaint(write(tmp_path / "h.parquet", b"text"))
    assert "not a readable Parquet file" in complaint(write(tmp_path / "i.parquet", parquet()[:-9]))
    assert "cannot be decompressed" in complaint(write(tmp_path / "j.txt.gz", b"text"))
    assert "cannot be decompressed" in complaint(write(tmp_path / "k.txt.gz", gzip.compress(os.urandom(999))[:-50]))
    assert "cannot be decompressed" in complaint(write(tmp_path / "p.txt.xz", lzma.compress(os.urandom(999))[:-50]))
    assert "Truncated" in complaint(write(tmp_path / "l.txt.zst", zstandard.compress(os.urandom(999))[:-50]))
    assert "cannot be decompressed" in complaint(write(tmp_path / "m.txt.zst", b"text text text"))
    assert "line 2 of" in complaint(write(tmp_path / "n.jsonl", b'{"text": "a"}\n{"text": "b"'))
    assert "JSON but not an object" in complaint(write(tmp_path / "o.json", b'["a", "b"]'))
    sentence = complaint(write(tmp_path / "p.jsonl", b'{"body": "a", "url": "u"}'))
    assert "has the fields body, url; expected the text in one named text, content, raw_content or document" in sentence
    sentence = complaint(write(tmp_path / "q.parquet", parquet().replace(b"text", b"body")))
    assert "has the fields body, unread; expected" in sentence
    assert "holds int, not text" in complaint(write(tmp_path / "r.jsonl", b'{"text": 5}'))


def test_xz_that_asks_for_gigabytes_of_memory_is_one_sentence(tmp_path):
    content = bytearray(lzma.compress(jsonl()))
    assert content[14:16] == b"\x21\x01"  # LZMA2, and one byte of properties: the size of the dictionary
    content[16] = 40  # 4 GiB
    content[20:24] = zlib.crc32(content[12:20]).to_bytes(4, "little")
    (tmp_path / "a.jsonl.xz").write_bytes(content)
    assert "needs more than 128 MiB of memory for decompression: recompress it" in complaint(tmp_path / "a.jsonl.xz")


def test_a_folder_with_nothing_readable_is_one_sentence(tmp_path):
    assert "contains no readable files" in complaint(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    assert "contains no readable files" in complaint(tmp_path)
    (tmp_path / "b.txt").write_bytes(b"")
    assert "contains no text" in complaint(tmp_path)


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    def refuse(self, path, mode):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.txt", b"x")
    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    assert complaint(path) == f"{path} cannot be read: Permission denied"


def test_parquet_is_read_by_row_groups_and_only_the_wanted_columns(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", parquet([f"text {n}" for n in range(1000)], rows=10))
    asked = []
    original = pyarrow.parquet.ParquetFile.iter_batches

    def watched(self, rows, columns):
        for batch in original(self, 10, columns=columns):
            asked.append((batch.num_rows, batch.schema.names))
            yield batch

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", watched)
    documents = read(str(path))
    assert next(documents).text == "text 0"
    assert asked == [(10, ["text"])]  # nothing beyond what was needed for the first document
    assert isinstance(documents, types.GeneratorType)


def test_a_parquet_file_of_one_row_group_is_not_held(tmp_path):
    program = f"""
import io, random
import pyarrow, pyarrow.parquet
from earthworks.corpus import read
texts = [random.randbytes(10_000).hex() for _ in range(200)]
schema = pyarrow.schema([("text", pyarrow.string())])
with pyarrow.parquet.ParquetWriter({str(tmp_path / "a.parquet")!r}, schema, use_dictionary=False) as writer:
    writer.write_table(pyarrow.table({{"text": texts * 25}}), row_group_size=10**6)
before = {PEAK}
print(sum(len(each.text) for each in read({str(tmp_path)!r})), {PEAK} - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    characters, peak = map(int, done.stdout.split())
    assert characters == 100_000_000
    assert peak < 150_000  # kB: less than the bytes of the group


def test_long_rows_of_parquet_are_held_a_few_at_a_time():
    table = pyarrow.table({"text": ["x" * 1_000_000] * 300, "id": list(range(300))})
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, use_dictionary=False, compression="zstd")
    metadata = pyarrow.parquet.ParquetFile(sink).metadata
    assert records.rows_at_once(metadata, ["text"], "a.parquet") == 67
    assert records.rows_at_once(metadata, ["id"], "a.parquet") == 1024


def test_two_columns_of_one_name_are_a_fault_of_the_file_and_harmless_where_they_are_not_read(tmp_path):
    columns = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["c"])]
    for name, names in (("a", ["text", "text", "x"]), ("b", ["text", "x", "x"]), ("c", ["text", "id", "id"])):
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names), tmp_path / f"{name}.parquet")
    found, reading = tolerant(tmp_path)
    assert found == ["a"]
    assert [each.what.partition(" has ")[2] for each in reading.faults] == [
        "2 columns named text; expected one: rename or drop the others",
        "2 columns named id; expected one: rename or drop the others",
    ]


def test_values_that_python_has_no_type_for_are_a_fault_of_the_file(tmp_path):
    dates = pyarrow.array([2**62], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "id": dates}), tmp_path / "a.parquet")
    found, reading = tolerant(tmp_path)
    assert (found, reading.num_faults) == ([], 1)
    assert "is not a readable Parquet file" in reading.faults[0].what


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are always text")
def test_a_name_that_is_not_utf8_is_read_and_shown_with_a_replacement(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "wb") as stream:
        stream.write(b"tea")
    for data in (tmp_path, os.fsdecode(path)):
        assert [(each.id, each.source, each.text) for each in read(str(data))] == [
            ("caf\ufffd.txt", "caf\ufffd.txt", "tea")
        ]
    with open(path, "wb") as stream:
        stream.write(b"\0")
    sentence = complaint(os.fsdecode(path))
    assert sentence.encode()  # can be written to any log
    assert "caf\ufffd.txt is a binary file" in sentence


def test_jsonl_is_read_line_by_line(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl() + b"not JSON\n")
    documents = read(str(path))
    assert [next(documents).text for _ in TEXTS] == TEXTS
    with pytest.raises(EarthworksError, match=r"line 5 of .* is not JSON"):
        next(documents)


# Long texts

PEAK = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # kB; ru_maxrss is that of the parent too


@given(
    st.lists(st.sampled_from([b"\xef\xbb\xbf", b"\xe6\x97\xa5", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f", b"a\r", b"\n"])),
    st.lists(st.integers(1, 7), min_size=1),
)
def test_a_text_decoded_in_blocks_is_the_text_decoded_whole(parts, sizes):
    content, blocks = b"".join(parts), []
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(content):
            break
        blocks.append(content[at : at + size])
        at += size
    whole, in_blocks = Reading(), Reading()
    text = records.decode(content, whole)
    assert "".join(records.decoded_blocks(blocks, in_blocks)) == text
    assert in_blocks.replaced_bytes == whole.replaced_bytes
    assert in_blocks.bytes == len(text.encode())


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz"])
def test_a_long_text_file_comes_in_blocks_and_is_counted_once(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(module, "LONG", 1000)
    text = "Ein Wörterbuch, 日本語. " * 200
    write(tmp_path / f"a.txt{suffix}", compress(b"\xef\xbb\xbf" + text.encode() + b"\xff", suffix))
    write(tmp_path / "b.txt", b"short")
    reading = Reading()
    first, second = module.read_texts(str(tmp_path), reading)
    assert isinstance(first, LongDocument)
    assert ["".join(first.blocks(Reading())) for _ in range(2)] == [text + "\ufffd"] * 2  # as often as it is asked for
    assert "".join(first.blocks(reading)) == text + "\ufffd"
    assert (first.id, first.source, second.text) == (f"a.txt{suffix}", f"a.txt{suffix}", "short")
    whole = Reading()
    assert texts_of(tmp_path, whole) == [text + "\ufffd", "short"]
    assert reading == whole


def test_long_standard_input_comes_in_blocks(monkeypatch):
    standard_input(monkeypatch, TEXTS[0].encode() * 100)
    monkeypatch.setattr(module, "LONG", 1000)
    monkeypatch.setattr(module, "BLOCK", 7)
    (document,) = module.read_texts("-")
    assert "".join(document.blocks(Reading())) == TEXTS[0] * 100


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz"])
def test_no_document_is_longer_than_the_limit_whoever_reads(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(streams, "LARGEST_FILE", 10_000)
    monkeypatch.setattr(module, "LONG", 1000)
    path = write(tmp_path / f"a.txt{suffix}", compress(b"word " * 4000, suffix))
    assert "has more than 10,000 bytes, the limit for one document: split it into" in complaint(path)
    with pytest.raises(EarthworksError, match="has more than 10,000 bytes"):
        list(itertools.chain.from_iterable(each.blocks(Reading()) for each in module.read_texts(str(path))))
    assert "has more than 10,000 bytes" in tolerant(path)[1].faults[0].what


def test_long_standard_input_is_refused(monkeypatch):
    standard_input(monkeypatch, b"word " * 4000)
    monkeypatch.setattr(module, "LARGEST_FILE", 10_000)
    assert "standard input has more than 10,000 bytes" in complaint("-")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its peak memory")
@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
def test_a_bomb_costs_little_memory(tmp_path, suffix):
    """60 MB where 50 are allowed, packed in a few kB, are refused in the memory of a short text."""
    path = tmp_path / f"a.txt{suffix}"
    with {".gz": gzip.open, ".zst": zstandard.open, ".xz": lzma.open}[suffix](path, "wb") as stream:
        for _ in range(60):
            stream.write(b"word " * 200_000)
    program = f"""
from earthworks.corpus import Tokenizer, pack, sources
from earthworks.corpus.readers import streams
streams.LARGEST_FILE = 50_000_000
try:
    pack(sources({str(path)!r}), Tokenizer.bytes(), {str(tmp_path / "out")!r})
except ValueError as error:
    print(str(error).replace({str(path)!r}, "it"))
print({PEAK})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    sentence, peak = done.stdout.splitlines()
    assert sentence.startswith("it has more than 50,000,000 bytes")
    assert int(peak) < 200_000
    assert not (tmp_path / "out").exists()


# Tolerant


def tolerant(data) -> tuple[list[str], Reading]:
    """The texts of all files, and the account."""
    reading = Reading(tolerant=True)
    return [each.text for file in files_of(str(data), reading) for each in read_input(file, reading)], reading


def test_each_bad_record_is_one_fault_and_the_rest_is_read(tmp_path):
    bad = {
        b'{"text": "b"': "is not JSON",
        b"[" * 100_000: "is not JSON",
        b'["text"]': "JSON but not an object",
        b'"text"': "JSON but not an object",
        b"null": "JSON but not an object",
        b'{"body": "x"}': "has the fields body; expected the text",
        b"{}": "has the fields (none)",
        b'{"text": 5}': "holds int, not text",
        b'{"text": ["a"]}': "holds list, not text",
        b'{"html": {"a": 1}}': "holds dict, not text",
        b"\0" * 100: "is not JSON",
    }
    content = b"".join(b'{"text": "good %d"}\n%s\n' % (number, line) for number, line in enumerate(bad))
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(content + b'{"text": "caf\xe9"}'))
    texts, reading = tolerant(path)
    assert texts == [*(f"good {number}" for number in range(len(bad))), "caf\ufffd"]
    assert [fault.where for fault in reading.faults] == [f"{path}, line {2 * n + 2}" for n in range(len(bad))]
    for fault, expected in zip(reading.faults, bad.values(), strict=True):
        assert expected in fault.what
    assert (reading.num_faults, reading.replaced_bytes, reading.documents) == (len(bad), 1, len(bad) + 1)
    assert reading.notice() == "1 undecodable bytes became U+FFFD; 11 records or files could not be read"


def test_all_faults_are_counted_and_the_first_thousand_listed(tmp_path):
    texts, reading = tolerant(write(tmp_path / "a.jsonl", b"x\n" * 1500 + b'{"text": "a"}'))
    assert (texts, reading.num_faults, len(reading.faults)) == (["a"], 1500, records.KEPT_FAULTS)


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_damage_in_the_middle_gives_what_came_before_and_one_fault(tmp_path, suffix):
    texts = [os.urandom(500).hex() for _ in range(800)]
    checked = zstandard.ZstdCompressor(write_checksum=True).compress  # without it zstd may not find out at all
    packed = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": checked}[suffix](jsonl(texts))
    half = len(packed) // 2
    for content in (packed[:half], packed[:half] + b"\xff" * 5000 + packed[half + 5000 :], packed[:-3]):
        (tmp_path / f"a.jsonl{suffix}").write_bytes(content)
        (tmp_path / "b.jsonl").write_bytes(jsonl(["after"]))
        found, reading = tolerant(tmp_path)
        assert found[-1] == "after"
        noisy = len(content) == len(
            packed
        )  # a decoder without a check makes some lines of the noise before it finds out
        assert found[: 200 if noisy else -1] == texts[: 200 if noisy else len(found) - 1]
        assert len(found) > (650 if content == packed[:-3] else 200)
        assert reading.faults[-1].where == str(tmp_path / f"a.jsonl{suffix}")
        assert "cannot be decompressed" in reading.faults[-1].what
        assert reading.num_faults == 1 or noisy


def test_a_damaged_row_group_gives_the_rows_before_it(tmp_path):
    texts = [os.urandom(500).hex() for _ in range(4000)]
    content = bytearray(parquet(texts, rows=1000))
    half = len(content) // 2
    content[half : half + 200_000] = b"\xff" * 200_000
    found, reading = tolerant(write(tmp_path / "a.parquet", bytes(content)))
    assert found == texts[: len(found)]
    assert 1000 <= len(found) < 4000
    assert reading.num_faults == 1
    assert "not a readable Parquet file" in reading.faults[0].what


def test_a_column_that_is_no_text_is_one_fault(tmp_path):
    _, reading = tolerant(write(tmp_path / "a.parquet", parquet(text=[1, 2, 3, 4])))
    assert [fault.what for fault in reading.faults] == [f"the field text of {tmp_path}/a.parquet holds int64, not text"]


def test_strings_of_parquet_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    offsets, data = pyarrow.py_buffer(bytes([0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0])), pyarrow.py_buffer(b"caf\xe9x")
    wrong = pyarrow.StringArray.from_buffers(2, offsets, data)
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": wrong, "id": wrong, "source": [None, "s"]}), sink)
    reading = Reading()
    documents = list(read(str(write(tmp_path / "a.parquet", sink.getvalue())), reading))
    assert [(each.id, each.text, each.source) for each in documents] == [
        ("caf\ufffd", "caf\ufffd", "a.parquet"),
        ("x", "x", "s"),
    ]
    assert reading.replaced_bytes == 2


def test_one_file_among_many_that_may_not_be_read_is_one_fault(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    for number in range(100):
        write(tmp_path / f"{number:03}.txt", b"text")
    (tmp_path / "050.txt").unlink()
    (tmp_path / "050.txt").symlink_to(tmp_path / "nowhere")
    original = LocalFileSystem.open

    def refuse(self, path, mode):
        if path.endswith("070.txt"):
            raise PermissionError(13, "Permission denied")
        if path.endswith("071.txt"):
            raise RuntimeError("the cloud is gone")
        return original(self, path, mode)

    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    write(tmp_path / "080.txt", b"%PDF-1.4")
    write(tmp_path / "090.parquet", b"nothing")
    texts, reading = tolerant(tmp_path)
    assert len(texts) == 96
    assert reading.num_faults == 5
    assert reading.faults[1] == Fault(f"{tmp_path}/070.txt", f"{tmp_path}/070.txt cannot be read: Permission denied")
    assert reading.faults[2].what.endswith("071.txt cannot be read: RuntimeError: the cloud is gone")
    assert complaint(tmp_path).startswith(f"{tmp_path}/050.txt cannot be read: No such file")


def test_a_folder_that_may_not_be_listed_is_one_fault(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.txt", b"x")
    write(tmp_path / "b.txt", b"y")
    original = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("/in"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    texts, reading = tolerant(tmp_path)
    assert texts == ["y"]
    assert [fault.what for fault in reading.faults] == [f"{tmp_path}/in cannot be listed: Permission denied"]
    assert "cannot be listed" in complaint(tmp_path)


def test_a_pipe_and_a_name_that_is_not_utf8_do_no_harm(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    write(Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")), b"x")
    reading = Reading(tolerant=True)
    assert [each.id for file in files_of(str(tmp_path), reading) for each in read_input(file, reading)] == [
        "caf\ufffd.txt"
    ]
    assert reading.skipped_files == 1


def test_files_are_known_without_being_opened(tmp_path, monkeypatch):
    import pickle

    from fsspec.implementations.local import LocalFileSystem

    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "a.jsonl", jsonl())
    write(tmp_path / "a.txt", b"text")
    files = files_of(str(tmp_path))
    assert [(each.name, each.bytes) for each in files] == [("a.txt", 4), ("b/a.jsonl", len(jsonl()))]
    assert files_of(str(tmp_path)) == files == pickle.loads(pickle.dumps(files))
    assert [each.text for each in read_input(pickle.loads(pickle.dumps(files[1])), Reading())] == TEXTS
    os.utime(tmp_path / "a.txt", ns=(0, 1))
    assert [each.token == old.token for each, old in zip(files_of(str(tmp_path)), files)] == [False, True]
    monkeypatch.setattr(LocalFileSystem, "open", None)
    assert len(files_of(str(tmp_path))) == 2


def slow_lines(content: bytes, longest: int) -> list[bytes | None]:
    parts = content.split(b"\n")
    return [None if len(part) > longest else part for part in (parts if parts[-1] else parts[:-1])]


def test_lines_are_the_same_however_the_bytes_come():

    chance = random.Random(0)
    for _ in range(300):
        content = bytes(chance.choices(b"ab\n", weights=[5, 5, chance.random() * 5], k=chance.randint(0, 60)))
        cuts = sorted(chance.choices(range(len(content) + 1), k=chance.randint(0, 8)))
        pieces = [content[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(content)])]
        assert list(streams.lines(pieces, 100)) == slow_lines(content, 100)
        assert list(streams.lines(pieces, 5)) == slow_lines(content, 5)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_that_is_too_long_is_passed_over_in_little_memory(tmp_path, monkeypatch, suffix):
    import tracemalloc

    monkeypatch.setattr(streams.lines, "__defaults__", (1 << 20,))
    long = b'{"text": "' + b"word " * 6_000_000 + b'"}\n'
    path = write(tmp_path / f"a.jsonl{suffix}", compress(jsonl(["a"]) + long + jsonl(["b"]), suffix))
    del long
    tracemalloc.start()
    texts, reading = tolerant(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (texts, reading.num_faults) == (["a", "b"], 1)
    assert reading.faults[0].where == f"{path}, line 2"
    assert peak < 24e6
    assert "line 2 of" in complaint(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_line_of_200_megabytes_is_read(tmp_path, name):
    text = "A line without an end, " * (200_000_000 // 23)
    content = text.encode() if name.endswith(".txt") else json.dumps({"text": text}).encode()
    if name.endswith(".gz"):
        content = gzip.compress(content, 1)
    elif name.endswith(".zst"):
        content = zstandard.compress(content, 1)
    path = write(tmp_path / name, content)
    assert texts_of(path) == [text]


@pytest.mark.slow
def test_a_line_of_a_gigabyte_is_one_fault_and_never_held(tmp_path):
    import subprocess

    packer = zstandard.ZstdCompressor(1).compressobj()
    with open(tmp_path / "a.jsonl.zst", "wb") as stream:
        stream.write(packer.compress(jsonl(["a"]) + b'{"text": "'))
        for _ in range(1000):
            stream.write(packer.compress(b"word " * 200_000))
        stream.write(packer.compress(b'"}\n' + jsonl(["b"])) + packer.flush())
    program = f"""
from earthworks.corpus import Reading, read
reading = Reading(tolerant=True)
print([each.text for each in read({str(tmp_path)!r}, reading)], reading.num_faults)
print({PEAK})
"""
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert out[0] == "['a', 'b'] 1"
    assert int(out[1]) < 700_000  # kB
