import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthworks.corpus import PackedTokens, Source, Tokenizer, is_packed, pack, read, sources
from earthworks.corpus.tokens import packing as module
from earthworks.corpus.tokens import tokenizer as tokenizer_module
from earthworks.corpus.tokens.sample_order import shares, subsets_of, windows_per_epoch
from earthworks.corpus.tokens.validation_split import split_sources
from earthworks.runs import EarthworksError
from earthworks.runs.manifest import description

TEXTS = [f"Document {n}: ﬁne ½ é 日本, `</s>` and <0x0A>.\n" + "word " * (n * 7 % 40) + "\n" for n in range(120)]


def folder(path, texts):
    path.mkdir(parents=True)
    for number, text in enumerate(texts):
        (path / f"{number:06d}.txt").write_bytes(text.encode())
    return sources(str(path))[0]


def packed_from(tmp_path, texts, tokenizer=None, **options) -> PackedTokens:
    return pack([folder(tmp_path / "in", texts)], tokenizer or Tokenizer.bytes(), tmp_path / "out", **options)


def documents_of(packed: PackedTokens, part: str) -> list[np.ndarray]:
    """The documents in the shard files, found only by the end-of-document tokens."""
    found = []
    for subset in packed.subsets:
        tokens = np.concatenate([np.asarray(shard) for shard in getattr(subset, part).shards]).astype(int)
        ends = np.flatnonzero(tokens == packed.tokenizer.end_of_document) + 1
        assert ends[-1] == len(tokens)
        found += np.split(tokens, ends[:-1])
    return found


def test_packed_documents_decode_to_the_normalized_originals(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 1000)
    monkeypatch.setattr(tokenizer_module, "BATCH", 500)
    packed = packed_from(tmp_path, TEXTS, tokenizer, validation=0.2, seed=4)
    split = split_sources([Source("in", str(tmp_path / "in"))], 0.2, 4)
    for part, index in (("train", 0), ("validation", 1)):
        expected = [tokenizer.normalize(text) for text in TEXTS if split.parts(text)[index]]
        assert [tokenizer.decode(tokens[:-1]) for tokens in documents_of(packed, part)] == expected
        shards = getattr(packed.subsets[0], part).shards
        assert len(shards) > 1
        assert {len(shard) for shard in shards[:-1]} == {1000}


def test_validation_documents_count_the_bytes_and_words_of_the_text_as_read(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 700)
    monkeypatch.setattr(tokenizer_module, "CHUNK", 40)  # so that documents are encoded in several pieces
    texts = [*TEXTS, *(f"{n} " + "longword" * 30 + " é" for n in range(60))]  # that no cut falls between words
    packed = packed_from(tmp_path, texts, tokenizer, validation=0.5)
    found = list(packed.validation_documents())
    assert len(found) == packed.subsets[0].validation.documents > 50
    originals = {tokenizer.normalize(text): text for text in texts}
    for tokens, num_bytes, num_words in found:
        assert tokens[-1] == tokenizer.end_of_document
        text = originals[tokenizer.decode(tokens)]
        assert (num_bytes, num_words) == (len(text.encode()), len(text.split()))
    part = packed.subsets[0].validation
    assert (part.tokens, part.bytes, part.words) == tuple(
        map(sum, zip(*((len(tokens), num_bytes, num_words) for tokens, num_bytes, num_words in found)))
    )


def test_counts_in_the_index_are_those_of_the_files(tmp_path, bpe):
    packed = packed_from(tmp_path, TEXTS, bpe)
    subset = packed.subsets[0]
    for name in ("train", "validation"):
        part, documents = getattr(subset, name), documents_of(packed, name)
        assert (part.tokens, part.documents) == (sum(map(len, documents)), len(documents))
        assert part.table[:, 0].tolist() == np.cumsum([0, *map(len, documents)])[:-1].tolist()
        assert (part.bytes, part.words) == tuple(part.table[:, 1:].sum(0))
    assert subset.train.bytes + subset.validation.bytes == sum(len(text.encode()) for text in TEXTS)
    assert packed.train_tokens == subset.train.tokens
    assert packed.reading.documents == len(TEXTS)


def test_a_single_file_is_cut_like_the_nine_tenths_of_tiny_shakespeare(tmp_path):
    text = "First Citizen:\nBefore we proceed any further, hear me speak. ñ\n" * 200
    (tmp_path / "input.txt").write_bytes(text.encode())
    packed = pack(sources(str(tmp_path / "input.txt")), Tokenizer.bytes(), tmp_path / "out", validation=0.1)
    n = len(text)
    assert documents_of(packed, "train")[0].tolist() == [*text[: int(n * 0.9)].encode(), 256]
    assert documents_of(packed, "validation")[0].tolist() == [*text[int(n * 0.9) :].encode(), 256]
    assert packed.sample_text() == text[int(n * 0.9) :][:4096]


def test_the_sample_text_is_the_beginning_of_the_first_held_out_document(tmp_path, bpe):
    packed = packed_from(tmp_path, [text * 300 for text in TEXTS[:20]], bpe)
    tokens, num_bytes, _ = next(packed.validation_documents("in"))
    assert num_bytes > 4096
    assert bpe.decode(tokens).startswith(bpe.normalize(packed.sample_text()))
    assert len(packed.sample_text("in")) == 4096


def test_without_validation_everything_is_trained_on(tmp_path):
    packed = packed_from(tmp_path, TEXTS, validation=0)
    assert not packed.has_validation
    assert list(packed.validation_documents()) == []
    assert packed.sample_text() == ""
    assert packed.subsets[0].train.documents == len(TEXTS)


def test_large_vocabularies_take_four_bytes_a_token(tmp_path, bpe):
    content = json.loads(bpe.file_content())
    vocab = content["model"]["vocab"]
    vocab |= {f"never {n}": n for n in range(len(vocab), 66_000)}
    packed = packed_from(tmp_path, TEXTS, Tokenizer(content))
    assert packed.subsets[0].train.shards[0].dtype == np.dtype("<u4")
    assert bpe.decode(documents_of(packed, "train")[0]) in map(bpe.normalize, TEXTS)


def test_weights_are_given_or_the_share_of_the_tokens(tmp_path):
    large, small = folder(tmp_path / "large", TEXTS), folder(tmp_path / "small", TEXTS[:30])
    packed = pack([large, small], Tokenizer.bytes(), tmp_path / "a", validation=0)
    tokens = [subset.train.tokens for subset in packed.subsets]
    assert [subset.weight for subset in packed.subsets] == pytest.approx([n / sum(tokens) for n in tokens])
    large.weight, small.weight = 1, 4
    packed = pack([large, small], Tokenizer.bytes(), tmp_path / "b", validation=0)
    assert [subset.weight for subset in packed.subsets] == pytest.approx([0.2, 0.8])
    frequencies = packed.token_frequencies()
    counts = [Counter(np.concatenate([*map(np.asarray, subset.train.shards)]).tolist()) for subset in packed.subsets]
    for token in (32, 256, 0):
        share = [(count[token] + 1) / (count.total() + 257) for count in counts]
        assert frequencies[token] == pytest.approx(0.2 * share[0] + 0.8 * share[1])
    assert frequencies.sum() == pytest.approx(1)


# Windows

RECORDS = "".join(f"{n:05d}," for n in range(700))  # every 12 bytes of it occur once


@pytest.fixture(scope="module")
def two_subsets(tmp_path_factory) -> PackedTokens:
    path = tmp_path_factory.mktemp("records")
    first, second = folder(path / "first", [RECORDS]), folder(path / "second", [RECORDS[::-1][:2000]])
    first.weight, second.weight = 0.7, 0.3
    whole, module.SHARD = module.SHARD, 333  # windows reach over several shards
    try:
        return pack([first, second], Tokenizer.bytes(), path / "out", validation=0)
    finally:
        module.SHARD = whole


def test_every_training_token_is_a_target_exactly_once_per_epoch(two_subsets):
    context, seed = 30, 5
    streams = [bytes([*RECORDS.encode(), 0]), bytes([*RECORDS[::-1][:2000].encode(), 0])]  # 0 stands for the end
    weights = np.array([0.7, 0.3])
    share = shares(weights)
    length = [windows_per_epoch(len(stream), context) for stream in streams]
    targets = [[np.zeros(len(stream), int) for _ in range(3)] for stream in streams]
    which, rank = subsets_of(seed, 0, 1024, weights)
    assert [(which == number).sum() for number in (0, 1)] == share.tolist()
    for row, subset, order in zip(two_subsets.windows(seed, 0, 1024, context), which, rank):
        position = streams[subset].find(bytes((row % 256).tolist()))
        assert position >= 0  # a row is a piece of its subset
        if order // length[subset] < 3:
            targets[subset][order // length[subset]][position + 1 : position + context + 1] += 1
    for subset in (0, 1):
        whole_epochs = min(3, share[subset] // length[subset])
        assert whole_epochs >= 1
        for counts in targets[subset][:whole_epochs]:
            seen = np.flatnonzero(counts)
            assert counts.max() == 1
            assert len(seen) == seen[-1] - seen[0] + 1 == length[subset] * context
            assert len(counts) - len(seen) <= 2 * context
    assert (targets[1][0] != targets[1][1]).any()  # the edges move


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    start=st.integers(0, 10**9),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    context=st.integers(1, 100),
)
def test_any_slicing_of_the_sequence_gives_the_same_rows(two_subsets, seed, start, cuts, context):
    whole = two_subsets.windows(seed, start, sum(cuts), context)
    assert whole.shape == (sum(cuts), context + 1)
    assert whole.dtype == np.int64
    edges = start + np.cumsum([0, *cuts])
    parts = [two_subsets.windows(seed, int(edge), cut, context) for edge, cut in zip(edges, cuts)]
    assert (np.concatenate(parts) == whole).all()


def test_seeds_give_other_sequences_and_reopening_the_same(two_subsets):
    again = PackedTokens.open(two_subsets.path)
    first = two_subsets.windows(0, 10**6, 64, 50)
    assert (again.windows(0, 10**6, 64, 50) == first).all()
    assert (again.windows(1, 10**6, 64, 50) == first).all(1).mean() < 0.1
    assert (again.windows(0, 10**6 + 64, 64, 50) == first).all(1).mean() < 0.1


def test_a_corpus_shorter_than_one_context_is_one_sentence(two_subsets):
    assert two_subsets.windows(0, 0, 4, 2000).shape == (4, 2001)
    with pytest.raises(EarthworksError, match=r"shorter than one context: second has 2001 .* smaller --context"):
        two_subsets.windows(0, 0, 4, 2001)


# The folder


def test_subset_folders_have_safe_and_different_names(tmp_path):
    names = ["../a b", "/a/b", "a-b", "日本", "..", "python-docs/prose"]
    folders = module.folder_names([Source(name, name) for name in names])
    assert len(set(folders)) == len(names)
    for name in folders:
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert not name.startswith(".")
    assert folders[-1] == "python-docs-prose"


def test_packed_folders_are_told_from_documents(tmp_path):
    packed = packed_from(tmp_path, TEXTS)
    assert is_packed(packed.path)
    assert not is_packed(tmp_path / "in")
    assert not is_packed(tmp_path / "nothing")
    with pytest.raises(EarthworksError, match="is not a folder of packed tokens"):
        PackedTokens.open(tmp_path / "in")


def test_a_packed_corpus_reads_back_what_was_replaced(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"caf\xe9 " * 50)
    (tmp_path / "in" / "b.txt").write_bytes(b"tea " * 50)
    (tmp_path / "in" / "c.png").write_bytes(b"")
    packed = pack(sources(str(tmp_path / "in")), Tokenizer.bytes(), tmp_path / "out", validation=0)
    assert packed.reading.notice() == (
        "50 undecodable bytes became U+FFFD; 1 files were skipped (not .txt, .jsonl, .parquet, .html or .warc, also with .gz, .xz or .zst)"  # noqa: E501
    )


class Interrupted(Exception):
    pass


def test_an_interrupted_packing_leaves_nothing_and_can_be_repeated(tmp_path):
    class Progress:
        def advance(self, amount):
            raise Interrupted

    with pytest.raises(Interrupted):
        packed_from(tmp_path, TEXTS, progress=Progress())
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert pack(sources(str(tmp_path / "in")), Tokenizer.bytes(), tmp_path / "out").train_tokens > 0


def test_packing_twice_gives_the_same_bytes(tmp_path, bpe):
    source = folder(tmp_path / "in", TEXTS)
    first, second = (pack([source], bpe, tmp_path / name).path for name in ("a", "b"))
    files = json.loads((first / "manifest.json").read_text())["files"]
    assert len(files) == 7
    for name, entry in json.loads((second / "manifest.json").read_text())["files"].items():
        assert entry | {"mtime_ns": 0} == files[name] | {"mtime_ns": 0}


def test_an_altered_folder_is_refused_by_name(tmp_path, bpe):
    path = packed_from(tmp_path, TEXTS, bpe).path
    shard = path / "in" / "train-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-2])
    with pytest.raises(EarthworksError, match=r"train-00000.bin has \d+ bytes where its manifest.json says \d+"):
        PackedTokens.open(path)
    shard.unlink()
    with pytest.raises(EarthworksError, match=r"train-00000.bin is missing"):
        PackedTokens.open(path)
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(EarthworksError, match=r"train-00000.bin does not match its digest"):
        PackedTokens.open(path)
    shard.write_bytes(content)
    PackedTokens.open(path)  # of another time: it was read in full
    content = json.loads((path / "tokenizer.json").read_text())
    content["model"]["merges"][:2] = content["model"]["merges"][1::-1]
    (path / "tokenizer.json").write_bytes(Tokenizer(content).file_content())
    with pytest.raises(EarthworksError, match=r"tokenizer\.json"):
        PackedTokens.open(path)


def seal(path: Path) -> None:
    """Write the manifest of a packed folder anew, as who wants to be believed does."""
    files = {
        file.relative_to(path).as_posix(): description(file)
        for file in path.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }
    (path / "manifest.json").write_text(json.dumps({"files": files}))


def test_a_byte_between_the_blocks_is_noticed_by_its_time_or_when_all_is_compared(tmp_path):
    path = packed_from(tmp_path, [text * 100 for text in TEXTS], Tokenizer.bytes(), validation=0.5).path
    shard = path / "in" / "validation-00000.bin"
    content, times = bytearray(shard.read_bytes()), shard.stat()
    place = len(content) // 126 // 2 * 2  # between the first two blocks, whose beginnings are a 63rd apart
    assert place > 4096
    content[place] ^= 1
    shard.write_bytes(content)
    with pytest.raises(EarthworksError, match=r"validation-00000.bin does not match its SHA-256"):
        PackedTokens.open(path)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    packed = PackedTokens.open(path)
    with pytest.raises(EarthworksError, match=r"validation-00000.bin does not match its SHA-256"):
        next(packed.validation_documents())  # no number without all of it
    with pytest.raises(EarthworksError, match=r"validation-00000.bin does not match its SHA-256"):
        PackedTokens.open(path, verify=True)


def set_in(place: str, value: object) -> Callable[[dict], None]:
    def change(index: dict) -> None:
        *names, last = place.split(".")
        for name in names:
            index = index[int(name) if name.isdigit() else name]
        index[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_in("dtype", "<f8"),
        set_in("dtype", "<U999999999"),
        set_in("subsets", []),
        set_in("subsets", {"a": 1}),
        set_in("subsets.0.folder", "../elsewhere"),
        set_in("subsets.0.folder", "/etc"),
        set_in("subsets.0.weight", -1),
        set_in("subsets.0.weight", 0.5),
        set_in("subsets.0.train.shards.0.file", "/dev/zero"),
        set_in("subsets.0.train.shards.0.file", "../../secret.bin"),
        set_in("subsets.0.train.shards.0.tokens", 10**15),
        set_in("subsets.0.train.shards.0.tokens", -3),
        set_in("subsets.0.train.tokens", 10**15),
        set_in("subsets.0.train.documents", 10**12),
        set_in("subsets.0.train.documents", -1),
        set_in("subsets.0.train.documents", 0),
        set_in("subsets.0.validation.bytes", 1),
        set_in("subsets.0.validation.shards", []),
        set_in("subsets.0.reading.documents", "many"),
        set_in("subsets.0.reading.replaced_bytes", -5),
        set_in("tokenizer", "bytes"),
        set_in("format", ["earthworks"]),
    ],
)
def test_a_strangers_index_is_one_sentence(tmp_path, change):
    path = packed_from(tmp_path, TEXTS[:40], Tokenizer.bytes()).path
    index = json.loads((path / "index.json").read_text())
    change(index)
    (path / "index.json").write_text(json.dumps(index))
    seal(path)
    with pytest.raises(EarthworksError):
        PackedTokens.open(path)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_strangers_table_of_documents_is_one_sentence(tmp_path, column):
    path = packed_from(tmp_path, TEXTS[:40], Tokenizer.bytes()).path
    table = np.load(path / "in" / "validation-documents.npy")
    for value in (10**12, -1):
        changed = table.copy()
        changed[1, column] = value
        np.save(path / "in" / "validation-documents.npy", changed)
        seal(path)
        with pytest.raises(EarthworksError, match=r"validation-documents\.npy has"):
            PackedTokens.open(path)


def test_a_header_that_promises_a_terabyte_costs_a_sentence(tmp_path):
    path = packed_from(tmp_path, TEXTS[:40], Tokenizer.bytes()).path
    for documents in (0, 10**11):
        with open(path / "in" / "train-documents.npy", "wb") as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (10**11, 3)}
            np.lib.format.write_array_header_1_0(file, header)
        index = json.loads((path / "index.json").read_text())
        index["subsets"][0]["train"]["documents"] = documents
        (path / "index.json").write_text(json.dumps(index))
        seal(path)
        with pytest.raises(EarthworksError):
            PackedTokens.open(path)


def test_tokens_beyond_the_vocabulary_are_one_sentence_wherever_they_are_read(tmp_path):
    path = packed_from(tmp_path, TEXTS, Tokenizer.bytes()).path
    for part in ("train", "validation"):
        shard = path / "in" / f"{part}-00000.bin"
        tokens = np.fromfile(shard, "<u2")
        tokens[3] = 60_000
        shard.write_bytes(tokens.tobytes())
    seal(path)
    packed = PackedTokens.open(path)
    for reading in (
        lambda: packed.token_frequencies(),
        lambda: [packed.windows(0, at, 8, 30) for at in range(0, 4000, 8)],
        lambda: list(packed.validation_documents()),
    ):
        with pytest.raises(EarthworksError, match=r"token 60000 in .* is beyond the tokenizer's 257"):
            reading()


def test_a_pipe_in_place_of_a_file_hangs_nothing(tmp_path):
    path = packed_from(tmp_path, TEXTS, Tokenizer.bytes()).path
    (path / "in" / "train-00000.bin").unlink()
    os.mkfifo(path / "in" / "train-00000.bin")
    with pytest.raises(EarthworksError, match=r"train-00000\.bin"):
        PackedTokens.open(path)


def test_another_format_is_refused(tmp_path):
    path = packed_from(tmp_path, TEXTS).path
    index = json.loads((path / "index.json").read_text())
    (path / "index.json").write_text(json.dumps(index | {"format": "earthworks packed tokens 0"}))
    with pytest.raises(EarthworksError, match="pack the corpus again"):
        PackedTokens.open(path)


def test_an_unknown_subset_is_one_sentence(two_subsets):
    with pytest.raises(EarthworksError, match="has no subset third; it has first, second"):
        two_subsets.sample_text("third")


def test_a_source_without_text_stops_the_packing(tmp_path):
    good, empty = folder(tmp_path / "in", TEXTS), folder(tmp_path / "empty", [""])
    with pytest.raises(EarthworksError, match="contains no text"):
        pack([good, empty], Tokenizer.bytes(), tmp_path / "out", validation=0)
    assert not (tmp_path / "out").exists()


def test_progress_adds_up_to_the_megabytes_read(tmp_path):
    class Progress:
        done = 0.0

        def advance(self, amount):
            self.done += amount

    progress = Progress()
    packed_from(tmp_path, TEXTS, progress=progress)
    assert progress.done == pytest.approx(sum(len(d.text.encode()) for d in read(str(tmp_path / "in"))) / 1e6)


def test_importing_the_room_imports_nothing_heavy():
    import subprocess
    import sys

    program = "import sys, earthworks.corpus; print([m for m in HEAVY if m in sys.modules])".replace(
        "HEAVY", "('pyarrow', 'datasets', 'tokenizers', 'transformers', 'torch', 'orjson', 'fsspec')"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
