"""Small commands whose multiruns take milliseconds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sartorius.running import wiring
from sartorius.running.commands import command

SMALL = """
defaults:
  - _self_
  - hydra: small
  - sweep: null
seed: 0
x: 1.0
data: {fold: 0, root: somewhere}
monitor: score
mode: max
output: ${own_folder:here}
ckpt_path: null
"""
HYDRA = """
# @package _global_
defaults:
  - _self_
  - override /hydra/sweeper: grid
hydra:
  run: {dir: run}
  output_subdir: null
  sweep: {dir: "sweep", subdir: "${hydra.job.num}_${file_name:${hydra.job.override_dirname}}"}
  job: {config: {override_dirname: {kv_sep: "-", item_sep: "_"}}}
"""
OPTUNA = """
# @package _global_
defaults:
  - override /hydra/sweeper: optuna
hydra:
  mode: MULTIRUN
  sweeper: {params: {x: "interval(0.0,2.0)"}, startup: 4}
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configs of a small command, with this project's sweepers and launchers; the working folder is beside them."""
    folder = tmp_path / "conf"
    for group in ("hydra/sweeper", "hydra/launcher"):
        shutil.copytree(wiring.CONF_DIR / group, folder / group)
    (folder / "sweep").mkdir()
    for name, text in {"small": SMALL, "hydra/small": HYDRA, "sweep/search": OPTUNA}.items():
        (folder / f"{name}.yaml").write_text(text.lstrip())
    monkeypatch.setattr(wiring, "CONF_DIR", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def run(conf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `main` as a command with these arguments; returns the exit code."""

    def run(main: Callable[[Any], Any], *arguments: str) -> int:
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", ["small", *arguments, *quiet])
        try:
            command("small")(main)()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run
