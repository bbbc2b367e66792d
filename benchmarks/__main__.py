"""Print the table: `python -m benchmarks [--only score] [--json]`. Exit code 1 when a bar is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict

# One thread a process, set before NumPy and torch are loaded and inherited by the sides: what is compared is work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODULES = (
    "rle_text",
    "score",
    "augmentation",
    "copy_paste",
    "submission",
    "decode",
    "fusion",
    "loader",
    "logging",
    "training_memory",
    "tuning",
)
HEADER = ("measured", "unit", "ours", "peer", "ratio", "bar", "", "peer is", "same on both sides")


def line(row: object) -> tuple[str, ...]:
    """The cells of a row as text."""
    from benchmarks.measure import Row

    assert isinstance(row, Row)
    met = "" if not row.bar else "met" if row.met else "MISSED"
    ratio = "-" if row.ratio is None else f"{row.ratio:.3g}x"
    numbers = (f"{row.ours:.4g}", f"{row.peer:.4g}", ratio)
    return (row.what, row.unit, *numbers, row.bar, met, row.peer_name, row.same)


def table(lines: list[tuple[str, ...]]) -> str:
    """A Markdown table with aligned columns."""
    lines = [HEADER, *lines]
    widths = [max(len(cells[k]) for cells in lines) for k in range(len(HEADER))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(f"| {' | '.join(c.ljust(w) for c, w in zip(cells, widths, strict=True))} |" for cells in lines)


def main() -> int:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="measure only these")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = []
    for name in options.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").rows()
    if options.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows], indent=2))
    else:
        print(table([line(row) for row in rows]))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
