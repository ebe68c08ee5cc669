"""Generation against the model without a cache, the distribution it draws from, and where it stops and what it shows."""

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from earthworks.corpus import Tokenizer
from earthworks.corpus.tokens.tokenizer import DecodeStream
from earthworks.gopher import Cache, Gopher, GopherConfig, generate, generation, load, train
from earthworks.gopher.config import SIZES
from earthworks.gopher.generation import left_pad, prefill, token_distribution
from earthworks.gopher.pretraining import run as pretraining
from earthworks.runs import EarthworksError
from tiny_runs import FLEA

CASES = {
    "relative": {},
    "relative, clamped": {"max_distance": 5},
    "relative, narrow": {"d_position": 6},
    "absolute": {"positions": "absolute", "context": 90},
    "no positions": {"positions": "none"},
    "LayerNorm": {"norm": "layer", "tied": False},
}
variants = pytest.mark.parametrize("change", CASES.values(), ids=CASES)
PROMPTS = ["To be", "", "a question of much greater length than", "Wörter: 你好"]


def planted(change=None, vocabulary: int = 257) -> Gopher:
    """Weights so large that every earlier token and every position decides about the next one."""
    torch.manual_seed(0)
    config = {"num_layers": 2, "num_heads": 2, "d_head": 8, "d_model": 16, "vocabulary": vocabulary, "context": 16}
    model = Gopher(GopherConfig(**{**config, **(change or {})})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith(("gain", "norm.weight")) else 0.0, 0.4)
    return model


# the cache


@variants
@given(st.lists(st.integers(1, 14), min_size=1, max_size=8), st.booleans())
@settings(max_examples=8)
def test_reading_in_parts_gives_the_logits_of_reading_at_once(change, parts, ragged):
    model = planted(change)
    time = sum(parts)
    assume(time <= 80)
    tokens = torch.randint(257, (3, time), generator=torch.Generator().manual_seed(time))
    real = [time, max(1, time - 5), 1] if ragged else [time] * 3
    mask = torch.arange(time) >= time - torch.tensor(real)[:, None]
    cache = Cache(model.config, mask[:, : parts[0]] if ragged else None)
    logits, start = [], 0
    for part in parts:
        if ragged:
            cache.key_mask = mask[:, : start + part]
        logits.append(model(tokens[:, start : start + part], cache=cache))
        start += part
    for row, length in enumerate(real):
        alone = model(tokens[row : row + 1, time - length :])[0]
        torch.testing.assert_close(torch.cat(logits, 1)[row, time - length :], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 512])
@variants
def test_a_prompt_read_in_chunks_gives_the_logits_of_each_prompt_alone(change, chunk, monkeypatch):
    monkeypatch.setattr(generation, "PREFILL", chunk)
    model = planted(change)
    rows = [list(range(5, 5 + length)) for length in (1, 30, 12, 4)]
    tokens, mask = left_pad(rows, 256, torch.device("cpu"))
    logits = prefill(model, tokens, Cache(model.config, mask))
    for row, expected in zip(rows, logits):
        torch.testing.assert_close(model(torch.tensor([row]))[0, -1], expected, rtol=1e-5, atol=1e-5)


@variants
def test_rows_taken_from_a_cache_continue_alone_and_any_number_of_times(change):
    model = planted(change)
    rows = [list(range(5, 5 + length)) for length in (9, 4, 6)]
    tokens, mask = left_pad(rows, 256, torch.device("cpu"))
    cache = Cache(model.config, mask)
    model(tokens, cache=cache)
    more = torch.tensor([[40, 41, 42], [50, 51, 52], [60, 61, 62], [70, 71, 72]])
    for order in ([2, 0, 0, 1], [1, 1, 2, 2]):
        logits = model(more, cache=cache.take(torch.tensor(order), 3))
        for row, new, found in zip(order, more.tolist(), logits):
            torch.testing.assert_close(found, model(torch.tensor([rows[row] + new]))[0, -3:], rtol=1e-5, atol=1e-5)
    assert cache.length == tokens.shape[1]


def uncached(monkeypatch, model: Gopher) -> list[float]:
    """From here on every token is chosen by logits of the row alone, computed afresh; how far the cached ones are off."""
    distances = []
    choose = generation.Row.choose

    def choose_afresh(row, logits, *options):
        tokens = [row.tokenizer.end_of_document, *row.tokenizer.encode(row.prompt), *row.answer]
        with torch.no_grad():
            fresh = model(torch.tensor([tokens]))[0, -1]
        distances.append(float((logits - fresh).abs().max()))
        assert fresh[:256].std() > 0.3  # planted: flat logits would agree with anything
        return choose(row, fresh, *options)

    monkeypatch.setattr(generation.Row, "choose", choose_afresh)
    return distances


SAMPLED = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3}


@pytest.mark.parametrize(
    ("prompts", "sampling"), [(PROMPTS[:1], {"temperature": 0}), (PROMPTS, SAMPLED)], ids=["one row", "ragged rows"]
)
@variants
def test_generating_with_the_cache_equals_reading_everything_again(change, prompts, sampling, monkeypatch):
    """Far beyond the 16 tokens trained on, where positions allow it, and in chunks of a prompt."""
    model, tokenizer = planted(change), Tokenizer.bytes()
    with torch.no_grad():
        model.logit_bias[256] = -1e9  # no row ends before the others
    monkeypatch.setattr(generation, "PREFILL", 7)
    with_cache = generate(model, tokenizer, prompts, max_tokens=30, **sampling)
    distances = uncached(monkeypatch, model)
    afresh = generate(model, tokenizer, prompts, max_tokens=30, **sampling)
    assert [answer.tokens for answer in with_cache] == [answer.tokens for answer in afresh]
    assert len(distances) == 30 * len(prompts)
    assert max(distances) < 1e-5


@variants
def test_float32_logits_stay_close_over_a_long_answer(change, monkeypatch):
    model = planted(change).float()
    distances = uncached(monkeypatch, model)
    generate(model, Tokenizer.bytes(), PROMPTS[2:], max_tokens=30, temperature=1.0, precision="fp32")
    assert max(distances) < 2e-3


def test_an_absolute_model_writes_to_the_end_of_its_context_and_then_says_so():
    model, tokenizer = planted({"positions": "absolute", "context": 20}), Tokenizer.bytes()
    with torch.no_grad():
        model.logit_bias[256] = -1e9  # never ends by itself
    assert len(generate(model, tokenizer, "To be", max_tokens=15)[0].tokens) == 15
    with pytest.raises(EarthworksError, match="context of 20"):
        generate(model, tokenizer, "To be", max_tokens=16)


def test_a_run_with_absolute_positions_samples_no_further_than_its_context(tmp_path, tiny_text, monkeypatch):
    monkeypatch.setitem(SIZES, "flea", (1, 2, 4, 16))
    monkeypatch.setattr(pretraining, "write_report", lambda runs: runs[0])
    run = train(str(tiny_text), run=str(tmp_path / "run"), **{**FLEA, "max_steps": 2, "positions": "absolute"})
    model, tokenizer = load(run)
    answer = generate(model, tokenizer, "", max_tokens=16, temperature=0.8, top_p=0.95, seed=2, precision="fp32")[0]
    assert (run / "samples" / "step-2.txt").read_bytes() == answer.text.encode()


def test_rows_are_what_they_are_alone_whatever_the_other_rows():
    model, tokenizer = planted(), Tokenizer.bytes()
    together = generate(model, tokenizer, PROMPTS, max_tokens=25, temperature=0.9, seed=3)
    assert generate(model, tokenizer, PROMPTS[:1], max_tokens=25, temperature=0.9, seed=3) == together[:1]
    others = [PROMPTS[3], PROMPTS[1], PROMPTS[0] * 9]
    second = generate(model, tokenizer, others, max_tokens=25, temperature=0.9, seed=3)
    assert second[1] == together[1]
    assert [answer.prompt for answer in together] == PROMPTS


def test_a_model_comes_back_in_the_mode_it_was_given():
    model = planted()
    for training in (True, False):
        model.train(training)
        generate(model, Tokenizer.bytes(), "a", max_tokens=2)
        assert all(module.training is training for module in model.modules())


# the distribution


def slow_distribution(logits, temperature, top_k, top_p) -> list[float]:
    weights = [math.exp((x - max(logits)) / temperature) for x in logits]
    total = math.fsum(weights)
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    kept = ranked[:top_k]
    if top_p is not None:
        among, nucleus, held = math.fsum(weights[i] for i in kept), [], 0.0
        for i in kept:
            nucleus.append(i)
            held += weights[i] / among
            if held >= top_p:
                break
        kept = nucleus
    total = math.fsum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(logits))]


@given(
    st.lists(st.integers(-1280, 1280).map(lambda n: n / 64), min_size=1, max_size=30),
    st.floats(0.05, 10),
    st.none() | st.integers(1, 40),
    st.none() | st.floats(0.01, 0.999),
)
@settings(max_examples=200)
def test_the_distribution_is_the_slow_one(logits, temperature, top_k, top_p):
    actual = token_distribution(torch.tensor(logits), temperature, top_k, top_p)
    if top_p is not None:  # away from the very border of the nucleus, which is tested below with fractions
        nearer, farther = (slow_distribution(logits, temperature, top_k, top_p + e) for e in (-1e-9, 1e-9))
        assume([p > 0 for p in nearer] == [p > 0 for p in farther])
    expected = slow_distribution(logits, temperature, top_k, top_p)
    assert actual.dtype == torch.float64
    assert actual.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=40), st.data())
@settings(max_examples=150)
def test_a_nucleus_that_is_exactly_full_takes_no_further_token(weights, data):
    """p_i = w_i / sum w: fractions, whose floating-point sums fall to either side of the border."""
    ranked = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    size = data.draw(st.integers(1, len(weights)), "size of the nucleus")
    top_p = Fraction(sum(weights[i] for i in ranked[:size]), sum(weights))
    actual = token_distribution(torch.tensor(weights).double().log(), 1.0, None, float(top_p))
    assert {i for i, p in enumerate(actual) if p > 0} == set(ranked[:size])


def test_known_distributions():
    halves = torch.tensor([0.125, 0.5, 0.125, 0.25]).log()

    def cut(**options):
        return token_distribution(halves, **{"temperature": 1.0, "top_k": None, "top_p": None, **options}).tolist()

    assert cut() == pytest.approx([0.125, 0.5, 0.125, 0.25])
    assert cut(top_k=2) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert cut(top_k=3) == pytest.approx([1 / 7, 4 / 7, 0, 2 / 7])  # of two equal ones the first
    assert cut(top_k=99) == pytest.approx([0.125, 0.5, 0.125, 0.25])
    assert cut(top_p=0.5) == pytest.approx([0, 1, 0, 0])
    assert cut(top_p=0.51) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert cut(top_p=0.75) == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert cut(top_p=1e-12) == pytest.approx([0, 1, 0, 0])
    assert cut(top_p=1.0) == cut()
    assert cut(top_k=2, top_p=0.6) == pytest.approx([0, 1, 0, 0])  # 2/3 of what top_k left, 1/2 of everything
    assert cut(temperature=0.5) == pytest.approx([1 / 22, 16 / 22, 1 / 22, 4 / 22])  # squares
    assert cut(temperature=1e-3) == pytest.approx([0, 1, 0, 0])
    assert cut(temperature=1e6) == pytest.approx([0.25] * 4, rel=1e-5)


def test_a_top_p_of_one_takes_no_token_away_however_rare():
    assert (token_distribution(torch.tensor([0.0, -80.0, -90.0]), 1.0, None, 1.0) > 0).all()


# drawing, from a model whose next token depends on nothing


def indifferent(bias: Tensor) -> Gopher:
    """The same known logits after every text."""
    model = Gopher(GopherConfig(num_layers=1, num_heads=1, d_head=2, d_model=2, vocabulary=len(bias)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.logit_bias.copy_(bias)
    return model


def only(bias: dict[str, float]) -> Gopher:
    """Logits of some bytes, and of no others."""
    logits = torch.full((257,), -1e9)
    for character, value in bias.items():
        logits[ord(character)] = value
    return indifferent(logits)


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 2.0}, {"temperature": 0.7, "top_k": 4}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.9}]
)
def test_tokens_come_as_often_as_they_should(options):
    """Over rows, steps and seeds: generators that depended on each other would show too."""
    bias = dict(zip("abcdefg", [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0]))
    model, counts = only(bias), dict.fromkeys(bias, 0)
    for seed in range(4):
        for answer in generate(model, Tokenizer.bytes(), [""] * 25, max_tokens=25, seed=seed, **options):
            for character in answer.text:
                counts[character] += 1
    expected = slow_distribution(
        list(bias.values()), options.get("temperature", 1.0), options.get("top_k"), options.get("top_p")
    )
    possible = [(count, p) for count, p in zip(counts.values(), expected) if p > 0]
    assert sum(count for count, _ in possible) == 2500
    assert chisquare([count for count, _ in possible], [2500 * p for _, p in possible]).pvalue > 1e-3


def test_every_seed_and_row_writes_a_text_of_its_own_and_always_the_same():
    """Torch's generator on the CPU looks at 32 bits of its seed: seeds that differ above them must differ too."""
    model, texts = only(dict.fromkeys("abcdefgh", 0.0)), set()
    seeds = [0, 1, 2, 4095, 4096, 1 << 20, 1 << 32, (1 << 32) + 1, 1 << 44, (1 << 63) - 1, -1]
    for seed in seeds:
        answers = generate(model, Tokenizer.bytes(), [""] * 3, max_tokens=16, seed=seed)
        assert answers == generate(model, Tokenizer.bytes(), [""] * 3, max_tokens=16, seed=seed)
        texts |= {answer.text for answer in answers}
    assert len(texts) == 3 * len(seeds)


def test_drawing_neither_reads_nor_moves_the_global_generator():
    model = only(dict.fromkeys("abcdefgh", 0.0))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = generate(model, Tokenizer.bytes(), "", max_tokens=9)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert generate(model, Tokenizer.bytes(), "", max_tokens=9) == first


def test_a_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens(monkeypatch):
    bias = {"a": 2.0, "b": 1.0, "c": -1.0, "d": -2.0, "e": 0.5}
    given_logits = []

    def record(logits, *cut):
        given_logits.append(logits.clone())
        return token_distribution(logits, *cut)

    model = only(bias)
    with torch.no_grad():
        model.logit_bias[256] = -3.0  # the end of document stands before the prompt, but is not of it
    monkeypatch.setattr(generation, "token_distribution", record)
    answer = generate(model, Tokenizer.bytes(), "ad", max_tokens=12, repetition_penalty=4.0, seed=5)[0]
    assert len(set(answer.text)) >= 3
    for step, logits in enumerate(given_logits):
        seen = "ad" + answer.text[:step]
        for character, value in bias.items():
            punished = value / 4 if value > 0 else value * 4
            assert logits[ord(character)] == pytest.approx(punished if character in seen else value)
        assert logits[256] == pytest.approx(-3.0)


def test_the_most_likely_token_is_the_most_likely_after_the_penalty():
    model = only({"a": 3.0, "b": 2.0, "c": 1.6})
    assert generate(model, Tokenizer.bytes(), "", max_tokens=3, temperature=0)[0].text == "aaa"
    answer = generate(model, Tokenizer.bytes(), "", max_tokens=4, temperature=0, repetition_penalty=2.0)[0]
    assert answer.text == "abca"  # 3; 1.5 2; 1.5 1 1.6; then all are halved again from what they were


# what is shown, and when it ends


class Script(nn.Module):
    """A model that writes what it was told to: one list of tokens for each row."""

    def __init__(self, scripts: list[list[int]], vocabulary: int):
        super().__init__()
        self.scripts, self.vocabulary, self.step = scripts, vocabulary, 0
        self.dummy = nn.Parameter(torch.zeros(()))
        self.config = SimpleNamespace(num_layers=0)

    def forward(self, tokens: Tensor, cache: Cache, last: int) -> Tensor:
        logits = torch.zeros(len(tokens), 1, self.vocabulary)
        for row, script in enumerate(self.scripts):
            logits[row, 0, script[self.step] if self.step < len(script) else 0] = 1.0
        self.step += 1
        return logits


class Pieces:
    """A tokenizer whose tokens 1, 2, ... are the given pieces, and 0 the end of document."""

    end_of_document = 0

    def __init__(self, *pieces: bytes):
        self.table = [b"", *pieces]

    def encode(self, text: str) -> list[int]:
        return [1] * len(text)

    def decode_stream(self) -> DecodeStream:
        return DecodeStream(self)  # pyright: ignore


def write(tokenizer: Pieces, scripts: list[list[int]], stop=(), max_tokens=50, prompts=None):
    """The answers, and for each row the pieces in which it was shown."""
    shown: list[list[str]] = [[] for _ in scripts]
    answers = generate(
        Script(scripts, len(tokenizer.table)),  # pyright: ignore
        tokenizer,
        prompts or [""] * len(scripts),
        temperature=0,
        max_tokens=max_tokens,
        stop=stop,
        stream=lambda row, piece: shown[row].append(piece),
    )
    return answers, shown


def until(text: str, stops: list[str]) -> str:
    """The part of a text that may be shown while more follows: all but an end that may start a stop string."""
    held = [n for each in stops for n in range(1, len(each)) if text.endswith(each[:n])]
    return text[: len(text) - max(held, default=0)]


texts = st.text("ab", min_size=1, max_size=4)


@given(
    st.lists(texts, min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=20), min_size=1, max_size=3),
    st.lists(texts, max_size=3),
    st.integers(1, 20),
)
@settings(max_examples=120)
def test_stop_strings_end_the_text_wherever_tokens_part_it_and_never_show(pieces, scripts, stops, max_tokens):
    tokenizer = Pieces(*(piece.encode() for piece in pieces))
    scripts = [[token % (len(pieces) + 1) for token in script] for script in scripts]
    answers, shown = write(tokenizer, scripts, stops, max_tokens)
    for answer, parts, script in zip(answers, shown, scripts):
        text, expected_parts, reason, used = "", [], "length", []
        for token in [*script, *[0] * max_tokens][:max_tokens]:
            if token == 0:
                reason = "end of document"
                break
            used.append(token)
            text += pieces[token - 1]
            found = [text.find(each) for each in stops if each in text]
            if found:
                text, reason = text[: min(found)], "stop"
                break
            expected_parts.append(until(text, stops))
        assert (answer.text, answer.reason, answer.tokens) == (text, reason, used)
        assert "".join(parts) == text
        assert "" not in parts
        shown_by_token = [part for i, part in enumerate(expected_parts) if part and part not in expected_parts[:i]]
        so_far = ["".join(parts[: n + 1]) for n in range(len(parts))]
        assert set(so_far) <= {*shown_by_token, text}  # no sooner than is safe
        if len(used) < max_tokens:
            assert set(shown_by_token) <= {*so_far, text}  # and no later


def test_the_first_stop_string_in_the_text_wins():
    tokenizer = Pieces(b"one ", b"two\n\nthree", b"###")
    answers, shown = write(tokenizer, [[1, 2, 3], [1, 3, 2], [1, 1, 1]], ["###", "\n\n", ""], max_tokens=3)
    assert [(answer.text, answer.reason) for answer in answers] == [
        ("one two", "stop"),
        ("one ", "stop"),
        ("one one one ", "length"),
    ]
    assert ["".join(parts) for parts in shown] == [answer.text for answer in answers]


def test_characters_are_shown_whole_and_broken_ones_only_at_the_end():
    euro = "€".encode()
    tokenizer = Pieces(b"a", euro[:1], euro[1:2], euro[2:], b"\xff")
    answers, shown = write(tokenizer, [[1, 2, 3, 4, 1], [1, 2, 3], [2, 1, 5, 1, 2], [2, 3, 0]], max_tokens=5)
    assert shown == [["a", "€", "a"], ["a", "\ufffd"], ["\ufffda", "\ufffd", "a", "\ufffd"], ["\ufffd"]]
    assert ["".join(parts) for parts in shown] == [answer.text for answer in answers]
    assert [answer.reason for answer in answers] == ["length", "end of document", "length", "end of document"]


def test_rows_end_one_by_one_and_the_rest_write_on():
    tokenizer = Pieces(b"x", b"y")
    answers, _ = write(tokenizer, [[1, 0, 2, 2], [2, 2, 2, 2, 2, 2], [0, 1]], max_tokens=5)
    assert [(answer.text, answer.tokens, answer.reason) for answer in answers] == [
        ("x", [1], "end of document"),
        ("yyyyy", [2] * 5, "length"),
        ("", [], "end of document"),
    ]


def test_a_prompt_starts_after_an_end_of_document_and_pads_on_the_left():
    tokens, mask = left_pad([[256, 1, 2], [256]], 7, torch.device("cpu"))
    assert tokens.tolist() == [[256, 1, 2], [7, 7, 256]]
    assert mask is not None
    assert mask.tolist() == [[True, True, True], [False, False, True]]
    assert left_pad([[256, 1], [256, 2]], 7, torch.device("cpu"))[1] is None
    model = planted()
    with torch.no_grad():
        first = int(model(torch.tensor([[256, *b"To"]]))[0, -1].argmax())
    assert generate(model, Tokenizer.bytes(), "To", max_tokens=1, temperature=0)[0].tokens == [first]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan),
    ],
)
def test_an_impossible_option_is_named_with_its_value(option, value):
    with pytest.raises(EarthworksError, match=rf"{option} is {value}"):
        generate(planted(), Tokenizer.bytes(), "a", **{option: value})


@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_end_in_one_sentence(temperature):
    torch.manual_seed(0)
    model = Gopher(GopherConfig.preset("shrew", vocabulary=257, context=16))
    with torch.no_grad():
        model.logit_bias[3] = math.nan
    with pytest.raises(EarthworksError, match="logits are NaN"):
        generate(model, Tokenizer.bytes(), "a", max_tokens=2, temperature=temperature)
