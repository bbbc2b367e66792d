"""Measure and print a table, each row as it is measured: `python -m benchmarks [--only score] [--json]`.

Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measure import Row

# One thread a process, set before NumPy and torch are loaded and inherited by the sides: what is compared is work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MODULES = (
    "rle_text",
    "score",
    "instance_scores",
    "augmentation",
    "copy_paste",
    "submission",
    "decode",
    "formats",
    "fusion",
    "inference",
    "loader",
    "logging",
    "onnx_package",
    "training_memory",
    "tuning",
)
HEADER = ("measured", "unit", "ours", "peer", "ratio", "bar", "", "peer is", "same on both sides")


def line(row: Row) -> tuple[str, ...]:
    """The cells of a row as text."""
    met = "" if not row.bar else "met" if row.met else "MISSED"
    ratio = "-" if row.ratio is None else f"{row.ratio:.3g}x"
    numbers = (f"{row.ours:.4g}", f"{row.peer:.4g}", ratio)
    return (row.what, row.unit, *numbers, row.bar, met, row.peer_name, row.same)


WIDTHS = (62, 7, 6, 6, 6, 10, 6, 44, 0)  # characters of each column of HEADER; longer texts push the rest to the right


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table, its columns padded to WIDTHS."""
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))} |"


def main() -> int:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="measure only these")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows: list[Row] = []
    if not options.json:
        print(table_line(HEADER), table_line(["-" * width for width in WIDTHS]), sep="\n", flush=True)
    for name in options.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"benchmarks.{name}").rows():
            rows.append(row)
            if not options.json:
                print(table_line(line(row)), flush=True)
    if options.json:
        print(json.dumps([asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows], indent=2))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
