"""The loop of Algorithm 1, the settings of the papers, the average of the weights, and skipped harmful steps."""

import math

import pytest
import torch
from tiny_gans import ANT, few_images, make, settled, task, weights

from earthworks.runs import EarthworksError, RunFolder, read_metrics
from earthworks.training import checkpoint
from earthworks.wgan.budget import settle
from earthworks.wgan.data.datasets import Dataset, load_dataset
from earthworks.wgan.task import AVERAGE_WARMUP, Adversarial

pytestmark = pytest.mark.usefixtures("undrawn")


def images(channels: int = 1, side: int = 28) -> Dataset:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, channels, side, side), dtype=torch.uint8, generator=random)
    return Dataset("images", pixels[:72], pixels[72:])


# the loop


@pytest.mark.parametrize("critic_steps", [1, 3])
def test_one_step_is_so_many_critic_steps_on_batches_of_their_own_and_one_of_the_generator(critic_steps):
    training = task(critic_steps=critic_steps)
    calls: list[object] = []
    critic_step, generator_step = training.critic_step, training.generator_step
    training.critic_step = lambda number, *rest: calls.append(number) or critic_step(number, *rest)
    training.generator_step = lambda *rest: calls.append("generator") or generator_step(*rest)
    for step in range(3):
        training.update(step)
    expected: list[object] = []
    for step in range(3):
        expected += [*range(step * critic_steps, (step + 1) * critic_steps), "generator"]
    assert calls == expected
    assert training.images_seen == 3 * critic_steps * 16


def test_the_average_is_the_moving_average_of_the_weights_with_a_decay_that_grows_to_its_own():
    training = task(average=0.5)
    average = weights(training.generator)
    for step in range(12):
        training.update(step)
        decay = min(0.5, (1 + step) / (AVERAGE_WARMUP + step))
        average = decay * average + (1 - decay) * weights(training.generator)
        assert torch.allclose(weights(training.average), average, atol=1e-6)
    assert (1 + 11) / (AVERAGE_WARMUP + 11) > 0.5  # the last steps were at the decay asked for
    assert not torch.allclose(weights(training.generator), average, atol=1e-4)


def test_statistics_of_batch_normalization_are_taken_over_not_averaged():
    training = task(images(3), network="dcgan", width=4, objective="gp")
    training.update(0)
    for average, buffer in zip(training.average.buffers(), training.generator.buffers()):
        assert torch.equal(average, buffer)


def test_the_rates_are_held_and_then_fall_linearly_to_a_hundredth_at_the_horizon(tmp_path):
    records = read_metrics(make("ring", tmp_path / "run", hold=0.4, max_steps=10) / "metrics.jsonl")
    factors = [record["learning_rate"] / 1e-3 for record in records]
    assert factors == pytest.approx([1, 1, 1, 1, *(1 - 0.99 * passed / 6 for passed in range(6))])
    constant = read_metrics(make("ring", tmp_path / "constant", hold=1.0) / "metrics.jsonl")
    assert {record["learning_rate"] for record in constant} == {1e-3}


def test_both_networks_step_at_their_own_rates_times_the_factor():
    training = task(learning_rate=1e-3, critic_learning_rate=4e-3, hold=0.0, horizon=10)
    training.update(5)
    rates = [{group["lr"] for group in o.groups()} for o in (training.generator_optimizer, training.critic_optimizer)]
    assert [list(each) for each in rates] == [pytest.approx([0.505e-3]), pytest.approx([2.02e-3])]


def test_a_validation_changes_nothing_that_training_depends_on():
    plain, measured = task("digits"), task("digits")
    for step in range(4):
        plain.update(step)
        measured.update(step)
        measured.validate()
        measured.draw(5, 0)
    assert torch.equal(weights(plain.generator, plain.critic), weights(measured.generator, measured.critic))


def test_the_gaps_of_a_validation_are_means_of_scores_on_the_samples_they_name():
    training = task(Dataset("two", torch.zeros(50, 1), torch.full((50, 1), 3.0)), batch=10)
    training.critic = Scores()
    training.draw = lambda num, seed: torch.full((num, 1), -2.0)
    measured = training.validate()
    assert measured["gap_train"] == pytest.approx(5 * (0 + 2))
    assert measured["gap_held_out"] == pytest.approx(5 * (3 + 2))
    assert measured["slope"] == pytest.approx(5)
    assert measured["sliced_2"] == pytest.approx(5)


class Scores(torch.nn.Module):
    """f(x) = 5 x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 5 * x[:, 0]


@pytest.mark.parametrize("objective", ["gp", "lp", "non-saturating"])
def test_samples_come_nearer_to_the_data(tmp_path, objective):
    settings = {
        "width": 64,
        "batch": 64,
        "critic_steps": 5,
        "max_steps": 150,
        "evaluate_every": 10,
        **{"sample_every": 150, "save_every": 150},
    }
    run = make("ring", tmp_path / "run", objective=objective, **settings)
    distances = [r["validation"]["sliced_2"] for r in read_metrics(run / "metrics.jsonl") if "validation" in r]
    assert min(distances[-3:]) < 0.7 * distances[0]
    assert read_metrics(run / "metrics.jsonl")[-1]["gap"] > 0


def test_bf16_runs_with_norms_and_losses_near_those_of_fp32():
    exact, half = (task("digits", precision=precision) for precision in ("fp32", "bf16"))
    for step in range(5):
        a, b = exact.update(step), half.update(step)
    assert b["slope"] == pytest.approx(a["slope"], rel=0.05)
    assert b["gap"] == pytest.approx(a["gap"], rel=0.1, abs=0.02)
    assert {p.dtype for module in (half.generator, half.critic, half.average) for p in module.parameters()} == {
        torch.float32
    }


def test_the_layout_in_memory_changes_no_more_than_rounding():
    first, last = (task(images(), network="dcgan", width=4, channels_last=flag) for flag in (False, True))
    assert next(p for p in last.critic.parameters() if p.ndim == 4).is_contiguous(memory_format=torch.channels_last)
    for step in range(2):
        a, b = first.update(step), last.update(step)
    assert a["gap"] == pytest.approx(b["gap"], rel=1e-3, abs=1e-5)


# the settings


PAPERS = {
    "wgan": {
        **{"objective": "clip", "optimizer": "rmsprop", "learning_rate": 5e-5, "clip": 0.01, "batch": 64},
        **{"critic_steps": 5, "hold": 1.0},
    },
    "wgan-gp": {
        **{"objective": "gp", "optimizer": "adam", "learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "batch": 64},
        **{"critic_steps": 5, "penalty": 10.0, "hold": 1.0},
    },
    "wgan-gp-toy-code": {
        **{"penalty": 0.1, "beta1": 0.5, "beta2": 0.9, "batch": 256, "network": "mlp", "width": 512, "depth": 3},
        **{"noise": 2, "learning_rate": 1e-4, "critic_steps": 5},
    },
    "mnist": {"network": "dcgan", "width": 64, "noise": 128, "batch": 50, "penalty": 10.0, "beta1": 0.5, "hold": 1.0},
    "cifar-dcgan": {"network": "dcgan", "width": 128, "noise": 128, "batch": 64, "beta1": 0.5, "learning_rate": 1e-4},
    "cifar-resnet": {
        **{"network": "resnet", "width": 128, "noise": 128, "batch": 64, "generator_batch": 128, "beta1": 0.0},
        **{"beta2": 0.9, "learning_rate": 2e-4, "critic_learning_rate": 2e-4, "hold": 0.0, "dequantize": True},
        **{"critic_steps": 5, "penalty": 10.0},
    },
}


@pytest.mark.parametrize("preset", PAPERS)
def test_presets_are_the_settings_of_the_papers(preset):
    """reference: Arjovsky et al. 2017, Algorithm 1; Gulrajani et al. 2017, Algorithm 1, appendix F, and its code."""
    data = images(3, 32) if preset.startswith("cifar") else images() if preset == "mnist" else load_dataset("grid")
    data = Dataset(data.name, data.train.repeat(4, *[1] * (data.train.ndim - 1)), data.held_out)
    settings = settled(data, preset=preset)
    assert {name: getattr(settings, name) for name in PAPERS[preset]} == PAPERS[preset]


def test_what_is_given_goes_before_the_preset_before_the_objective_before_the_data():
    data = images()
    assert settled(data, preset="mnist").batch == 50
    assert settled(data, preset="mnist", batch=30).batch == 30
    assert settled(data, preset="wgan", objective="gp").optimizer == "rmsprop"  # the preset's
    assert settled(data, objective="clip").optimizer == "rmsprop"  # the objective's
    assert settled(data).optimizer == "adam"
    assert settled(data, penalty=0.0).penalty == 0  # given, though it is nothing
    assert settled(data).network == "dcgan"
    assert settled(load_dataset("ring")).network == "mlp"


def test_a_dcgan_has_batch_normalization_in_its_critic_unless_it_is_penalised():
    for objective in ("minimax", "non-saturating", "clip", "gp", "lp"):
        for network in ("mlp", "dcgan", "resnet"):
            found = settled(images(), objective=objective, network=network).critic_batch_norm
            assert found == (network == "dcgan" and objective not in ("gp", "lp"))


def test_a_batch_is_no_larger_than_the_data_and_the_generators_is_the_same_unless_given():
    settings = settled(images())
    assert (settings.batch, settings.generator_batch) == (64, 64)
    assert settled(images(), batch=500).batch == 72
    assert settled(images(), generator_batch=7).generator_batch == 7


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *((name, 0, "at least 1") for name in ("max_steps", "batch", "critic_steps", "width", "noise", "save_every")),
        *((name, value, "above 0") for name in ("learning_rate", "minutes", "clip") for value in (0, -1)),
        *((name, 1.0, "at least 0 and below 1") for name in ("beta1", "beta2", "average")),
        ("penalty", -1, "at least 0"),
        ("penalty", "nan", "a number"),
        ("clip", "inf", "a number"),
        ("seed", -1, "a whole number from 0"),
        ("hold", 1.5, "between 0 and 1"),
        ("validation", 0, "between 0 and 1"),
        ("objective", "wgan", "one of minimax, non-saturating, clip, gp, lp"),
        ("preset", "mnits", "one of wgan, wgan-gp"),
        ("network", "unet", "one of mlp, dcgan, resnet"),
        ("optimizer", "sgd", "one of adam, adamw, rmsprop"),
        ("precision", "fp16", "auto, fp32 or bf16: gradients of gradients overflow fp16"),
        ("precision", "fp8", "auto, fp32 or bf16"),
    ],
)
def test_a_setting_that_no_run_can_have_is_refused_before_anything_is_written(
    command, tmp_path, option, value, expected
):
    outcome = command("wgan train", data="ring", run=tmp_path / "run", **{**ANT, option: value})
    assert outcome.refuses(option if "fp16" not in str(value) else "fp16", expected)
    assert not (tmp_path / "run").exists()


def test_steps_after_the_horizon_go_on_at_the_final_rate(tmp_path):
    records = read_metrics(make("ring", tmp_path / "run", horizon=5) / "metrics.jsonl")
    assert [record["learning_rate"] for record in records[5:]] == pytest.approx([1e-5] * 5)


def test_the_config_of_a_run_makes_the_run_again(command, tmp_path):
    make("ring", tmp_path / "a")
    assert command("wgan train", config=tmp_path / "a" / "config.yaml", run=tmp_path / "b").code == 0
    first, second = (checkpoint.load(RunFolder(tmp_path / name).checkpoint(10))[0] for name in "ab")
    for name in ("generator", "critic", "average"):
        assert all(torch.equal(value, second[name][key]) for key, value in first[name].items())


# steps that would do harm


def test_a_step_that_is_not_finite_is_left_out_of_both_networks_counted_and_survived(tmp_path, monkeypatch):
    critic_step = Adversarial.critic_step

    def spoilt(training, number, random, factor):
        training.spoilt = number in (6, 7) and training.run.config_file.exists()  # both of step 4, not in the warm-up
        return critic_step(training, number, random, factor)

    scores = Adversarial.scores
    monkeypatch.setattr(Adversarial, "critic_step", spoilt)
    monkeypatch.setattr(
        Adversarial,
        "scores",
        lambda training, *given: [s * (math.nan if training.spoilt else 1) for s in scores(training, *given)],
    )
    records = read_metrics(make("ring", tmp_path / "run") / "metrics.jsonl")
    assert [(r["step"], r["skipped"]) for r in records if "skipped" in r] == [(4, 2)]
    assert records[3]["loss"] is None
    assert all(record["loss"] is not None for record in records[4:])


def test_a_generator_whose_every_step_is_refused_ends_the_run_though_its_critic_is_well():
    training = task()
    training.objective = type(training.objective)(
        training.objective.critic, lambda scores: scores.mean() * math.nan, training.objective.penalty
    )
    before = weights(training.generator)
    for step in range(9):
        training.update(step)
    with pytest.raises(EarthworksError, match="10 consecutive steps"):
        training.update(9)
    assert training.generator_guard.skipped == 10
    assert torch.equal(weights(training.generator), before)


def test_a_batch_of_one_trains_where_samples_are_judged_alone_and_is_refused_elsewhere(command, tmp_path):
    few_images(tmp_path / "gray.npy", side=16)
    few_images(tmp_path / "colour.npy", side=16, channels=3)
    small = {**ANT, "network": "dcgan", "width": 4, "max_steps": 3, "batch": 1}
    assert " images/s" in command("wgan train", data=tmp_path / "gray.npy", run=tmp_path / "a", **small).err
    assert (
        " points/s" in command("wgan train", data="ring", run=tmp_path / "b", **{**ANT, "batch": 1, "max_steps": 3}).err
    )
    for number, (name, objective) in enumerate((("colour", "gp"), ("gray", "clip"))):
        run = tmp_path / f"refused-{number}"
        outcome = command("wgan train", data=tmp_path / f"{name}.npy", run=run, **{**small, "objective": objective})
        assert outcome.refuses("more than one sample per batch", "batch normalization", "at least 2")
        assert not run.exists()


def test_a_long_run_on_points_holds_its_rates_for_8000_steps_and_one_on_images_for_half():
    def held(name: str, max_steps: int) -> float:
        data = load_dataset(name)
        given = settled(data, max_steps=max_steps, width=8, depth=2)
        return settle(given, data, torch.device("cpu"), 0.0)[0].hold * max_steps

    assert held("ring", 1000) == 500
    assert held("ring", 100_000) == pytest.approx(8000)
    assert held("digits", 100_000) == 50_000
