"""The run folder: paths, creation and checks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from earthworks.runs.environment import environment
from earthworks.runs.errors import EarthworksError
from earthworks.runs.files import inside, one_sentence, read_regular, write_bytes
from earthworks.runs.json_files import json_text, read_json, with_digest
from earthworks.runs.lock import STALE, Held, lock
from earthworks.runs.manifest import remove_folder
from earthworks.runs.temporary import remove_leftovers
from earthworks.runs.terminal import typed
from earthworks.runs.yaml_files import read_yaml

FORMAT = 2  # of run folders; format 1 had no number, and no times and block digests in its manifests
# read-only keys of config.yaml; the others are settings of a command
DERIVED = ("format", "kind", "parameters", "shape", "data_digest", "data_path", "critic_batch_norm")
STARTING = ".earthworks-starting"  # exists while a start has not written config.yaml
# files that commands write into a run folder, in addition to config.yaml
LAYOUT = (
    *(
        "environment.json",
        "inputs.json",
        "tokenizer.json",
        "data",
        "metrics.jsonl",
        "checkpoints",
        "samples",
        "figures",
    ),
    *("evaluation.json", "passage.json", "tasks.json", "bias.json", "bias_samples.jsonl", "toxicity.json"),
    *("toxicity_samples.jsonl", "toxicity_detection.json", "scaling.json", "report.html", "tensorboard"),
)


def default_run(name: str, otherwise: str) -> str:
    """runs/NAME-DATE, where NAME is the last part of `name` up to its first dot, in characters allowed in file names."""
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(name).name.split(".")[0])
    return f"runs/{stem.strip('-')[:100] or otherwise}-{datetime.now():%Y%m%d-%H%M%S}"


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
        self.made = False  # by this process
        self.lock: Held | None = None

    @classmethod
    def create(cls, path: str | Path | None, *, otherwise: str = "") -> "RunFolder":
        """A folder for a new run; refuses one that already contains a run. Without `path` it is `otherwise`, or the first
        unused one of `otherwise`-2, -3, ..., safe against another process of the same second."""
        if path is None:
            for number in range(1, 1000):
                folder = cls(otherwise if number == 1 else f"{otherwise}-{number}")
                with one_sentence(folder.path):
                    folder.path.parent.mkdir(parents=True, exist_ok=True)
                    with suppress(FileExistsError):
                        folder.path.mkdir()
                        folder.made = True
                        return folder
            raise EarthworksError(f"{otherwise} and 999 names like it are taken: choose another with --run")
        folder = cls(path)
        folder.refuse_run()
        if folder.path.exists() and not folder.path.is_dir():
            raise EarthworksError(f"{path} is a file: give --run the name of a folder")
        with one_sentence(folder.path), suppress(FileExistsError):
            folder.path.mkdir(parents=True)
            folder.made = True
        return folder

    def refuse_run(self) -> None:
        if os.path.lexists(self.config_file):
            raise EarthworksError(
                f"{self.path} already contains a run: resume it with --resume {typed(self.path)}, or pick another "
                "name with --run"
            )

    @contextmanager
    def writing(self) -> Iterator["RunFolder"]:
        """Hold the training lock: one command at a time. A folder created for a failed start is removed again if empty."""
        try:
            with lock(self.path, "training") as self.lock:
                if self.config_file.exists():  # a start that was killed right after writing it
                    with one_sentence(self.path):
                        (self.path / STARTING).unlink(missing_ok=True)
                yield self
        finally:
            self.lock = None
            if self.made and not self.config_file.exists():
                with suppress(OSError):
                    self.path.rmdir()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Under `writing`: remove what a start made, file by file, if it ends before config.yaml is written: now after an
        error, or at the next start after a kill. Refuses a folder where a run would overwrite existing files."""
        self.refuse_run()  # another command may have started one meanwhile
        self.undo()
        taken = [name for name in LAYOUT if os.path.lexists(self.path / name) and not empty_folder(self.path / name)]
        if taken:
            raise EarthworksError(
                f"{self.path} already contains {taken[0]}, which the run would overwrite (it is not an empty folder): "
                "choose another name with --run"
            )
        try:  # from before the first write: a signal may come at any moment
            write_bytes(self.path / STARTING, b"a run is being started here; what it wrote goes if it fails\n")
            yield
        except BaseException:
            if not self.config_file.exists():
                self.undo()
            raise
        (self.path / STARTING).unlink(missing_ok=True)

    def undo(self) -> None:
        """Remove what a start that never wrote config.yaml made here, and nothing else."""
        if self.path.is_symlink() and not self.path.exists():
            return
        remove_leftovers(self.path, idle=STALE)  # several machines may work in this folder
        if not (self.path / STARTING).is_file():
            return
        with suppress(EarthworksError, OSError):
            if read_regular(self.tokenizer, 1 << 28) == read_regular(self.data / "tokenizer.json", 1 << 28):
                self.tokenizer.unlink()
        with suppress(EarthworksError):
            if (self.data / "index.json").is_file():
                remove_folder(self.data)
        for name, key in (("environment.json", "earthworks"), ("inputs.json", "inputs")):
            with suppress(EarthworksError, OSError):
                written = read_json(self.path / name)
                if isinstance(written, dict) and key in written:
                    (self.path / name).unlink()
        (self.path / STARTING).unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run; EarthworksError if there is none, or if a part of it is a link that leads out of it."""
        folder = cls(path)
        if not folder.path.is_dir():
            raise EarthworksError(f"there is no run folder at {path}: check the path")
        if not folder.config_file.exists():
            raise EarthworksError(
                f"{path} has no config.yaml, so no run was started there: start it again with the command that made it"
            )
        for name in ("config.yaml", *LAYOUT):
            inside(folder.path, name)
        return folder

    def write_config(self, config: dict[str, Any]) -> None:
        """Write environment.json and config.yaml; the config last, because it makes the folder a run."""
        if not (self.path / "environment.json").exists():
            found = with_digest(environment())
            write_bytes(self.path / "environment.json", (json_text(found) + "\n").encode(), new=True)
        content = yaml.safe_dump({"format": FORMAT, **config}, sort_keys=False, allow_unicode=True).encode()
        write_bytes(self.config_file, content, new=(self.path / STARTING).exists())

    def read_config(self) -> dict[str, Any]:
        """The run's configuration as written. Raises EarthworksError for a format that this version does not know."""
        config = read_yaml(self.config_file)
        if not isinstance(config, dict):
            raise EarthworksError(f"{self.config_file} does not contain a mapping of settings: put the file back")
        written = config.get("format", 1)
        if type(written) is not int or not 1 <= written <= FORMAT:
            raise EarthworksError(
                f"{self.path} is a run folder of format {str(written)[:20]}; this version of Earthworks reads formats 1 to "
                f"{FORMAT}: install the version that wrote it"
            )
        return config

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.checkpoints.is_dir():
            return []
        found = [
            entry.name[5:] for entry in self.checkpoints.iterdir() if entry.name.startswith("step-") and entry.is_dir()
        ]
        return sorted(int(name) for name in found if name.isascii() and name.isdecimal() and len(name) < 16)

    def checkpoint(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.checkpoints / f"step-{step}"


def empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
