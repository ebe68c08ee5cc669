"""The chunked cross-entropy against the plain one: the same numbers, without the matrix of all logits."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from earthworks.gopher import Gopher, GopherConfig
from earthworks.gopher import loss as loss_module
from earthworks.gopher.loss import cross_entropy, token_losses
from earthworks.runs import EarthworksError


def inputs(n: int, vocabulary: int, d: int, ignored: float = 0.0, seed: int = 0, strength: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, d), (vocabulary, d), (vocabulary,))
    tensors = [strength * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    targets = torch.randint(vocabulary, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < ignored] = -100
    return [tensor.requires_grad_() for tensor in tensors], targets


def plain(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T + bias, targets)


def assert_same(tensors: list[Tensor], targets: Tensor) -> None:
    """In value and in all gradients, scaled as by whatever comes after the loss."""
    ours, theirs = 3 * cross_entropy(*tensors, targets), 3 * plain(*tensors, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for name, actual, expected in zip(
        ("hidden", "weight", "bias"), torch.autograd.grad(ours, tensors), torch.autograd.grad(theirs, tensors)
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.integers(1, 5),
    st.integers(1, 1500),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.integers(0, 1000),
)
@settings(max_examples=80)
def test_any_chunk_size_gives_the_plain_cross_entropy(n, vocabulary, d, elements, ignored, seed):
    tensors, targets = inputs(n, vocabulary, d, ignored, seed)
    if (targets == -100).all():
        targets[0] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "CHUNK_ELEMENTS", elements)
        assert_same(tensors, targets)
        expected = F.cross_entropy(tensors[0] @ tensors[1].T + tensors[2], targets, reduction="none")
        torch.testing.assert_close(token_losses(*tensors, targets), expected.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [1, 6, 7, 8, 21])
def test_chunks_that_end_with_the_tokens_or_just_after_or_before_lose_none(n, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 7 * 11 + 5)  # seven tokens of eleven logits
    assert_same(*inputs(n, 11, 3))


def test_ignored_targets_count_for_nothing_and_nothing_at_all_is_zero():
    tensors, targets = inputs(12, 5, 3)
    targets[::2] = -100
    kept = [tensors[0][1::2], *tensors[1:]]
    assert cross_entropy(*tensors, targets).item() == pytest.approx(plain(*kept, targets[1::2]).item(), rel=1e-12)
    assert (token_losses(*tensors, targets)[::2] == 0).all()
    targets[:] = -100
    loss = cross_entropy(*tensors, targets)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, tensors))


def test_finite_differences_agree_with_the_gradient(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 10)
    tensors, targets = inputs(5, 4, 3, ignored=0.3)
    assert torch.autograd.gradcheck(lambda *x: cross_entropy(*x, targets), tensors)


def test_known_losses():
    """Equal logits cost the logarithm of the vocabulary; a logit higher by log 3 than one rival costs log(4/3)."""
    hidden, weight, bias = torch.zeros(2, 3), torch.zeros(7, 3), torch.zeros(7)
    torch.testing.assert_close(cross_entropy(hidden, weight, bias, torch.tensor([0, 6])), torch.tensor(7.0).log())
    bias = torch.tensor([3.0, 1.0]).log()
    losses = token_losses(torch.zeros(2, 1), torch.zeros(2, 1), bias, torch.tensor([0, 1]))
    torch.testing.assert_close(losses, torch.tensor([4 / 3, 4.0]).log())


def test_huge_logits_neither_overflow_nor_vanish():
    tensors, targets = inputs(9, 6, 4, strength=300.0)
    single = [tensor.detach().float().requires_grad_() for tensor in tensors]
    loss = cross_entropy(*single, targets)
    assert loss.item() == pytest.approx(plain(*tensors, targets).item(), rel=1e-5)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, single))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_no_tensor_of_all_logits_is_ever_made(monkeypatch):
    n, vocabulary, d = 1000, 400, 8
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 25 * vocabulary)
    tensors, targets = inputs(n, vocabulary, d)
    with Largest() as plainly:
        plain(*tensors, targets).backward()
    assert plainly.elements == n * vocabulary  # the probe sees them where they are
    with Largest() as chunked:
        cross_entropy(*tensors, targets).backward()
        token_losses(*(tensor.detach() for tensor in tensors), targets)
    assert chunked.elements == 25 * vocabulary


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_tokens_times_vocabulary():
    kept = []
    tensors, targets = inputs(1000, 400, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        cross_entropy(*tensors, targets)
    assert sum(kept) <= 1000 * 8 + 400 * 8 + 400


def test_a_model_s_loss_never_holds_all_its_logits(monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 16 * 3000)
    model = Gopher(GopherConfig(num_layers=1, num_heads=1, d_head=4, d_model=4, vocabulary=3000, context=64))
    tokens = torch.randint(3000, (8, 64), generator=torch.Generator().manual_seed(0))
    with Largest() as probe:
        model.loss(tokens, tokens).backward()
        model.token_losses(tokens, tokens)
    assert probe.elements <= 16 * 3000 < 8 * 64 * 3000


def test_narrow_products_are_summed_in_float32(monkeypatch):
    """The products in bfloat16, everything after them as if the logits had been given in float32."""
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", 50 * 32)
    (hidden, weight, bias), targets = inputs(400, 50, 16, strength=1.0)
    hidden = hidden.detach().to(torch.bfloat16).requires_grad_()
    weight, bias = (tensor.detach().float().requires_grad_() for tensor in (weight, bias))
    loss = cross_entropy(hidden, weight, bias, targets)
    logits = (hidden @ weight.to(torch.bfloat16).T).float() + bias
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-6)
    exact = torch.autograd.grad(F.cross_entropy(logits, targets), (hidden, weight, bias))
    for actual, expected in zip(torch.autograd.grad(loss, (hidden, weight, bias)), exact):
        assert actual.dtype == expected.dtype
        assert (actual - expected).norm() < 0.01 * expected.norm()


def test_a_second_derivative_is_refused_rather_than_left_out():
    """As of a penalty on the gradient, where it would be lost among the other terms."""
    tensors, targets = inputs(5, 4, 3)
    with pytest.raises(EarthworksError, match="no second derivative"):
        torch.autograd.grad(cross_entropy(*tensors, targets), tensors[:1], create_graph=True)
