"""`earthworks corpus score`: the value of every rule for one document."""

import math
import sys
from itertools import islice

from earthworks.corpus.readers.any_source import read
from earthworks.corpus.rules.profiles import PROFILES, failing, rule_values
from earthworks.runs import EarthworksError, json_text


def passing(low: float, high: float) -> str:
    if high == math.inf:
        return f"at least {low:g}"
    return f"{low:g} to {high:,g}" if low else f"at most {high:g}"


def score(file: str, *, document: int = 1, profile: str = "literal", json: bool = False) -> str:
    """Show the value of every quality and repetition rule for one document, next to its bounds.

    Args:
        file: text, JSON lines, Parquet, HTML or WARC; `-` for standard input; or any other source of `gopher train --data`.
        document: number of the document in the file, from 1.
        profile: set of rule definitions.
        json: print {"id", "kept", "failed", "values"} instead of a table.
    """
    if document < 1:
        raise EarthworksError(f"--document is {document}; documents are counted from 1")
    if profile not in PROFILES:
        raise EarthworksError(f"--profile is {profile!r}; it must be one of {', '.join(PROFILES)}")
    found = next(islice(read(file), min(document, sys.maxsize) - 1, None), None)
    if found is None:
        raise EarthworksError(f"{file} has fewer than {document} documents")
    bounds = PROFILES[profile].bounds
    values = rule_values([found.text], profile)
    failed = [name for name, dropped in failing(values, bounds).items() if dropped[0]]
    if json:
        record = {"id": found.id, "kept": not failed, "failed": failed}
        return json_text({**record, "values": {name: float(value[0]) for name, value in values.items()}})
    rows = [("rule", "value", "passes", "")]
    for name, (low, high) in bounds.items():
        rows.append((name, f"{values[name][0]:,.6g}", passing(low, high), "drops it" if name in failed else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows]
    verdict = f"dropped by {', '.join(failed)}" if failed else "kept"
    return "\n".join([f"{found.id}: {verdict} (profile {profile})", "", *table])
