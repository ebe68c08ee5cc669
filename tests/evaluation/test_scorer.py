"""Likelihoods, compared with one row at a time without sharing, and with closed forms."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from known_models import Memory, Uniform

from earthworks.evaluation.likelihood.scorer import Encoded, Scorer, alike, batches, cut
from earthworks.gopher import Cache, Gopher, GopherConfig
from earthworks.gopher.generation import left_pad
from earthworks.runs import EarthworksError

DRAW = random.Random(1)
QUESTIONS = ["".join(DRAW.choices("abc ", k=DRAW.randint(1, 50))).strip() + "?" for _ in range(12)]
PAIRS = [
    (question, " " + "".join(DRAW.choices("abc", k=DRAW.randint(1, 20)))) for question in QUESTIONS for _ in range(4)
]
PAIRS += [
    ("", "no context"),
    ("shots " * 5 + "one", " a"),
    ("shots " * 5 + "two", " b"),
    ("x" * 300, " long"),
    ("ends ", "in space"),
]


def one_row(model: Gopher, context: str, continuation: str, window: int) -> float:
    """The definition: one unpadded row, everything read, the last tokens scored."""
    ids = [256, *(context + continuation).encode()]
    count = len(continuation.encode()) + (len(context) - len(context.rstrip()))
    ids = ids[-(window + 1) :]
    with torch.no_grad():
        log_p = model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
    return sum(log_p[i - 1, ids[i]].item() for i in range(len(ids) - count, len(ids)))


@pytest.mark.parametrize("positions", ["relative", "absolute"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_sharing_and_batching_change_no_likelihood(alphabet, positions, batch):
    torch.manual_seed(0)
    model = Gopher(GopherConfig.preset("shrew", vocabulary=257, context=128, positions=positions))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    found = [each.log_likelihood for each in Scorer(model, alphabet, batch=batch).score(PAIRS)]
    wanted = [one_row(model, *pair, 128) for pair in PAIRS]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_callable_gives_what_the_model_inside_it_gives(gopher, alphabet):
    inside = Scorer(gopher, alphabet).score(PAIRS)
    outside = Scorer(lambda tokens: gopher(tokens), alphabet, window=128).score(PAIRS)
    np.testing.assert_allclose([a.log_likelihood for a in inside], [b.log_likelihood for b in outside], atol=1e-4)
    assert [a[1:] for a in inside] == [b[1:] for b in outside]


def test_padding_on_the_left_gives_the_same(gopher, alphabet):
    """With the masked cache of generation, an independent way to read rows of unequal length."""
    pairs = PAIRS[:8]
    rows = [[256, *(context + continuation).encode()] for context, continuation in pairs]
    tokens, mask = left_pad([row[:-1] for row in rows], 0, torch.device("cpu"))
    with torch.no_grad():
        log_p = gopher(tokens, cache=Cache(gopher.config, mask)).log_softmax(-1)
    counts = [len(continuation) for _, continuation in pairs]
    wanted = [
        sum(log_p[i, -count + j, row[len(row) - count + j]].item() for j in range(count))
        for i, (row, count) in enumerate(zip(rows, counts))
    ]
    np.testing.assert_allclose(
        [each.log_likelihood for each in Scorer(gopher, alphabet).score(pairs)], wanted, atol=1e-4
    )


def test_every_token_of_a_uniform_model_costs_log_v(alphabet):
    scorer = Scorer(Uniform(), alphabet)
    for (_, continuation), found in zip(PAIRS[:-1], scorer.score(PAIRS[:-1])):
        assert found.log_likelihood == pytest.approx(-len(continuation) * math.log(257), rel=1e-6)
    text = "x" * 1000
    assert -sum(each.log_likelihood for each in scorer.roll([text])[0]) / 1000 == pytest.approx(math.log(257), rel=1e-6)


def test_equal_options_tie_to_the_last_bit(alphabet):
    pairs = [("a" * n, f" {letter}{'b' * 7}") for n in range(30) for letter in "xyz"]
    assert len({each.log_likelihood for each in Scorer(Uniform(), alphabet).score(pairs)}) == 1


def test_greedy_is_said_of_the_likeliest_continuation_alone(alphabet):
    scorer = Scorer(Memory(["2 + 2 = 4"]), alphabet, window=64)
    right, wrong = scorer.score([("2 + 2 =", " 4"), ("2 + 2 =", " 5")])
    assert right.greedy
    assert not wrong.greedy
    assert right.log_likelihood == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 12))
def test_windows_score_every_token_of_a_continuation_once(context, scored, window):
    sequence = np.arange(1 + context + scored)
    parts = cut(Encoded(sequence, scored), window)
    targets = np.concatenate([part.sequence[len(part.sequence) - part.scored :] for part in parts])
    assert targets.tolist() == sequence[-scored:].tolist()
    assert all(part.scored < len(part.sequence) <= window + 1 for part in parts)


def test_a_text_is_scored_token_by_token_once(gopher, alphabet):
    text = "earth " * 100
    parts = Scorer(gopher, alphabet).roll([text])[0]
    assert sum(part.tokens for part in parts) == len(text)
    ids = [256, *text.encode()]
    wanted = 0.0
    for start in range(0, len(text), 128):
        end = min(start + 128, len(text))
        row = ids[max(0, end - 128) : end + 1]
        with torch.no_grad():
            log_p = gopher(torch.tensor([row[:-1]])).log_softmax(-1)[0]
        wanted += sum(log_p[i - 1, row[i]].item() for i in range(len(row) - (end - start), len(row)))
    assert sum(part.log_likelihood for part in parts) == pytest.approx(wanted, abs=1e-3)


def test_a_prompt_longer_than_the_window_loses_its_beginning_and_says_so(gopher, alphabet):
    long, short = Scorer(gopher, alphabet).score([("z" * 300 + "q" * 122, " answer"), ("q", " answer")])
    assert long.truncated == 1 + 300 + 122 + 7 - 1 - 128
    assert short.truncated == 0
    other = Scorer(gopher, alphabet).score([("y" * 300 + "q" * 122, " answer")])[0]
    assert other.log_likelihood == pytest.approx(long.log_likelihood, abs=1e-4)  # what was cut off does not matter


class Joining:
    """Bytes, but "ab" is one token: 255."""

    end_of_document = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode().replace(b"ab", b"\xff"), np.uint8).astype(np.int64)


def test_a_token_across_the_boundary_is_reported():
    whole, across, swallowed = Scorer(Uniform(), Joining()).score([("xa", "cb"), ("xa", "bb"), ("xa", "b")])
    assert not whole.split
    assert across.split
    assert swallowed.split
    assert math.isnan(swallowed.log_likelihood)  # no token is the continuation's own
    assert swallowed.tokens == 0


def test_nan_stays_nan_and_does_not_spread(alphabet):
    def model(tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 257)
        logits[(tokens == ord("!")).any(1)] = float("nan")
        return logits

    bad, good = Scorer(model, alphabet, window=64).score([("what!", " a"), ("what", " a")])
    assert math.isnan(bad.log_likelihood)
    assert not math.isnan(good.log_likelihood)


def test_a_model_in_training_stays_in_training(gopher, alphabet):
    gopher.train()
    Scorer(gopher, alphabet).score(PAIRS[:2])
    assert gopher.training


def test_what_options_share_is_read_once(gopher, alphabet):
    scorer = Scorer(gopher, alphabet)
    seen = []
    for name in ("read", "remember", "resume"):
        method = getattr(scorer.reader, name)
        setattr(scorer.reader, name, lambda tokens, *more, m=method: (seen.append(tokens.size), m(tokens, *more))[1])
    scorer.score([("q" * 60, f" {letter}bc") for letter in "wxyz"])
    assert sum(seen) == 62 + 4 * 2  # </s>, the question, a space; then two more inputs for each option
    seen.clear()
    scorer.score([("q" * 60, f" {letter}") for letter in "wxyz"])
    assert sum(seen) == 62  # options of one token need the question alone


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 8), st.integers(0, 10))
def test_batches_hold_every_row_once_in_order(lengths, most, pass_cost):
    lengths = sorted(lengths)
    found = batches(lengths, most, pass_cost)
    assert [row for part in found for row in part] == list(range(len(lengths)))
    assert all(len(part) <= most for part in found)
    runs = [(2 * i, 2 * i + 2, length) for i, length in enumerate(lengths)]
    groups = alike(runs, most, pass_cost)
    assert [run for group in groups for run in group] == runs
    for group in groups:
        assert sum(prefix - group[0][2] for _, _, prefix in group) <= 2 * pass_cost


def test_a_window_beyond_learned_positions_is_refused(alphabet):
    model = Gopher(GopherConfig.preset("shrew", vocabulary=257, context=32, positions="absolute"))
    with pytest.raises(EarthworksError, match="32 positions"):
        Scorer(model, alphabet, window=33)
    with pytest.raises(EarthworksError, match="window"):
        Scorer(lambda tokens: tokens, alphabet)
