"""The task of a multirun: runs one member in the process where the launcher puts it, and records the result."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sartorius.structures import next_step
from sartorius.sweeps import members
from sartorius.sweeps.members import SweepMember

PLUGINS = "hydra_plugins.sartorius_sweepers."  # our sweepers


class MembersFailed(Exception):
    """Some members of a multirun failed; their errors are printed already."""


def in_multirun() -> bool:
    """Return whether this job is a member of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_folder(hydra: Any) -> Path:
    """Return the folder of the multirun, absolute: a member's process may have another working folder."""
    return Path(hydra.runtime.cwd) / hydra.sweep.dir


def run_member(
    main: Callable[[DictConfig], Any], cfg: DictConfig, input_error: Callable[[Exception], str | None]
) -> float | None:
    """Run `main(cfg)` and write its record into the sweep's folder; returns its score.

    Errors are printed, not raised, so that every launcher continues with the other members; a sweeper of another
    package reads no records, and gets MembersFailed. A member that an earlier call of the same sweep finished is not
    run; a training that was killed resumes from its last checkpoint.

    input_error: the line to print for an input error, None for a bug, which is printed with its traceback.
    """
    hydra = HydraConfig.get()
    folder = sweep_folder(hydra)
    member = SweepMember(
        hydra.job.num, tuple(hydra.overrides.task), members.RUNNING,
        OmegaConf.select(cfg, "monitor"), OmegaConf.select(cfg, "mode") or "max", folder=hydra.runtime.output_dir,
    )  # fmt: skip
    (before,) = members.read_members(folder, [(member.number, member.overrides)])
    if before.status in members.DONE:
        print(f"#{member.number} was {before.status} before: {before.folder}")
        return before.score
    if before.status == members.RUNNING:  # its process was killed
        _resume(cfg, Path(hydra.runtime.output_dir))
    members.mark_pruned(hydra.runtime.output_dir, None)
    members.write_member(folder, member)
    since = time.monotonic()
    try:
        with next_step.silent():
            member = members.result(member, main(cfg))
        pruned = members.was_pruned(hydra.runtime.output_dir)
        member = replace(member, status=members.PRUNED if pruned else members.FINISHED)
    except Exception as error:
        member = replace(member, status=members.FAILED, error=_print_error(error, input_error(error)))
    members.write_member(folder, replace(member, seconds=round(time.monotonic() - since, 1)))
    if member.status == members.FAILED and not hydra.sweeper._target_.startswith(PLUGINS):
        raise MembersFailed
    return member.score


def _resume(cfg: DictConfig, folder: Path) -> None:
    """Set `ckpt_path`, where the command has this option, to the last checkpoint of the killed process."""
    last = folder / "checkpoints" / "last.ckpt"
    if "ckpt_path" in cfg and cfg.ckpt_path is None and last.is_file():
        print(f"resumes from {last}")
        cfg.ckpt_path = str(last)


def _print_error(error: Exception, line: str | None) -> str:
    """Print an error of a member, as `line` or, without one, as a bug with its traceback; returns it in one line."""
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
        return line
    traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})".split())
