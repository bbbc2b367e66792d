"""The record of a run: config, code state and numbers, so that it can be understood and repeated."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import LightningModule, Trainer

from sartorius.callbacks.checkpoints import unscored_checkpoint
from sartorius.callbacks.leaderboard import record_run
from sartorius.callbacks.scored_images import ImageCallback, Validation
from sartorius.files import remove_partial, write_csv, write_json, write_text
from sartorius.metrics import report
from sartorius.metrics.instance_scores import MEANINGS
from sartorius.networks import checkpoints


class RunRecord(ImageCallback):
    """Files of a run: config.yaml and git.json when a fit starts, metrics.json, per_image.csv and the leaderboard's
    line when its best checkpoint has been validated. Loggers get the config.

    A fit without validation is recorded at its end, without a score.

    folder: of the run. leaderboard: the csv with one line a run; None for none. about: columns that tell this run from
    others in the leaderboard, such as experiment, fold and seed.
    """

    def __init__(self, folder: str | Path, leaderboard: str | Path | None, about: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.leaderboard = leaderboard
        self.about = about
        self._epochs = 0
        self._spent = {"seconds": 0.0, "cpu_seconds": 0.0}  # of the fit; the second over all threads of this process
        self._before = dict(self._spent)  # of the fit that is resumed

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of training so far, so that those of a resumed run add up."""
        return dict(self._spent)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting, should a fit follow: validating the best checkpoint loads this too."""
        self._before = {name: float(state_dict.get(name, 0.0)) for name in self._spent}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the config and the state of the code; delete the temporary files of a killed run."""
        if trainer.is_global_zero:
            for folder in {path.parent for path in self.folder.rglob(".*.partial*")}:
                remove_partial(folder)
            config = pl_module.hparams.get("config", {})
            write_text(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            write_json(self.folder / "git.json", git_state())
            for logger in trainer.loggers:
                logger.log_hyperparams(config)
        self._since, self._spent = _clocks(), dict(self._before)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the epoch and its time."""
        now = _clocks()
        self._spent = {name: spent + now[name] - self._since[name] for name, spent in self._spent.items()}
        self._since, self._epochs = now, trainer.current_epoch + 1

    def on_scoring_end(self, validation: Validation) -> None:
        """Write the numbers of the best checkpoint; nothing during a fit, and without the competition's score."""
        result, checkpoint = validation.result, str(validation.trainer.ckpt_path)
        if validation.in_fit or result is None or not validation.trainer.is_global_zero:
            return
        table = report.per_image_table(result.rows, result.images, result.cell_types, result.overlaps)
        write_csv(self.folder / "per_image.csv", table)
        numbers = report.summary(result.rows, result.cell_types, sorted(set(result.cell_types)), result.overlaps)
        best = {"checkpoint": checkpoint, "epoch": checkpoints.read_checkpoint(checkpoint)["epoch"]}
        self._write({**numbers, "box_ap": result.metrics.get("val/box_ap"), **best}, result.metrics)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the numbers of a fit without validation."""
        if self._epochs and (checkpoint := unscored_checkpoint(trainer)):
            self._write({"competition_map": None, "checkpoint": checkpoint, "epoch": self._epochs - 1}, {})

    def _write(self, numbers: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """Write metrics.json, and the leaderboard's line with `scores`."""
        ran = {"epochs": self._epochs, **{name: round(spent, 1) for name, spent in self._spent.items()}}
        write_json(self.folder / "metrics.json", {**numbers, **ran})
        if self.leaderboard is not None:
            record_run(self.leaderboard, {**self._line(scores), **ran, "commit": git_state()["commit"]})

    def _line(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        prefix = "val/map_"
        by_type = {f"map_{k.removeprefix(prefix)}": v for k, v in metrics.items() if k.startswith(prefix)}
        head = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "run": os.path.relpath(self.folder), **self.about}
        others = {key: metrics[f"val/{key}"] for key in MEANINGS if f"val/{key}" in metrics}
        return {**head, "map": metrics.get("val/map"), **by_type, **others}


def _clocks() -> dict[str, float]:
    return {"seconds": time.monotonic(), "cpu_seconds": time.process_time()}


def git_state() -> dict[str, Any]:
    """Return commit, branch, dirty (whether there are uncommitted changes) of the working folder's repository.

    All None outside a repository or without git.
    """
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain")
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD") if commit else None,
        "dirty": None if status is None else bool(status),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
