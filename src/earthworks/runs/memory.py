"""Whether what is asked for fits into this machine, before any of it is taken."""

import os
from contextlib import suppress

from earthworks.runs.errors import EarthworksError


def machine_memory() -> int | None:
    """Bytes that this machine has; None where the system does not say."""
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def refuse_beyond_memory(what: str, needed: int) -> None:
    """EarthworksError where `what` is asked for and takes more bytes than the machine has."""
    there = machine_memory()
    if there is not None and needed > there:
        raise EarthworksError(
            f"{what} takes about {needed / 2**30:,.1f} GiB of memory, and this machine has {there / 2**30:,.1f}: "
            "ask for less"
        )
