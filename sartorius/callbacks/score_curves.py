"""Precision and recall over the score, at every validation: what a threshold costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import scored_batch
from sartorius.callbacks.gather import gather_images
from sartorius.errors import InputError
from sartorius.loggers.protocol import Lines, logged_step, loggers_with
from sartorius.metrics.precision_recall import curve, hits

Matches = tuple[NDArray[np.float32], NDArray[np.bool_], int]  # of an image: scores [N], hits [N, T], cells


class ScoreCurves(Callback):
    """Draws precision over recall, and both over the score, for the loggers that show lines.

    Of the cells after post-processing, which has left out low scores already; all images pooled, those of all
    processes. Logged as curves/... during a fit and curves_best/... of the best checkpoint after it. Nothing happens
    without such a logger, and without `CompetitionMap` before this one.

    Args:
        percents: IoU above which a cell counts as found, in percent, 50 to 95; a line each.
        points: of a line, at most.
    """

    def __init__(self, percents: Sequence[int], points: int) -> None:
        if not percents or not all(50 <= percent < 100 for percent in percents):
            raise InputError(f"callbacks.score_curves.percents: expected percents from 50 to 99, got {list(percents)}")
        if points < 2:
            raise InputError(f"callbacks.score_curves.points: expected 2 or more, got {points}")
        self.percents, self.points = tuple(percents), points

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no images."""
        self._matches: dict[int, Matches] = {}

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Match the cells of each image."""
        if trainer.sanity_checking or not loggers_with(trainer, "log_lines"):
            return
        for scored in scored_batch(trainer):
            found = hits(*scored.runs, self.percents)
            self._matches[scored.target.index] = (scored.found.scores, found, int(scored.row[-1]))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw; a collective call."""
        loggers = loggers_with(trainer, "log_lines")
        if trainer.sanity_checking or not loggers:
            return
        matches = list(gather_images(self._matches).values())
        if not matches or not trainer.is_global_zero or not sum(len(scores) for scores, _, _ in matches):
            return
        folder = "curves" if trainer.state.fn == TrainerFn.FITTING else "curves_best"
        over_recall, over_score = self.lines(matches)
        step = logged_step(trainer)
        for logger in loggers:
            logger.log_lines(
                f"{folder}/precision_recall", "Precision over recall", over_recall, ("recall", "precision"), step
            )
            logger.log_lines(
                f"{folder}/score", "Precision and recall over the score", over_score, ("lowest score", "share"), step
            )

    def lines(self, matches: Sequence[Matches]) -> tuple[Lines, Lines]:
        """The lines of both drawings by name, from at least one image: over recall, over the lowest score."""
        scores = np.concatenate([own for own, _, _ in matches])
        found = np.concatenate([own for _, own, _ in matches])
        cells = sum(count for _, _, count in matches)
        over_recall, over_score = {}, {}
        for k, percent in enumerate(self.percents):
            line, iou = curve(scores, found[:, k], cells, self.points), f"IoU {percent / 100:.2f}"
            over_recall[iou] = (line.recall, line.precision)
            over_score[f"precision, {iou}"] = (line.scores, line.precision)
            over_score[f"recall, {iou}"] = (line.scores, line.recall)
        return over_recall, over_score
