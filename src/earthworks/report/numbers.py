"""Numbers as a person reads them: `43.7 M`, `1.82 [1.79, 1.85]`, `62%`."""

import json
import math
import shlex
from typing import Any, TypeGuard


def short(count: float) -> str:
    """A count with three significant digits from a million up: `12,345`, `43.7 M`, `1.40 B`, `300 B`."""
    for power, letter in ((12, "T"), (9, "B"), (6, "M")):
        # 999,500 would round to 1,000 thousand: it is 1.00 M already.
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
    """True for a finite number; False for None, NaN, infinity, and what is not a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def with_interval(value: float, interval: Any = None, decimals: int = 2) -> str:
    """`1.82 [1.79, 1.85]`, or `1.82` when there is no interval (absent, or NaN because there was one document)."""
    if not interval or not all(known(end) for end in interval):
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} [{interval[0]:.{decimals}f}, {interval[1]:.{decimals}f}]"


def setting(value: Any) -> str:
    """A value of a configuration, verbatim enough to be typed again."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return shlex.join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings with dotted keys: `{"model": {"d_model": 128}}` -> `{"model.d_model": 128}`."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
