"""One member of a multirun, in whatever process the launcher runs it."""

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

from sartorius.sweeps import members
from sartorius.sweeps.members import SweepMember

PLUGINS = "hydra_plugins.sartorius."  # what Hydra knows our sweepers as


class MembersFailed(Exception):
    """Some members of a multirun failed; their errors are printed already."""


def in_multirun() -> bool:
    """Whether the job that runs here is a member of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def sweep_folder(hydra: Any) -> Path:
    """The folder of the multirun, absolute: a member's process may have another working folder."""
    return Path(hydra.runtime.cwd) / hydra.sweep.dir


def run_member(
    main: Callable[[DictConfig], Any], cfg: DictConfig, input_error: Callable[[Exception], str | None]
) -> float | None:
    """Run `main(cfg)` and leave a record of it in the sweep's folder; returns its score.

    Input errors are printed in a line, bugs with their traceback; neither is raised, so that every launcher goes on
    with the other members (under a sweeper that is not ours MembersFailed is, for it reads no records). A member that
    an earlier call of the same sweep finished is not run; a training that was killed goes on from its last checkpoint.
    """
    hydra = HydraConfig.get()
    folder = sweep_folder(hydra)
    member = SweepMember(
        hydra.job.num, tuple(hydra.overrides.task), members.RUNNING,
        OmegaConf.select(cfg, "monitor"), OmegaConf.select(cfg, "mode") or "max", folder=hydra.runtime.output_dir,
    )  # fmt: skip
    before = members.read_member(folder, member.number)
    if before is not None and before.status in members.DONE and before.overrides == member.overrides:
        print(f"#{member.number} was {before.status} before: {before.folder}")
        return before.score
    if before is not None and before.killed and before.overrides == member.overrides:
        _go_on(cfg, Path(hydra.runtime.output_dir))
    members.mark_pruned(hydra.runtime.output_dir, None)
    members.write_member(folder, member)
    since = time.monotonic()
    try:
        member = members.result(member, main(cfg))
        pruned = members.was_pruned(hydra.runtime.output_dir)
        member = replace(member, status=members.PRUNED if pruned else members.FINISHED)
    except Exception as error:
        member = replace(member, status=members.FAILED, error=report(error, input_error(error)))
    members.write_member(folder, replace(member, seconds=round(time.monotonic() - since, 1)))
    if member.status == members.FAILED and not hydra.sweeper._target_.startswith(PLUGINS):
        raise MembersFailed
    return member.score


def _go_on(cfg: DictConfig, folder: Path) -> None:
    """Let a verb that can resume (it has the option `ckpt_path`) do so from what its killed process left."""
    last = folder / "checkpoints" / "last.ckpt"
    if "ckpt_path" in cfg and cfg.ckpt_path is None and last.is_file():
        print(f"goes on from {last}")
        cfg.ckpt_path = str(last)


def report(error: Exception, line: str | None) -> str:
    """Print an error of a member, as `line` or, without one, as a bug with its traceback; returns it in one line."""
    if line is not None:
        print(f"error: {line}", file=sys.stderr)
        return line
    traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})".split())
