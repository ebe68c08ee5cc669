"""Check that a requested amount of memory fits into this machine, before allocating it."""

import os
from contextlib import suppress

from earthworks.runs.errors import EarthworksError


def machine_memory() -> int | None:
    """Memory of this machine in bytes; None if the system does not report it."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def refuse_beyond_memory(what: str, needed: int) -> None:
    """EarthworksError if `what` takes more bytes than the machine has."""
    there = machine_memory()
    if there is not None and needed > there:
        raise EarthworksError(
            f"{what} takes about {needed / 2**30:,.1f} GiB of memory, and this machine has {there / 2**30:,.1f}: "
            "request less"
        )
