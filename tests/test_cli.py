import importlib
import inspect
import json
import re
import shutil

import pytest
import yaml

from earthworks import __version__, cli
from earthworks.cli import COMMANDS, SINGLE, main
from earthworks.runs import EarthworksError
from earthworks.runs.errors import Stopped
from tiny_runs import FLEA, results

EVERY = {f"{room} {verb}": entry for room, verbs in COMMANDS.items() for verb, entry in verbs.items()} | SINGLE


def function_of(name: str):
    module, function, _ = EVERY[name]
    return getattr(importlib.import_module(module), function)


def described(name: str) -> dict[str, str]:
    """Parameter -> what the docstring says of it, in one line."""
    arguments = inspect.getdoc(function_of(name)).split("Args:\n")[1].split("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, re.MULTILINE)
    return {parameter: " ".join(text.split()) for parameter, text in entries}


@pytest.mark.parametrize("name", EVERY)
def test_help_lists_every_option_with_its_line(command, name):
    outcome = command(f"{name} --help")
    assert outcome.code == 0
    help_ = "".join(outcome.out.split())  # argparse breaks lines within words
    lines = described(name)
    assert list(lines) == list(inspect.signature(function_of(name)).parameters)
    for parameter, line in lines.items():
        assert f"--{parameter}" in help_ or f"{parameter}" in help_
        assert "".join(line.split()) in help_


def test_the_overview_names_every_command_and_what_it_does(command):
    for line in ("", "--help", "-h"):
        outcome = command(line)
        assert outcome.code == 0
        for name, (_, _, text) in EVERY.items():
            assert re.search(rf"earthworks {name} +{re.escape(text)}\n", outcome.out)
    room = command("gopher").out
    assert "gopher train" in room
    assert "quickstart" not in room


def test_the_version_is_the_packages(command):
    assert command("--version").out == f"earthworks {__version__}\n"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("goper train", "there is no command 'goper'; did you mean gopher?"),
        ("xyzzy", "there is no command 'xyzzy'; see earthworks --help"),
        ("gopher trian", "there is no command of gopher 'trian'; did you mean train?"),
        ("gopher train --max_stepps 3", "there is no option '--max_stepps'; did you mean --max_steps?"),
        ("gopher train --max-stepps=3", "did you mean --max_steps?"),
        ("gopher generate x --temprature 1", "did you mean --temperature?"),
        ("gopher evaluate x --xyzzy", "there is no option '--xyzzy'; see earthworks gopher evaluate --help"),
        ("report x --opn", "did you mean --open?"),
        ("gopher train --max_steps many", "--max_steps cannot be many; it takes a whole number"),
        ("gopher train --max_steps 2.5", "--max_steps cannot be 2.5; it takes a whole number"),
        ("gopher train --learning_rate fast", "--learning_rate cannot be fast; it takes a number"),
        ("gopher train --learning_rate nan", "--learning_rate cannot be nan; it takes a number"),
        ("gopher train --tied maybe", "--tied cannot be maybe; it takes true or false"),
        ("gopher evaluate x --windows round", "--windows is 'round'; it must be one of sliding, disjoint"),
        ("gopher train --data", "argument --data: expected one argument; see earthworks gopher train --help"),
        ("gopher train text.txt", "unrecognized arguments: text.txt; see earthworks gopher train --help"),
        ("gopher generate", "the following arguments are required: run; see earthworks gopher generate --help"),
        ("gopher train", "--data is missing: give a file or folder of text, or python-docs; or --resume RUN"),
        ("report", "the following arguments are required: runs; see earthworks report --help"),
    ],
)
def test_a_slip_of_the_keyboard_is_one_sentence_with_the_way_out(command, line, hint):
    outcome = command(line)
    assert outcome.refuses(hint)
    assert outcome.err.count("\n") == 1


def settings(command, line: str, **options) -> dict:
    outcome = command(f"{line} --print_config", **options)
    assert outcome.code == 0, outcome.err
    return yaml.safe_load(outcome.out)


def test_what_print_config_prints_given_back_is_the_same_settings(command, tmp_path):
    given = {"data": "null.txt", "run": "7", "minutes": 2.5, "learning_rate": 1e-3, "tied": "false", "seed": 3}
    first = settings(command, "gopher train", **given, size="280B", final_share=0)
    assert list(first) == list(inspect.signature(function_of("gopher train")).parameters)
    assert first | {"tied": "false"} == first | given | {"size": "280B", "final_share": 0.0, "tied": "false"}
    assert first["tied"] is False
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(first))
    assert settings(command, "gopher train", config=file) == first
    assert settings(command, "gopher train --seed 5", config=file) == first | {"seed": 5}  # what is typed prevails
    assert settings(command, f"gopher train --seed 5 --config {file}") == first | {"seed": 5}  # wherever it stands


def test_a_config_may_hold_only_what_differs(command, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-3\ndata: '12'\nminutes: null\n")
    assert settings(command, "gopher train", config=file) == settings(
        command, "gopher train", learning_rate=1e-3, data="12"
    )


@pytest.mark.parametrize("name", ["gopher generate", "gopher evaluate", "report"])
def test_the_other_commands_settings_survive_the_same_way(command, tmp_path, name):
    options = {"report": {"output": "x.html", "open": "true"}}.get(name, {"seed": 4, "device": "cpu", "json": "true"})
    first = settings(command, f"{name} a-run", **options)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(first))
    assert settings(command, f"{name} a-run", config=tmp_path / "c.yaml") == first


def test_dashes_are_as_good_as_underscores(command):
    dashes = settings(command, "gopher train --max-steps 3 --save-every=2 --data my-file.txt --print-config")
    assert dashes == settings(command, "gopher train", max_steps=3, save_every=2, data="my-file.txt")


def test_a_switch_needs_no_value(command):
    for line, expected in (("--tensorboard", True), ("--tensorboard true", True), ("--tensorboard false", False)):
        assert settings(command, f"gopher train {line} --seed 1")["tensorboard"] is expected
    assert settings(command, "report --open a b") | {"output": None} == {
        "runs": ["a", "b"],
        "output": None,
        "open": True,
    }


@pytest.mark.parametrize(
    "prompt", ["12", "null", "true", "[1, 2]", "- x", "a: b", "{", "", "'", " 007 ", "--a-b=c", "ä"]
)
def test_text_is_taken_as_it_was_typed(command, prompt):
    assert settings(command, "gopher generate a-run", prompt=prompt)["prompt"] == prompt


@pytest.mark.usefixtures("flea")
def test_a_runs_config_runs_again_to_the_same_bits(command, tiny_text, tmp_path):
    assert command("gopher train", data=tiny_text, run=tmp_path / "a", **FLEA).code == 0
    assert command("gopher train", config=tmp_path / "a" / "config.yaml", run=tmp_path / "b").code == 0
    assert results(tmp_path / "a") == results(tmp_path / "b")
    configs = [yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in "ab"]
    assert configs[0] | {"run": None} == configs[1] | {"run": None}
    again = command("gopher train", config=tmp_path / "a" / "config.yaml")
    assert again.refuses("already contains a run")


def test_the_report_of_two_runs_compares_them(command, tiny_run, tmp_path):
    for name in ("run-one", "run-two"):
        shutil.copytree(tiny_run, tmp_path / name)
    outcome = command("report", tmp_path / "run-one", tmp_path / "run-two")
    assert outcome.code == 0
    assert outcome.out == f"{tmp_path / 'report.html'}\n"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "run-one" in page
    assert "run-two" in page


def test_evaluate_prints_a_table_or_json(command, tiny_run):
    table = command("gopher evaluate --device cpu", tiny_run)
    found = json.loads(command("gopher evaluate --device cpu --json", tiny_run).out)
    expected = {"nats_per_byte", "bits_per_byte", "nats_per_token", "tokens", "bytes", "interval"}
    assert expected <= found.keys()
    assert found["bytes"] == found["tokens"]
    assert f"{found['bits_per_byte']:.4f}" in table.out
    assert found == json.loads(command("gopher evaluate --json --device cpu --seed 0", tiny_run).out)


def test_generate_writes_after_the_prompt_and_says_where_from(command, tiny_run):
    outcome = command("gopher generate --max_tokens 5 --temperature 0 --device cpu --prompt=earth", tiny_run)
    assert outcome.out.startswith("earth")
    assert len(outcome.out.encode()) <= len("earth") + 5 * 3 + 1
    source, speed = outcome.err.splitlines()
    assert source == f"from {tiny_run / 'checkpoints' / 'step-10'}"
    assert re.fullmatch(r"[1-5] tokens in [\d.]+ s, [\d,]+ tokens/s, weights in (fp32|bf16)", speed)
    (answer,) = json.loads(
        command("gopher generate --max_tokens 5 --temperature 0 --device cpu --prompt=earth --json", tiny_run).out
    )
    assert answer["prompt"] + answer["text"] + "\n" == outcome.out


def test_a_prompt_longer_than_the_context_works_with_one_notice(command, tiny_run):
    prompt = "gopher digs " * 20
    outcome = command("gopher generate --max_tokens 5 --device cpu", tiny_run, prompt=prompt)
    assert outcome.code == 0
    assert outcome.out.startswith(prompt)
    assert len(outcome.out) > len(prompt) + 1
    assert outcome.err.count("notice: ") == 1
    assert f"notice: up to {len(prompt) + 5} tokens, more than the 16 the model was trained on\n" in outcome.err


def test_debug_shows_the_traceback(command):
    with pytest.raises(EarthworksError, match="there is no run folder"):
        main(["gopher", "evaluate", "missing", "--debug"])


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped("SIGTERM"), 75, "stopped by SIGTERM"),
        (MemoryError(), 1, "out of memory: try a smaller --micro_batch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "out of memory"),
        (EarthworksError("the disk is full", exit_code=1), 1, "the disk is full"),
        (EarthworksError("no such thing"), 2, "no such thing"),
    ],
)
def test_an_end_of_another_kind_is_one_sentence_too(command, monkeypatch, raised, code, said):
    def fails(arguments):
        raise raised

    monkeypatch.setattr(cli, "dispatch", fails)
    assert command("gopher train").refuses(said, code=code)


def test_a_fault_of_ours_keeps_its_traceback(command, monkeypatch):
    def fails(arguments):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(cli, "dispatch", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        command("gopher train")
