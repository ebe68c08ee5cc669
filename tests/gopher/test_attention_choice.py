"""Which backend computes an attention: `auto`, and what a backend says that was asked for where it cannot work."""

import re
from dataclasses import replace

import pytest
import torch
from attention_formula import formula, inputs

from earthworks.gopher.attention import choice as attention_choice
from earthworks.gopher.attention.choice import Case, choose, obstacle
from earthworks.gopher.attention.relative import relative_attention
from earthworks.runs import EarthworksError

WIDE = Case("cuda", torch.bfloat16, 2048, 2048, 128, 2048, None)


@pytest.mark.parametrize(
    ("backend", "change", "message"),
    [
        ("augmented", {"d_position": None}, "needs w_r.*use backend='skewed'"),
        (
            "augmented",
            {"max_distance": 2046, "d_position": 64},
            "cannot clamp distances, here at 2046: use backend='skewed'",
        ),
        ("augmented", {}, "2176 features.*at most 256.*backend='band'.*d_position of at most 128"),
        ("tiled", {}, "tensors are on cuda: use backend='skewed'"),
        ("tiled", {"device": "cpu", "dtype": torch.float64}, "was given float64: use backend='skewed'"),
        ("band", {"device": "cpu"}, "CUDA kernel and the tensors are on cpu: use backend='skewed'.*TRITON_INTERPRET=1"),
        ("band", {"device": "mps"}, "on mps: use backend='skewed'"),
        ("band", {"dtype": torch.float64}, "float64: use backend='skewed'"),
        ("band", {"d_head": 256}, "at most 128 features and d_head is 256: use backend='sdpa'"),
    ],
)
def test_a_backend_asked_for_where_it_cannot_work_says_which_can(backend, change, message, monkeypatch):
    monkeypatch.setattr(attention_choice, "has_bfloat16", lambda: True)
    monkeypatch.setattr(attention_choice, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    case = replace(WIDE, **change)
    reason = obstacle(backend, case)
    assert reason is not None
    assert re.search(message, reason)
    promised = re.findall("backend='([a-z]+)'", reason)
    assert promised
    assert all(obstacle(other, case) is None for other in promised)  # and those can


def test_a_gpu_without_bfloat16_and_a_machine_without_triton_are_told_what_works(monkeypatch):
    monkeypatch.setattr(attention_choice, "has_bfloat16", lambda: False)
    monkeypatch.setattr(attention_choice, "has_triton", lambda: False)
    for backend in ("augmented", "sdpa", "band"):
        assert re.search("bfloat16.*--precision fp32.*backend='skewed'", obstacle(backend, WIDE) or "")
    assert re.search("pip install triton.*backend='skewed'", obstacle("band", replace(WIDE, dtype=torch.float32)) or "")
    assert choose(WIDE) == "skewed"


@pytest.mark.parametrize(
    ("change", "backend"),
    [
        ({}, "skewed"),
        ({"d_position": 128}, "augmented"),
        ({"d_position": 128, "max_distance": 100}, "skewed"),
        ({"d_position": 128, "max_distance": 5000}, "augmented"),
        ({"d_head": 192}, "skewed"),
        ({"time_q": 1}, "math"),
        ({"device": "cpu"}, "tiled"),
        ({"device": "cpu", "dtype": torch.float32}, "tiled"),
        ({"device": "cpu", "dtype": torch.float64}, "skewed"),
        ({"device": "cpu", "time_q": 127, "time_k": 127}, "skewed"),
        ({"device": "cpu", "time_q": 1}, "math"),
        ({"device": "mps"}, "skewed"),
    ],
)
def test_auto_takes_the_first_of_the_table_that_can(change, backend, monkeypatch):
    monkeypatch.setattr(attention_choice, "has_bfloat16", lambda: True)
    monkeypatch.setattr(attention_choice, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choose(replace(WIDE, **change)) == backend


def test_what_torch_compiles_is_not_tiled(monkeypatch):
    case = Case("cpu", torch.float32, 2048, 2048, 128, 2048, None)
    assert choose(case) == "tiled"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose(case) == "skewed"


def test_an_obstacle_is_raised_when_asked_for_and_skipped_by_auto(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tensors = inputs()
    for backend in ("band", "augmented"):
        with pytest.raises(EarthworksError, match=f"'{backend}'"):
            relative_attention(*tensors, backend=backend, max_distance=3)
    torch.testing.assert_close(relative_attention(*tensors, max_distance=3), formula(*tensors, max_distance=3))
