"""The compiled form of a model against the model itself, with weights as they are, rounded to bfloat16, and in int8."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from earthworks.corpus import Tokenizer
from earthworks.gopher import Cache, Gopher, GopherConfig, generate, generation
from earthworks.gopher.decoding import decoder as decoding
from earthworks.gopher.decoding.decoder import Decoder
from earthworks.gopher.decoding.stored_weights import quantise
from earthworks.gopher.generation import left_pad, prefill, token_distribution
from earthworks.gopher.kernels.arithmetic import exponential, gelu
from earthworks.runs import EarthworksError

CASES = {
    "relative": {},
    "relative, clamped": {"max_distance": 5},
    "relative, narrow": {"d_position": 6},
    "heads wider than the model": {"num_heads": 3, "d_head": 10},
    "absolute": {"positions": "absolute", "context": 90},
    "no positions": {"positions": "none"},
    "LayerNorm": {"norm": "layer", "tied": False},
}
variants = pytest.mark.parametrize("change", CASES.values(), ids=CASES)
RAGGED = [list(range(5, 5 + length)) for length in (9, 4, 1, 30, 17)]
EVEN = [list(range(start, start + 6)) for start in (3, 50, 97)]


@pytest.fixture(autouse=True)
def compiled_and_own_threads(monkeypatch):
    """Short answers are written compiled too; threads that these tests set, others of the same process must not see."""
    monkeypatch.setattr(generation, "WORTH_COMPILING", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def planted(change=None, vocabulary: int = 257) -> Gopher:
    """Weights so large that every earlier token and every position decides about the next one."""
    torch.manual_seed(0)
    config = {"num_layers": 2, "num_heads": 2, "d_head": 8, "d_model": 16, "vocabulary": vocabulary, "context": 16}
    model = Gopher(GopherConfig(**{**config, **(change or {})})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith(("gain", "norm.weight")) else 0.0, 0.4)
    return model


def written(model: Gopher, prompts: list[list[int]], num_tokens: int, stored: str = "fp32") -> tuple[Tensor, Tensor]:
    """Tokens (rows, num_tokens) and the logits that the decoder gave after each, (rows, num_tokens, vocabulary)."""
    tokens = torch.randint(257, (len(prompts), num_tokens), generator=torch.Generator().manual_seed(1))
    padded, mask = left_pad(prompts, 256, torch.device("cpu"))
    cache = Cache(model.config, mask)
    with torch.no_grad():
        prefill(model, padded, cache)
    with Decoder(model, stored, cache, len(prompts), padded.shape[1] + num_tokens) as decoder:  # pyright: ignore
        return tokens, torch.stack([decoder.step(tokens[:, i]).clone() for i in range(num_tokens)], 1)


def afresh(model: Gopher, prompts: list[list[int]], tokens: Tensor) -> Tensor:
    """The same logits, each row alone and read at once, in float64."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        rows = [exact(torch.tensor([prompt + new.tolist()]))[0, len(prompt) :] for prompt, new in zip(prompts, tokens)]
    return torch.stack(rows).float()


def with_matrices(model: Gopher, change) -> Gopher:
    """A float32 model with every matrix that a decoder stores changed: not the embedding that tokens are looked up in."""
    other = Gopher(model.config.with_(tied=False)).eval()
    other.load_state_dict({**model.state_dict(), "unembedding.weight": model.output_weight})
    with torch.no_grad():
        for name, module in other.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith("attention.position"):
                module.weight.copy_(change(module.weight))
    return other


def from_int8(weight: Tensor) -> Tensor:
    q, scale = quantise(weight)
    return q.float() * scale[:, None]


@pytest.mark.parametrize("prompts", [RAGGED, EVEN, EVEN[:1]], ids=["ragged", "even", "one row"])
@variants
def test_steps_give_the_logits_of_reading_everything_again(change, prompts, monkeypatch):
    """Past the 16 tokens trained on, through several growths of the memory, on three threads."""
    monkeypatch.setattr(decoding, "FIRST_SLOTS", 8)
    torch.set_num_threads(3)
    model = planted(change)
    tokens, logits = written(model, prompts, 40)
    expected = afresh(model, prompts, tokens)
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


ROUNDED = {"bf16": lambda weight: weight.bfloat16().float(), "int8": from_int8}


@pytest.mark.parametrize("stored", ROUNDED)
@variants
def test_stored_weights_are_a_model_with_those_weights_and_nothing_else_is_rounded(change, stored):
    """The prompt is read by the model with rounded weights, the rest by a decoder of the model itself."""
    model = planted(change)
    with torch.no_grad():
        rounded = with_matrices(model, ROUNDED[stored])
    tokens = torch.randint(257, (2, 20), generator=torch.Generator().manual_seed(1))
    cache = Cache(model.config)
    with torch.no_grad():
        prefill(rounded, tokens[:, :1], cache)
    with Decoder(model, stored, cache, 2, 20) as decoder:  # pyright: ignore
        logits = torch.stack([decoder.step(tokens[:, i]).clone() for i in range(1, 20)], 1)
    expected = afresh(rounded, tokens[:, :1].tolist(), tokens[:, 1:])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert (expected - afresh(model, tokens[:, :1].tolist(), tokens[:, 1:])).abs().max() > 1e-3  # it was rounded


@pytest.mark.parametrize("stored", ["fp32", "bf16", "int8"])
def test_the_number_of_threads_does_not_change_a_bit(stored):
    model, results = planted(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(written(model, EVEN, 12, stored)[1])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("stored", ["fp32", "bf16", "int8"])
def test_a_row_is_written_as_if_it_were_alone_to_the_bit(stored):
    """Eleven rows of one token each, so eight, two and one at once, and each of them by itself."""
    model = planted()
    tokens = torch.randint(257, (11, 12), generator=torch.Generator().manual_seed(1))

    def logits(rows: Tensor) -> Tensor:
        with Decoder(model, stored, Cache(model.config), len(rows), 12) as decoder:
            return torch.stack([decoder.step(rows[:, i]).clone() for i in range(12)], 1)

    together = logits(tokens)
    for row in (0, 5, 9, 10):
        assert torch.equal(logits(tokens[row : row + 1])[0], together[row])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_changed_weights_are_the_ones_that_the_next_answer_is_written_with(precision):
    model, tokenizer = planted(), Tokenizer.bytes()
    first = generate(model, tokenizer, "To be", max_tokens=20, temperature=0, precision=precision)
    weight = model.blocks[1].feedforward.down.weight.data  # pyright: ignore
    kept = weight.clone()
    weight.mul_(-1)  # through .data: no counter of torch notices
    second = generate(model, tokenizer, "To be", max_tokens=20, temperature=0, precision=precision)
    weight.copy_(kept)
    assert first != second
    assert generate(model, tokenizer, "To be", max_tokens=20, temperature=0, precision=precision) == first


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": 3}])
def test_a_seed_writes_the_text_that_the_model_itself_writes(sampling, monkeypatch):
    model, tokenizer = planted(), Tokenizer.bytes()
    prompts = ["To be", "", "a question of much greater length than"]
    fast = generate(model, tokenizer, prompts, max_tokens=40, precision="fp32", **sampling)

    def plain(model, cache, stored, rows, most, compiled):
        return generation.ModelSteps(model, cache, stored)

    monkeypatch.setattr(generation, "make_decoder", plain)
    assert generate(model, tokenizer, prompts, max_tokens=40, precision="fp32", **sampling) == fast


def test_threads_go_home_when_an_answer_is_broken_off():
    import threading

    torch.set_num_threads(3)
    before = threading.active_count()

    def break_off(row: int, piece: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(planted(), Tokenizer.bytes(), "To be", max_tokens=20, precision="fp32", stream=break_off)
    assert threading.active_count() == before


def test_precision_is_named_when_it_cannot_be_had():
    with pytest.raises(EarthworksError, match=r"precision is 'fp8'.*int8"):
        generate(planted(), Tokenizer.bytes(), "a", precision="fp8")  # pyright: ignore
    with pytest.raises(EarthworksError, match="int8 needs float32 weights on the CPU, but these are "):
        generate(planted().double(), Tokenizer.bytes(), "a", precision="int8")
    with pytest.raises(EarthworksError, match=r"bf16 needs float32 weights, but these are .* on cpu: use auto"):
        generate(planted().double(), Tokenizer.bytes(), "a", precision="bf16")


# functions without a call


def test_exponential_and_gelu_are_the_exact_ones_to_float32():
    for x in np.concatenate([np.linspace(-30, 0, 700), [-1e-30, -87.0]]).astype(np.float32):
        assert exponential(x) == pytest.approx(math.exp(x), rel=4e-7)
    assert exponential(np.float32(-200)) < 1e-37
    for x in np.linspace(-9, 9, 900).astype(np.float32):
        exact = float(x) * math.erfc(-float(x) / math.sqrt(2)) / 2
        assert gelu(x) == pytest.approx(exact, rel=5e-7, abs=3e-7 * max(1.0, abs(float(x))))
    assert math.isnan(gelu(np.float32(math.nan)))


# the distribution without a full sort


@given(
    st.integers(0, 3),
    st.sampled_from([None, 1, 5, 127, 128, 129, 900]),
    st.sampled_from([None, 0.01, 0.5, 0.97, 0.9999]),
)
@settings(max_examples=60, deadline=None)
def test_leaving_the_unlikely_unsorted_changes_nothing(kind, top_k, top_p):
    """Among 3,000 tokens: peaked, flat, many equal ones, all equal ones."""
    random = torch.Generator().manual_seed(kind)
    logits = torch.randn(3000, generator=random) * [6.0, 0.1, 1.0, 0.0][kind]
    if kind == 2:
        logits = logits.mul(3).round().div(3)
    p = torch.softmax(logits.double(), -1)
    ranked, order = p.sort(descending=True, stable=True)
    kept = ranked.clone()
    kept[top_k or 3000 :] = 0
    if top_p is not None:
        kept /= kept.sum()
        kept[kept.cumsum(0) - kept >= top_p * (1 - 1e-10)] = 0
    expected = torch.zeros(3000, dtype=torch.float64).scatter(0, order, kept / kept.sum())
    torch.testing.assert_close(token_distribution(logits, 1.0, top_k, top_p), expected, rtol=1e-9, atol=0)
