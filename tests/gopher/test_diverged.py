"""Numbers that are no numbers: null in files, said in text, never the best, and an exit code of their own."""

import json

import pytest

from earthworks.gopher import train
from earthworks.gopher.scoring import perplexity
from earthworks.runs import RunFolder, read_json
from earthworks.training import checkpoint
from tiny_runs import FLEA, TINY, words

pytestmark = pytest.mark.usefixtures("flea")
WILD = {"optimizer": "adam", "learning_rate": 1e30, "embedding_rate": 1e30, "clip": 1e30}


def strict(text: str):
    def refuse(name: str):
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def diverged(flea, tmp_path_factory, tiny_text):
    """Three updates, each of which the guard takes for an honest one, to weights of 1e30."""
    run = tmp_path_factory.mktemp("diverged") / "run"
    from earthworks.runs import EarthworksError

    with pytest.raises(EarthworksError) as error:
        train(str(tiny_text), run=str(run), **{**FLEA, **WILD, "max_steps": 3, "evaluate_every": 1})
    return run, error.value


def test_a_training_that_diverged_ends_in_a_sentence_with_everything_saved(diverged):
    run, error = diverged
    assert error.exit_code == 1
    assert "diverged" in str(error)
    assert RunFolder(run).steps()[-1] == 3
    assert (run / "report.html").exists()


def test_its_results_are_null_in_files_and_never_the_best(diverged):
    run, _ = diverged
    assert strict((run / "evaluation.json").read_text())["bits_per_byte"] is None
    for line in (run / "metrics.jsonl").read_text().splitlines():
        strict(line)
    best = checkpoint.best(RunFolder(run))
    assert best is None or best["score"] < 100


@pytest.mark.parametrize("json_", ["", " --json"])
def test_its_evaluation_says_so(command, diverged, json_):
    run, _ = diverged
    outcome = command(f"gopher evaluate {run} --checkpoint last{json_}")
    assert outcome.code == 1
    assert "diverged" in outcome.err
    if json_:
        assert strict(outcome.out)["perplexity_per_token"] is None
    else:
        assert "no interval: the model diverged" in outcome.out
        assert "e+" not in outcome.out
        assert "14" not in outcome.out.splitlines()[1].split("nan")[1]


def test_one_window_has_no_interval_and_says_so(command, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text(words(120))
    made = {**TINY, "max_steps": 2, "evaluate_every": 2}
    outcome = command("gopher train", data=text, run=tmp_path / "run", **{**made, "context": 40, "validation": 0.2})
    assert outcome.code == 0, outcome.err
    assert "bits per byte (no interval: one window)" in outcome.err
    assert strict((tmp_path / "run" / "evaluation.json").read_text())["interval"] == [None, None]
    outcome = command(f"gopher evaluate {tmp_path / 'run'}")
    assert outcome.code == 0
    assert "no interval: one window" in outcome.out
    assert strict(command(f"gopher evaluate {tmp_path / 'run'} --json").out)["interval"] == [None, None]
    assert read_json(tmp_path / "run" / "evaluation.json")["bits_per_byte"] > 0


def test_perplexity_of_what_is_no_number_is_none():
    assert perplexity(0.0) == 1
    assert perplexity(1000.0) == float("inf")
    assert perplexity(float("nan")) != perplexity(float("nan"))
