"""No command, and no class that a config names, opens a connection."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.smoke.test_unet_family import SMALL, UNET

ROOT = Path(__file__).resolve().parents[1]
TARGETS = sorted({
    target
    for path in (ROOT / "conf").rglob("*.yaml")
    for target in re.findall(r"_target_: *([a-z]\w*(?:\.\w+)+)", path.read_text())
})  # fmt: skip

# Python reads a module of this name before anything else, in the processes that the commands start too.
WATCH = """
import os, socket, traceback

def watch(owner, name):
    allowed = getattr(owner, name)

    def connect(*arguments, **options):
        if owner is socket.socket and isinstance(arguments[1], (str, bytes)):  # a process of this machine
            return allowed(*arguments, **options)
        with open(os.environ["CONNECTIONS"], "a") as file:
            print(name, arguments, "".join(traceback.format_stack()), file=file)
        raise OSError("no network here")

    setattr(owner, name, connect)

for name in ("getaddrinfo", "gethostbyname"):
    watch(socket, name)
for name in ("connect", "connect_ex"):
    watch(socket.socket, name)
"""

PROGRAM = """
import json, runpy, sys
import sartorius
from hydra.utils import get_object

targets, commands = json.load(sys.stdin)
for target in targets:
    get_object(target)
for name, *arguments in commands:
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(f"sartorius.{name}", run_name="__main__")
    except SystemExit as end:
        print(name, "ends with", end.code or 0)
"""


def test_nothing_asks_the_network(tiny_competition: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    drawn = ["paths.synthetic_dir=drawn", "source.height=64", "source.width=64", "source.test=1", "source.unlabelled=1"]
    data, found = f"data.root={tiny_competition}", "detections=found/detections"
    commands = [
        ["prepare", "source=synthetic", *drawn, "output=audit"],
        ["browse", *UNET, data, "data.num_workers=0", "output=sheet.png"],
        ["train", *UNET, *SMALL, data, "hydra.run.dir=run"],
        ["predict", "checkpoint=run/checkpoints/best.ckpt", f"images={tiny_competition / 'test'}", "output=found"],
        ["evaluate", "detections=[run/detections]", data, "output=scored"],
        ["ensemble", "members={a: [found/detections]}", "output=joined"],
        ["submit", found, "output=submission.csv", data],
        ["submit", "validate=submission.csv"],
        ["report", "run=run"],
        ["pseudo_label", found, "output=pseudo.csv"],
        ["tune", "detections=[run/detections]", data, "output=tuned"],
        ["fit_filter", "detections=[run/detections]", data, "output=filter.npz"],
    ]
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    environment |= {
        "PYTHONPATH": f"{tmp_path}:{ROOT}", "CONNECTIONS": str(tmp_path / "connections"), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([TARGETS, commands]), cwd=tmp_path, env=environment, text=True, capture_output=True,
    )  # fmt: skip
    connections = tmp_path / "connections"
    assert (connections.read_text() if connections.exists() else "") == ""
    assert done.returncode == 0, done.stdout + done.stderr
    failed = set(re.findall(r"(\w+) ends with [^0]", done.stdout))
    assert failed <= {"pseudo_label", "tune", "fit_filter"}, done.stderr  # two batches make no useful model
    assert (tmp_path / "submission.csv").is_file() and (tmp_path / "run" / "report.html").is_file()
