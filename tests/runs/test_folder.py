import os
import sys

import pytest
import yaml

from earthworks import __version__
from earthworks.runs import EarthworksError, RunFolder, environment, read_json, write_bytes
from earthworks.runs.folder import STARTING


def test_a_configuration_comes_back_as_it_was_written(tmp_path):
    config = {
        "kind": "gopher",
        "learning_rate": 1e-7,
        "data": "naïve: file.txt",
        "model": {"d_model": 128, "eps": None},
    }
    folder = RunFolder.create(tmp_path / "runs" / "a")
    folder.write_config(config)
    assert RunFolder.open(tmp_path / "runs" / "a").read_config() == {"format": 2, **config}
    assert list(yaml.safe_load(folder.config_file.read_text(encoding="utf-8"))) == [
        "format",
        *config,
    ]  # in the given order


def test_a_run_is_not_started_where_one_exists(tmp_path):
    RunFolder.create(tmp_path / "a run").write_config({"seed": 0})
    with pytest.raises(
        EarthworksError, match=r"already contains a run: resume it with --resume '.*a run', or pick another"
    ):
        RunFolder.create(tmp_path / "a run")
    assert RunFolder.open(tmp_path / "a run").read_config() == {"format": 2, "seed": 0}


def test_a_folder_in_which_no_run_started_can_be_used(tmp_path):
    RunFolder.create(tmp_path / "a")  # killed before its configuration was written
    RunFolder.create(tmp_path / "a").write_config({"seed": 1})
    assert RunFolder.open(tmp_path / "a").read_config() == {"format": 2, "seed": 1}


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "a").write_text("text")
    with pytest.raises(EarthworksError, match="is a file: give --run the name of a folder"):
        RunFolder.create(tmp_path / "a")
    with pytest.raises(EarthworksError, match=r"could not write .*: Not a directory"):
        RunFolder.create(tmp_path / "a" / "b")


def test_resuming_nothing_is_one_sentence(tmp_path):
    with pytest.raises(EarthworksError, match="there is no run folder at"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(EarthworksError, match=r"has no config\.yaml, so no run was started there"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", [b"a: [1, 2", b"just text", b"", b"\xff\xfe\x00", b"- 1\n- 2"])
def test_a_damaged_configuration_is_one_sentence(tmp_path, content):
    write_bytes(tmp_path / "config.yaml", content)
    with pytest.raises(EarthworksError, match=r"config\.yaml (is not valid YAML|does not contain a mapping)") as error:
        RunFolder.open(tmp_path).read_config()
    assert "\n" not in str(error.value)


def test_only_finished_checkpoints_count_and_they_count_in_numbers(tmp_path):
    folder = RunFolder.create(tmp_path)
    assert folder.steps() == []
    for name in ("step-200", "step-1000", "step-30", ".tmp-step-2000", ".tmp-removed-step-10", "best.json", "step-x"):
        (folder.checkpoints / name).mkdir(parents=True)
    assert folder.steps() == [30, 200, 1000]
    assert folder.checkpoint(200) == tmp_path / "checkpoints" / "step-200"


def test_a_start_that_was_killed_right_after_it_wrote_its_configuration_is_a_run(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    child = os.fork()
    if child == 0:
        with folder.writing(), folder.beginning():
            folder.write_config({"max_steps": 12})
            os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / "run" / STARTING).exists()
    with RunFolder.open(tmp_path / "run").writing() as resumed:
        resumed.write_config({"max_steps": 14})
    assert resumed.read_config() == {"format": 2, "max_steps": 14}
    assert not (tmp_path / "run" / STARTING).exists()


def test_a_start_leaves_alone_what_a_living_command_on_another_machine_writes(tmp_path):
    living = tmp_path / ".tmp-earthworks-far-7-0123456789abcdef-table.npy"
    living.write_bytes(b"half")
    with RunFolder.create(tmp_path).writing() as folder, folder.beginning():
        pass
    assert living.read_bytes() == b"half"


def test_a_start_never_writes_over_a_configuration_that_came_meanwhile(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    with folder.writing(), folder.beginning():
        folder.config_file.write_text("mine")
        with pytest.raises(EarthworksError, match="already exists"):
            folder.write_config({"seed": 1})
    assert folder.config_file.read_text() == "mine"


def test_the_environment_is_that_of_the_first_start(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path)
    monkeypatch.setattr(sys, "argv", ["earthworks", "first"])
    folder.write_config({"max_steps": 1})
    monkeypatch.setattr(sys, "argv", ["earthworks", "second"])
    folder.write_config({"max_steps": 2})
    assert read_json(tmp_path / "environment.json")["command"] == ["earthworks", "first"]
    assert folder.read_config() == {"format": 2, "max_steps": 2}


def test_the_environment_tells_this_process(monkeypatch):
    import torch

    found = environment()
    assert found["earthworks"] == __version__
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    if hasattr(os, "sched_getaffinity"):
        assert found["cores"] == len(os.sched_getaffinity(0))
