"""A change that computes the same thing leaves the losses of a training run the same to the last bit.

The losses of two short runs stand in golden.json. After a change that is meant to compute something else:
`python tests/gopher/test_golden.py --write`, and say in the commit why.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("golden.json")
# One thread, and code paths that every x86-64 processor takes alike: the bits then depend on torch alone.
EVERYWHERE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
}
WORDS = ["earth", "works", "gopher", "digs", "mound", "tunnel", "a", "the", "of", "and", "deep", "clay"]
# Everything that decides about a loss is given here, so that tuning a default leaves this test alone.
RUN = {
    **{"tokenizer": "bytes", "validation": 0.0, "size": "shrew", "context": 80, "batch": 4, "micro_batch": 3},
    **{"max_steps": 12, "horizon": 12, "warmup_steps": 3, "final_share": 0.1, "schedule": "linear", "clip": 1.0},
    **{"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "d_position": None, "max_distance": None, "norm": "rms"},
    **{"positions": "relative", "tied": True, "precision": "fp32", "device": "cpu", "seed": 0},
    **{"evaluate_every": 100, "sample_every": 100, "save_every": 100},
}
OPTIMIZERS = {
    "muon": {"optimizer": "muon", "learning_rate": 0.02, "embedding_rate": 0.01, "momentum": 0.95},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.003, "embedding_rate": 0.003},
}


def here() -> dict[str, str]:
    """What the bits depend on besides our own code."""
    import torch

    return {"torch": torch.__version__, "machine": f"{platform.system()} {platform.machine()}"}


def train_and_print() -> None:
    """In the child: the losses of each run as hexadecimal floats, on the last line."""
    import torch

    from earthworks.gopher import train
    from earthworks.gopher.pretraining import run as pretraining
    from earthworks.runs import read_metrics

    torch.backends.mkldnn.enabled = False  # it chooses its kernels, and with them the last bits, by the processor
    pretraining.write_report = lambda runs: runs[0]  # takes longer than the training
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(" ".join(WORDS[(i * i * 7 + i // 5) % len(WORDS)] for i in range(2000)))
        for name, options in OPTIMIZERS.items():
            run = train(str(text), run=f"{folder}/{name}", **RUN, **options)
            losses[name] = [float(record["loss"]).hex() for record in read_metrics(run / "metrics.jsonl")]
    print(json.dumps(losses))


def measured() -> dict[str, list[str]]:
    command = [sys.executable, __file__, "--print"]
    child = subprocess.run(command, env={**os.environ, **EVERYWHERE}, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def losses() -> dict[str, list[str]]:
    return measured()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_are_the_golden_ones_to_the_bit(losses, optimizer):
    golden = json.loads(GOLDEN.read_text())
    values, expected = ([float.fromhex(x) for x in each[optimizer]] for each in (losses, golden["losses"]))
    now = here()
    same_ground = all(golden[key] == value for key, value in now.items())
    if not same_ground:
        grounds = [", ".join(f"{key} {each[key]}" for key in now) for each in (golden, now)]
        warnings.warn(
            f"golden.json is of {grounds[0]}, this is {grounds[1]}: compared to 1e-5 only", UserWarning, stacklevel=1
        )
    assert values == pytest.approx(expected, rel=1e-5), "the losses are others: this change computes something else"
    if same_ground:
        assert losses[optimizer] == golden["losses"][optimizer], "the losses differ in their last bits"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_golden_runs_learn(losses, optimizer):
    """From the entropy of single bytes on; a run that stood still would be golden whatever the update does."""
    values = [float.fromhex(x) for x in losses[optimizer]]
    assert len(values) == RUN["max_steps"]
    assert 2.5 < values[0] < 3.5
    assert values[-1] < values[0] - 0.5


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        train_and_print()
    elif sys.argv[1:] == ["--write"]:
        GOLDEN.write_text(json.dumps({**here(), "losses": measured()}, indent=1) + "\n")
    else:
        sys.exit("python tests/gopher/test_golden.py --write")
