"""Numbers formatted for readers: `43.7 M`, `1.82 [1.79, 1.85]`, `62%`."""

import json
import math
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeGuard

LARGEST = sys.float_info.max
LONGEST = 4000  # characters of a key or of a value in a table of settings
MOST_SETTINGS = 2000
# C1 and the controls that override text direction, but not the marks that Arabic and Hebrew text needs
UNSEEN = re.compile("[\x80-\x9f\u202a-\u202e\u2066-\u2069]")
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}  # NUL becomes ␀


def short(count: float) -> str:
    """A count with three significant digits from a million up: `12,345`, `43.7 M`, `1.40 B`, `300 B`."""
    for power, letter in ((12, "T"), (9, "B"), (6, "M")):
        # 999,500 would round to 1,000 thousand, so it is shown as 1.00 M.
        if count >= 0.9995 * 10**power:
            value = count / 10**power
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {letter}"
    return f"{count:,.0f}"


def significant(value: float) -> str:
    """Three significant digits, without powers of ten from a thousandth to a million: `1,234`, `16.4`, `0.00312`."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def known(value: Any) -> TypeGuard[int | float]:
    """True for a finite number that a float can hold; False for None, NaN, infinity and other values."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def ends(interval: Any) -> list[float] | None:
    """The two ends of an interval; None if it is invalid, such as that of one document (NaN)."""
    if isinstance(interval, list | tuple) and len(interval) == 2 and all(known(end) for end in interval):
        return list(interval)
    return None


def with_interval(value: float, interval: Any = None, decimals: int = 2) -> str:
    """`1.82 [1.79, 1.85]`, or `1.82` if there is no interval (absent, or NaN because there was one document)."""
    interval = ends(interval)
    if not interval:
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} [{interval[0]:.{decimals}f}, {interval[1]:.{decimals}f}]"


def setting(value: Any) -> str:
    """A configuration value in a form that can be typed again; cut if very long."""
    if isinstance(value, str):
        return cut_to(value, LONGEST)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        shown = [cut_to(item, LONGEST) for item in value[:LONGEST]]
        return cut_to(shlex.join(shown), LONGEST)
    text, pieces = "", json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value)
    while len(text) <= LONGEST and (piece := next(pieces, None)) is not None:
        text += piece
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def flatten(mapping: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings with dotted keys: `{"model": {"d_model": 128}}` -> `{"model.d_model": 128}`; the first 2,000."""
    return dict(islice(flat(mapping, ""), MOST_SETTINGS))


def flat(mapping: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        name = cut_to(f"{prefix}{str(key)[: LONGEST + 1]}", LONGEST)
        if isinstance(value, dict) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def cut_to(text: str, length: int) -> str:
    """The first `length` characters, and the number of further ones."""
    return text if len(text) <= length else f"{text[:length]} … {len(text) - length:,} more characters"


def readable(text: str) -> str:
    """`text` with invisible parts made visible: control characters (NUL becomes ␀; a small model writes any byte, HTML
    allows few), direction overrides, and lone surrogates."""
    text = re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text.translate(PICTURES))
