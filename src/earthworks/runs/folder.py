"""The run folder: one place for everything that a command wrote."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from earthworks.runs.environment import environment
from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import TEMPORARY, one_sentence, write_bytes, write_json

# keys of config.yaml to be read only; the others are settings of a command
DERIVED = ("kind", "parameters", "shape", "data_digest", "critic_batch_norm")


def default_run(name: str, otherwise: str) -> str:
    """runs/NAME-DATE, NAME being what can stand in a file name of the last part of `name` before its first dot."""
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(name).name.split(".")[0])
    return f"runs/{stem.strip('-') or otherwise}-{datetime.now():%Y%m%d-%H%M%S}"


class RunFolder:
    """Paths and small files of `runs/NAME/`.

    `config.yaml` (re-runnable), `environment.json`, `metrics.jsonl`, `tokenizer.json`, `data/` (packed tokens),
    `checkpoints/step-N/`, `samples/`, `figures/`, `report.html`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.data = self.path / "data"
        self.tokenizer = self.path / "tokenizer.json"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    @classmethod
    def create(cls, path: str | Path) -> "RunFolder":
        """A folder for a new run; refuses one that already holds a run."""
        folder = cls(path)
        if folder.config_file.exists():
            raise EarthworksError(
                f"{path} already holds a run: go on with it by --resume {path}, or choose another name with --run"
            )
        if folder.path.exists() and not folder.path.is_dir():
            raise EarthworksError(f"{path} is a file; --run wants the name of a folder")
        with one_sentence(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """What is written inside goes again when it ends in an error before config.yaml is there: no run, no trace."""
        before = set(self.path.iterdir())
        try:
            yield
        except BaseException:
            if not self.config_file.exists():
                for entry in set(self.path.iterdir()) - before:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                if not before:
                    self.path.rmdir()
            raise

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run; one sentence when there is none."""
        folder = cls(path)
        if not folder.path.is_dir():
            raise EarthworksError(f"there is no run folder at {path}")
        if not folder.config_file.exists():
            raise EarthworksError(
                f"{path} holds no config.yaml, so no run began there: start it again with the command that made it"
            )
        return folder

    def write_config(self, config: dict[str, Any]) -> None:
        """config.yaml and environment.json; the config last, because it is what makes the folder a run."""
        if not (self.path / "environment.json").exists():
            write_json(self.path / "environment.json", environment())
        write_bytes(self.config_file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())

    def read_config(self) -> dict[str, Any]:
        """The run's configuration as written."""
        try:
            config = yaml.safe_load(self.config_file.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())  # YAML's own complaint spans lines
            raise EarthworksError(f"{self.config_file} is not valid YAML: {reason}") from None
        if not isinstance(config, dict):
            raise EarthworksError(f"{self.config_file} does not hold a mapping of settings")
        return config

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.checkpoints.is_dir():
            return []
        names = (entry.name for entry in self.checkpoints.iterdir() if not entry.name.startswith(TEMPORARY))
        return sorted(int(name[5:]) for name in names if name.startswith("step-") and name[5:].isdigit())

    def checkpoint(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.checkpoints / f"step-{step}"
