"""Safe output of untrusted text on a terminal.

A file name, a record or a model's sample may contain escape sequences, which make a terminal hide lines, change its title
or type for the user. Here every control character is shown as a JSON escape.
"""

import os
import re
import shlex
import sys
from pathlib import Path

from earthworks.runs.errors import EarthworksError

# C0 except tab and newline, DEL, C1; bidirectional marks; line and paragraph separators
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` with control characters as `\\u001b`; a carriage return before a newline is dropped."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`shown`, with line ends escaped too: in a file name they would make one message look like two."""
    return shown(text).replace("\n", "\\u000a")


def typed(argument: str | Path) -> str:
    """An argument quoted for a shell where necessary, for suggested commands."""
    return shlex.quote(str(argument))


def write_replacing() -> None:
    """Make the standard streams write `?` (or `\\x..`) for characters they cannot encode, instead of failing."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


class ReaderLeft(Exception):
    """The reader of standard output has closed it, as `| head` does."""


def say(text: str, end: str = "\n") -> None:
    """Print a piece of a command's answer, with control characters escaped.

    Raises EarthworksError (exit code 1) when standard output cannot be written, for example on a full disk.
    """
    try:
        print(shown(text), end=end, flush=True)
    except BrokenPipeError:
        discard_output()
        raise ReaderLeft from None
    except OSError as error:
        discard_output()
        sentence = f"the answer could not be written to standard output: {error.strerror or error}"
        raise EarthworksError(f"{sentence}; the command's files were written", exit_code=1) from None


def flush_output() -> None:
    """Write what the parser printed (help) and is still buffered, while a failure can be reported."""
    say("", end="")


def discard_output() -> None:
    """Discard the buffer of standard output: at exit Python would try to write it again, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
