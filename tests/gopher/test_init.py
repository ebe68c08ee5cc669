"""Weights from another run bring what they are: size, norm, positions, tied embeddings, tokenizer."""

from pathlib import Path

import pytest

from earthworks.corpus import Tokenizer
from earthworks.gopher import load, train
from earthworks.gopher.config import SIZES
from earthworks.runs import RunFolder
from tiny_runs import FLEA

pytestmark = pytest.mark.usefixtures("flea")
OTHER = {"norm": "layer", "tied": False, "d_position": 6, "max_distance": 9}
GIVEN = {name: value for name, value in FLEA.items() if name not in ("size", "tokenizer")}


@pytest.fixture(scope="module", params=["relative", "absolute"])
def other(request, flea, tmp_path_factory, tiny_text) -> Path:
    """Nothing of it is the default."""
    changes = {**OTHER, "positions": request.param}
    return train(str(tiny_text), run=str(tmp_path_factory.mktemp("other") / "run"), **{**FLEA, **changes})


def test_the_architecture_and_the_tokenizer_are_that_run_s(command, other, tiny_text, tmp_path):
    given = {name: value for name, value in GIVEN.items() if name != "context"}
    outcome = command("gopher train", data=tiny_text, init=other, run=tmp_path / "run", **{**given, "max_steps": 2})
    assert outcome.code == 0, outcome.err
    config, before = (RunFolder(path).read_config() for path in (tmp_path / "run", other))
    for name in ("size", "norm", "positions", "tied", "d_position", "max_distance"):
        assert config[name] == before[name], name
    if before["positions"] == "absolute":
        assert config["context"] == before["context"]
    assert config["tokenizer"] == str(other / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "run").digest == Tokenizer.load(other).digest
    assert load(tmp_path / "run")[0].config.with_(context=16) == load(other)[0].config
    again = command("gopher train --config", tmp_path / "run" / "config.yaml", run=tmp_path / "again")
    assert again.code == 0, again.err  # what is on record can be given again


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", "shrew"),
        ("norm", "rms"),
        ("positions", "none"),
        ("tied", "true"),
        ("d_position", 8),
        ("max_distance", 3),
    ],
)
def test_another_architecture_is_refused_by_the_setting_s_name(command, other, tiny_text, tmp_path, option, value):
    outcome = command("gopher train", data=tiny_text, init=other, run=tmp_path / "run", **{**GIVEN, option: value})
    assert outcome.refuses(f"--{option} is ", f"the model of --init {other} has", f"leave --{option} out")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value"), [("tokenizer", "bpe"), ("tokenizer", "bytes"), ("vocabulary", 500)])
def test_another_tokenizer_is_refused(command, other, tiny_text, tmp_path, option, value):
    outcome = command("gopher train", data=tiny_text, init=other, run=tmp_path / "run", **{**GIVEN, option: value})
    assert outcome.refuses("uses the tokenizer that its weights were trained with", f"leave --{option} out")
    assert not (tmp_path / "run").exists()


def test_what_is_given_as_it_is_there_is_no_contradiction(command, other, tiny_text, tmp_path):
    given = {**GIVEN, "norm": "layer", "size": "flea", "max_steps": 1}
    assert command("gopher train", data=tiny_text, init=other, run=tmp_path / "run", **given).code == 0


def test_tokens_made_by_another_tokenizer_are_refused(command, other, tiny_text, tmp_path):
    bpe = {**FLEA, "tokenizer": "bpe", "vocabulary": 330, "context": 8, "max_steps": 1}
    train(str(tiny_text), run=str(tmp_path / "bpe"), **bpe)
    outcome = command("gopher train", data=tmp_path / "bpe" / "data", init=other, run=tmp_path / "run", **GIVEN)
    assert outcome.refuses("by another tokenizer than that of --init")
    assert not (tmp_path / "run").exists()


def test_a_size_that_is_not_that_of_the_weights_is_refused(command, other, tiny_text, tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "flea", (1, 2, 4, 32))
    outcome = command("gopher train", data=tiny_text, init=other, run=tmp_path / "run", **GIVEN)
    assert outcome.refuses("has size flea, which does not fit the weights")
