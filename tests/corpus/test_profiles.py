"""Rules as Dolma and RedPajama define them, other words for datatrove's, other stop words: against what was worked out by
hand, slow readings written here, and the package itself where it is installed."""

import math
import re
import string
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rules import TEXTS, plain_datatrove

from earthworks.corpus import PROFILES, quality_values, repetition_values
from earthworks.corpus.rules import datatrove
from earthworks.corpus.rules.profiles import failing, rule_values
from earthworks.corpus.rules.quality import bare, quality
from earthworks.corpus.rules.stop_words import STOP_WORDS
from earthworks.runs import EarthworksError

TWICE = "a b c d e a b c d e"


def value(text: str, rule: str, profile: str, **options) -> float:
    return float(rule_values([text], profile, **options)[rule][0])


def of(text: str, profile: str, **options) -> dict[str, float]:
    return {name: float(each[0]) for name, each in rule_values([text], profile, **options).items()}


@pytest.mark.parametrize(
    ("profile", "dup_5", "overlap", "tie"),
    [
        ("literal", 1, 1, 7 / 10),
        ("datatrove", 5 / 19, 9 / 7, 8 / 27),
        ("dolma", 1 / 3, 3 / 2, 3 / 10),
        ("redpajama", 1, 3 / 2, 3 / 10),
    ],
)
def test_three_texts_have_another_value_by_each_definition(profile, dup_5, overlap, tie):
    """The copy of five words; a word four times, whose pairs overlap; two pairs equally frequent."""
    assert value(TWICE, "dup_5", profile) == dup_5
    assert value("a a a a", "top_2", profile) == overlap
    assert value("aa b aa b ccc dddd ccc dddd", "top_2", profile) == tie


def test_a_pair_that_occurs_once_counts_in_two_of_the_definitions():
    found = {profile: value("ab c d", "top_2", profile) for profile in PROFILES}
    assert found == {"literal": 0, "datatrove": 4 / 6, "dolma": 3 / 4, "redpajama": 0}


def test_dolma_by_hand():
    text = "* the #one\n\nThe the two\u2026\n * x the...\n* the #one\n"
    found = of(text, "dolma")
    assert found["words"] == 12
    assert found["median_word_length"] == 3  # 1 3 4, 3 3 4, 1 1 6, 1 3 4: between the sixth and the seventh
    assert found["symbol_ratio"] == 3 / 12  # words with "#" or U+2026; three dots are none
    assert found["bullet_lines"] == 2 / 5  # " *" is none; the empty piece after the last line end is a line
    assert found["ellipsis_lines"] == 1 / 5
    assert found["stop_words"] == 3  # each "the" as it stands: neither "The" nor "the..."
    assert found["dup_line"] == 2 / 5  # both copies
    assert found["dup_line_char"] == 20 / 34  # with their spaces
    assert "dup_para" not in found


def test_redpajama_by_hand():
    text = "Caf\u00e9, THE the-end!\n\n\u25a0 #x ... 12\n"
    found = of(text, "redpajama")
    assert found["words"] == 6  # cafe + accent, the, theend, the square, x, 12
    assert found["mean_word_length"] == (5 + 3 + 6 + 1 + 1 + 2) / 6
    raw = ["Caf\u00e9", ",", "THE", "the", "-", "end", "!", "\u25a0", "#", "x", "...", "12"]
    assert found["symbol_ratio"] == 2 / len(raw)
    assert found["alpha_words"] == 5 / len(raw)
    assert found["bullet_lines"] == 1 / 3
    assert found["ellipsis_lines"] == 0
    assert "stop_words" not in found
    assert of("a a\nb...\n", "redpajama")["ellipsis_lines"] == 1 / 2


def slow_ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]


def slow_top(words: list[str], n: int) -> tuple[int, int]:
    """How often the first of the most frequent n-grams occurs, and its characters."""
    best, size = 0, 0
    for ngram in slow_ngrams(words, n):
        count = slow_ngrams(words, n).count(ngram)
        if count > best:
            best, size = count, len("".join(ngram))
    return best, size


@given(TEXTS)
def test_dolma_is_a_slow_reading_of_its_tagger(text):
    words, lines = text.split(), re.sub("\n+", "\n", text).split("\n")
    total = len("".join(words))
    lengths = sorted(len(word) for word in words)
    middle = lengths[(len(words) - 1) // 2 : len(words) // 2 + 1]
    copies = [line for line in lines if lines.count(line) > 1]
    expected = {
        "words": len(words),
        "median_word_length": sum(middle) / len(middle) if words else 0,
        "symbol_ratio": len([word for word in words if "#" in word or "\u2026" in word]) / max(len(words), 1),
        "bullet_lines": len([line for line in lines if line[:1] in ("*", "-")]) / len(lines),
        "ellipsis_lines": len([line for line in lines if line[-1:] == "\u2026"]) / len(lines),
        "alpha_words": len([word for word in words if re.search(r"[^\W\d_]", word)]) / max(len(words), 1),
        "stop_words": sum(map(words.count, ("the", "be", "to", "of", "and", "that", "have", "with"))),
        "dup_line": len(copies) / len(lines),
        "dup_line_char": sum(map(len, copies)) / max(total, 1),
    }
    for n in (2, 3, 4):
        count, size = slow_top(words, n)
        expected[f"top_{n}"] = count * size / max(total, 1)
    for n in range(5, 11):
        ngrams = slow_ngrams(words, n)
        repeated = [ngram for ngram in ngrams if ngrams.count(ngram) > 1]
        sizes = [len("".join(map("".join, each))) for each in (repeated, ngrams)]
        expected[f"dup_{n}"] = sizes[0] / max(sizes[1], 1)
    found = of(text, "dolma")
    if any(map(letter_like, text)):  # what \w holds and is neither letter, digit nor "_"
        del found["alpha_words"], expected["alpha_words"]
    assert found == expected


def letter_like(character: str) -> bool:
    return character.isalnum() and not character.isalpha() and not character.isdecimal()


@given(TEXTS)
def test_redpajama_is_a_slow_reading_of_its_signals(text):
    bare = "".join(character for character in text if character not in string.punctuation).lower()
    words = unicodedata.normalize("NFD", " ".join(bare.split())).split()
    raw: list[str] = []
    kinds = []
    for character in text:
        kind = "space" if character.isspace() else "word" if character.isalnum() or character == "_" else "other"
        if kind == "space":
            kinds.append(kind)
            continue
        if raw and kinds and kinds[-1] == kind:
            raw[-1] += character
        else:
            raw.append(character)
        kinds.append(kind)
    lines = [line.strip() for line in re.findall("[^\n]*\n|[^\n]+$", text)]
    total = len("".join(words))
    symbols = text.count("#") + text.count("...") + text.count("\u2026")
    expected = {
        "words": len(words),
        "mean_word_length": total / max(len(words), 1),
        "symbol_ratio": symbols / len(raw) if raw else 0,
        "bullet_lines": len([line for line in lines if line[:1] in tuple("•‣▶◀◦■□▪▫–")]) / max(len(lines), 1),
        "ellipsis_lines": len([line for line in lines if line[-3:] == "..." or line[-1:] == "…"]) / max(len(lines), 1),
        "alpha_words": len([w for w in raw if set(w) & set(string.ascii_letters)]) / max(len(raw), 1),
    }
    for n in (2, 3, 4):
        count, size = slow_top(words, n)
        expected[f"top_{n}"] = count * size / total if count > 1 else 0
    for n in range(5, 11):
        ngrams = slow_ngrams(words, n)
        inside = {k + j for k, ngram in enumerate(ngrams) if ngrams.count(ngram) > 1 for j in range(n)}
        expected[f"dup_{n}"] = sum(len(words[k]) for k in inside) / total if inside else 0
    assert of(text, "redpajama") == expected


def test_every_profile_has_bounds_for_what_it_computes():
    for profile, each in PROFILES.items():
        for texts in (["the be of", ""], [], pa.array(["the be of"])):
            values = rule_values(texts, profile)
            assert list(values) == list(each.bounds)
            assert all(len(column) == len(texts) for column in values.values())
            assert all(len(column) == len(texts) for column in failing(values, each.bounds).values())
        assert list(quality_values(["a"], profile)) == list(each.quality)
        assert list(repetition_values(["a"], profile)) == list(each.repetition)
        with pytest.raises(EarthworksError, match="1 of 2 texts are missing"):
            rule_values(pa.array(["a", None]), profile)


def pieces_of_words(text: str) -> list[str]:
    """As tokenizers of languages do: punctuation apart, and words of one character where there is no white space."""
    return re.findall(r"[\u4e00-\u9fff]|\w+|[^\w\s]", text)


@given(TEXTS)
def test_words_of_white_space_are_what_the_hook_gives_with_them(text):
    assert of(text, "datatrove", words=str.split) == of(text, "datatrove") == plain_datatrove(text)


def test_the_hook_makes_words_where_there_is_no_white_space():
    text = "\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587"
    assert value(text, "words", "datatrove") == 1
    assert value(text, "words", "datatrove", words=pieces_of_words) == 6
    assert value(text, "top_2", "datatrove", words=pieces_of_words) == 3 * 3 / 6


def test_the_hook_gives_what_the_package_gives_with_that_splitter():
    """Texts of words that stay apart when joined; the package joins them without a separator."""
    quality_filter = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
    gopher = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
    data = pytest.importorskip("datatrove.data")
    for text in ("one, two. three! four five six seven; " * 9, "the (end), of... it: \u4e2d\u6587 # the end\n" * 5):
        found, words = of(text, "datatrove", words=pieces_of_words), pieces_of_words(text)
        for n in (2, 3, 4):
            assert found[f"top_{n}"] == gopher.find_top_duplicate(gopher.get_n_grams(words, n)) / len(text)
        for n in range(5, 11):
            assert found[f"dup_{n}"] == gopher.find_all_duplicate(words, n) / len(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quality_filter, "split_into_words", lambda text, language: pieces_of_words(text))
            for rule, bound in (("words", "min_doc_words"), ("mean_word_length", "min_avg_word_length")):
                for limit, passes in ((found[rule], True), (math.nextafter(found[rule], math.inf), False)):
                    none = dict.fromkeys(("max_doc_words", "max_avg_word_length", "max_symbol_word_ratio"))
                    none |= dict.fromkeys(("min_doc_words", "min_avg_word_length", "min_stop_words"))
                    none |= dict.fromkeys(("max_bullet_lines_ratio", "max_ellipsis_lines_ratio"))
                    judge = quality_filter.GopherQualityFilter(
                        **{**none, "max_non_alpha_words_ratio": None, bound: limit}
                    )
                    assert (judge.filter(data.Document(text=text, id="")) is True) == passes


WORDS = st.one_of(
    st.sampled_from(
        [
            *(
                "the",
                "THE",
                "k",
                "K",
                "\u212a",
                "i\u0307x",
                "\u0130x",
                "\u0130",
                "abcdefg",
                "abcdefgh",
                "ABCDEFGH",
                "abcdefghi",
            ),
            *(
                "\u00eatre",
                "\u00caTRE",
                "\u03c3\u03b1\u03c2",
                "\u03a3\u0391\u03a3",
                "\u03a3",
                "\u0434\u0430",
                "\u0414\u0410",
            ),
            *(
                "don't",
                "DON'T",
                "d'\u00e0",
                "\u4e2d",
                "\u4e2d\u6587",
                "a\0b",
                "a",
                "a\0",
                "",
                "...",
                "\U00010400x",
                "\U00010428X",
                *(
                    "a\u24b6b",
                    "A\u24d0B",
                    "x\u2167x",
                    "x\u2177x",
                    "\u24b6",
                    "\u00df",
                    "\u1e9e",
                    "\ufb01",
                    "\u023a",
                    "\u2c65",
                ),
            ),
        ]
    ),
    st.text(st.characters(exclude_categories=["Zs", "Zl", "Zp"]), max_size=9),
)


@given(st.sets(WORDS, max_size=40), st.lists(WORDS, max_size=12), st.sampled_from([" ", "\n", "\u3000"]))
def test_any_stop_words_are_found_as_the_plain_rules_find_them(stop_words, words, space):
    text = space.join(words)
    assert of(text, "literal", stop_words=stop_words)["stop_words"] == quality(text, stop_words)["stop_words"]
    expected = datatrove.quality(text, stop_words=stop_words)["stop_words"]
    assert of(text, "datatrove", stop_words=stop_words)["stop_words"] == expected


def test_the_lower_case_of_every_capital_is_that_of_the_plain_rules():
    """Between two letters, so that it is in the middle of a word."""
    capitals = [each for each in map(chr, range(0x110000)) if each.lower() != each]
    assert len(capitals) > 1000
    for these in (capitals[k : k + 100] for k in range(0, len(capitals), 100)):
        text, sought = " ".join(f"X{each}x" for each in these), {f"x{each}x".lower() for each in these}
        assert of(text, "literal", stop_words=sought)["stop_words"] == len(set(map(bare, sought)))


def test_stop_words_of_a_language_tell_its_running_text_from_a_list():
    german = "Wir haben gesehen, DASS die Grube tief ist, und gehen mit ihm."
    assert value(german, "stop_words", "literal", stop_words=STOP_WORDS["de"]) == 5
    assert value(german, "stop_words", "literal") == 0
    assert value("\u00catre avec le chat, \u00c0 Paris", "stop_words", "literal", stop_words=STOP_WORDS["fr"]) == 4
    assert {len(words) for words in STOP_WORDS.values()} == {8}
    many = {f"word{k}x" for k in range(500)}
    assert value(" ".join(sorted(many)), "stop_words", "literal", stop_words=many) == 500
    assert not failing(rule_values([" ".join(sorted(many))], stop_words=many))["stop_words"][0]


def test_an_option_that_a_profile_does_not_take_is_one_sentence():
    with pytest.raises(EarthworksError, match="the profile literal has no option words; these do: datatrove"):
        rule_values(["a"], words=str.split)
    with pytest.raises(
        EarthworksError, match="the profile redpajama has no option stop_words; these do: literal, datatrove, dolma"
    ):
        rule_values(["a"], "redpajama", stop_words={"a"})
    with pytest.raises(EarthworksError, match="stop_words is the string 'de'"):
        rule_values(["a"], stop_words="de")
