import json

import pytest
import torch

from earthworks.runs import EarthworksError, RunFolder
from earthworks.runs.temporary import temporary_name
from earthworks.training import checkpoint

TENSORS = {
    "model": {
        "weight": torch.randn(5, 3).T,  # not contiguous
        "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        "scalar": torch.tensor(3.0, dtype=torch.float64, requires_grad=True),
        "none": torch.empty(0, 4),
    },
    "optimizer": {},
}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def save(run: RunFolder, *steps: int) -> None:
    for step in steps:
        checkpoint.save(run, step, TENSORS, {"step": step, "share": 0.1})


def test_a_checkpoint_gives_back_every_bit_type_and_shape(run):
    path = checkpoint.save(run, 7, TENSORS, {"step": 7, "share": 0.1, "text": "naïve"})
    tensors, state = checkpoint.load(path)
    assert path == run.checkpoint(7)
    assert state == {"step": 7, "share": 0.1, "text": "naïve"}
    assert tensors.keys() == TENSORS.keys()
    assert tensors["model"].keys() == TENSORS["model"].keys()
    for name, value in TENSORS["model"].items():
        assert tensors["model"][name].dtype == value.dtype
        assert torch.equal(tensors["model"][name], value)
    assert sorted(file.suffix for file in path.iterdir()) == [".json", ".json", ".safetensors", ".safetensors"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["missing", "cut short", "altered"])
def test_a_checkpoint_of_which_a_file_is_missing_cut_short_or_altered_is_refused_by_name(run, file, harm):
    save(run, 1)
    path = run.checkpoint(1) / file
    content = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if harm == "cut short" else content[:-2] + b"?" + content[-1:])
    with pytest.raises(EarthworksError) as error:
        checkpoint.load(run.checkpoint(1))
    assert str(path) in str(error.value)


def test_there_is_a_newest_checkpoint_once_one_is_whole(run):
    assert checkpoint.newest(run) is None
    save(run, 9, 10, 2)
    (run.checkpoints / ".tmp-step-11").mkdir()
    assert checkpoint.newest(run) == run.checkpoint(10)  # by number, not by name or by date


def test_the_best_is_the_marked_one_else_the_last(run):
    with pytest.raises(EarthworksError, match="has no checkpoint yet"):
        checkpoint.choose(run)
    save(run, 3, 6, 9)
    assert checkpoint.choose(run) == checkpoint.choose(run, "last") == run.checkpoint(9)
    checkpoint.mark_best(run, {"step": 6, "score": 1.5})
    assert checkpoint.best(run) == {"step": 6, "score": 1.5}
    assert checkpoint.choose(run) == run.checkpoint(6)
    assert checkpoint.choose(run, "3") == run.checkpoint(3)
    for which in ("7", "first", "-3"):
        with pytest.raises(EarthworksError, match=f"no checkpoint '{which}' .* best, last and 3, 6, 9"):
            checkpoint.choose(run, which)
    checkpoint.mark_best(run, {"step": 12, "score": 1.0})  # removed by hand since
    assert checkpoint.choose(run) == run.checkpoint(9)


def test_the_newest_two_and_the_best_stay(run):
    save(run, 1, 2, 3, 4)
    checkpoint.mark_best(run, {"step": 2, "score": 1.0})
    checkpoint.prune(run)
    assert run.steps() == [2, 3, 4]
    checkpoint.mark_best(run, {"step": 4, "score": 0.5})
    checkpoint.prune(run)
    assert run.steps() == [3, 4]


def test_what_a_killed_run_left_half_written_or_half_removed_goes_with_the_next_pruning(run):
    save(run, 1)
    dead = ".tmp-earthworks-elsewhere-7-0123456789abcdef-step-2"
    for name in (dead, ".tmp-step-2"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "model.safetensors").write_bytes(b"half")
    living = temporary_name(run.checkpoint(3))
    living.mkdir()
    checkpoint.prune(run)
    assert {entry.name for entry in run.checkpoints.iterdir()} == {
        "step-1",
        ".tmp-step-2",
        living.name,
    }  # not ours to remove


def test_a_checkpoint_in_which_somebody_put_a_file_is_kept(run, capsys):
    save(run, 1, 2, 3, 4)
    (run.checkpoint(1) / "notes.txt").write_text("the good one")
    checkpoint.prune(run)
    checkpoint.prune(run)
    assert run.steps() == [1, 3, 4]
    assert capsys.readouterr().err.count("is kept, because it has files that Earthworks did not write") == 1
    assert checkpoint.load(run.checkpoint(1))[1]["step"] == 1


def test_a_checkpoint_is_read_from_the_files_that_its_manifest_names(run, tmp_path):
    save(run, 1)
    (run.checkpoint(1) / "extra.safetensors").write_bytes(b"not read")
    assert checkpoint.load(run.checkpoint(1))[0].keys() == TENSORS.keys()
    manifest = run.checkpoint(1) / "manifest.json"
    for content in (
        {"files": {}},
        {},
        [],
        {"files": {"../../x": {"bytes": 1, "sha256": ""}}},
        {"files": {"/dev/zero": {"bytes": 0, "sha256": ""}}},
    ):
        manifest.write_text(json.dumps(content))
        with pytest.raises(EarthworksError):
            checkpoint.load(run.checkpoint(1))


def test_random_numbers_continue_where_they_were(run):
    torch.manual_seed(3)
    torch.rand(5)
    checkpoint.save(run, 1, {"random": checkpoint.random_state()}, {})
    following = torch.rand(5)
    torch.manual_seed(99)
    checkpoint.restore_random_state(checkpoint.load(run.checkpoint(1))[0]["random"])
    assert torch.equal(torch.rand(5), following)


def test_the_state_is_plain_json(run):
    save(run, 1)
    assert json.loads((run.checkpoint(1) / "state.json").read_text()) == {"step": 1, "share": 0.1}
