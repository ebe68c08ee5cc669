"""A corpus that `corpus build` made: its manifest, and what it says in a few lines."""

import json
from pathlib import Path
from typing import Any

FORMAT = "earthworks corpus 1"


def manifest_of(location: str | Path) -> dict[str, Any] | None:
    """The manifest of a built corpus in a local folder; None when there is none."""
    try:
        manifest = json.loads((Path(location) / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def summary(manifest: dict[str, Any]) -> str:
    """What came of it, a line a subset."""
    rows = [("subset", "read", "kept by filters", "copies", "contaminated", "in the corpus", "MB", "weight")]
    counted = list(manifest["subsets"].items())
    for name, each in [*counted, ("together", manifest)] if len(counted) > 1 else counted:
        weight = each.get("weight")
        rows.append(
            (
                *(name, f"{each['documents']:,}", f"{each['kept']:,} ({each['kept'] / max(each['documents'], 1):.0%})"),
                *(f"{each['exact_copies'] + each['near_copies']:,}", f"{each['contaminated']:,}", f"{each['final']:,}"),
                *(f"{each['final_bytes'] / 1e6:,.1f}", f"{weight:g}" if weight else ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if k else cell.ljust(width) for k, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    dropped = sorted(manifest["dropped"].items(), key=lambda item: -item[1])[:6]
    if dropped:
        lines += ["", "dropped most by: " + ", ".join(f"{name} {count:,}" for name, count in dropped)]
    if manifest["num_faults"]:
        lines += ["", f"{manifest['num_faults']:,} records or files could not be read (manifest.json lists them):"]
        lines += [f"  {fault['where']}: {fault['what']}" for fault in manifest["faults"][:3]]
    return "\n".join(line.rstrip() for line in lines)
