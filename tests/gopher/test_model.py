"""The model against its formulas, written out slowly in float64, in values and in the gradient of every parameter."""

import doctest
import math
from collections import defaultdict

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from earthworks.gopher import Cache, Gopher, GopherConfig
from earthworks.gopher import model as model_module
from earthworks.gopher.attention.relative import relative_attention
from earthworks.gopher.model import RMSNorm, rms_norm
from earthworks.runs import EarthworksError
from earthworks.training.optimizer import Optimizer

SMALL = {"num_layers": 2, "num_heads": 2, "d_head": 4, "d_model": 6, "vocabulary": 13, "context": 12}
CASES = {
    "the paper's": {},
    "narrow sinusoid": {"d_position": 4},
    "clamped distances": {"max_distance": 3},
    "untied": {"tied": False},
    "LayerNorm": {"norm": "layer"},
    "absolute positions": {"positions": "absolute"},
    "no positions": {"positions": "none"},
    "GPT-2": {"norm": "layer", "positions": "absolute", "tied": False},
}
variants = pytest.mark.parametrize("change", CASES.values(), ids=CASES)


def planted(change=None, *, scale=20.0, seed=0, **shape) -> Gopher:
    """A float64 model whose parameters are all random and large, so that each of them matters to the result."""
    torch.manual_seed(seed)
    model = Gopher(GopherConfig(**{**SMALL, **shape, **(change or {})})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gain", "norm.weight")):
                parameter.normal_(1.0, 0.3)
            elif "bias" in name:
                parameter.normal_(0.0, 0.5)
            else:
                parameter.normal_(0.0, 0.02 * scale)
    return model


def tokens_of(model: Gopher, batch: int, time: int, seed: int = 1) -> Tensor:
    return torch.randint(model.config.vocabulary, (batch, time), generator=torch.Generator().manual_seed(seed))


# the oracle: one token, one head, one key at a time


def slow_norm(x, weights, name, config):
    if config.norm == "rms":
        return weights[f"{name}.gain"] * x / (sum(x * x) / len(x) + config.norm_epsilon).sqrt()
    centred = x - sum(x) / len(x)
    deviation = (sum(centred * centred) / len(x) + config.norm_epsilon).sqrt()
    return weights[f"{name}.weight"] * centred / deviation + weights[f"{name}.bias"]


def slow_position(distance, config):
    width = config.d_model if config.d_position is None else config.d_position
    if config.max_distance is not None:
        distance = min(distance, config.max_distance)
    angles = [distance / 10000.0 ** (2 * m / width) for m in range(width // 2)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles], dtype=torch.float64)


def slow_attention(rows, weights, name, config):
    """The score term by term: content, content bias, position, position bias."""
    heads, d_head = config.num_heads, config.d_head
    w_q, w_k, w_v = weights[f"{name}.query_key_value.weight"].view(3, heads, d_head, -1)
    out = []
    for i, x in enumerate(rows):
        mixed = []
        for h in range(heads):
            query = w_q[h] @ x
            scores = []
            for j in range(i + 1):
                key = w_k[h] @ rows[j]
                score = query @ key
                if config.positions == "relative":
                    r = weights[f"{name}.position.weight"].view(heads, d_head, -1)[h] @ slow_position(i - j, config)
                    score = score + query @ r
                    score = score + weights[f"{name}.content_bias"][h] @ key
                    score = score + weights[f"{name}.position_bias"][h] @ r
                scores.append(score / math.sqrt(d_head))
            weighed = torch.stack(scores).exp()
            mixed.append(sum(w * (w_v[h] @ rows[j]) for j, w in enumerate(weighed / weighed.sum())))
        out.append(weights[f"{name}.output.weight"] @ torch.cat(mixed) + weights[f"{name}.output.bias"])
    return out


def slow_feedforward(x, weights, name):
    inside = weights[f"{name}.up.weight"] @ x + weights[f"{name}.up.bias"]
    gelu = inside * 0.5 * (1 + torch.erf(inside / math.sqrt(2)))
    return weights[f"{name}.down.weight"] @ gelu + weights[f"{name}.down.bias"]


def slow_logits(model: Gopher, tokens: Tensor) -> Tensor:
    config, weights = model.config, dict(model.named_parameters())
    sequences = []
    for sequence in tokens.tolist():
        rows = [weights["embedding.weight"][token] for token in sequence]
        if config.positions == "absolute":
            rows = [x + weights["positions.weight"][i] for i, x in enumerate(rows)]
        for layer in range(config.num_layers):
            name = f"blocks.{layer}"
            normed = [slow_norm(x, weights, f"{name}.attention_norm", config) for x in rows]
            rows = [x + y for x, y in zip(rows, slow_attention(normed, weights, f"{name}.attention", config))]
            normed = [slow_norm(x, weights, f"{name}.feedforward_norm", config) for x in rows]
            rows = [x + slow_feedforward(y, weights, f"{name}.feedforward") for x, y in zip(rows, normed)]
        final = torch.stack([slow_norm(x, weights, "final_norm", config) for x in rows])
        matrix = weights["embedding.weight" if config.tied else "unembedding.weight"]
        sequences.append(final @ matrix.T + weights["logit_bias"])
    return torch.stack(sequences)


def slow_loss(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.stack([-row[y].log() for row, y in zip(p.flatten(0, 1), targets.flatten()) if y != -100]).mean()


@variants
def test_logits_loss_and_every_gradient_are_those_of_the_formulas(change):
    model = planted(change)
    tokens, targets = tokens_of(model, 2, 7), tokens_of(model, 2, 7, seed=2)
    targets[0, 3] = -100
    logits = slow_logits(model, tokens)
    loss = slow_loss(logits, targets)
    assert logits.std() > 0.5  # planted: a model that says nothing would agree with everything
    torch.testing.assert_close(model(tokens), logits.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.loss(tokens, targets), loss, rtol=1e-11, atol=1e-11)
    names, parameters = zip(*model.named_parameters())
    ours = torch.autograd.grad(model.loss(tokens, targets), parameters)
    theirs = torch.autograd.grad(loss, parameters)
    for name, actual, expected in zip(names, ours, theirs):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
        assert expected.abs().max() > 1e-6, f"{name} does not matter here"


def test_finite_differences_of_the_loss_agree_with_the_gradient_of_each_parameter():
    model = planted()
    tokens, targets = tokens_of(model, 2, 9), tokens_of(model, 2, 9, seed=2)
    model.loss(tokens, targets).backward()
    generator, step = torch.Generator().manual_seed(3), 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                losses.append(float(model.loss(tokens, targets)))
                parameter.add_(direction, alpha=-sign * step)
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("change", [{}, {"max_distance": 3}, {"positions": "absolute"}, {"norm": "layer"}])
def test_float32_is_close_to_the_formula(change):
    model = planted(change, num_layers=3, d_head=8, d_model=16, scale=10)
    tokens = tokens_of(model, 1, 12)
    expected = slow_logits(model, tokens)
    actual = model.float()(tokens)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-4)


@variants
def test_a_token_changes_no_logit_before_it_and_some_after_it(change):
    model = planted(change)
    tokens = tokens_of(model, 2, 12)
    before = model(tokens)
    for t in range(12):
        changed = tokens.clone()
        changed[:, t] = (changed[:, t] + 1) % model.config.vocabulary
        after = model(changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-6)
        assert ((after[:, t:] - before[:, t:]).abs().amax((0, 2)) > 1e-3).all()


def test_order_matters_exactly_where_the_model_knows_positions():
    """With one layer and no positions the tokens before the last are a bag: only the last logits can tell."""
    for change, differs in (({}, True), ({"positions": "absolute"}, True), ({"positions": "none"}, False)):
        model = planted(change, num_layers=1)
        tokens = torch.tensor([[1, 2, 3, 4, 5, 6], [5, 3, 2, 1, 4, 6]])
        first, second = model(tokens)[:, -1]
        assert ((first - second).abs().max() > 0.1) == differs


def test_relative_positions_do_not_know_where_the_text_starts():
    """What precedes is cut away by a mask: the same tokens three places later give the same logits."""
    model = planted()
    tokens = tokens_of(model, 1, 8)
    mask = torch.ones(1, 11, dtype=torch.bool)
    mask[:, :3] = False
    padded = torch.cat([torch.full((1, 3), 7), tokens], 1)
    cache = Cache(model.config, mask)
    torch.testing.assert_close(model(padded, cache=cache)[:, 3:], model(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [1, 3, 9])
def test_the_last_logits_are_the_end_of_all_logits(last):
    model = planted()
    tokens = tokens_of(model, 2, 9)
    torch.testing.assert_close(model(tokens, last=last), model(tokens)[:, -last:], rtol=0, atol=1e-6)


def test_absolute_positions_end_at_the_context_and_say_so():
    model = planted({"positions": "absolute"})
    model(tokens_of(model, 1, 12))
    with pytest.raises(EarthworksError, match="context of 12"):
        model(tokens_of(model, 1, 13))
    relative = planted()
    tokens = tokens_of(relative, 1, 15)  # 12 were trained on
    torch.testing.assert_close(relative(tokens), slow_logits(relative, tokens).float(), rtol=1e-5, atol=1e-5)


def test_token_losses_are_the_loss_of_each_token():
    model = planted()
    tokens, targets = tokens_of(model, 2, 7), tokens_of(model, 2, 7, seed=2)
    log_p = slow_logits(model, tokens).log_softmax(-1)
    losses = model.token_losses(tokens, targets)
    torch.testing.assert_close(losses, -log_p.gather(-1, targets[..., None])[..., 0].float(), rtol=1e-5, atol=1e-5)
    assert float(losses.double().mean()) == pytest.approx(model.loss(tokens, targets).item(), rel=1e-6)


# RMSNorm


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(model_module)
    assert result.attempted >= 3
    assert result.failed == 0


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_rms_norm_is_its_formula_in_value_and_gradient(shape, epsilon):
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    gain = torch.randn(shape[-1], generator=generator, dtype=torch.float64).requires_grad_()
    y = rms_norm(x, gain, epsilon)
    torch.testing.assert_close(y, gain * x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt(), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda x, g: rms_norm(x, g, epsilon), (x, gain))


def test_rms_norm_does_not_depend_on_the_memory_layout_of_input_and_gradient():
    generator = torch.Generator().manual_seed(0)
    stored, weight = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    gain = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    x = stored.transpose(0, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, g: rms_norm(x, g, 1e-6).transpose(0, 1) * weight, (x, gain))


def test_a_second_derivative_of_rms_norm_is_refused_rather_than_wrong():
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(EarthworksError, match="no second derivative"):
        torch.autograd.grad(rms_norm(x, torch.ones(3), 1e-6).sum(), x, create_graph=True)


def test_rms_norm_of_nothing_is_nothing_with_a_finite_slope():
    x = torch.zeros(2, 4, requires_grad=True)
    y = rms_norm(x, torch.full((4,), 3.0), 1e-4)
    y.sum().backward()
    assert (y == 0).all()
    torch.testing.assert_close(x.grad, torch.full((2, 4), 3.0 / 1e-2))


def test_rms_norm_takes_its_statistics_in_float32_and_gives_back_the_dtype_it_got():
    generator = torch.Generator().manual_seed(0)
    x = (40 * torch.randn(64, 512, generator=generator)).to(torch.bfloat16).requires_grad_()
    gain = (1 + torch.randn(512, generator=generator)).requires_grad_()
    y = rms_norm(x, gain, 1e-6)
    exact = gain.double() * x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=0)  # one rounding to 8 bits and no more
    weight = torch.randn(64, 512, generator=generator).to(torch.bfloat16)
    ours = torch.autograd.grad(y, (x, gain), weight)
    theirs = torch.autograd.grad(exact, (x, gain), weight.double())
    assert [g.dtype for g in ours] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(ours[0].double(), theirs[0].double(), rtol=2**-7, atol=1e-4)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)


def test_the_model_s_norms_read_epsilon_and_gain_from_the_configuration():
    model = Gopher(GopherConfig(**SMALL, norm_epsilon=0.25))
    norms = [module for module in model.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 2 * SMALL["num_layers"] + 1
    for norm in norms:
        torch.testing.assert_close(norm(torch.zeros(6) + 0.5), torch.full((6,), 0.5 / math.sqrt(0.25 + 0.25)))


# number formats


class Dtypes(TorchDispatchMode):
    """The dtypes that each operation gave."""

    def __init__(self):
        super().__init__()
        self.seen = defaultdict(set)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.seen[function.overloadpacket.__name__].add(result.dtype)
        return result


@pytest.mark.parametrize("time", [1, 40, 300])
def test_under_bf16_products_are_narrow_and_logits_and_loss_are_float32(time):
    model = planted(scale=3, d_model=16, d_head=8, vocabulary=50).float()
    tokens, targets = tokens_of(model, 2, time), tokens_of(model, 2, time, seed=2)
    with torch.autocast("cpu", torch.bfloat16), Dtypes() as operations:
        logits = model(tokens)
        loss = model.loss(tokens, targets)
    with Dtypes() as backward:
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    assert logits.dtype == loss.dtype == torch.float32
    assert operations.seen["_log_softmax"] == {torch.float32}
    names = ("mm", "addmm", "bmm", "baddbmm", "linear")
    products = set().union(*(each.seen[name] for each in (operations, backward) for name in names))
    assert products == {torch.bfloat16}  # the logits' too
    expected, expected_loss = model(tokens), model.loss(tokens, targets)
    assert 1e-5 < (logits - expected).abs().max() < 0.1 * expected.abs().max()
    assert loss.item() == pytest.approx(expected_loss.item(), rel=0.02)
    for name, parameter in model.named_parameters():
        ours, theirs = (torch.autograd.grad(x, parameter, retain_graph=True)[0] for x in (loss, expected_loss))
        assert ours.dtype == torch.float32
        if theirs.norm() > 1e-3:
            assert (ours - theirs).norm() < 0.1 * theirs.norm(), name


@pytest.mark.parametrize("time", [200, 1000])  # probabilities kept, and computed again
def test_the_sums_of_attentions_softmax_are_not_bf16(time):
    """Equal logits: 1,000 probabilities of 1/1,000. Summed in bf16, 1,000 ones are 256."""
    q, v = torch.zeros(1, 1, time, 8, dtype=torch.bfloat16), torch.ones(1, 1, time, 8, dtype=torch.bfloat16)
    bias, w_r = torch.zeros(1, 8), torch.zeros(1, 8, 8)
    y = relative_attention(q, q, v, w_r, bias, bias)
    torch.testing.assert_close(y.float(), torch.ones(1, 1, time, 8), rtol=0, atol=2**-7)


# initialisation


@pytest.mark.parametrize("change", [{}, {"positions": "absolute", "tied": False, "norm": "layer"}])
def test_fresh_weights_are_as_the_docstring_says(change):
    torch.manual_seed(0)
    config = GopherConfig(num_layers=3, num_heads=4, d_head=32, d_model=96, vocabulary=300, context=200, **change)
    model = Gopher(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("gain", "norm.weight")):
            assert (parameter == 1).all(), name
        elif "bias" in name:
            assert (parameter == 0).all(), name
        else:
            residual = name.endswith(("output.weight", "down.weight"))
            std = 0.02 / math.sqrt(2 * 3) if residual else 0.02
            n = parameter.numel()
            five_sigma = 5 / math.sqrt(n)
            z = parameter.detach().double() / std
            assert abs(float(z.mean())) < five_sigma, name
            assert float(z.square().mean()) == pytest.approx(1, abs=five_sigma * math.sqrt(2)), name
            assert float((z.abs() > 2).double().mean()) == pytest.approx(0.0455, abs=five_sigma * 0.21), name


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_muon_takes_the_matrices_of_the_blocks_and_no_table_or_vector(change):
    """An embedding's rows are looked up one by one: to orthogonalise their update would mix tokens, or positions."""
    model = Gopher(GopherConfig(**{**SMALL, **change}))
    muon, adam = Optimizer("muon", model.named_parameters(), learning_rate=1.0).parts
    names = {parameter: name for name, parameter in model.named_parameters()}
    taken = {names[p] for group in muon.param_groups for p in group["params"]}
    assert taken == {
        name
        for name in names.values()
        if name.endswith(("query_key_value.weight", "output.weight", "position.weight", "up.weight", "down.weight"))
    }
    assert taken | {names[p] for group in adam.param_groups for p in group["params"]} == set(names.values())


def test_the_seed_decides_the_weights():
    weights = [planted(seed=seed).state_dict() for seed in (0, 0, 1)]
    first, again, other = (torch.cat([w.flatten() for w in each.values()]) for each in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(Gopher(GopherConfig(**SMALL)))
    assert torch.equal(models[0].embedding.weight, models[1].embedding.weight)
    models[0].initialise()
    assert not torch.equal(models[0].embedding.weight, models[1].embedding.weight)


def test_a_fresh_model_is_as_uncertain_as_the_vocabulary():
    torch.manual_seed(0)
    model = Gopher(GopherConfig.preset("shrew", vocabulary=257, context=64))
    tokens = tokens_of(model, 4, 64)
    with torch.no_grad():
        assert float(model.loss(tokens[:, :-1], tokens[:, 1:])) == pytest.approx(math.log(257), rel=0.01)
