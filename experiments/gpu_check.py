"""Run the parts of the GPU check in a process of their own and write one table; see gpu_check.sh.

The parts run in one worker (`gpu_parts.py`), which is asked for them one by one and started anew after each failure: an
exception, a crash or a part that takes too long costs the rows of that part alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO

from sartorius.files import atomic_path, write_json

FAMILIES = ("Mask R-CNN R50", "Mask R-CNN timm", "cascade", "U-Net", "crop segmenter")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
TRAINED = {"training": "steps/s", "waiting for data": "% of a step", "peak memory": "MB", "prediction": "images/s"}
PEERS = {
    f"{what}, {side}": unit
    for what, unit in (("training", "steps/s"), ("peak memory of training", "MB"), ("prediction", "images/s"))
    for side in ("ours", "torchvision")
} | {"training, ratio": "x", "prediction, ratio": "x"}
COMPARED = {
    "outputs": "largest difference / largest value",
    "outputs with TF32": "largest difference / largest value",
    "detections matched": "%",
}
SHORTEST_LIMIT = 120.0  # seconds after which a part is ended, or four times what it should take
SPARE = 10.0  # seconds for the worker to end itself before it is killed


@dataclass(frozen=True)
class Part:
    """A part of the check: `function(*arguments)` of gpu_parts measures its rows.

    rows: unit by name. seconds: what it takes on a recent GPU, about; it is skipped where less is left of the budget.
    needs: parts without which it is skipped.
    """

    name: str
    function: str
    rows: Mapping[str, str]
    seconds: float
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("machine", "images")


@dataclass(frozen=True)
class Row:
    """A line of the table.

    status: ok, failed or skipped. value: None unless it was measured. seconds: that its whole part took.
    """

    part: str
    measured: str
    value: float | None
    unit: str
    status: str
    note: str = ""
    seconds: float = 0.0


def training_parts(precision: str) -> list[Part]:
    """List the parts that train each family in a precision."""
    return [Part(f"{family} in {precision}", "train", TRAINED, 9, (family, precision)) for family in FAMILIES]


PARTS = (
    Part("machine", "machine", {"memory of the device": "MB"}, 15, needs=()),
    Part("images", "draw_images", {"images drawn": "images"}, 15, needs=("machine",)),
    *training_parts("32-true"),
    Part("checkpoint", "train_checkpoint", {"score": "mAP"}, 45),
    Part("CPU beside the device: U-Net", "compare_unet", COMPARED, 10, needs=("checkpoint",)),
    Part("CPU beside the device: Mask R-CNN R50", "compare_mask_rcnn", COMPARED, 20),
    *training_parts("bf16-mixed"),
    Part("beside torchvision in 32-true", "beside_torchvision", PEERS, 25, ("32-true",)),
    Part("beside torchvision in bf16-mixed", "beside_torchvision", PEERS, 20, ("bf16-mixed",)),
    Part(
        "evaluated twice", "evaluate_twice",
        {"first score": "mAP", "scores that differ": "images", "detections that differ": "images"}, 40,
        needs=("checkpoint",),
    ),
    *training_parts("16-mixed"),
    Part("DDP in one process", "train_ddp", {"whole command": "s"}, 30),
    Part(
        "compile", "compare_compiled", {"eager": "steps/s", "compiled": "steps/s", "ratio": "x", "compiling": "s"}, 90
    ),
)  # fmt: skip


class Worker:
    """The process that runs parts. It is started at the first question, and anew after it has ended.

    command: of the process. log: what it and its children print.
    """

    def __init__(self, command: Sequence[str], log: TextIO) -> None:
        self.command, self.log = list(command), log
        self.process: subprocess.Popen[str] | None = None

    def ask(self, part: Part, limit: float) -> dict[str, Any]:
        """Run a part: {"rows": {name: [value, note, failed]}} or {"error": text}. It is ended after `limit` seconds."""
        if self.process is None:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, stderr=self.log, text=True, start_new_session=True
            )
        assert self.process.stdin and self.process.stdout
        ended = threading.Timer(limit + SPARE, self.process.kill)
        ended.start()
        began, question = time.monotonic(), [part.function, part.arguments, limit]
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        ended.cancel()
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "rows" not in answer:
            late = time.monotonic() - began >= limit
            code = self.end()
            died = f"not done after {limit:.0f} s" if late else f"the process ended with exit code {code}"
            answer = answer or {"error": f"{died}; see the log"}
        return answer

    def end(self) -> int:
        """Let the process end, and end what it has started. Returns its exit code, 0 without one."""
        process, self.process = self.process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def chosen(only: str, parts: Sequence[Part] = PARTS) -> list[Part]:
    """List the parts that comma-separated wildcards name, and the parts that those need; all of "*"."""
    patterns = [pattern.strip() for pattern in only.split(",")]
    names = {part.name for part in parts if any(fnmatchcase(part.name, pattern) for pattern in patterns)}
    for part in reversed(parts):  # a part comes after those that it needs
        if part.name in names:
            names.update(part.needs)
    return [part for part in parts if part.name in names]


def run_parts(parts: Sequence[Part], worker: Worker, budget: float) -> Iterator[Row]:
    """Run parts one after the other; yields their rows."""
    began, bad = time.monotonic(), set()
    for part in parts:
        left = budget - (time.monotonic() - began)
        if lacking := [name for name in part.needs if name in bad]:
            rows = skipped(part, f"it needs {lacking[0]!r}, which failed or was skipped")
        elif part.seconds > left:
            rows = skipped(part, f"it takes about {part.seconds:.0f} s; of {budget:.0f} s {max(left, 0):.0f} are left")
        else:
            rows = measured(part, worker.ask(part, min(left, max(SHORTEST_LIMIT, 4 * part.seconds))))
        seconds = round(time.monotonic() - began - (budget - left), 1)
        if any(row.status == "failed" for row in rows) or all(row.status == "skipped" for row in rows):
            bad.add(part.name)
        yield from (replace(row, seconds=seconds) for row in rows)


def skipped(part: Part, reason: str) -> list[Row]:
    """Make the rows of a part that was not run."""
    return [Row(part.name, name, None, unit, "skipped", reason) for name, unit in part.rows.items()]


def measured(part: Part, answer: Mapping[str, Any]) -> list[Row]:
    """Make the rows of a part from the worker's answer; a row without a value was skipped."""
    if "error" in answer:
        return [Row(part.name, name, None, unit, "failed", answer["error"]) for name, unit in part.rows.items()]
    rows = []
    for name, unit in part.rows.items():
        value, note, failed = answer["rows"][name]
        if value is not None and not math.isfinite(value):  # JSON has no such numbers
            value, note, failed = None, f"{value}; {note}", True
        status = "failed" if failed else "skipped" if value is None else "ok"
        rows.append(Row(part.name, name, value, unit, status, note))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table."""
    lines = [("part", "measured", "value", "unit", "", "note", "s"), ("---",) * 7]
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g}"
        lines.append(
            (row.part, row.measured, value, row.unit, row.status, row.note.replace("|", "/"), f"{row.seconds:g}")
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(rows: Sequence[Row], out: Path) -> None:
    """Write gpu_check.md and gpu_check.json into a folder."""
    with atomic_path(out / "gpu_check.md") as path:
        path.write_text(table(rows))
    write_json(out / "gpu_check.json", [asdict(row) for row in rows])


def main() -> int:
    """Run the parts, write the table after each row. Returns 1 where one failed or nothing was measured, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds")
    parser.add_argument("--tiny", type=int, choices=(0, 1), default=0)
    parser.add_argument("--only", default="*", help="names of parts with wildcards, comma-separated")
    parser.add_argument("--overrides", default="", help="of the families' trainings")
    options = parser.parse_args()
    parts = chosen(options.only)
    if not parts:
        parser.error(f"--only {options.only}: expected names out of: {'; '.join(part.name for part in PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch, (options.out / "gpu_check.log").open("w") as log:
        program = str(Path(__file__).with_name("gpu_parts.py"))
        worker = Worker([sys.executable, program, options.device, str(options.tiny), scratch, options.overrides], log)
        try:
            for row in run_parts(parts, worker, options.budget):
                rows.append(row)
                write(rows, options.out)
                value = "" if row.value is None else f"{row.value:.4g} {row.unit}"
                print(f"{row.status:8}{row.part}: {row.measured} {value} {row.note}".rstrip(), flush=True)
        finally:
            worker.end()
    counts = {status: sum(row.status == status for row in rows) for status in ("ok", "failed", "skipped")}
    print(", ".join(f"{count} {status}" for status, count in counts.items()), "in", options.out / "gpu_check.md")
    return int(bool(counts["failed"]))


if __name__ == "__main__":
    sys.exit(main())
