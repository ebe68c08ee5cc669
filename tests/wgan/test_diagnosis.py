"""Diagnosis of runs with planted faults, and of a healthy run."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_gans import few_images, make

from earthworks.runs import RunFolder, read_metrics
from earthworks.wgan import objectives
from earthworks.wgan.diagnosis import from_log
from earthworks.wgan.diagnosis.findings import Diagnosis, Finding, Undecided
from earthworks.wgan.diagnosis.from_checkpoint import lost_modes
from earthworks.wgan.diagnosis.run_diagnosis import diagnose

pytestmark = pytest.mark.usefixtures("undrawn")

# Thirty steps a second and more: each of these runs takes one to four seconds.
RING = {
    **{"width": 32, "noise": 2, "batch": 64, "critic_steps": 5, "max_steps": 200, "average": 0.99},
    **{"evaluate_every": 10, "sample_every": 1000, "save_every": 1000},
}
DIGITS = {**RING, "width": 64, "noise": 16, "penalty": 10.0}
SICK = {
    "under-trained": ("ring", {**RING, "critic_steps": 1, "critic_learning_rate": 1e-5}),
    "overfitted": ("few digits", {**DIGITS, "width": 128, "batch": 32, "validation": 0.9}),
    "no penalty": ("ring", {**RING, "penalty": 0.0}),
    "weak penalty": ("digits", {**DIGITS, "penalty": 1e-6}),
    "clipped flat": ("ring", {**RING, "objective": "clip", "clip": 1e-4, "max_steps": 110}),
    "sure discriminator": (
        "digits",
        {**DIGITS, "objective": "minimax", "learning_rate": 1e-4, "critic_learning_rate": 2e-3, "max_steps": 250},
    ),
}


def reverse(**changes: Callable) -> pytest.MonkeyPatch:
    """The objective `gp` with a sign turned, until it is undone."""
    patch = pytest.MonkeyPatch()
    patch.setitem(objectives.OBJECTIVES, "gp", replace(objectives.OBJECTIVES["gp"], **changes))
    return patch


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory) -> Path:
    """330 digits, of which nine tenths will be held out."""
    from sklearn.datasets import load_digits

    path = tmp_path_factory.mktemp("few") / "digits.npy"
    np.save(path, (load_digits().images[:330] / 16).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def sick(undrawn, tmp_path_factory, few_digits) -> Callable[[str], Path]:
    """`sick(name)` is that run, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("sick")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            data, settings = SICK[name]
            make(few_digits if data == "few digits" else data, folder / name, **settings)
        return folder / name

    return run


@pytest.fixture(scope="module")
def healthy(undrawn, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("healthy")
    return {
        "ring": make("ring", folder / "ring", **{**RING, "width": 64, "max_steps": 250}),
        "digits": make("digits", folder / "digits", **{**DIGITS, "width": 128, "max_steps": 250}),
    }


def found(run: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(run).findings}


@pytest.mark.parametrize("name", ["ring", "digits"])
def test_a_healthy_run_is_called_healthy(healthy, name):
    diagnosis = diagnose(healthy[name])
    assert diagnosis.findings == []
    assert diagnosis.undecided == []
    assert diagnosis.healthy
    assert "healthy" in str(diagnosis)
    assert "earthworks wgan evaluate" in str(diagnosis)  # that nothing is broken does not say that it is good
    assert ("critic overfitting" in diagnosis.examined) == (name == "digits")  # the ring is drawn anew


def test_a_critic_that_lags_behind_is_shown_what_more_steps_would_reach(sick):
    finding = found(sick("under-trained"))["critic under-trained"]
    assert finding.evidence["gap"] < 0 < finding.evidence["gap_after"]
    assert "is negative" in finding.sentence
    assert "--critic_steps" in finding.advice


def test_a_discriminator_worse_than_chance_is_under_trained():
    records = [{"step": step, "loss": 2 * math.log(2) + 0.2} for step in range(1, 101)]
    assert from_log.below_chance(records).name == "critic under-trained"
    assert from_log.below_chance([{**record, "loss": 1.3} for record in records]) is None


@pytest.mark.slow
def test_a_critic_that_knows_its_training_images_by_heart(sick):
    finding = found(sick("overfitted"))["critic overfitting"]
    evidence = finding.evidence
    assert evidence["gap_train"] - evidence["gap_held_out"] == pytest.approx(evidence["difference"])
    assert evidence["difference"] > 4 * evidence["error"]
    assert "33 of them" in finding.sentence
    assert "297 held-out" in finding.sentence


@pytest.mark.parametrize("name", ["no penalty", "weak penalty"])
def test_a_penalty_that_does_not_bite(sick, name):
    finding = found(sick(name))["penalty not biting"]
    slopes = [record["slope"] for record in read_metrics(sick(name) / "metrics.jsonl")]
    assert finding.evidence["slope"] == pytest.approx(np.median(slopes[-len(slopes) // 10 :]), rel=0.05)
    assert finding.evidence["slope"] > 2
    assert "Raise --penalty" in finding.advice


def test_a_slope_below_1_is_a_fault_of_the_two_sided_penalty_alone():
    records = [{"step": step, "slope": 0.2} for step in range(1, 101)]
    assert from_log.slope_of_the_critic({"objective": "gp", "penalty": 10.0}, records).evidence["slope"] == 0.2
    assert from_log.slope_of_the_critic({"objective": "lp", "penalty": 10.0}, records) is None


def test_weights_clipped_so_close_that_no_gradient_is_left(sick):
    finding = found(sick("clipped flat"))["vanishing generator gradient"]
    assert finding.evidence["a_weight"] < 1e-8
    assert "raise --clip" in finding.advice


def test_a_discriminator_so_sure_that_the_gradient_vanishes(sick):
    finding = found(sick("sure discriminator"))["vanishing generator gradient"]
    assert finding.evidence["decades"] <= -2
    norms = [record["generator_gradient_norm"] for record in read_metrics(sick("sure discriminator") / "metrics.jsonl")]
    assert finding.evidence["late"] == pytest.approx(np.median(norms[-25:]))
    assert finding.evidence["first"] == pytest.approx(np.median(norms[:20]))


@pytest.mark.parametrize(
    ("start", "end", "name"), [(1.0, 1e-3, "vanishing"), (1.0, 1e3, "exploding"), (1.0, 0.2, None)]
)
def test_gradients_are_judged_by_decades_against_their_own_start(start, end, name):
    norms = np.geomspace(start, end, 400)
    records = [{"step": i + 1, "generator_gradient_norm": float(norm)} for i, norm in enumerate(norms)]
    finding = from_log.generator_gradient({"objective": "gp", "parameters": 1000}, records)
    assert (None if finding is None else finding.name.split()[0]) == name


def test_collapsed_modes_of_images_without_labels(sick):
    """A generator that learns nothing draws one grey image."""
    finding = found(sick("sure discriminator"))["collapsed modes"]
    assert finding.evidence["near"] > 0.9
    assert finding.evidence["kinds"] < 1.2


class Patient:
    """What `lost_modes` asks of a task."""

    def __init__(self, real: torch.Tensor, fake: torch.Tensor, centres: torch.Tensor | None = None):
        self.batches, self.fake, self.data, self.settings = self, fake, self, SimpleNamespace(seed=0)
        self.real, self.centres = real, centres

    def held_out(self, num):
        return self.real[:num]

    def draw(self, num, seed):
        return self.fake[:num]


def clusters(kinds: int, n: int = 1000, seed: int = 0) -> torch.Tensor:
    """Points in 64 dimensions about `kinds` of ten centres."""
    random = torch.Generator().manual_seed(seed)
    centres = 5 * torch.randn(10, 64, generator=torch.Generator().manual_seed(9))
    return centres[torch.randint(kinds, (n,), generator=random)] + torch.randn(n, 64, generator=random)


def test_modes_are_lost_when_samples_are_near_each_other_far_more_often_than_real_ones():
    real = clusters(10, seed=1)
    assert lost_modes(Patient(real, clusters(10, seed=2)), False) is None
    finding = lost_modes(Patient(real, clusters(2, seed=2)), False)
    assert finding.evidence["kinds"] == pytest.approx(2, rel=0.1)
    assert lost_modes(Patient(real, clusters(1, seed=2)), False).evidence["kinds"] == pytest.approx(1, rel=0.1)
    assert isinstance(lost_modes(Patient(real, clusters(2, seed=2)), True), Undecided)  # it may yet spread


def test_modes_of_a_mixture_are_counted_by_their_centres():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    real = centres.repeat(100, 1)
    most = centres[torch.tensor([0, 1, 2]).repeat(100)]
    assert lost_modes(Patient(real, real, centres), False) is None
    assert lost_modes(Patient(real, most, centres), False).evidence["lost"] == 1


def test_a_generator_trained_with_the_wrong_sign(tmp_path):
    patch = reverse(generator=lambda fake: fake.mean())
    run = make("ring", tmp_path / "run", **{**RING, "max_steps": 120})
    assert found(run)["generator's sign reversed"].evidence["cosine"] == pytest.approx(-1)
    patch.undo()  # judged by the right loss, the recorded one is minus what the weights have
    evidence = found(run)["generator's sign reversed"].evidence
    assert evidence["recorded"] == pytest.approx(-evidence["expected"], rel=0.2, abs=0.02)


def test_a_critic_trained_with_the_wrong_sign(tmp_path):
    patch = reverse(critic=lambda real, fake: real.mean() - fake.mean())
    run = make("ring", tmp_path / "run", **{**RING, "max_steps": 60})
    patch.undo()
    finding = found(run)["critic's sign reversed"]
    assert finding.evidence["share"] == 1
    assert finding.evidence["gap"] < 0


@pytest.mark.parametrize("objective", ["clip", "gp", "minimax"])
def test_signs_are_right_in_runs_that_are_not_reversed_however_short(tmp_path, objective):
    run = make("ring", tmp_path / "run", objective=objective, max_steps=3)
    diagnosis = diagnose(run)
    assert diagnosis.findings == []
    assert "generator's sign reversed" in diagnosis.examined


def test_a_short_run_is_said_to_be_too_short(tmp_path):
    diagnosis = diagnose(make("ring", tmp_path / "run", max_steps=30))
    assert diagnosis.findings == []
    assert not diagnosis.healthy
    assert "too short, 30 steps; at least 100 are needed" in str(diagnosis)


def test_a_run_before_its_first_step_cannot_be_judged(healthy, tmp_path):
    shutil.copy(healthy["ring"] / "config.yaml", tmp_path)
    assert "too early to tell" in str(diagnose(tmp_path))
    assert not diagnose(tmp_path).healthy


def test_skipped_steps_are_counted_and_places_given(healthy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(healthy["ring"], run)
    records = read_metrics(run / "metrics.jsonl")
    records[6] |= {"skipped": 3}
    records[40] |= {"skipped": 1, "loss": None, "gap": None, "slope": None, "generator_gradient_norm": None}
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (finding,) = diagnose(run).findings
    assert finding.evidence == {"skipped": 2, "first": 7, "last": 41}


def test_data_that_are_gone_leave_the_log_to_be_judged(sick, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sick("no penalty"), run)
    folder = RunFolder(run)
    folder.write_config({**folder.read_config(), "data": str(tmp_path / "gone.npy")})
    diagnosis = diagnose(run)
    assert [finding.name for finding in diagnosis.findings] == ["penalty not biting"]
    assert any("does not exist" in each.reason for each in diagnosis.undecided)


def test_a_diagnosis_changes_nothing_and_is_the_same_twice(sick):
    run = sick("under-trained")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert diagnose(run) == diagnose(run)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_the_command_says_it_in_words_and_in_json(command, sick, healthy):
    outcome = command("wgan diagnose", sick("no penalty"))
    assert outcome.code == 0
    assert "penalty not biting: The critic's slope" in outcome.out
    assert "What to do: Raise --penalty" in outcome.out
    said = json.loads(command("wgan diagnose --json", sick("no penalty")).out)
    assert said["healthy"] is False
    assert said["findings"][0]["name"] == "penalty not biting"
    assert said["findings"][0]["evidence"]["penalty"] == 0
    assert json.loads(command("wgan diagnose --json", healthy["ring"]).out)["healthy"] is True


def test_what_is_no_run_of_a_gan_is_refused(command, tmp_path):
    assert command("wgan diagnose", tmp_path / "none").refuses("there is no run folder")
    (tmp_path / "config.yaml").write_text("kind: gopher\n")
    assert command("wgan diagnose", tmp_path).refuses("is a gopher run, not a GAN run")


def test_a_verdict_never_says_healthy_when_something_was_left_open():
    nothing = Diagnosis("run", 0)
    assert nothing.verdict == "too early to tell"
    partly = Diagnosis("run", 500, examined=["a"], undecided=[Undecided("b", "too few samples")])
    assert partly.verdict == "nothing found, but not everything could be judged"
    assert "b: too few samples" in str(partly)


def test_few_held_out_samples_leave_what_needs_them_open(tmp_path):
    few_images(tmp_path / "few.npy")
    diagnosis = diagnose(make(tmp_path / "few.npy", tmp_path / "run", max_steps=110))
    assert {each.question for each in diagnosis.undecided} >= {"critic under-trained", "critic overfitting"}
    assert all("5 samples" in each.reason for each in diagnosis.undecided if each.question.startswith("critic"))
