"""Families with planted losses and credits, which the comparison must recover."""

import html
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from earthworks.evaluation import compare_family
from earthworks.evaluation.scaling import compare as scaling
from earthworks.evaluation.scaling.benefit import measure_benefit
from earthworks.evaluation.scaling.command import lines
from earthworks.evaluation.scaling.held_out import held_out
from earthworks.evaluation.scaling.page import write_page
from earthworks.gopher import GopherConfig, evaluate, train
from earthworks.runs import EarthworksError, read_json, write_result
from tiny_runs import TINY

SIZES = {
    "cricket": 241_632,
    "shrew": 428_672,
    "vole": 857_216,
    "mole": 1_924_800,
    "gerbil": 4_272_896,
    "hamster": 6_672_320,
}
DOCUMENTS = 30


def bits(parameters: float, tokens: float = 1e6) -> float:
    return 1.2 + 0.5 * (parameters / 1e6) ** -0.3 + 0.2 * (tokens / 1e6) ** -0.4


class Family:
    """Untrained runs with a replaced `held_out` and written tasks.json."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self.folder, self.runs = folder, {}
        patch.setattr(scaling, "members", lambda run: [Path(run)])
        patch.setattr(scaling, "held_out", lambda run, **_: dict(self.runs[str(run)]))

    def add(self, size: str, *, seed: int = 0, tokens: float = 1e6, noise: float = 0.0, **changes: Any) -> Path:
        path = self.folder / f"{size}-{seed}-{tokens:g}"
        path.mkdir(parents=True)
        random = np.random.default_rng(0)
        num_bytes = random.integers(200, 900, DOCUMENTS).astype(float)
        hard = random.uniform(0.8, 1.2, DOCUMENTS)
        hard *= num_bytes.sum() / (hard * num_bytes).sum()
        nats = bits(SIZES[size], tokens) * (1 + noise) * math.log(2) * hard * num_bytes
        self.runs[str(path)] = {
            **{"run": str(path), "size": size, "seed": seed, "parameters": SIZES[size], "all_parameters": SIZES[size]},
            **{"tokens": tokens, "compute": 6.0 * SIZES[size] * tokens, "text": "abc", "unit": "document"},
            **{"nats": nats.tolist(), "bytes": num_bytes.tolist(), **changes},
        }
        return path


@pytest.fixture
def family(tmp_path, monkeypatch) -> Family:
    return Family(tmp_path, monkeypatch)


def task(
    name: str, category: str, credit: list[float], *, shots: int = 0, chance: float | None = 0.25
) -> dict[str, Any]:
    return {
        **{"name": name, "category": category, "shots": shots, "metric": "raw", "digest": "d", "chance": chance},
        **{"value": float(np.mean(credit)), "items": list(range(len(credit))), "credit": credit, "n": len(credit)},
    }


def right(share: float, n: int = 400) -> list[float]:
    """The first `share` of n items."""
    return [float(item < share * n) for item in range(n)]


def tasks_of(path: Path, *results: dict[str, Any]) -> Path:
    write_result(path / "tasks.json", {"results": list(results), "limit": None})
    return path


def test_the_planted_law_and_the_largest_are_predicted_and_the_straight_line_is_worse(family):
    found = compare_family([family.add(size) for size in SIZES], num_resamples=50)
    for axis in ("parameters", "compute"):
        law = found["laws"][axis]
        assert law["law"]["exponent"] == pytest.approx(0.3, abs=1e-4)
        assert law["law"]["floor"] == pytest.approx(1.4, abs=1e-3)
        told = law["held_out"]
        assert told["size"] == max(each["parameters" if axis == "parameters" else "compute"] for each in found["runs"])
        assert told["law"]["value"] == pytest.approx(bits(SIZES["hamster"]), abs=1e-5)
        assert told["line"]["error"] < -0.01  # a straight line falls too far
        assert told["better"] == "law"
    assert found["laws"]["parameters"]["law"]["scale"] * 1e6**-0.3 == pytest.approx(0.5, rel=1e-3)
    assert "different token counts of one size, not 1" in found["laws"]["tokens"]["reason"]


def test_what_was_measured_lies_within_or_outside_as_it_does(family):
    random = np.random.default_rng(0)
    small = [
        family.add(size, seed=seed, noise=0.002 * random.standard_normal())
        for size in list(SIZES)[:5]
        for seed in (0, 1, 2)
    ]
    near, far = family.add("hamster"), family.add("hamster", seed=9, noise=0.1)
    for largest, within in ((near, True), (far, False)):
        told = compare_family([*small, largest], num_resamples=200)["laws"]["parameters"]["held_out"]
        low, high = told["law"]["interval"]
        assert told["law"]["within"] is within is (low <= told["measured"] <= high)


def test_loss_against_tokens_is_taken_at_the_size_that_has_several(family):
    runs = [family.add(size) for size in SIZES]
    runs += [family.add("mole", tokens=1e6 / share) for share in (2, 4, 8, 16)]
    found = compare_family(runs, num_resamples=50)
    assert found["family_tokens"] == 1e6
    assert found["laws"]["tokens"]["law"]["exponent"] == pytest.approx(0.4, abs=1e-3)
    assert found["laws"]["parameters"]["law"]["exponent"] == pytest.approx(0.3, abs=1e-4)


def test_too_few_sizes_and_losses_that_do_not_fall_have_a_reason_instead_of_a_law(family):
    runs = [family.add(size) for size in SIZES]
    assert compare_family(runs[:2])["laws"]["parameters"]["reason"].endswith("4 or more different sizes, not 2")
    four = compare_family(runs[:4], num_resamples=10)["laws"]["parameters"]
    assert "law" in four
    assert "fewer than 4" in four["held_out"]["reason"]
    for run in runs:
        family.runs[str(run)]["nats"] = family.runs[str(runs[0])]["nats"]
    assert (
        compare_family(runs)["laws"]["parameters"]["reason"]
        == "the losses do not fall with size, so there is no exponent"
    )


def test_runs_of_different_text_are_refused(family):
    runs = [family.add("mole"), family.add("vole", text="other")]
    with pytest.raises(EarthworksError, match="held out different text, so their losses are not comparable: give text"):
        compare_family(runs)
    with pytest.raises(EarthworksError, match="scaling needs at least two runs"):
        compare_family(runs[:1])
    with pytest.raises(EarthworksError, match=r"much_smaller is 0[.]5"):
        compare_family(runs, much_smaller=0.5)


def test_the_largest_is_set_beside_the_best_of_the_much_smaller_alone(family):
    """Accuracies .25 (chance), .40, .30 up to 1/4 of the largest; .90 in between, which does not count; .70 the largest."""
    shares = {"cricket": 0.25, "shrew": 0.40, "vole": 0.30, "gerbil": 0.90, "hamster": 0.70}
    runs = [tasks_of(family.add(size), task("a", "fact checking", right(share))) for size, share in shares.items()]
    found = compare_family(runs, num_resamples=200)["benefit"]
    (only,) = found["tasks"]
    assert only["by_size"] == pytest.approx(list(shares.values()))
    assert only["best_of_small"] == SIZES["shrew"]
    assert only["points"] == pytest.approx(30)
    assert only["percent"] == pytest.approx(75)
    assert only["gain"] == pytest.approx(0.3 / 0.75)
    low, high = only["gain_interval"]  # pairs: items of 280 and 160 right, so 120 of 400 differ
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 400) / 0.75, rel=0.2)
    category = found["categories"]["fact checking"]
    assert category["verdict"] == "scale helps"
    assert category["corrected"][-1] == pytest.approx(0.6)


def test_a_model_that_is_not_above_chance_proves_nothing_about_scale(family):
    names = ("reading comprehension", "fact checking", "logic and maths", "common sense")
    runs = []
    for size in SIZES:
        share = 0.26 if size == "hamster" else 0.20
        runs.append(tasks_of(family.add(size), *(task(name, name, right(share, 100)) for name in names)))
    found = compare_family(runs, num_resamples=100)["benefit"]
    assert {each["verdict"] for each in found["categories"].values()} == {"the largest is not above chance"}
    assert found["claim"]["state"] == "undecided at this scale"
    assert "undecided at this scale" in found["claim"]["sentence"]


@pytest.mark.parametrize(("reading", "logic", "state"), [(0.8, 0.3, "supported"), (0.35, 0.8, "contradicted")])
def test_the_papers_ranking_is_judged_by_its_interval(family, reading, logic, state):
    names = {
        "reading comprehension": reading,
        "fact checking": reading,
        "logic and maths": logic,
        "common sense": logic,
    }
    runs = []
    for size in SIZES:
        large = size == "hamster"
        credits = [task(name, name, right(share if large else 0.26)) for name, share in names.items()]
        runs.append(tasks_of(family.add(size), *credits))
    found = compare_family(runs, num_resamples=100)["benefit"]["claim"]
    assert found["difference"] == pytest.approx((reading - logic) / 0.75)
    assert found["state"] == state


def test_seeds_of_a_size_are_averaged_item_by_item(family):
    runs = [tasks_of(family.add("cricket"), task("a", "x", right(0.25)))]
    runs += [
        tasks_of(family.add("hamster", seed=seed), task("a", "x", right(share))) for seed, share in ((0, 0.5), (1, 0.7))
    ]
    runs.append(family.add("hamster", seed=2))  # not asked: the others of its size speak for it
    (only,) = compare_family(runs, num_resamples=50)["benefit"]["tasks"]
    assert only["by_size"] == pytest.approx([0.25, 0.6])


def test_examples_add_what_was_planted_and_the_same_items_are_drawn_with_and_without(family):
    runs = []
    for place, size in enumerate(SIZES):
        with_ = [0.0] * 400
        with_[: 120 + 20 * place] = [1.0] * (120 + 20 * place)
        runs.append(tasks_of(family.add(size), task("a", "x", right(0.3)), task("a", "x", with_, shots=5)))
    added = compare_family(runs, num_resamples=200)["benefit"]["few_shot"]["5"]
    assert added["gain"] == pytest.approx([20 * place / 400 / 0.75 for place in range(6)])
    assert added["interval"][0] == [0.0, 0.0]  # the same items are right: no interval is left
    low, high = added["interval"][5]
    assert low < added["gain"][5] < high


def test_of_texts_the_percentage_of_bits_saved_is_given(family):
    runs = []
    for size, value in (("cricket", 2.0), ("shrew", 2.2), ("hamster", 1.5)):
        text = {**task("novel", "language modelling", [1.0]), "metric": "bits_per_byte", "value": value}
        runs.append(tasks_of(family.add(size), text))
    found = compare_family(runs, num_resamples=50)["benefit"]
    assert found["texts"][0]["percent"] == pytest.approx(25)
    saved = 100 * (1 - bits(SIZES["hamster"]) / bits(SIZES["shrew"]))
    assert found["held_out"]["percent"] == pytest.approx(saved)
    assert found["held_out"]["interval"] == pytest.approx([saved, saved])  # every document as much easier as the others


def test_what_cannot_be_compared_is_named(family):
    runs = [family.add(size) for size in ("cricket", "hamster")]
    missing = compare_family(runs, num_resamples=10)["benefit"]
    assert "cricket-0-1e+06 and 1 more has no tasks.json" in missing["reason"]
    assert "held_out" in missing
    too_near = compare_family(runs, much_smaller=100, num_resamples=10)["benefit"]["reason"]
    assert too_near.startswith("no size is at most 1/100 of the largest")
    tasks_of(runs[0], task("a", "x", right(0.5)))
    tasks_of(runs[1], task("b", "x", right(0.5)))
    assert "no task was measured on all of these runs" in compare_family(runs, num_resamples=10)["benefit"]["reason"]
    tasks_of(runs[1], {**task("a", "x", right(0.5)), "digest": "e"})
    with pytest.raises(EarthworksError, match="a was measured with different settings across runs"):
        compare_family(runs, num_resamples=10)
    tasks_of(runs[1], {**task("a", "x", right(0.5)), "items": [item + 1000 for item in range(400)]})
    with pytest.raises(EarthworksError, match="measured on different items"):
        compare_family(runs, num_resamples=10)
    write_result(runs[1] / "tasks.json", {"result": []})
    with pytest.raises(EarthworksError, match="is not what evaluate tasks writes"):
        compare_family(runs, num_resamples=10)


def test_without_a_much_smaller_size_there_is_a_reason():
    runs = [{"parameters": 100, "run": "a"}, {"parameters": 150, "run": "b"}]
    assert "no size is at most 1/4" in measure_benefit(runs, much_smaller=4)["reason"]


@pytest.fixture(scope="module")
def trained(tiny_text, tmp_path_factory) -> Path:
    """A real family of two, of 4 steps."""
    given = {name: value for name, value in TINY.items() if name != "size"}
    return train(
        str(tiny_text),
        run=str(tmp_path_factory.mktemp("family") / "run"),
        family="cricket,shrew",
        **{**given, "max_steps": 4},
    )


def test_the_losses_of_a_real_run_are_those_that_evaluate_gives(trained, monkeypatch):
    given: dict[str, Any] = {"text": None, "max_tokens": 10_000, "checkpoint": "best", "device": "cpu"}
    found = held_out(trained / "shrew", **given)
    nats = sum(found["nats"]) / sum(found["bytes"])
    assert nats == pytest.approx(evaluate(trained / "shrew", device="cpu")["nats_per_byte"], rel=1e-6)
    config = GopherConfig.preset("shrew", vocabulary=257, context=16)
    assert found["parameters"] == config.num_body_parameters()
    assert found["tokens"] == 4 * TINY["batch"] * TINY["context"]

    def untouched(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured twice")

    monkeypatch.setattr("earthworks.evaluation.scaling.held_out.load", untouched)
    assert held_out(trained / "shrew", **given) == found
    with pytest.raises(AssertionError, match="measured twice"):  # another text is another measurement
        held_out(trained / "shrew", **{**given, "max_tokens": 20})


def test_the_command_writes_numbers_and_a_page(command, trained, tiny_eval, tmp_path):
    outcome = command(
        f"evaluate scaling {trained} --data {tiny_eval} --limit 4 --shots 0,1 --much_smaller 1.5 --num_resamples 20"
        f" --output {tmp_path} --device cpu"
    )
    assert outcome.code == 0, outcome.err
    assert "4 or more different sizes, not 2" in outcome.out
    assert "shrew against the best of cricket" in outcome.out
    kept = read_json(tmp_path / "scaling.json")
    for category, each in kept["benefit"]["categories"].items():
        assert f"{category:<24}" in outcome.out
        assert f"{each['gain']:+.3f}" in outcome.out
    page = html.unescape((tmp_path / "scaling.html").read_text())
    assert kept["benefit"]["claim"]["sentence"] in page
    assert (tmp_path / "figures" / "scaling-benefit.png").exists()
    assert {each["size"] for each in kept["runs"]} == {"cricket", "shrew"}


def test_a_page_shows_the_law_and_both_predictions(family, tmp_path):
    result = compare_family([family.add(size, noise=0.001 * (-1) ** place) for place, size in enumerate(SIZES)])
    page = write_page(result, tmp_path / "page").read_text()
    told = result["laws"]["parameters"]["held_out"]
    said = "\n".join(lines(result))
    for name in ("law", "line"):
        assert f"{told[name]['value']:.3f}" in page
        assert f"predicts {told[name]['value']:.4f}" in said
    assert (tmp_path / "page" / "figures" / "scaling-laws.png").exists()


def test_a_run_that_is_not_finished_or_of_another_kind_is_one_sentence(command, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = yaml.safe_load((run / "shrew" / "config.yaml").read_text())
    (run / "shrew" / "config.yaml").write_text(yaml.safe_dump({**config, "max_steps": 9}))
    assert command(f"evaluate scaling {run}").refuses("has made 4 of 9 steps: finish it with", "--resume")
    (run / "shrew" / "config.yaml").write_text(yaml.safe_dump({**config, "kind": "wgan"}))
    assert command(f"evaluate scaling {run}").refuses("is not a run of one language model")
    shutil.rmtree(run / "shrew")
    assert command(f"evaluate scaling {run}").refuses("there is no run folder at")
    assert command("evaluate scaling nowhere").refuses("there is no run folder at nowhere")


def test_a_run_that_is_given_twice_is_refused_by_name(command, trained, tmp_path):
    (tmp_path / "link").symlink_to(trained / "shrew")
    for again in (trained / "shrew", f"{trained}/./shrew", trained, tmp_path / "link"):
        assert command("evaluate scaling", trained / "shrew", again, output=tmp_path).refuses(" is given twice")


def test_an_altered_count_of_tokens_reaches_no_law(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    given: dict[str, Any] = {"text": None, "max_tokens": 50, "checkpoint": "last", "device": "cpu"}
    seen = held_out(run, **given)["tokens"]
    state = run / "checkpoints" / "step-10" / "state.json"
    state.write_text(state.read_text().replace(f'"tokens_seen": {seen}', f'"tokens_seen": 9{str(seen)[1:]}'))
    with pytest.raises(EarthworksError, match=r"state\.json does not match"):
        held_out(run, **given)
