"""The same few pictures at every validation: how a training learns to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import Scored, scored_batch
from sartorius.callbacks.overlays import grey
from sartorius.callbacks.run_loggers import CellsView, logged_step, loggers_with
from sartorius.data.dataset import Batch
from sartorius.detections import Detections

WORST, BEST = "worst at first", "best at first"


class Showcase(Callback):
    """Hands pictures with their true and predicted cells to the loggers that show them, at each validation of a fit.

    Chosen at the first validation and kept, in a resumed run too: the first `pictures_per_type` of each cell type, and
    those that had the lowest and the highest average precision then. Of several processes the first one chooses among
    the pictures that it validates. Nothing happens without such a logger, and without `CompetitionMap` before this one.

    Args:
        pictures_per_type: pictures of each cell type.
        extremes: also the worst and the best.
    """

    def __init__(self, pictures_per_type: int, extremes: bool) -> None:
        self.pictures_per_type = pictures_per_type
        self.extremes = extremes
        self.chosen: dict[str, str] = {}  # picture: why it was chosen
        self._views: dict[str, CellsView] = {}

    def state_dict(self) -> dict[str, Any]:
        """The pictures that were chosen."""
        return {"chosen": dict(self.chosen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the pictures of the run that is resumed."""
        self.chosen = dict(state_dict.get("chosen", {}))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no pictures."""
        self._views = {}
        self._ends: dict[str, tuple[float, str, CellsView]] = {}  # the worst and the best so far
        self._types: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Detections],
        batch: Batch,
        *_: Any,
        **__: Any,
    ) -> None:
        """Keep the pictures that were chosen, or those that may be."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or not trainer.is_global_zero or not loggers_with(trainer, "log_cells"):
            return
        for image, scored in zip(batch.images, scored_batch(trainer), strict=False):
            picture, why = scored.target.picture, self.chosen.get(scored.target.picture)
            if why is not None:
                self._views[picture] = _view(image, scored, why)
            elif not self.chosen:
                self._consider(image, scored)

    def _consider(self, image: Any, scored: Scored) -> None:
        picture, kind, value = scored.target.picture, scored.target.cell_type or "unknown", scored.average_precision
        self._types[kind] += 1
        if self._types[kind] <= self.pictures_per_type:
            self._first[picture] = kind
            self._views[picture] = _view(image, scored, kind)
        for why, sign in ((WORST, -1), (BEST, 1)) if self.extremes else ():
            if why not in self._ends or sign * value > sign * self._ends[why][0]:
                self._ends[why] = (value, picture, _view(image, scored, why))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show them."""
        if not self.chosen:
            self.chosen = self._first
            for why, (_, picture, view) in self._ends.items():
                self.chosen.setdefault(picture, why)
                self._views.setdefault(picture, view)
        for picture, view in self._views.items():
            for logger in loggers_with(trainer, "log_cells"):
                logger.log_cells(f"pictures/{picture}", view, logged_step(trainer))
        self._views, self._ends = {}, {}


def _view(image: Any, scored: Scored, why: str) -> CellsView:
    counts = f"{len(scored.found)} cells found, {len(scored.cells)} annotated"
    caption = f"{scored.target.picture} ({why}): average precision {scored.average_precision:.3f}, {counts}"
    return CellsView(grey(image), scored.cells, scored.found.instances, scored.found.scores, scored.names, caption)
