"""Pruning: the search's pruner may stop a run after each validation of the fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.sweeps.members import mark_pruned
from sartorius.sweeps.study import TrialReport


class Pruning(Callback):
    """Reports of the monitored score to the search, after each validation of a fit; the pruner may end the fit.

    The run ends as a short one does: its best checkpoint is validated. `pruned.json` in its folder holds the reason.
    Of several processes the first one asks, and all stop.

    folder: of the run. study: the journal file of the search. trial: number of the run's trial in it. pruner: optuna's;
    its steps are epochs. monitor: the score.
    """

    def __init__(self, folder: str | Path, study: str | Path, trial: int, pruner: Any, monitor: str) -> None:
        self.folder, self.study, self.trial = Path(folder), study, trial
        self.pruner, self.monitor = pruner, monitor
        self._report: TrialReport | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the search; raises InputError where there is none."""
        if trainer.is_global_zero:
            self._report = TrialReport(self.study, self.trial, self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report and decide. A score that is no number is not reported; after the last epoch nothing is stopped."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        stop, epochs = False, trainer.current_epoch + 1
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if self._report is not None and math.isfinite(score):
            stop = self._report.report(score, epochs)
        if trainer.strategy.broadcast(stop) and epochs != trainer.max_epochs:
            trainer.should_stop = True
            if trainer.is_global_zero:
                mark_pruned(self.folder, {"epochs": epochs, "monitor": self.monitor, "score": score})
                print(f"pruned after {epochs} epochs: {self.monitor} {score:.4f}")
