import json
import lzma
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from test_rules import TEXTS

from earthworks.corpus.rules import language
from earthworks.runs import EarthworksError

SENTENCES = {
    "en": "The gopher digs a burrow and pushes the earth out of it in front of its chest.",
    "de": "Die Taschenratte gr\u00e4bt einen Bau und schiebt die Erde mit der Brust vor sich her.",
    "fr": "Le gaufre creuse un terrier et pousse la terre devant lui avec sa poitrine.",
    "es": "La tuza excava una madriguera y empuja la tierra con el pecho hacia afuera.",
    "it": "Il roditore scava una tana e spinge fuori la terra con il petto.",
    "nl": "De wangzakrat graaft een hol en duwt de aarde met zijn borst voor zich uit.",
    "ru": "\u0413\u043e\u0444\u0435\u0440 \u0440\u043e\u0435\u0442 \u043d\u043e\u0440\u0443 \u0438 "
    "\u0432\u044b\u0442\u0430\u043b\u043a\u0438\u0432\u0430\u0435\u0442 \u0437\u0435\u043c\u043b\u044e "
    "\u0433\u0440\u0443\u0434\u044c\u044e.",
    "ja": "\u30db\u30ea\u30cd\u30ba\u30df\u306f\u7a74\u3092\u6398\u308a\u307e\u3059\u3002",
}


@pytest.fixture(scope="module")
def peer():
    langid = pytest.importorskip("py3langid.langid")
    return langid.LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)


def test_sentences_are_told_apart(peer):
    codes, probabilities = language.languages(list(SENTENCES.values()))
    assert codes == list(SENTENCES)
    assert (probabilities > 0.5).all()
    assert language.languages([SENTENCES["de"].upper()])[0] == ["de"]


def test_arrow_texts_are_texts(peer):
    """What a build holds: K01, every build with the stage `language` crashed on slicing its scalars."""
    texts = [*SENTENCES.values(), "", "\U0001f600 " * 600 + SENTENCES["de"]]
    codes, probabilities = language.languages(texts)
    for column in (pa.array(texts), pa.array(texts, pa.large_string()), pa.chunked_array([texts[:3], texts[3:]])):
        found, numbers = language.languages(column)
        assert found == codes
        assert (numbers == probabilities).all()


def test_where_nothing_is_recognised_nothing_is_said(peer):
    codes, probabilities = language.languages(["", " \n"])
    assert codes == ["und", "und"]
    assert probabilities.tolist() == [0, 0]
    codes, probabilities = language.languages([])
    assert codes == []
    assert probabilities.shape == (0,)


def test_it_is_what_py3langid_says_of_the_beginning(peer):
    """To rounding: it sums in another order."""

    @settings(max_examples=100)
    @given(TEXTS)
    def check(text):
        text = text + SENTENCES["es"][: len(text)]
        (code,), (probability,) = language.languages([text])
        if code != "und":
            ranked = dict(peer.rank(text[: language.CHARACTERS]))
            assert ranked[code] == pytest.approx(max(ranked.values()), abs=1e-5)
            assert probability == pytest.approx(ranked[code], abs=1e-5)

    check()


def test_only_the_beginning_is_looked_at_and_a_batch_does_not_mix(peer):
    long = SENTENCES["en"] * 20 + SENTENCES["de"] * 500
    texts = [long, *SENTENCES.values(), long[: language.CHARACTERS]]
    codes, probabilities = language.languages(texts)
    assert codes[0] == codes[-1] == "en"
    assert probabilities[0] == probabilities[-1]
    for place, text in enumerate(texts):
        assert language.languages([text]) == ([codes[place]], probabilities[place : place + 1])


@pytest.mark.slow
def test_worker_processes_say_the_same(peer):
    texts = list(SENTENCES.values())
    codes, probabilities = language.languages(texts)
    for method in ("fork", "spawn"):
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
            for found, numbers in pool.map(language.languages, [texts] * 4):
                assert found == codes
                assert np.array_equal(numbers, probabilities)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    language.load.cache_clear()
    with pytest.raises(EarthworksError, match=r"needs the package py3langid: pip install 'earthworks\[extract\]'"):
        language.languages(["a"])


FUNCTION_WORDS = {
    "en": {"the", "and", "of", "is", "to", "that", "with", "for", "was", "are"},
    "de": {"der", "die", "das", "und", "nicht", "ist", "mit", "ein", "auf", "den"},
}


def test_web_pages_of_other_languages_are_told_from_english_ones(real_data, peer):
    """By the text that must survive extraction. What a page's markup says of its language is often wrong (German pages in
    English templates), so function words decide what it is, where there are three of one language and none of the other.
    """
    with lzma.open(real_data / "web" / "extraction_segments.jsonl.xz") as lines:
        pages = [json.loads(line) for line in lines]
    texts = [" ".join(page["must_contain"]) for page in pages]
    codes, _ = language.languages(texts)
    counts = {
        code: [sum(word in words for word in text.lower().split()) for text in texts]
        for code, words in FUNCTION_WORDS.items()
    }
    clear = {"en": 0, "de": 0}
    for place, (english, german) in enumerate(zip(counts["en"], counts["de"])):
        if max(english, german) >= 3 and min(english, german) == 0:
            expected = "en" if english else "de"
            assert codes[place] == expected, (texts[place], pages[place]["lang"])
            clear[expected] += 1
    assert clear == {"en": 99, "de": 24}
    named = [place for place, page in enumerate(pages) if page["lang"] and not page["lang"].startswith("en")]
    assert [codes[place] for place in named] == [pages[place]["lang"].split("-")[0] for place in named]
    assert len(named) == 23
