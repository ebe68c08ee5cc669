import itertools
import json
import os
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus import Tokenizer
from earthworks.corpus.tokens import tokenizer as module
from earthworks.corpus.tokens import tokenizer as tokenizer_module
from earthworks.runs import EarthworksError

FRAGMENTS = [
    "</s>",
    "<s>",
    "<0x0A>",
    "<0x",
    "<0xZZ>",
    "▁",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\n    ",
    "def f(",
    "3.14",
    "日本",
]
FRAGMENTS += [
    "e\u0301",
    "\u0301",
    "ﬁ",
    "½",
    "\ufeff",
    "\x00",
    "\ud800",
    "\U0001f468\u200d\U0001f469",
    "한",
    "\u1112\u1161",
]
ANY_TEXT = st.lists(st.sampled_from(FRAGMENTS) | st.text(st.characters(exclude_categories=()), max_size=8)).map("".join)


@given(text=ANY_TEXT)
def test_decoding_what_was_encoded_gives_the_normalized_text(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)


@given(text=ANY_TEXT)
def test_normalizing_twice_is_normalizing_once(bpe, text):
    assert bpe.normalize(bpe.normalize(text)) == bpe.normalize(text)


def test_no_code_point_is_lost(tokenizer):
    blocks = ["".join(map(chr, range(start, start + 64))) for start in range(0, sys.maxunicode + 1, 64)]
    for block, ids in zip(blocks, tokenizer.encode_batch(blocks)):
        assert tokenizer.decode(ids) == tokenizer.normalize(block), hex(ord(block[0]))


def test_the_bpe_normalizer_is_nfkc(bpe):
    # the library's Unicode tables are of another year than Python's, so only long-settled characters are compared
    settled = [chr(c) for c in range(0x20, 0x2000) if unicodedata.name(chr(c), "")]
    assert bpe.normalize("ﬁ ① ½ ｆｕｌｌ e\u0301 \u2126") == "fi 1 1⁄2 full é Ω"
    differing = [c for c in settled if bpe.normalize(c) != unicodedata.normalize("NFKC", c)]
    assert differing == []


def test_the_bytes_keep_compatibility_characters():
    tokenizer = Tokenizer.bytes()
    assert tokenizer.decode(tokenizer.encode("ﬁ ①")) == "ﬁ ①"
    assert tokenizer.encode("é\n").tolist() == [0xC3, 0xA9, 0x0A]
    assert (tokenizer.vocabulary, tokenizer.end_of_document) == (257, 256)


@pytest.mark.parametrize("text", ["</s>", "a</s>b", "</s></s>", "x </s> y"])
def test_the_name_of_the_end_token_in_a_text_is_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_document not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["<0x0A>", "<0x41>", "<0x0<0x41>", "<<0x41>>"])
def test_the_name_of_a_byte_in_a_text_is_text_even_when_training_saw_it_often(text):
    tokenizer = Tokenizer.train([text * 500 + "plain words " * 500], 400)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokens_spell_out_the_text(tokenizer, texts):
    for text in texts:
        spelled = b"".join(tokenizer.token_bytes(id) for id in tokenizer.encode(text).tolist())
        assert spelled == tokenizer.normalize(text).encode()


def slow_bpe(tokenizer: Tokenizer, text: str) -> list[int]:
    """Byte-fallback BPE from its definition: split, then join the pair that was learned first, until none is left."""
    regex = pytest.importorskip("regex")
    vocab = tokenizer.content["model"]["vocab"]
    order = {tuple(pair): rank for rank, pair in enumerate(tokenizer.content["model"]["merges"])}
    ids = []
    for part in regex.split("(<0x)", unicodedata.normalize("NFKC", text)):
        for piece in [part] if part == "<0x" else regex.findall(module.PIECES, part):
            symbols = [s for c in piece for s in ([c] if c in vocab else [f"<0x{b:02X}>" for b in c.encode()])]
            while True:
                pairs = [(order.get(pair, len(order)), place) for place, pair in enumerate(itertools.pairwise(symbols))]
                rank, place = min(pairs, default=(len(order), 0))
                if rank == len(order):
                    break
                symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
            ids += [vocab[symbol] for symbol in symbols]
    return ids


def test_encoding_is_byte_pair_encoding(bpe, texts):
    for text in [*(text[:4000] for text in texts), "unseen: 𝔘𝔫𝔦 <0x0A> ქართული\n\n\n\t  end  \n"]:
        assert bpe.encode(text).tolist() == slow_bpe(bpe, text)


def test_the_pieces_leave_no_character_out(bpe, texts):
    regex = pytest.importorskip("regex")
    for text in [*texts, "a\x00b\u0301 ½ \u2028 \x85 ٣ _x__ \n \r \t \n"]:
        assert "".join(regex.findall(module.PIECES, text)) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("def f(self, x):\n    return x", ["def", " f", "(self", ",", " x", "):\n", "   ", " return", " x"]),
        ("x\n\n\t  y = 'é'\r\n", ["x", "\n\n\t  ", "y", " =", " '", "é", "'\r\n"]),
        ("a  b\n  \n c", ["a", " ", " b", "\n  \n", " c"]),
        ("pi is 3.14, e_2", ["pi", " is", " ", "3", ".", "1", "4", ",", " e", "_", "2"]),
        ("end   \n\n", ["end", "   \n\n"]),
    ],
)
def test_pieces_are_words_digits_signs_and_indentation(text, pieces):
    regex = pytest.importorskip("regex")
    assert regex.findall(module.PIECES, text) == pieces


def test_digits_stand_alone_and_indentation_is_one_token(bpe):
    assert [bpe.token_bytes(id) for id in bpe.encode("12345")] == [b"1", b"2", b"3", b"4", b"5"]
    tokens = [token.decode(errors="replace") for token in bpe.table]
    assert not [token for token in tokens if len(token) > 1 and any(c.isnumeric() for c in token)]
    assert "\n        " in tokens
    assert max(map(len, tokens)) <= module.LONGEST


def test_rare_characters_are_bytes_and_the_common_ones_have_tokens():
    tokenizer = Tokenizer.train(["the same words again " * 5000 + "é"], 400)
    assert [tokenizer.token_bytes(id) for id in tokenizer.encode("é")] == [b"\xc3", b"\xa9"]
    tokenizer = Tokenizer.train(["thé même " * 5000], 400)
    assert len(tokenizer.encode("é")) == 1


def test_the_true_size_of_a_vocabulary_is_reported():
    tokenizer = Tokenizer.train(["ab" * 100], 5000)
    assert tokenizer.vocabulary == len(tokenizer.content["model"]["vocab"]) < 257 + 20
    assert max(map(len, tokenizer.table)) > 2
    assert Tokenizer.train(["xyz"], 5000).vocabulary == 257 + 3  # what occurs once is not learned


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(EarthworksError, match="vocabulary of 300 is too small: expected at least 320"):
        Tokenizer.train(["text"], 300)
    with pytest.raises(EarthworksError, match="no text"):
        Tokenizer.train([""], 400)


def test_long_texts_are_cut_where_it_changes_no_id(bpe, texts, monkeypatch):
    long = [*(text + "!" for text in texts[:3]), "A: b; (c) 3 d é f\u0301 g\n\n h " * 300]
    whole = [bpe.library.encode(text, add_special_tokens=False).ids for text in long]
    for size in (1500, 2000, 2500):
        monkeypatch.setattr(module, "CHUNK", size)
        for text, ids in zip(long, whole):
            cut = list(module.chunks(text))
            assert len(cut) > len(text) / (2 * size + 1)
            assert all(len(chunk) < 2 * size for chunk in cut)  # none had to be cut by force
            assert bpe.encode(text).tolist() == ids


@given(text=st.text(st.sampled_from("日本e\u0301\u1112\u1161\ud800ﬁ"), max_size=100))
def test_texts_without_a_place_to_cut_lose_nothing(tokenizer, text):
    whole, module.CHUNK = module.CHUNK, 8
    try:
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)
        assert "".join(module.chunks(text)) == module.scalar(text)
    finally:
        module.CHUNK = whole


@given(text=ANY_TEXT, cuts=st.lists(st.integers(0, 100), max_size=5))
def test_a_text_in_blocks_is_cut_as_the_whole_text(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole, module.CHUNK = module.CHUNK, 8
    try:
        blocks = [text[begin:end] for begin, end in itertools.pairwise(edges)]
        assert list(module.chunks_of(blocks)) == list(module.chunks(text))
    finally:
        module.CHUNK = whole


def test_a_batch_larger_than_the_library_is_given_at_once_changes_no_id(bpe, texts, monkeypatch):
    at_once = [ids.tolist() for ids in bpe.encode_batch(["", *texts, ""])]
    monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(module, "BATCH", 5000)
    assert [ids.tolist() for ids in bpe.encode_batch(["", *texts, ""])] == at_once


ENDLESS = {
    "one letter": "a",
    "bases": "ACGGTATTCGCAAGTCA",
    "signs": "-=+",
    "spaces": " ",
    "line ends": "\n",
    "white space": " \t\n\r  ",
    "combining": "\u0301",
    "han": "日本語文章中国",
    "digits": "3141592",
    "emoji": "\U0001f600",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_text_without_places_to_cut_is_learned_and_encoded_in_linear_time(kind):
    seconds = []
    for size in (20_000, 160_000):
        text = "x" + (ENDLESS[kind] * size)[:size]
        started = time.process_time()
        tokenizer = Tokenizer.train([text], 500)
        ids = tokenizer.encode(text)
        seconds.append(time.process_time() - started)
        assert tokenizer.decode(ids) == tokenizer.normalize(text)
    assert seconds[1] < 3 * 8 * max(seconds[0], 0.02)  # eight times the text; the square of that is sixty-four times


def test_no_piece_is_longer_than_a_few_hundred_characters():
    regex = pytest.importorskip("regex")
    for part in ENDLESS.values():
        text = part * 3000
        pieces = regex.findall(module.PIECES, text)
        assert "".join(pieces) == text
        assert max(map(len, pieces)) <= 3 * 256


def test_prose_has_the_pieces_it_had_without_the_limit(texts):
    regex = pytest.importorskip("regex")
    for text in texts:
        assert regex.findall(module.PIECES, text) == regex.findall(module.UNLIMITED_PIECES, text)


def test_a_tokenizer_saved_before_the_limit_keeps_its_ids(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECES", module.UNLIMITED_PIECES)
    before = Tokenizer.train([*texts, "-" * 2000], 600)
    before.save(tmp_path / "tokenizer.json")
    monkeypatch.undo()
    text = "-" * 1000 + " " * 1000 + "a" * 1000
    after = Tokenizer.load(tmp_path)
    assert after.digest == before.digest
    assert after.encode(text).tolist() == before.library.encode(text, add_special_tokens=False).ids


@given(ids=st.lists(st.integers(0, 256), max_size=30))
def test_streaming_gives_the_same_text_as_decoding_at_once(tokenizer, ids):
    stream = tokenizer.decode_stream()
    assert "".join([*(stream.step(id) for id in ids), stream.end()]) == tokenizer.decode(ids)


def test_streaming_holds_back_a_character_until_its_last_byte():
    tokenizer = Tokenizer.bytes()
    stream = tokenizer.decode_stream()
    assert [stream.step(byte) for byte in "日x".encode()] == ["", "", "日", "x"]
    assert stream.step(0xE6) == ""
    assert stream.end() == "\ufffd"


def test_signs_that_normalization_expands_cost_no_more_than_a_bound_and_that_is_said(monkeypatch, capsys):
    sign, plain = "\ufdfa" * 1000, "plain words " * 500
    everything = Tokenizer.train([plain, sign], 400)
    assert "not trained on" not in capsys.readouterr().err
    monkeypatch.setattr(tokenizer_module, "MOST_ADDED", 16_999)  # of the 17,000 that the signs add
    bounded = Tokenizer.train([plain, sign, plain], 400)
    assert "the tokenizer was not trained on 1,000 characters" in capsys.readouterr().err
    assert bounded.content["model"] == Tokenizer.train([plain, plain], 400).content["model"]
    assert bounded.content["model"] != everything.content["model"]


def test_training_is_the_same_in_every_process(texts, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    program = (
        "import json, sys; from earthworks.corpus import Tokenizer;"
        "print(Tokenizer.train(json.load(open(sys.argv[1])), 700).digest)"
    )
    digests = {Tokenizer.train(texts, 700).digest}
    for hash_seed, parallel in (("1", "true"), ("2", "false")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", program, str(tmp_path / "texts.json")]
        digests.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip())
    assert len(digests) == 1


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert (loaded.digest, loaded.kind, loaded.vocabulary) == (
            tokenizer.digest,
            tokenizer.kind,
            tokenizer.vocabulary,
        )
        assert loaded.encode("Some tëxt </s>\n").tolist() == tokenizer.encode("Some tëxt </s>\n").tolist()


def test_the_digest_depends_on_every_merge(bpe):
    content = json.loads(bpe.file_content())
    assert Tokenizer(content).digest == bpe.digest
    assert Tokenizer(dict(reversed(content.items()))).digest == bpe.digest  # nor on the order of keys in the file
    content["model"]["merges"][3], content["model"]["merges"][4] = content["model"]["merges"][4:2:-1]
    assert Tokenizer(content).digest != bpe.digest


@pytest.mark.parametrize("loader", ["PreTrainedTokenizerFast", "AutoTokenizer"])
def test_hugging_face_gives_the_same_ids(tokenizer, texts, tmp_path, loader):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="</s>")
    if loader == "AutoTokenizer":
        theirs.save_pretrained(tmp_path / "saved")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (len(theirs), theirs.eos_token_id) == (tokenizer.vocabulary, tokenizer.end_of_document)
    assert theirs("<0x0A> <0x41>")["input_ids"] == tokenizer.encode("<0x0A> <0x41>").tolist()  # in its default manner
    for text in [*texts, *(f for f in FRAGMENTS if f != "\ud800"), "a </s> b <0x0A>", " lead and trail ", ""]:
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert ids == tokenizer.encode(text).tolist()
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == tokenizer.normalize(text)


def without_byte(content):
    vocab = content["model"]["vocab"]
    id = vocab.pop("<0xE6>")
    vocab["another"] = id


def other_decoder(content):
    content["decoder"] = {"type": "ByteLevel"}


def no_end(content):
    vocab = content["model"]["vocab"]
    vocab["<end>"] = vocab.pop("</s>")


def setting(*path):
    """A change of the content that sets what stands at `path[:-1]` to `path[-1]`."""
    *names, last, value = path

    def change(content):
        for name in names:
            content = content[name]
        content[last] = value

    return change


def inserts_ten_megabytes(content):
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": "x" * 10_000_000}


def long_token(content):
    content["model"]["vocab"]["x" * 1000] = len(content["model"]["vocab"])


def surrogate(content):
    content["model"]["vocab"]["\ud800"] = len(content["model"]["vocab"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (inserts_ten_megabytes, "its normalizer"),
        (setting("pre_tokenizer", "pretokenizers", 1, "pattern", "Regex", "(a+)+$"), "its pre_tokenizer"),
        (setting("model", "dropout", 0.5), "dropout 0.5"),
        (setting("model", "unk_token", "nosuch"), "unk_token 'nosuch'"),
        (setting("model", "vocab", "</s>", "x"), "its layout"),
        (setting("model", "vocab", "</s>", -1), "the ids in model.vocab"),
        (setting("model", "vocab", "</s>", False), "the ids in model.vocab"),
        (setting("model", "vocab", []), "its layout"),
        (setting("model", None), "its layout"),
        (setting("added_tokens", []), "its added_tokens"),
        (long_token, "a token of 1,000 characters"),
        (surrogate, "cannot be used as a tokenizer"),
        (setting("model", "merges", [["q", "zzz"]]), "cannot be used as a tokenizer .*out of vocabulary"),
        (setting("model", "merges", 5), "cannot be used as a tokenizer"),
        (setting("version", "9.0"), "cannot be used as a tokenizer"),
    ],
)
def test_a_tokenizer_file_that_training_never_makes_is_one_sentence(bpe, tmp_path, change, sentence):
    content = json.loads(bpe.file_content())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(EarthworksError, match=sentence) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_one_sentence(bpe, tmp_path, monkeypatch):
    import tokenizers

    panic = type("PanicException", (BaseException,), {})  # as pyo3 makes it

    class Library:
        @staticmethod
        def from_str(text):
            raise panic("index out of bounds")

    bpe.save(tmp_path / "tokenizer.json")
    monkeypatch.setattr(tokenizers, "Tokenizer", Library)
    with pytest.raises(EarthworksError, match="index out of bounds"):
        Tokenizer.load(tmp_path)


def test_truncation_saved_by_another_library_cuts_no_text(bpe, tmp_path):
    content = json.loads(bpe.file_content())
    content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None}
    content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "</s>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = "more than three tokens are in this text"
    assert Tokenizer.load(tmp_path).encode(text).tolist() == bpe.encode(text).tolist()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_byte, r"lacks 1 of the 256 byte tokens \(<0xE6> first\): it would drop characters"),
        (other_decoder, "is not a tokenizer of earthworks"),
        (no_end, "is not a tokenizer of earthworks"),
        (lambda content: content["model"].pop("vocab"), "is not a tokenizer of earthworks"),
    ],
)
def test_a_tokenizer_that_would_lose_text_is_refused(bpe, tmp_path, change, sentence):
    content = json.loads(bpe.file_content())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(EarthworksError, match=sentence):
        Tokenizer.load(tmp_path)


def test_a_missing_or_damaged_tokenizer_file_is_one_sentence(tmp_path):
    with pytest.raises(EarthworksError, match="does not exist"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "cut.json").write_bytes(Tokenizer.bytes().file_content()[:500])
    with pytest.raises(EarthworksError, match="not readable JSON"):
        Tokenizer.load(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(EarthworksError, match="is not a tokenizer of earthworks"):
        Tokenizer.load(tmp_path / "list.json")


def test_encoding_returns_int64_arrays(tokenizer):
    assert tokenizer.encode("").shape == (0,)
    assert [ids.dtype for ids in tokenizer.encode_batch(["a", ""])] == [np.int64, np.int64]
