"""The quality and repetition rules: worked examples, properties, and the compiled kernel against the plain functions."""

import itertools
import json
import lzma
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthworks.corpus import PROFILES, quality_values, read, repetition_values
from earthworks.corpus.rules import datatrove
from earthworks.corpus.rules.profiles import failing, rule_values
from earthworks.corpus.rules.quality import QUALITY_BOUNDS, quality
from earthworks.corpus.rules.repetition import REPETITION_LIMITS, repetition
from earthworks.runs import EarthworksError

IDS = (*QUALITY_BOUNDS, *REPETITION_LIMITS)
DUPLICATED = [f"dup_{n}" for n in range(5, 11)]
SHORT = ["words", "stop_words"]
SHORT_LETTERS = ["words", "mean_word_length", "stop_words"]


def w(i: int) -> str:
    """ "w" and the four base-26 digits of i as letters, least significant first."""
    return "w" + "".join(chr(97 + i // 26**digit % 26) for digit in range(4))


BULLETS = [
    *("\u2022 a", "  - b", "* c", "\u2013 d", "\u25e6e", "\u2023 f", "\u25aa g", "*bold* h", "-5 i", "1. j"),
    *("\u2014 k", "\u00b7 l", "\u25cf m", "n ...", "o \u2026 ", "p ....", "q ...)", "-", "..."),
]
LIMITS = [
    *("*qa the 0#0 xam yaz", "*qb and 1#1 xbm ybz", "*qc xck 2#2 xcm ycz", "*qd xdk 3#3 xdm ydz"),
    *("*qe xek 4#4 xem yez", "*qf xfk ... xfm yfz", "*qg xgk ... xgm ygz", "*qh xhk xhl xhm ..."),
    *("*qi xik xil xim ...", "mqj xjk xjl xjm ..."),
]
NGRAM_LIMITS = [w(i) for i in (*range(100), *range(10), *range(100, 190))]
NGRAM_LIMITS[50:52] = ["(the)", "(and)"]
S = [" ".join(w(4 * k + j) for j in range(4)) for k in range(3)]
T = [" ".join(w(100 + 9 * k + j) for j in range(9)) for k in range(4)]
T[0], T[1] = T[0].replace(w(100), "(the)"), T[1].replace(w(109), "(and)")
BLOCKS = [S[0], S[1], S[2], *T, S[2], S[1], S[0]]


def values(spec: str) -> dict[str, Fraction]:
    """ "words 1, dup_5 1/2" as fractions; ids that are not named are 0."""
    named = {each.split()[0]: Fraction(each.split()[1]) for each in spec.split(", ") if each}
    return {name: named.get(name, Fraction(0)) for name in IDS}


def same(names: list[str], value: str) -> str:
    return ", ".join(f"{name} {value}" for name in names)


EXAMPLES = {
    "1 empty": ("", "", [*SHORT_LETTERS[:2], "alpha_words", "stop_words"]),
    "2 one word": (" \t\r\n\u00a0word\u3000\r\n\r\n", "words 1, mean_word_length 4, alpha_words 1", SHORT),
    "3 twice": (
        "a b c d e a b c d e",
        "words 10, mean_word_length 1, alpha_words 1, top_2 2/5, top_3 3/5, top_4 4/5, dup_5 1",
        [*SHORT_LETTERS, "top_2", "top_3", "top_4", "dup_5"],
    ),
    "4 overlap": (
        "a a a a",
        "words 4, mean_word_length 1, alpha_words 1, top_2 1, top_3 1",
        [*SHORT_LETTERS, "top_2", "top_3"],
    ),
    "5 tie": (
        "aa b aa b ccc dddd ccc dddd",
        "words 8, mean_word_length 5/2, alpha_words 1, top_2 7/10",
        [*SHORT_LETTERS, "top_2"],
    ),
    "6 frequency first": (
        "x y x y x y long1 long2 long1 long2",
        "words 10, mean_word_length 13/5, alpha_words 1, top_2 3/13, top_3 5/26, top_4 3/13",
        [*SHORT_LETTERS, "top_2", "top_3", "top_4"],
    ),
    "7 paragraphs": (
        "A b\nC d\n\nA b\nC d\n\nA b\n",
        "words 10, mean_word_length 1, alpha_words 1, dup_line 3/5, dup_para 1/3, dup_line_char 3/5, dup_para_char 2/5, "
        "top_2 3/5, top_3 3/5, top_4 4/5, dup_5 1, dup_6 1",
        [
            *SHORT_LETTERS,
            *("dup_line", "dup_para", "dup_line_char", "dup_para_char", "top_2", "top_3", "top_4", "dup_5", "dup_6"),
        ],
    ),
    "8 line ends": (
        "x y\r\n \u00a0\t\r\nx y\rz  z\nz z\n",
        "words 8, mean_word_length 1, alpha_words 1, dup_line 1/4, dup_line_char 1/4, top_2 1/2, top_3 1/2",
        [*SHORT_LETTERS, "dup_line_char", "top_2", "top_3"],
    ),
    "9 spaces": (
        "one\u2028two\u0085three\u000bfour\u200bfive\u3000\ufeffsix",
        "words 5, mean_word_length 24/5, alpha_words 1",
        SHORT,
    ),
    "10 symbols": (
        "# ## a#b ... .... ...... \u2026 \u2025 . . . end\u2026",
        "words 12, mean_word_length 7/3, hash_ratio 1/3, ellipsis_ratio 1/2, ellipsis_lines 1, alpha_words 1/6, top_2 3/28",
        ["words", "mean_word_length", "hash_ratio", "ellipsis_ratio", "ellipsis_lines", "alpha_words", "stop_words"],
    ),
    "11 bullets": (
        "\n".join(BULLETS),
        "words 35, mean_word_length 53/35, ellipsis_ratio 1/7, bullet_lines 10/19, ellipsis_lines 4/19, alpha_words 18/35",
        ["words", "mean_word_length", "ellipsis_ratio", "alpha_words", "stop_words"],
    ),
    "12 stop words": (
        '"The" OF, that\'s and/or With. the-end have2 (be) \u0442o',
        "words 9, mean_word_length 43/9, alpha_words 1, stop_words 5",
        ["words"],
    ),
    "13 every quality limit": (
        "\n".join(LIMITS),
        "words 50, mean_word_length 3, hash_ratio 1/10, ellipsis_ratio 1/10, bullet_lines 9/10, ellipsis_lines 3/10, "
        "alpha_words 4/5, stop_words 2",
        [],
    ),
    "14 n-gram limits": (
        " ".join(NGRAM_LIMITS),
        "words 200, mean_word_length 5, alpha_words 1, stop_words 2, top_2 1/50, top_3 3/100, top_4 1/25, "
        + same(DUPLICATED, "1/10"),
        [],
    ),
    "15 line and paragraph limits": (
        "\n\n".join(BLOCKS),
        "words 60, mean_word_length 5, alpha_words 1, stop_words 2, dup_line 3/10, dup_para 3/10, dup_line_char 1/5, "
        "dup_para_char 1/5, top_2 1/15, top_3 1/10, top_4 2/15",
        [],
    ),
    "15 and a paragraph": (
        "\n\n".join([*BLOCKS, S[1]]),
        "words 64, mean_word_length 5, alpha_words 1, stop_words 2, dup_line 4/11, dup_para 4/11, dup_line_char 1/4, "
        "dup_para_char 1/4, top_2 3/32, top_3 9/64, top_4 3/16, " + same(DUPLICATED[:4], "1/4"),
        ["dup_line", "dup_para", "dup_line_char", "dup_para_char", "top_4", *DUPLICATED[:4]],
    ),
}
EDITS = {  # of example 13, and what then fails
    ("xck", "x#k"): ["hash_ratio"],
    ("mqj", "*qj"): ["bullet_lines"],
    ("xck", "000"): ["alpha_words"],
    ("and", "xbk"): ["stop_words"],
    ("yaz", "..."): ["ellipsis_ratio", "ellipsis_lines", "alpha_words"],
    ("xck", "xc"): ["mean_word_length"],
}


def plain(text: str) -> dict[str, float]:
    return {**quality(text), **repetition(text)}


def kernel(text: str) -> dict[str, float]:
    return {name: float(value[0]) for name, value in rule_values([text]).items()}


def plain_datatrove(text: str) -> dict[str, float]:
    return {**datatrove.quality(text), **datatrove.repetition(text)}


def fails(text: str) -> list[str]:
    return [name for name, failed in failing(rule_values([text])).items() if failed[0]]


@pytest.mark.parametrize("compute", [plain, kernel])
@pytest.mark.parametrize("example", EXAMPLES)
def test_worked_examples(example, compute):
    text, expected, failed = EXAMPLES[example]
    assert compute(text) == {name: float(value) for name, value in values(expected).items()}
    assert fails(text) == failed


@pytest.mark.parametrize("edit", EDITS)
def test_one_edit_crosses_one_limit(edit):
    assert fails(EXAMPLES["13 every quality limit"][0].replace(*edit)) == EDITS[edit]


def test_one_word_less_crosses_a_limit():
    short = EXAMPLES["13 every quality limit"][0].removesuffix(" ...")
    assert kernel(short)["hash_ratio"] == 5 / 49
    assert fails(short) == ["words", "hash_ratio"]
    shorter = " ".join(NGRAM_LIMITS[:-1])
    assert kernel(shorter)["dup_7"] == 20 / 199
    assert fails(shorter) == ["dup_10"]


def test_without_blank_lines_there_is_one_paragraph():
    found = kernel("\n".join(BLOCKS))
    assert found["dup_para"] == found["dup_para_char"] == 0
    assert found["dup_line"] == 0.3


# What texts are made of where things go wrong: white space of every kind, marks, letters in one to four bytes.
ATOMS = st.sampled_from(
    [
        *(chr(code) for code in range(0x110000) if chr(code).isspace()),
        *(
            "\u200b",
            "\u2060",
            "\u180e",
            "\ufeff",
            "\0",
            "\r\n",
            "\n\n",
            "\n \n",
            "...",
            "\u2026",
            ".",
            "#",
            "-",
            "*",
            "\u2022",
        ),
        *(
            "a",
            "b",
            "the",
            "The",
            "of",
            "\u0130",
            "\u212a",
            "\u00e9",
            "e\u0301",
            "\u0442",
            "\u4e2d",
            "\U0001d4b3",
            "\U0001f600",
        ),
        *(" ", "\n", " a", " b", "\na b c", "\U0010ffff", "\ud800"),
    ]
)
TEXTS = st.one_of(
    st.lists(ATOMS, max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "b", "the", "to", "x.", "\n", "\n\n"]), max_size=80).map(" ".join),
    st.text(max_size=60),
)


@given(TEXTS)
def test_the_kernel_is_the_plain_rules_to_the_bit(text):
    assert kernel(text) == plain(text)


@given(TEXTS)
def test_so_is_that_of_the_datatrove_profile(text):
    found = rule_values([text], "datatrove")
    assert {name: float(value[0]) for name, value in found.items()} == plain_datatrove(text)


def without_separator(text: str) -> bool:
    """Whether n-grams of unlike words run together into the same letters, which the package takes for equal."""
    words = text.split()
    for n in range(5, 11):
        ngrams = {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}
        if len({"".join(ngram) for ngram in ngrams}) < len(ngrams):
            return True
    return False


@given(TEXTS)
def test_the_datatrove_profile_gives_the_numbers_of_the_package(text):
    """Where the package is installed: its functions, on words parted by white space."""
    gopher = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
    if not text or without_separator(text):
        return
    found, words, size = plain_datatrove(text), text.split(), len(text)
    for name, items in (
        ("line", gopher.re.compile("\n+").split(text)),
        ("para", gopher.re.compile("\n{2,}").split(text.strip())),
    ):
        copies, characters = gopher.find_duplicates(items)
        assert (found[f"dup_{name}"], found[f"dup_{name}_char"]) == (copies / len(items), characters / size)
    for n in (2, 3, 4):
        ngrams = gopher.get_n_grams(words, n)
        assert found[f"top_{n}"] == (gopher.find_top_duplicate(ngrams) / size if ngrams else 0)
    for n in range(5, 11):
        assert found[f"dup_{n}"] == gopher.find_all_duplicate(words, n) / size


EDGES = {  # what each quality bound of the package's filter says, one reason at a time
    "min_doc_words": ("words", 0),
    "max_doc_words": ("words", 1),
    "min_avg_word_length": ("mean_word_length", 0),
    "max_avg_word_length": ("mean_word_length", 1),
    "max_bullet_lines_ratio": ("bullet_lines", 1),
    "max_ellipsis_lines_ratio": ("ellipsis_lines", 1),
    "max_non_alpha_words_ratio": ("alpha_words", 0),
    "min_stop_words": ("stop_words", 0),
}


@pytest.mark.parametrize("edge", EDGES)
@given(TEXTS)
def test_the_quality_filter_of_the_package_decides_at_our_values(edge, text):
    """Its bound set to our value passes, and set just beyond it drops: so its value is ours."""
    filters = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
    data = pytest.importorskip("datatrove.data")
    name, upper = EDGES[edge]
    found = plain_datatrove(text)
    value = found[name]
    if not found["words"] or not value:  # it divides by zero, and takes a bound of 0 for none
        return
    beyond = np.nextafter(value, -np.inf if upper else np.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "split_into_words", lambda text, language: text.split())
        for bound, passes in ((value, True), (float(beyond), False)):
            none = dict.fromkeys((*EDGES, "max_symbol_word_ratio"))
            judge = filters.GopherQualityFilter(**{**none, edge: bound})
            assert (judge.filter(data.Document(text=text, id="")) is True) == passes


@given(st.lists(TEXTS, max_size=6))
def test_documents_of_a_batch_do_not_touch(texts):
    together = rule_values(texts)
    for place, text in enumerate(texts):
        assert {name: value[place] for name, value in together.items()} == kernel(text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "word and " * 100_000,
        "a b\n" * 100_000,
        "\n" * 100_000,
        " " * 100_000,
        "\n\n".join(f"paragraph {k % 1000}" for k in range(30_000)),
        "\U0001f600\u4e2d " * 30_000,
        " ".join(map(w, range(100_000))),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_documents(text):
    assert kernel(text) == plain(text)
    found = rule_values([text], "datatrove")
    assert {name: float(value[0]) for name, value in found.items()} == plain_datatrove(text)


@given(TEXTS, st.sampled_from(["\r\n", "\r"]))
def test_line_ends_are_alike_and_margins_do_not_count(text, end):
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    assert kernel(text.replace("\n", end)) == kernel(text)
    assert kernel("\n \n" + text + "\n\n\t\n") == kernel(text)
    assert kernel("\n".join(f" \t{line}\u3000" for line in text.split("\n"))) == kernel(text)


@given(TEXTS)
def test_shares_lie_between_0_and_1_and_longer_ngrams_repeat_less(text):
    found = kernel(text)
    shares = [found[name] for name in (*REPETITION_LIMITS, "bullet_lines", "ellipsis_lines", "alpha_words")]
    assert all(0 <= share <= 1 for share in shares)
    assert all(found[a] >= found[b] for a, b in itertools.pairwise(DUPLICATED))


@given(TEXTS)
def test_a_text_twice_is_all_repeated(text):
    if len(text.split()) >= 10:
        found = kernel(text + "\n\n" + text)
        assert all(found[name] == 1 for name in DUPLICATED)


@given(st.integers(1, 40), st.lists(st.sampled_from(["a", "bc", "d."]), min_size=1, max_size=6))
def test_copies_of_one_line(n, line):
    found = kernel("\n".join([" ".join(line)] * n))
    assert found["dup_line"] == found["dup_line_char"] == (n - 1) / n


@given(st.integers(0, 300))
def test_words_that_are_all_different_do_not_repeat(n):
    found = kernel(" ".join(map(w, range(n))))
    assert all(found[name] == 0 for name in REPETITION_LIMITS)


def test_lower_case_can_lower_the_top_ngram_but_no_duplicated_one():
    text = "longer words longer words x y X y x y"
    assert kernel(text)["top_2"] == 11 / 14
    assert kernel(text.lower())["top_2"] == 3 / 14


@given(st.lists(st.sampled_from(["a", "A", "b", "B", "c"]), max_size=60).map(" ".join))
def test_lower_case_repeats_more(text):
    lowered, found = kernel(text.lower()), kernel(text)
    assert all(lowered[name] >= found[name] for name in DUPLICATED)


def test_arrow_columns_are_read_where_they_lie():
    texts = ["one two", "the the\nof", "", "\u4e2d x"]
    expected = rule_values(texts)
    for kind in (pa.string(), pa.large_string()):
        column = pa.array(["left out", *texts, "too"], kind)[1:5]
        for name, value in rule_values(column).items():
            assert np.array_equal(value, expected[name])
        chunked = pa.chunked_array([column[:2], column[2:]])
        assert np.array_equal(rule_values(chunked)["words"], expected["words"])
    assert rule_values(pa.array([], pa.string()))["words"].shape == (0,)


def test_the_two_groups_are_the_whole():
    texts = ["a b a b", "of the"]
    assert list(quality_values(texts)) == list(QUALITY_BOUNDS)
    assert list(repetition_values(texts)) == list(REPETITION_LIMITS)
    assert quality_values(texts)["words"].tolist() == [4, 2]
    assert PROFILES["literal"].bounds["top_2"] == (0, 0.2)


def test_bad_input_is_one_sentence():
    with pytest.raises(EarthworksError, match="profile is 'gopher'; it must be one of literal, datatrove"):
        rule_values(["a"], "gopher")
    with pytest.raises(EarthworksError, match="1 of 2 texts are missing"):
        rule_values(pa.array(["a", None]))


@pytest.mark.slow
def test_the_kernel_is_the_plain_rules_on_real_text(real_data):
    """Books, speeches and reviews, and web pages both as they are fetched and as their articles."""
    texts = [document.text[:20_000] for document in itertools.islice(read(str(real_data / "text")), 3000)]
    with lzma.open(real_data / "web" / "article_extraction.jsonl.xz") as lines:
        pages = [json.loads(line) for line in lines]
    texts += [page[field][:20_000] for page in pages for field in ("html", "article")]
    assert len(texts) > 1000
    for text in texts:
        assert kernel(text) == plain(text), text[:80]
        found = rule_values([text], "datatrove")
        assert {name: float(value[0]) for name, value in found.items()} == plain_datatrove(text), text[:80]
