"""Record of the software and hardware behind a result, to explain why two numbers differ."""

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from earthworks import __version__

RECORDED = ("torch", "numpy", "tokenizers", "pyarrow", "safetensors", "scipy", "numba")


def environment() -> dict[str, Any]:
    """Versions, processor, threads, accelerator and the command line of this process."""
    import torch

    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple GPU (MPS)")
    return {
        "earthworks": __version__,
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in RECORDED},
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerators": accelerators,
        "command": sys.argv,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def usable_cores() -> int | None:
    """Number of cores that this process may use, which a container or `taskset` may restrict."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor_name() -> str:
    """Name of the processor, which `platform.processor` does not give on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
