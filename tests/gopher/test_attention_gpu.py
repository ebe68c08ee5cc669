"""Every backend on a CUDA device, with a process of its own: `pytest -m gpu tests/gopher/test_attention_gpu.py`."""

import os

import pytest
import torch
from attention_formula import NAMES, formula, inputs

from earthworks.gopher.attention import skewed as attention_skewed
from earthworks.gopher.attention.relative import relative_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("backend", ["math", "skewed", "augmented", "sdpa"])
def test_the_accelerator_agrees_with_the_formula(backend, monkeypatch):
    monkeypatch.setattr(attention_skewed, "BLOCK", 4)
    tensors = inputs(time_q=9, time_k=13)
    there = [x.detach().cuda().requires_grad_() for x in tensors]
    weight = torch.randn(2, 2, 9, 4, dtype=torch.float64)
    actual, expected = relative_attention(*there, backend=backend), formula(*tensors)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-11)
    for ours, theirs in zip(
        torch.autograd.grad(actual, there, weight.cuda()), torch.autograd.grad(expected, tensors, weight)
    ):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the kernel is to be compiled")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", ["augmented", "sdpa", "band"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("d_head", "time_q", "time_k"), [(32, 150, 150), (64, 129, 300), (128, 200, 200), (48, 1, 70)])
def test_kernels_agree_with_the_formula_in_the_precisions_of_training(d_head, time_q, time_k, dtype, backend, masked):
    tensors = [x.detach().cuda() for x in inputs(2, 3, time_q, time_k, d_head, 64, strength=0.25)]
    rounded = [x.to(dtype).requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in rounded]
    options = {}
    if masked:
        options["key_mask"] = torch.rand(2, time_k, device="cuda") < 0.7
        options["key_mask"][0, : time_k // 2] = False
    actual = relative_attention(*rounded, backend=backend, **options)
    expected = relative_attention(*exact, backend="math", **options)
    weight = torch.randn_like(actual)
    ours, theirs = torch.autograd.grad(actual, rounded, weight), torch.autograd.grad(expected, exact, weight.double())
    tolerance = 2**-5 if dtype == torch.bfloat16 else 1e-4
    for name, one, other in zip(("output", *NAMES), (actual, *ours), (expected, *theirs)):
        assert (one.double() - other).norm() < tolerance * other.norm(), name
