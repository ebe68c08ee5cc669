import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus import Reading, Source, Tokenizer, pack, sample_text, sources
from earthworks.corpus.readers import any_source as reading
from earthworks.corpus.tokens.validation_split import Split, chosen, cut_after, split_sources
from earthworks.runs import EarthworksError
from earthworks.runs.progress import note_once


def folder(path, texts, names=None):
    path.mkdir(parents=True)
    for number, text in enumerate(texts):
        (path / f"{names[number] if names else number:06d}.txt").write_text(text)
    return Source(path.name, str(path))


def held_out(split: Split, texts) -> set[str]:
    for text in texts:
        assert "" in split.parts(text)
        assert "".join(split.parts(text)) == text
    return {text for text in texts if split.parts(text)[1]}


TEXTS = [f"document {number} " + "x" * (number * 37 % 500) for number in range(300)]


def test_about_the_fraction_of_the_bytes_is_held_out(tmp_path):
    source = folder(tmp_path / "a", TEXTS)
    total = sum(map(len, TEXTS))
    for fraction in (0.01, 0.1, 0.5, 0.9):
        held = held_out(split_sources([source], fraction, 0), TEXTS)
        assert abs(sum(map(len, held)) - fraction * total) <= max(map(len, TEXTS))


def test_the_split_depends_on_seed_and_text_and_not_on_names_or_order(tmp_path):
    first = held_out(split_sources([folder(tmp_path / "a", TEXTS)], 0.1, 0), TEXTS)
    turned = folder(tmp_path / "b", TEXTS, names=[1000 - number for number in range(len(TEXTS))])
    assert held_out(split_sources([turned], 0.1, 0), TEXTS) == first
    other = held_out(split_sources([turned], 0.1, 1), TEXTS)
    assert len(first & other) < len(first) / 2


def test_copies_never_straddle_the_split(tmp_path):
    a, b = folder(tmp_path / "a", TEXTS * 2), folder(tmp_path / "b", TEXTS[100:] + ["another", "one more", "third"])
    split = split_sources([a, b], 0.2, 3)
    held = held_out(split, TEXTS)  # a text is on one side, whichever source it is met in
    assert 0.1 < sum(map(len, held)) / sum(map(len, TEXTS)) < 0.3


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=6, unique=True), min_size=1, max_size=3),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.integers(0, 99),
)
def test_small_sources_that_share_texts_always_keep_something_to_train_on(tmp_path_factory, contents, fraction, seed):
    found = []
    for number, content in enumerate(contents):
        path = tmp_path_factory.mktemp("s") / f"{number}.jsonl"
        path.write_text("".join(f'{{"text": "{"text" * (n + 1)}"}}\n' for n in content))
        found.append(Source(path.name, str(path)))
    split = split_sources(found, fraction, seed)
    parts = [[split.parts("text" * (n + 1)) for n in content] for content in contents]
    assert any(held for _, held in parts[0])
    if len({tuple(content) for content in contents}) == 1 or len(contents) == 1:
        assert all(any(train for train, _ in part) for part in parts)


def test_one_large_document_among_few_stays_in_training(tmp_path):
    texts = ["L" * 100_000] + [str(n) * 1000 for n in range(1, 10)]
    source = folder(tmp_path / "a", texts)
    for seed in range(20):
        assert texts[0] not in held_out(split_sources([source], 0.1, seed), texts)


def test_chosen_sizes_come_near_what_is_missing():
    assert chosen([5, 5, 5, 5], 10, 4) == [0, 1]
    assert chosen([100, 3, 100, 4], 6, 4) == [1, 3]
    assert chosen([100, 90], 5, 1) == [1]  # at least one, the smallest
    assert chosen([1, 1, 1], 9, 2) == [0, 1]  # never all
    assert chosen([1, 1], 0, 2) == chosen([1, 1], 5, 0) == []


@pytest.mark.parametrize("fraction", [0.1, 0.05, 0.25, 0.5])
def test_a_single_text_is_cut_at_its_last_fraction(tmp_path, fraction):
    text = "Ünïcode text, and more of it. " * 333
    split = split_sources([folder(tmp_path / "a", [text])], fraction, 0)
    n = len(text)
    assert split.parts(text) == (text[: int(n * (1 - fraction))], text[int(n * (1 - fraction)) :])
    assert split_sources([folder(tmp_path / "b", [text])], 0.1, 0).parts(text)[0] == text[: int(n * 0.9)]


def test_a_single_text_of_few_characters_still_has_both_parts(tmp_path):
    assert split_sources([folder(tmp_path / "a", ["ab"])], 0.01, 0).parts("ab") == ("a", "b")
    assert split_sources([folder(tmp_path / "b", ["ab"])], 0.99, 0).parts("ab") == ("a", "b")
    assert split_sources([folder(tmp_path / "c", ["a"])], 0.5, 0).parts("a") == ("a", "")


def test_nothing_is_held_out_when_nothing_is_asked_for(tmp_path):
    split = split_sources([folder(tmp_path / "a", TEXTS), folder(tmp_path / "b", ["one"])], 0, 0)
    assert held_out(split, [*TEXTS, "one"]) == set()


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_a_fraction_is_below_one(tmp_path, fraction):
    with pytest.raises(EarthworksError, match="expected a fraction from 0"):
        split_sources([folder(tmp_path / "a", TEXTS)], fraction, 0)


def test_the_tokenizer_does_not_learn_from_what_is_held_out(tmp_path):
    source = folder(tmp_path / "a", TEXTS)
    held = held_out(split_sources([source], 0.1, 5), TEXTS)
    sampled = sample_text([source], validation=0.1, seed=5)
    assert sorted(sampled) == sorted(set(TEXTS) - held)
    assert sorted(sample_text([source], seed=5)) == sorted(TEXTS)


def test_the_sample_for_the_tokenizer_is_bounded_and_does_not_depend_on_order(tmp_path):
    first = sample_text([folder(tmp_path / "a", TEXTS)], seed=0, max_characters=5000)
    assert 4400 < sum(map(len, first)) <= 5000
    turned = folder(tmp_path / "b", TEXTS, names=[1000 - number for number in range(len(TEXTS))])
    assert sample_text([turned], seed=0, max_characters=5000) == first
    assert sample_text([turned], seed=1, max_characters=5000) != first


def test_the_sample_for_the_tokenizer_follows_the_weights(tmp_path):
    large, small = folder(tmp_path / "a", ["A" * 100] * 900), folder(tmp_path / "b", ["B" * 100] * 100)
    large.weight, small.weight = 0.25, 0.75
    letters = "".join(sample_text([large, small], seed=0, max_characters=40_000))
    assert len(letters) == pytest.approx(20_000, rel=0.02)  # all of b, repeated, and as much of a as belongs to it
    assert letters.count("B") / len(letters) == pytest.approx(0.75, abs=0.01)


def test_a_document_longer_than_the_sample_gives_a_piece_of_it(tmp_path):
    text = " ".join(f"word{number}" for number in range(100_000))
    sampled = sample_text([folder(tmp_path / "a", [text])], seed=0, max_characters=200_000)
    assert 60_000 < sum(map(len, sampled)) <= 200_000
    assert all(piece in text for piece in sampled)


def test_python_docs_need_no_files():
    texts = sample_text(sources("python-docs"), validation=0.05, seed=0, max_characters=300_000)
    assert 250_000 < sum(map(len, texts)) < 400_000


# Long texts, and what changes


def packed_files(path, source, split=None, seed=7):
    pack([source], Tokenizer.bytes(), path, validation=0.2, seed=seed, split=split)
    files = [each for each in sorted(path.rglob("*")) if each.is_file() and each.name != "manifest.json"]  # has times
    return {each.relative_to(path): each.read_bytes() for each in files}


@pytest.mark.parametrize("num_texts", [1, 7])
def test_a_text_read_in_blocks_is_split_sampled_and_packed_to_the_same_bytes(tmp_path, monkeypatch, num_texts):
    texts = [f"Satz {n}: " + "ein Wörterbuch, 日本語, and a word or two; " * (300 + 40 * n) for n in range(num_texts)]
    source = folder(tmp_path / "in", texts)
    sample = sample_text([source], seed=7, validation=0.2, max_characters=100_000)
    whole = packed_files(tmp_path / "whole", source)
    monkeypatch.setattr(reading, "LONG", 1000)
    assert sample_text([source], seed=7, validation=0.2, max_characters=100_000) == sample
    assert packed_files(tmp_path / "blocks", source) == whole
    assert packed_files(tmp_path / "given", source, split_sources([source], 0.2, 7)) == whole


@given(st.lists(st.text(max_size=5), max_size=6), st.integers(0, 12))
def test_a_text_in_blocks_is_cut_after_its_first_characters(blocks, characters):
    first, rest = cut_after(iter(blocks), characters)
    text = "".join(blocks)
    assert ("".join(first), "".join(rest)) == (text[:characters], text[characters:])


def rewritten(path):
    (path / "000003.txt").write_text("another text")


def vanished(path):
    (path / "000003.txt").unlink()


def added(path):
    (path / "one_more.txt").write_text("another text")


@pytest.mark.parametrize("change", [rewritten, vanished, added])
@pytest.mark.parametrize("long", [10, 1 << 24])
def test_documents_that_change_after_the_split_are_one_sentence_and_no_corpus(tmp_path, monkeypatch, change, long):
    monkeypatch.setattr(reading, "LONG", long)
    source = folder(tmp_path / "in", TEXTS[:20])
    split = split_sources([source], 0.2, 7)
    change(tmp_path / "in")
    with pytest.raises(EarthworksError, match="changed while it was read: its documents are not those") as caught:
        pack([source], Tokenizer.bytes(), tmp_path / "out", validation=0.2, seed=7, split=split)
    assert caught.value.exit_code == 1
    assert [each.name for each in tmp_path.iterdir()] == ["in"]
    with pytest.raises(EarthworksError, match="changed while it was read"):
        sample_text([source], seed=7, validation=0.2, split=split)


def test_a_single_long_text_that_changes_after_the_split_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LONG", 1000)
    source = folder(tmp_path / "in", ["word " * 1000])
    split = split_sources([source], 0.2, 7)
    (tmp_path / "in" / "000000.txt").write_text("word " * 999 + "ward ")
    with pytest.raises(EarthworksError, match="changed while it was read"):
        list(split.read(source, Reading()))


@pytest.mark.parametrize("long", [10, 1 << 24])
def test_of_many_copies_of_one_text_the_end_is_held_out_once_and_that_is_said(tmp_path, monkeypatch, capsys, long):
    monkeypatch.setattr(reading, "LONG", long)
    note_once.cache_clear()
    source = folder(tmp_path / "in", ["one line of text\n"] * 50)
    split = split_sources([source], 0.2, 7)
    assert "contains only 50 copies of one document" in capsys.readouterr().err
    parts = [(part, "".join(blocks)) for part, blocks in split.read(source)]
    assert parts.count(("train", "one line of t")) == 50
    assert [each for each in parts if each[0] == "validation"] == [("validation", "ext\n")]
