"""Every token scored once, with the context that was promised, and the summaries worked out from the definition."""

import json
import math
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from earthworks.corpus import Tokenizer, pack, sources
from earthworks.corpus.tokens.packed_tokens import PackedTokens
from earthworks.gopher import Gopher, GopherConfig, evaluate, scoring
from earthworks.gopher.evaluating import evaluate_packed, up_to
from earthworks.gopher.scoring import ScoredDocument, by_position, cut, score_documents, summarize
from earthworks.runs import EarthworksError, RunFolder
from earthworks.statistics import bootstrap_ratio
from earthworks.training import checkpoint

END = 50


def planted(vocabulary: int = END + 1, **change) -> Gopher:
    """Weights so large that the loss of a token depends on how much of the text before it is seen."""
    torch.manual_seed(0)
    config = {"num_layers": 2, "num_heads": 2, "d_head": 4, "d_model": 8, "vocabulary": vocabulary, "context": 8}
    model = Gopher(GopherConfig(**{**config, **change})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("gain") else 0.0, 0.5)
    return model


def documents(*lengths: int) -> list[tuple[np.ndarray, int, int]]:
    random = np.random.default_rng(0)
    return [(random.integers(0, END, length), 3 * length + 1, length // 2) for length in lengths]


def seen(length: int, context: int, windows: str) -> list[int]:
    """Tokens of context, the end of document before included, that each prediction is promised."""
    if windows == "disjoint":
        return [i % context + 1 for i in range(length)]
    step, promised = max(1, context // 2), []
    for i in range(length):
        if i < context:
            promised.append(i + 1)
        else:  # in the window that ends at the first multiple of the step at or after it
            end = min(length, context + -(-(i + 1 - context) // step) * step)
            promised.append(i - (end - context) + 1)
    return promised


def one_by_one(model: Gopher, tokens: np.ndarray, promised: list[int]) -> list[float]:
    """-log p of each token after exactly so much of what precedes it, each by a reading of its own."""
    stream = [END, *tokens.tolist()]
    nats = []
    for i, context in enumerate(promised):
        with torch.no_grad():
            logits = model(torch.tensor([stream[i + 1 - context : i + 1]]))[0, -1]
        nats.append(-float(logits.double().log_softmax(-1)[stream[i + 1]]))
    return nats


@given(st.integers(0, 80), st.integers(1, 20), st.sampled_from(["sliding", "disjoint"]))
def test_every_token_is_a_scored_target_once_and_sees_what_was_promised(length, context, windows):
    tokens = np.arange(100, 100 + length)
    scored, sees = [], []
    for window in cut(tokens, 7, context, windows, END):
        assert window.document == 7
        assert 1 <= window.scored <= len(window.tokens) == len(window.targets) <= context
        assert window.targets.tolist() == tokens[window.start : window.start + len(window.targets)].tolist()
        before = tokens[window.start - 1] if window.start else END
        assert window.tokens.tolist() == [before, *window.targets[:-1].tolist()]
        scored += window.targets[-window.scored :].tolist()
        sees += list(range(len(window.tokens) - window.scored + 1, len(window.tokens) + 1))
    assert scored == tokens.tolist()
    assert sees == seen(length, context, windows)
    if windows == "sliding":
        assert all(2 * many >= min(context, 2 * (i + 1)) for i, many in enumerate(sees))


@pytest.mark.parametrize("at_once", [1, 40, 100, 16_384])
@pytest.mark.parametrize("context", [5, 8, 30])
@pytest.mark.parametrize("windows", ["sliding", "disjoint"])
def test_losses_are_those_of_reading_for_each_token_what_was_promised(windows, context, at_once, monkeypatch):
    """Whatever shares a batch with it; with 30 tokens, of a model trained on 8."""
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", at_once)
    model, texts = planted(), documents(1, 37, 4, 30, 9, 0, 31)
    scored = score_documents(model, texts, end_of_document=END, context=context, windows=windows)
    kept = [text for text in texts if len(text[0])]
    assert [(len(s.nats), s.num_bytes, s.num_words) for s in scored] == [(len(t), b, w) for t, b, w in kept]
    for (tokens, _, _), result in zip(kept, scored):
        promised = seen(len(tokens), context, windows)
        assert result.positions.tolist() == promised
        assert result.nats.tolist() == pytest.approx(one_by_one(model, tokens, promised), rel=1e-5, abs=1e-6)


def test_context_makes_a_difference_in_these_tests():
    model, texts = planted(), documents(37)
    short, long = (
        score_documents(model, texts, end_of_document=END, context=context, windows="disjoint")[0]
        for context in (5, 30)
    )
    np.testing.assert_allclose(short.nats[:5], long.nats[:5], rtol=1e-5)
    assert np.abs(short.nats - long.nats)[5:30].min() > 1e-4


@pytest.mark.parametrize("change", [{"positions": "absolute", "context": 30}, {"positions": "none"}, {"norm": "layer"}])
def test_padding_next_to_longer_rows_changes_no_loss(change):
    model = planted(**change)
    texts = documents(3, 30, 17, 8)
    together = score_documents(model, texts, end_of_document=END, context=30, windows="sliding")
    for text, result in zip(texts, together):
        alone = score_documents(model, [text], end_of_document=END, context=30, windows="sliding")[0]
        np.testing.assert_allclose(result.nats, alone.nats, rtol=1e-5, atol=1e-6)


def test_a_batch_holds_no_more_tokens_than_it_may_unless_it_is_one_window(monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 60)
    model, shapes = planted(), []
    token_losses = model.token_losses
    monkeypatch.setattr(
        model, "token_losses", lambda tokens, targets: shapes.append(tokens.shape) or token_losses(tokens, targets)
    )
    texts = documents(*[5] * 30, *[20] * 5, 70, 90)
    score_documents(model, texts, end_of_document=END, context=90, windows="disjoint")
    assert all(rows * time <= 60 or rows == 1 for rows, time in shapes)
    assert sorted({time for _, time in shapes}) == [5, 20, 70, 90]
    assert max(rows for rows, _ in shapes) == 12


@pytest.mark.parametrize(("option", "value"), [("windows", "overlapping"), ("context", 0)])
def test_an_impossible_option_is_named_with_its_value(option, value):
    options = {"windows": "sliding", "context": 4, option: value}
    with pytest.raises(EarthworksError, match=rf"{option} is .*{value}"):
        score_documents(planted(), documents(3), end_of_document=END, **options)


# summaries


def made_up(*counts: tuple[int, int, int], seed: int = 0) -> list[ScoredDocument]:
    """Documents of (tokens, bytes, words) with losses from nowhere."""
    random = np.random.default_rng(seed)
    return [
        ScoredDocument(
            random.gamma(2, 1 + 3 * random.random(), n).astype(np.float32), np.arange(n) % 16 + 1, size, words
        )
        for n, size, words in counts
    ]


def test_summaries_are_ratios_of_sums_over_documents_of_unequal_length():
    scored = made_up((3, 40, 2), (500, 1100, 210), (41, 41, 1))
    nats = sum(float(x) for document in scored for x in document.nats)
    result = summarize(scored, context=16, windows="disjoint")
    assert result["nats_per_byte"] == pytest.approx(nats / 1181, rel=1e-12)
    assert result["bits_per_byte"] == pytest.approx(nats / 1181 / math.log(2), rel=1e-12)
    assert result["nats_per_token"] == pytest.approx(nats / 544, rel=1e-12)
    assert result["perplexity_per_token"] == pytest.approx(math.exp(nats / 544), rel=1e-12)
    assert result["perplexity_per_word"] == pytest.approx(math.exp(nats / 213), rel=1e-12)
    assert [result[key] for key in ("tokens", "bytes", "words", "documents", "context", "windows")] == [
        544,
        1181,
        213,
        3,
        16,
        "disjoint",
    ]
    json.dumps(result, allow_nan=False)


def test_a_model_that_knows_nothing_needs_eight_bits_a_byte():
    document = ScoredDocument(np.full(1000, math.log(256), np.float32), np.arange(1000) + 1, 1000, 100)
    result = summarize([document], context=100, windows="disjoint")
    assert result["bits_per_byte"] == pytest.approx(8, rel=1e-7)
    assert result["interval"] == pytest.approx([8, 8], rel=1e-7)
    assert result["perplexity_per_token"] == pytest.approx(256, rel=1e-6)


@pytest.mark.parametrize(("many", "unit"), [(19, "window"), (20, "document")])
def test_the_interval_resamples_documents_and_windows_where_those_are_few(many, unit):
    random = np.random.default_rng(1)
    scored = made_up(*((int(n), 3 * int(n), 1) for n in random.integers(20, 90, many)))
    if unit == "document":
        nats = [document.nats.astype(float).sum() for document in scored]
        num_bytes = [document.num_bytes for document in scored]
    else:
        parts = [(d, d.nats[start : start + 16]) for d in scored for start in range(0, len(d.nats), 16)]
        nats = [part.astype(float).sum() for _, part in parts]
        num_bytes = [document.num_bytes * len(part) / len(document.nats) for document, part in parts]
    low, high = bootstrap_ratio(nats, num_bytes, seed=4)
    result = summarize(scored, context=16, windows="sliding", seed=4)
    assert result["interval_unit"] == unit
    assert result["interval"] == pytest.approx([low / math.log(2), high / math.log(2)], rel=1e-9)
    assert result["interval"][0] < result["bits_per_byte"] < result["interval"][1]


@pytest.mark.parametrize("context", [1, 2, 7, 8, 9, 40, 1000])
def test_the_loss_by_position_is_the_mean_over_the_tokens_there(context):
    random = np.random.default_rng(2)
    scored = made_up((700, 1, 1), (3, 1, 1), (900, 1, 1))
    for document in scored:
        document.positions = random.integers(1, context + 1, len(document.nats))
    curve = by_position(scored, context)
    positions = np.concatenate([document.positions for document in scored])
    nats = np.concatenate([document.nats for document in scored]).astype(float)
    edges = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    expected = []
    for low, high in pairwise(edges):
        there = [(p, x) for p, x in zip(positions, nats) if low <= p < high]
        if there:
            expected.append([sum(p for p, _ in there) / len(there), sum(x for _, x in there) / len(there)])
    assert len(curve) == len(expected)
    np.testing.assert_allclose(curve, expected, rtol=1e-9)


def test_nothing_to_score_is_said_in_a_sentence():
    with pytest.raises(EarthworksError, match="every document is empty"):
        summarize([], context=4, windows="sliding")


UMLAUTS = Tokenizer.train(["aa öö ab " * 9], 320)


@given(st.lists(st.text("ab ö"), max_size=8), st.integers(1, 60))
@settings(max_examples=100)
def test_a_limit_takes_the_first_tokens_and_the_bytes_that_they_spell(texts, most):
    """Of a document that is cut, tokens of two bytes each count two, and words in proportion."""
    everything = [(UMLAUTS.encode(text), len(text.encode()), len(text.split())) for text in texts]
    chosen = up_to(iter(everything), most, UMLAUTS)
    stream = [token for tokens, _, _ in everything for token in tokens]
    assert [token for tokens, _, _ in chosen for token in tokens] == stream[:most]
    for (_, num_bytes, num_words), (kept, kept_bytes, kept_words) in zip((e for e in everything if len(e[0])), chosen):
        assert kept_bytes == sum(len(UMLAUTS.token_bytes(token)) for token in kept)
        assert kept_words == round(num_words * kept_bytes / num_bytes)


def test_bits_per_byte_of_a_beginning_are_over_the_bytes_of_that_beginning(run, tmp_path):
    """Half of the text is of one byte a token and half of many."""
    folder, _, tokenizer = run
    text = tmp_path / "text.txt"
    text.write_text("plain words in plain order " * 30 + "ЖЩѬ" * 60)
    tokens = tokenizer.encode(text.read_text())
    assert len(tokens) > 400
    result = evaluate(folder.path, str(text), max_tokens=300, device="cpu")
    assert result["bytes"] == sum(len(tokenizer.token_bytes(token)) for token in tokens[:300])


# a whole run, from text to bits per byte

TEXTS = [
    "The ﬁrst of many ﬂights. ｆｕｌｌ ｗｉｄｔｈ, ½ and ² are other signs after NFKC.",
    "Ein Wörterbuch für Größe und Maß: Straße, Übung. Ελληνικά. 你好，世界。",
    "a b",
    "plain words in plain order, plain words again and again and again in plain order. " * 3,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose model was never trained: what is measured does not depend on how good it is."""
    tokenizer = Tokenizer.train(TEXTS * 3, 400)
    model = planted(tokenizer.vocabulary, context=12).float()
    folder = RunFolder.create(tmp_path_factory.mktemp("run") / "a")
    tokenizer.save(folder.tokenizer)
    state = {"model": model.config.to_dict(), "tokenizer": tokenizer.digest}
    checkpoint.save(folder, 1, {"model": dict(model.state_dict())}, state)
    folder.write_config({"kind": "gopher", "data": "texts.jsonl"})
    return folder, model, tokenizer


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def from_scratch(model: Gopher, tokenizer: Tokenizer, text: str, context: int) -> float:
    """Nats of a text in disjoint windows, by plain softmax."""
    stream = [tokenizer.end_of_document, *tokenizer.encode(text).tolist()]
    nats = 0.0
    for start in range(0, len(stream) - 1, context):
        part = stream[start : start + context + 1]
        with torch.no_grad():
            log_p = model(torch.tensor([part[:-1]]))[0].double().log_softmax(-1)
        nats -= sum(float(log_p[i, token]) for i, token in enumerate(part[1:]))
    return nats


@pytest.mark.parametrize("context", [None, 300], ids=["trained context", "beyond it"])
def test_bits_per_byte_are_over_the_bytes_as_they_were_and_not_as_normalised(run, text_file, context):
    folder, model, tokenizer = run
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    assert num_bytes != sum(len(unicodedata.normalize("NFKC", text).encode()) for text in TEXTS)
    result = evaluate(folder.path, str(text_file), context=context, windows="disjoint", device="cpu")
    nats = sum(from_scratch(model, tokenizer, text, context or 12) for text in TEXTS)
    assert result["bits_per_byte"] == pytest.approx(nats / num_bytes / math.log(2), rel=1e-6)
    assert result["bytes"] == num_bytes
    assert result["words"] == sum(len(text.split()) for text in TEXTS)
    assert result["tokens"] == sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert result["perplexity_per_word"] == pytest.approx(math.exp(min(700, nats / result["words"])), rel=1e-4)
    assert (result["documents"], result["context"]) == (4, context or 12)


def test_several_sources_are_measured_apart_and_together(run, text_file, tmp_path):
    folder, model, tokenizer = run
    other = tmp_path / "other.txt"
    other.write_text("words of another text in another order")
    result = evaluate(folder.path, f"{text_file},{other}", windows="disjoint", device="cpu")
    nats = from_scratch(model, tokenizer, other.read_text(), 12)
    part = result["subsets"]["other.txt"]
    assert part["bits_per_byte"] == pytest.approx(nats / len(other.read_bytes()) / math.log(2), rel=1e-6)
    total = sum(each["bits_per_byte"] * each["bytes"] for each in result["subsets"].values())
    assert result["bits_per_byte"] == pytest.approx(total / result["bytes"], rel=1e-9)


def test_held_out_documents_measure_the_same_packed_and_as_text(run, text_file, tmp_path):
    _, model, tokenizer = run
    pack(sources(str(text_file)), tokenizer, tmp_path / "packed", validation=0.5, seed=0)
    packed = PackedTokens.open(tmp_path / "packed")
    held_out = [tokenizer.decode(tokens) for tokens, _, _ in packed.validation_documents()]
    texts = [text for text in TEXTS if tokenizer.normalize(text) in held_out]
    assert 0 < len(texts) == len(held_out) < 4
    result, passage = evaluate_packed(model, tokenizer, packed, context=12, windows="disjoint")
    nats = sum(from_scratch(model, tokenizer, text, 12) for text in texts)
    assert result["nats_per_byte"] == pytest.approx(nats / sum(len(text.encode()) for text in texts), rel=1e-6)
    assert result["words"] == sum(len(text.split()) for text in texts)
    shown = "".join(piece for piece, _ in passage["tokens"])
    assert shown == held_out[0]
    assert sum(x for _, x in passage["tokens"]) == pytest.approx(from_scratch(model, tokenizer, shown, 12), rel=1e-5)


def test_a_limit_of_tokens_stops_early(run, text_file):
    folder, model, tokenizer = run
    result = evaluate(folder.path, str(text_file), max_tokens=20, windows="disjoint", device="cpu")
    stream = [tokenizer.end_of_document, *tokenizer.encode(TEXTS[0]).tolist()][:21]
    with torch.no_grad():
        parts = [stream[start : start + 13] for start in (0, 12)]
        log_p = [model(torch.tensor([part[:-1]]))[0].double().log_softmax(-1) for part in parts]
    nats = -sum(float(p[i, y]) for p, part in zip(log_p, parts) for i, y in enumerate(part[1:]))
    assert result["tokens"] == 20
    assert result["nats_per_token"] == pytest.approx(nats / 20, rel=1e-6)


def test_distances_may_be_clamped_when_reading_beyond_the_trained_context(run, text_file):
    folder, model, tokenizer = run
    given = {"context": 300, "windows": "disjoint", "device": "cpu"}
    result = evaluate(folder.path, str(text_file), max_distance=5, **given)
    other = Gopher(model.config.with_(max_distance=5)).eval()
    other.load_state_dict(model.state_dict())
    nats = sum(from_scratch(other, tokenizer, text, 300) for text in TEXTS)
    assert result["nats_per_byte"] * result["bytes"] == pytest.approx(nats, rel=1e-6)
    assert nats != pytest.approx(sum(from_scratch(model, tokenizer, text, 300) for text in TEXTS), rel=1e-4)
    with pytest.raises(EarthworksError, match="--max_distance is 0"):
        evaluate(folder.path, str(text_file), max_distance=0, **given)


def test_only_relative_positions_are_read_beyond_the_trained_context(run, tmp_path, text_file):
    _, _, tokenizer = run
    model = planted(tokenizer.vocabulary, positions="absolute", context=12)
    folder = RunFolder.create(tmp_path / "absolute")
    tokenizer.save(folder.tokenizer)
    state = {"model": model.config.to_dict(), "tokenizer": tokenizer.digest}
    checkpoint.save(folder, 1, {"model": dict(model.float().state_dict())}, state)
    folder.write_config({"kind": "gopher", "data": "texts.jsonl"})
    with pytest.raises(EarthworksError, match=r"--context 13 .* 12"):
        evaluate(folder.path, str(text_file), context=13, device="cpu")
    assert evaluate(folder.path, str(text_file), context=12, device="cpu")["context"] == 12
    with pytest.raises(EarthworksError, match=r"--max_distance needs relative positions, .* absolute"):
        evaluate(folder.path, str(text_file), max_distance=5, device="cpu")
