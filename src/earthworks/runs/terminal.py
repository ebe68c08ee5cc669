"""Text of strangers on a terminal: shown, not obeyed.

A file name, a record or a model's sample may hold escape sequences, which make a terminal hide lines, change its title or
type for the person. Here every control character is shown as JSON writes it.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from earthworks.runs.errors import EarthworksError

# C0 but tab and newline, DEL, C1; marks that turn the direction of text; line and paragraph separators
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` with control characters as `\\u001b`; a carriage return before a newline is dropped."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`shown`, with line ends too, as a file name may have them: they would make one message look like two."""
    return shown(text).replace("\n", "\\u000a")


def typed(argument: str | Path) -> str:
    """An argument as a shell takes it, for commands that are suggested: in quotes where it has spaces."""
    return shlex.quote(str(argument))


def write_replacing() -> None:
    """Make the standard streams write `?` (or `\\x..`) for what their encoding does not have, instead of failing."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


class ReaderLeft(Exception):
    """Whoever reads standard output has closed it, as `| head` does: there is nobody to answer."""


def say(text: str, end: str = "\n") -> None:
    """Print a piece of a command's answer, control characters in it shown and not sent.

    Raises EarthworksError (exit code 1) where standard output takes nothing more, as a file on a full disk.
    """
    try:
        print(shown(text), end=end, flush=True)
    except BrokenPipeError:
        discard_output()
        raise ReaderLeft from None
    except OSError as error:
        discard_output()
        sentence = f"the answer could not be written to standard output: {error.strerror or error}"
        raise EarthworksError(f"{sentence}; what the command writes into files is there", exit_code=1) from None


def flush_output() -> None:
    """What the parser printed (help) is still in the buffer: write it now, while a failure can be told."""
    say("", end="")


def discard_output() -> None:
    """Let what is still in the buffer of standard output go nowhere: at exit Python would try again, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
