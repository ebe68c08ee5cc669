"""What a person's terminal, pipe or file is given by the command itself, as a process of its own."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
COMMAND = [sys.executable, "-m", "earthworks.cli"]


def obeyed(text: str) -> bool:
    """Whether a terminal would do anything on this text but write it."""
    return any(character in text for character in "\x1b\x07\x9b\u202e\0")


def in_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code, and all that a terminal was sent."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PYTHONUTF8": "1"}  # dumb: no live line, whose own escapes are ours
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    sent = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other side was closed
            break
        if not piece:
            break
        sent += piece
    os.close(master)
    return process.wait(), sent.decode()


@pytest.mark.parametrize(
    "line",
    [
        ("report", f"no-such-{ESCAPES}run"),
        ("report", "x", f"--{ESCAPES}", "3"),
        ("report", "x", "--open", ESCAPES),
        (ESCAPES,),
    ],
)
def test_what_is_wrong_is_named_without_commanding_the_terminal(line):
    code, sent = in_terminal(*line)
    assert code == 2
    assert not obeyed(sent)
    assert "\\u001b" in sent or "\\x1b" in sent
    assert sent.count("\n") == 1


def test_a_strangers_files_command_no_terminal(tmp_path):
    run = tmp_path / f"run{ESCAPES}"
    (run / "samples").mkdir(parents=True)
    (run / "config.yaml").write_text("kind: gopher\n")
    (run / "evaluation.json").write_text(json.dumps({ESCAPES: 1})[:-1])
    (run / "samples" / f"step-1{ESCAPES}.txt").write_text("x")
    code, sent = in_terminal("report", run)
    assert code == 0
    assert not obeyed(sent)
    assert "missing from the report" in sent
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"runs": ["x"], "output": ESCAPES}))
    code, sent = in_terminal("report", "x", "--config", config, "--print_config")
    assert code == 0
    assert not obeyed(sent)
    assert yaml.safe_load(sent)["output"] == ESCAPES


def test_generated_text_is_shown_and_json_has_it_exactly(command, monkeypatch, tiny_run):
    from earthworks.gopher import command as commands
    from earthworks.gopher.generation import Generated

    def generate(_model, _tokenizer, texts, *, stream, **_):
        for piece in ESCAPES:
            stream(0, piece)
        return [Generated(prompt=text, text=ESCAPES, tokens=[1], reason="length") for text in texts]

    monkeypatch.setattr(commands, "generate", generate)
    shown = command("gopher generate --device cpu --prompt=a", tiny_run)
    assert shown.out == "a\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\n"
    exact = command("gopher generate --device cpu --prompt=a --json", tiny_run)
    assert json.loads(exact.out)[0]["text"] == ESCAPES
    assert not obeyed(exact.out)
    assert "control characters" not in exact.err


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, timeout=120, **{"stdout": None, **options}
    )


@pytest.mark.parametrize("arguments", [("--help",), ("report", "--help"), ("report", "x", "--print_config")])
def test_an_answer_that_cannot_be_written_is_one_sentence(arguments):
    with open("/dev/full", "w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "earthworks: the answer could not be written to standard output: No space left on device; "
        "the command's files were written\n"
    )


def test_without_standard_output_nothing_is_started(tmp_path):
    """Its number would be given to the next file that is opened, and what a library prints would go into that."""
    done = run("gopher", "train", "--data", "x", "--run", tmp_path / "run", preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output is closed" in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_standard_error_the_answer_is_the_answer_alone(tiny_run):
    silent = run("gopher", "evaluate", tiny_run, "--json", "--device=cpu", stdout=subprocess.PIPE,
                 preexec_fn=lambda: os.close(2))  # fmt: skip
    assert silent.returncode == 0
    assert json.loads(silent.stdout)["tokens"] > 0


def test_a_reader_that_leaves_is_no_failure():
    process = subprocess.Popen([*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 0


def test_a_log_that_cannot_be_written_does_not_stop_the_work(tiny_run, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "gopher", "evaluate", str(tiny_run), "--json", "--device=cpu"],
                              stdout=subprocess.PIPE, stderr=full, timeout=120)  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["tokens"] > 0


def test_an_output_of_few_characters_gets_what_it_has_and_json_is_exact(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("output: жук\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = run("report", "x", "--config", config, "--print_config", stdout=subprocess.PIPE, env=environment)
    assert "\\u0436\\u0443\\u043A" in printed.stdout
    missing = run("report", "жук", stdout=subprocess.PIPE, env=environment)
    assert missing.returncode == 2
    assert missing.stderr == "earthworks: there is no run folder at \\u0436\\u0443\\u043a: check the path\n"


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "SIGTERM")]
)
def test_a_signal_while_libraries_are_loaded_is_one_sentence(tmp_path, number, code, said):
    """torch takes a second to import; the signal comes in the middle of it."""
    process = subprocess.Popen([*COMMAND, "gopher", "evaluate", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert said in error


ALIASES = "a: &a [1,1,1,1,1,1,1,1,1,1]" + "".join(
    f", {b}: &{b} [{','.join(['*' + a] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi")
)


def test_aliases_that_unfold_are_refused_typed_or_in_a_file(command, tmp_path):
    started = time.monotonic()
    typed = command("corpus inspect x", bounds=f"{{{ALIASES}}}")
    assert typed.refuses("--bounds expands to more than 20,000 values")
    (tmp_path / "c.yaml").write_text(f"{{{ALIASES}}}")
    filed = command("corpus build", config=tmp_path / "c.yaml")
    assert filed.refuses("c.yaml expands to more than 20,000 values")
    assert command("gopher generate no-run", prompt=f"{{{ALIASES}}}").refuses("there is no run folder")  # text is text
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_a_configuration_that_never_ends_is_refused(command, tmp_path, kind):
    path = tmp_path / "c.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10 << 30)
    assert command("gopher train", config=path).refuses("c.yaml")
