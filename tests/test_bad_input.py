"""What cannot be done is refused in one clear sentence, without a traceback, and nothing is left behind or lost."""

import gzip
import shutil
from pathlib import Path

import pytest
import torch

from earthworks.cli import main
from earthworks.gopher import generate, load
from earthworks.runs import read_metrics
from tiny_runs import FLEA, words

pytestmark = pytest.mark.usefixtures("flea")


def test_every_kind_of_unusable_data_is_named_and_leaves_no_folder(command, tmp_path):
    def file(name: str, content: bytes) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    (tmp_path / "data" / "nothing").mkdir(parents=True)
    file("pictures/a.png", b"\x89PNG")
    file("pictures/.hidden.txt", b"text")
    file("blank/a.txt", b"")
    cases = {
        file("empty.txt", b""): "contains no text",
        file("binary.txt", bytes(range(256))): "is a binary file (it contains NUL bytes); expected UTF-8 text",
        file("paper.txt", b"%PDF-1.7 and so on"): "is not plain text but a PDF",
        file("a.docx", b"text"): "(expected .txt, .jsonl, .parquet",
        file("cut.txt.gz", gzip.compress(words(400).encode())[:-9]): "cannot be decompressed",
        file("bad.jsonl", b'{"text": "a"}\nnot json\n'): "line 2 of",
        file("odd.jsonl", b'{"words": "a"}\n'): "expected the text in one named text",
        file("bad.parquet", b"PAR1 no"): "is not a readable Parquet file",
        file(
            "short.txt", b"abc def"
        ): "is shorter than one context: short.txt has 6 training tokens, --context 16 needs 17",
        tmp_path / "data" / "nothing": "contains no readable files",
        tmp_path / "data" / "pictures": "contains no readable files",
        tmp_path / "data" / "blank": "contains no text",
        tmp_path / "data" / "missing.txt": "does not exist; expected a file, a folder",
    }
    for data, complaint in cases.items():
        outcome = command("gopher train", data=data, run=tmp_path / "run", **FLEA)
        assert outcome.refuses(data.name, complaint)
        assert not (tmp_path / "run").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data"]


def test_with_a_tokenizer_to_be_trained_the_sentences_are_the_same(command, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.txt").write_bytes(bytes(99))
    for name, complaint in (("empty.txt", "contains no text"), ("binary.txt", "is a binary file")):
        outcome = command("gopher train", data=tmp_path / name, run=tmp_path / "run", **{**FLEA, "tokenizer": "bpe"})
        assert outcome.refuses(complaint)
    assert not (tmp_path / "run").exists()


def test_without_a_name_given_no_run_folder_stays_either(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    assert command("gopher train", data="empty.txt", **FLEA).refuses("empty.txt contains no text")
    assert not list(tmp_path.glob("runs/*"))


def test_a_folder_that_was_there_keeps_what_was_in_it(command, tmp_path):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "notes.txt").write_text("mine")
    (tmp_path / "empty.txt").touch()
    assert command("gopher train", data=tmp_path / "empty.txt", run=tmp_path / "mine", **FLEA).refuses(
        "is not an empty"
    )
    assert [path.name for path in sorted((tmp_path / "mine").rglob("*"))] == ["data", "notes.txt"]
    assert (tmp_path / "mine" / "data" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *((name, value, "it must be at least 1") for name in ("max_steps", "batch", "context") for value in (0, -3)),
        *((name, 0, "it must be at least 1") for name in ("micro_batch", "first_batch", "horizon", "save_every")),
        *((name, 0, "it must be at least 1") for name in ("evaluate_every", "sample_every", "validation_tokens")),
        *((name, value, "it must be above 0") for name in ("minutes", "learning_rate") for value in (0, -0.5)),
        *((name, value, "it must be above 0") for name in ("embedding_rate", "clip") for value in (0, -1)),
        *(("validation", value, "it must be at least 0 and below 1") for value in (1, 1.5, -0.1)),
        *((name, 1, "it must be at least 0 and below 1") for name in ("beta1", "beta2", "momentum")),
        *((name, -1, "it must be at least 0") for name in ("weight_decay", "warmup_steps", "ramp_step")),
        ("final_share", 1.1, "it must be between 0 and 1"),
        ("optimizer", "sgd", "it must be one of adam, adamw, muon"),
        ("schedule", "cosine", "it must be one of gopher, linear"),
        ("precision", "fp64", "it must be one of auto, fp32, bf16"),
        ("norm", "batch", "it must be one of rms, layer"),
        ("positions", "rotary", "it must be one of relative, absolute, none"),
        ("d_position", 3, "make it even"),
        ("d_position", 0, "at least 1"),
        ("max_distance", 0, "at least 1"),
        ("size", "whale", "the sizes are 44M, 117M, 417M, 1.4B, 7.1B, 280B, cricket, shrew"),
        ("device", "abacus", "cannot be used here"),
        ("tokenizer", "missing.json", "missing.json does not exist"),
        ("init", "missing", "there is no run folder at missing"),
    ],
)
def test_a_setting_that_no_run_can_have_is_named_with_what_it_must_be(
    command, tiny_text, tmp_path, option, value, expected
):
    outcome = command("gopher train", **{**FLEA, "data": tiny_text, "run": tmp_path / "run", option: value})
    assert outcome.refuses(expected, str(value))
    if option not in ("tokenizer", "init", "size"):
        assert option in outcome.err
    assert not list(tmp_path.iterdir())


def test_the_run_must_be_a_folder_or_nothing_yet(command, tiny_text, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert command("gopher train", data=tiny_text, run=tmp_path / "file", **FLEA).refuses("is a file: give --run")
    assert command("gopher train", data=tiny_text, run=tmp_path / "file" / "x", **FLEA).refuses(
        "could not write", code=1
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a: [b", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"- a\n- b\n", "does not contain settings: write them as key: value lines"),
        (b"", "does not contain settings"),
        (b"just words", "does not contain settings"),
        (b"kind: wgan\nseed: 1\n", "this is the configuration of a wgan run, not of gopher train"),
        (b"max_stepps: 3\n", "there is no setting 'max_stepps'; did you mean max_steps?"),
        (b"7: 3\n", "there is no setting '7'; see earthworks gopher train --help"),
        (b"max_steps: many\n", "--max_steps cannot be many; it takes a whole number"),
        (b"batch: 2.5\n", "--batch cannot be 2.5; it takes a whole number"),
        (b"batch: [2]\n", "--batch cannot be [2]; it takes a whole number"),
        (b"tied: maybe\n", "--tied cannot be maybe; it takes true or false"),
        (b"batch: 0\n", "--batch is 0; it must be at least 1"),
    ],
)
def test_a_config_that_is_none_is_refused(command, tiny_text, tmp_path, content, complaint):
    (tmp_path / "c.yaml").write_bytes(content)
    assert command("gopher train", config=tmp_path / "c.yaml", data=tiny_text, run=tmp_path / "run").refuses(complaint)
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_there_is_refused(command, tmp_path):
    assert command("gopher train", config=tmp_path / "missing.yaml").refuses("missing.yaml does not exist")
    assert command("gopher train", config=tmp_path).refuses("cannot be read: it is not a regular file")
    assert command("gopher train --config").refuses("--config is missing its value")


@pytest.mark.parametrize("name", ["gopher generate", "gopher evaluate", "report"])
def test_a_folder_that_is_no_run_is_refused(command, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert command(name, tmp_path / "missing").refuses(f"there is no run folder at {tmp_path / 'missing'}")
    assert command(name, tmp_path / "file").refuses(f"there is no run folder at {tmp_path / 'file'}")
    assert command(name, tmp_path / "empty").refuses("empty has no config.yaml")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("generate --max_tokens 0", "max_tokens is 0; it must be at least 1"),
        ("generate --temperature=-1", "temperature is -1.0; it must be 0"),
        ("generate --top_k 0", "top_k is 0; it must be at least 1"),
        ("generate --top_p 0", "top_p is 0.0; it must be above 0"),
        ("generate --repetition_penalty 0", "repetition_penalty is 0.0; it must be above 0"),
        ("generate --checkpoint 3", "there is no checkpoint '3'"),
        ("generate --checkpoint worst", "there are best, last and"),
        ("generate --prompts missing.txt", "missing.txt does not exist"),
        ("generate --device abacus", "device 'abacus' cannot be used here"),
        ("evaluate --context 0", "--context is 0; it must be at least 1"),
        ("evaluate --max_tokens=-3", "--max_tokens is -3; it must be at least 1"),
        ("evaluate --data missing.txt", "missing.txt does not exist"),
        ("evaluate --checkpoint 3", "there is no checkpoint '3'"),
    ],
)
def test_what_a_trained_model_cannot_be_asked(command, tiny_run, line, complaint):
    assert command(f"gopher {line}", tiny_run).refuses(complaint)


def test_a_run_without_held_out_text_is_evaluated_on_text_that_is_given(command, tiny_text, tmp_path):
    run = tmp_path / "run"
    assert command("gopher train", data=tiny_text, run=run, **{**FLEA, "validation": 0, "max_steps": 1}).code == 0
    assert command("gopher evaluate", run).refuses("held nothing out (--validation 0); give text with --data")
    assert command("gopher evaluate", run, data=tiny_text).code == 0


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_a_harmed_run_is_named(command, tiny_run, tmp_path, verb):
    def harmed(name: str, content: bytes | None) -> Path:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tiny_run, tmp_path / "run")
        file = tmp_path / "run" / name
        whole = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(whole[: len(whole) // 2] + content)
        return tmp_path / "run"

    for name, content, complaint in (
        ("checkpoints/step-10/model.safetensors", b"", "it was cut short, or one of the two was altered"),
        ("checkpoints/step-10/model.safetensors", None, "is missing"),
        ("checkpoints/step-10/state.json", b"", "it was cut short, or one of the two was altered"),
        ("tokenizer.json", b"", "it was altered or cut short"),
        ("tokenizer.json", None, "does not exist"),
    ):
        assert command(f"gopher {verb}", harmed(name, content)).refuses(Path(name).name, complaint)
    assert command(f"gopher {verb}", harmed("checkpoints/best.json", b"")).code == 0  # the newest checkpoint knows


def test_a_tokenizer_that_is_not_the_models_is_refused(command, tiny_run, tiny_text, tmp_path):
    other = {**FLEA, "tokenizer": "bpe", "vocabulary": 330, "context": 8, "max_steps": 1}
    assert command("gopher train", data=tiny_text, run=tmp_path / "other", **other).code == 0
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "tokenizer.json", tmp_path / "run" / "tokenizer.json")
    for verb in ("generate", "evaluate"):
        assert command(f"gopher {verb}", tmp_path / "run").refuses("was trained with another tokenizer than")


def test_a_run_that_has_saved_nothing_yet_is_refused(command, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    for verb in ("generate", "evaluate"):
        assert command(f"gopher {verb}", tmp_path / "run").refuses("has no checkpoint yet")


def test_bytes_that_are_not_utf_8_are_replaced_and_counted_in_one_notice(command, tmp_path):
    data = tmp_path / "some.txt"
    data.write_bytes(words(300).encode() + b" caf\xe9 \xff\xfe " + words(100).encode())
    outcome = command("gopher train", data=data, run=tmp_path / "run", **{**FLEA, "max_steps": 1})
    assert outcome.code == 0
    assert [line for line in outcome.err.splitlines() if "notice" in line] == [
        "notice: 3 undecodable bytes became U+FFFD"
    ]
    resumed = command("gopher train", resume=tmp_path / "run", max_steps=2)
    assert "notice" not in resumed.err


def test_what_was_passed_over_in_a_folder_is_said_in_the_same_notice(command, tmp_path):
    (tmp_path / "d").mkdir()
    for name, content in (("a.txt", words(200)), ("b.txt", words(300)[100:]), ("c.txt", ""), ("d.md", "# x")):
        (tmp_path / "d" / name).write_text(content)
    outcome = command("gopher train", data=tmp_path / "d", run=tmp_path / "run", **{**FLEA, "max_steps": 1})
    (notice,) = [line for line in outcome.err.splitlines() if "notice" in line]
    assert "1 files were skipped" in notice
    assert "1 empty documents were skipped" in notice
    clean = command("gopher train", data=tmp_path / "d" / "a.txt", run=tmp_path / "b", **{**FLEA, "max_steps": 1})
    assert "notice" not in clean.err


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_line_of_20_megabytes_trains(command, tmp_path, tokenizer):
    data = tmp_path / "line.txt"
    data.write_text(words(1000) * 20_000)
    settings = {**FLEA, "tokenizer": tokenizer, "vocabulary": 330, "max_steps": 2}
    assert command("gopher train", data=data, run=tmp_path / "run", **settings).code == 0
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 2


def test_a_model_with_learned_positions_says_that_a_long_prompt_is_too_long(command, tiny_text, tmp_path):
    run = tmp_path / "run"
    settings = {**FLEA, "positions": "absolute", "max_steps": 1, "context": 160}
    assert command("gopher train", data=tiny_text, run=run, **settings).code == 0
    assert command("gopher generate --max_tokens 100", run, prompt="x" * 61).refuses(
        "161 tokens", "160 absolute positions"
    )
    assert command("gopher generate --max_tokens 100", run, prompt="x" * 60).code == 0
    assert command("gopher evaluate --context 161", run).refuses("--context 161 exceeds the 160 positions")


def test_generating_leaves_a_model_as_it_was(tiny_run):
    model, tokenizer = load(tiny_run)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generate(model, tokenizer, "earth", max_tokens=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Values that no command can mean


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["gopher", "train", "--data=a.txt", "--run="], "--run is empty"),
        (["wgan", "train", "--data", ""], "--data is empty"),
        (["transport", "measure", "", "b.npy"], "A is empty"),
        (["gopher", "evaluate", "run", "--seed=-1"], "--seed is -1; it must be"),
        (["wgan", "sample", "run", f"--seed={1 << 63}"], "--seed is 9223372036854775808"),
        (["transport", "measure", "a.npy", "b.npy", "--seed=99999999999999999999999"], "--seed is 9999"),
        (["corpus", "score", "FILE", "--document=99999999999999999999"], "has fewer than 99999999999999999999"),
        (["corpus", "build", "--input=FILE", "--output=out", "--bounds={words: [5000, 1]}"], "the lowest is above"),
    ],
)
def test_values_that_cannot_be_meant_are_one_sentence_and_write_nothing(tmp_path, monkeypatch, capsys, line, words):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([part.replace("FILE", str(file)) for part in line])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("line", ["gopher generate RUN --prompt a", "gopher evaluate RUN", "gopher train --resume RUN"])
def test_the_run_of_a_gan_is_no_language_model_and_the_sentence_says_so(command, tmp_path, line):
    (tmp_path / "config.yaml").write_text("kind: wgan\n")
    words = ("is the run of a GAN, not of a language model", "use earthworks wgan sample")
    assert command(line.replace("RUN", str(tmp_path))).refuses(*words)
