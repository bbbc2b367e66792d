"""The same few images at every validation: how a training learns to see."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_map import Scored, scored_batch
from sartorius.callbacks.overlays import grey
from sartorius.loggers.protocol import CellsView, logged_step, loggers_with

WORST, BEST = "worst at first", "best at first"


class Showcase(Callback):
    """Hands images with their true and predicted cells to the loggers that show them, at each validation of a fit.

    Chosen at the first validation and kept, in a resumed run too: the first `images_per_type` of each cell type, and
    those that had the lowest and the highest average precision then. Of several processes the first one chooses among
    the images that it validates. Nothing happens without such a logger, and without `CompetitionMap` before this one.

    Args:
        images_per_type: images of each cell type.
        extremes: also the worst and the best.
    """

    def __init__(self, images_per_type: int, extremes: bool) -> None:
        self.images_per_type = images_per_type
        self.extremes = extremes
        self.chosen: dict[str, str] = {}  # image: why it was chosen
        self._views: dict[str, CellsView] = {}

    def state_dict(self) -> dict[str, Any]:
        """The images that were chosen."""
        return {"chosen": dict(self.chosen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the images of the run that is resumed."""
        self.chosen = dict(state_dict.get("chosen", {}))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no images."""
        self._views = {}
        self._ends: dict[str, tuple[float, str, CellsView]] = {}  # the worst and the best so far
        self._types: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Keep the images that were chosen, or those that may be."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or not trainer.is_global_zero or not loggers_with(trainer, "log_cells"):
            return
        for scored in scored_batch(trainer):
            image_id, why = scored.target.image_id, self.chosen.get(scored.target.image_id)
            if why is not None:
                self._views[image_id] = _view(scored, why)
            elif not self.chosen:
                self._consider(scored)

    def _consider(self, scored: Scored) -> None:
        image_id, kind, value = scored.target.image_id, scored.target.cell_type or "unknown", scored.average_precision
        self._types[kind] += 1
        if self._types[kind] <= self.images_per_type:
            self._first[image_id] = kind
            self._views[image_id] = _view(scored, kind)
        for why, sign in ((WORST, -1), (BEST, 1)) if self.extremes else ():
            if why not in self._ends or sign * value > sign * self._ends[why][0]:
                self._ends[why] = (value, image_id, _view(scored, why))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show them."""
        if not self.chosen:
            self.chosen = self._first
            for why, (_, image_id, view) in self._ends.items():
                self.chosen.setdefault(image_id, why)
                self._views.setdefault(image_id, view)
        for image_id, view in self._views.items():
            for logger in loggers_with(trainer, "log_cells"):
                logger.log_cells(f"images/{image_id}", view, logged_step(trainer))
        self._views, self._ends = {}, {}


def _view(scored: Scored, why: str) -> CellsView:
    counts = f"{len(scored.found)} cells found, {len(scored.cells)} annotated"
    caption = f"{scored.target.image_id} ({why}): average precision {scored.average_precision:.3f}, {counts}"
    return CellsView(
        grey(scored.image), scored.cells, scored.found.instances, scored.found.scores, scored.names, caption
    )
