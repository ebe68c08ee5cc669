"""Text of strangers on a terminal: shown, not obeyed.

A file name, a record or a model's sample may hold escape sequences, which make a terminal hide lines, change its title or
type for the person. Here every control character is shown as JSON writes it.
"""

import re
import sys

# C0 but tab and newline, DEL, C1; marks that turn the direction of text; line and paragraph separators
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` with control characters as `\\u001b`; a carriage return before a newline is dropped."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def write_replacing() -> None:
    """Make the standard streams write `?` (or `\\x..`) for what their encoding does not have, instead of failing."""
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)
