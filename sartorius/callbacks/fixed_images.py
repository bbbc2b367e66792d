"""Log the same validation images every epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, Validation
from sartorius.loggers.protocol import CellLogger, CellsView, logged_step, loggers_with

WORST, BEST = "worst at first", "best at first"


class FixedImages(ImageCallback):
    """The same validation images with true and predicted cells, for the loggers of cells, each epoch of a fit.

    Chosen at the first validation and kept, in a resumed run too: the first `images_per_type` of each cell type, and
    those with the lowest and the highest average precision then. Of several processes the first one chooses among
    the images that it validates. Without such a logger it does nothing.

    images_per_type: images of each cell type. extremes: also the worst and the best.
    """

    def __init__(self, images_per_type: int, extremes: bool) -> None:
        self.images_per_type = images_per_type
        self.extremes = extremes
        self.chosen: dict[str, str] = {}  # image id -> reason
        self._views: dict[str, CellsView] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the chosen images."""
        return {"chosen": dict(self.chosen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the images of the resumed run."""
        self.chosen = dict(state_dict.get("chosen", {}))

    def on_scoring_start(self, validation: Validation) -> None:
        """Start with no images."""
        first = validation.in_fit and validation.trainer.is_global_zero
        self._loggers = loggers_with(validation.trainer, CellLogger) if first else []
        self._views = {}
        self._ends: dict[str, tuple[float, str, CellsView]] = {}  # the worst and the best so far
        self._types: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Keep a chosen image, or in the first validation a candidate."""
        if not self._loggers:
            return
        reason = self.chosen.get(image.image_id)
        if reason is not None:
            self._views[image.image_id] = _view(image, reason)
        elif not self.chosen:
            self._consider(image)

    def _consider(self, image: ScoredImage) -> None:
        self._types[image.cell_type] += 1
        if self._types[image.cell_type] <= self.images_per_type:
            self._first[image.image_id] = image.cell_type
            self._views[image.image_id] = _view(image, image.cell_type)
        value = image.average_precision
        for reason, sign in ((WORST, -1), (BEST, 1)) if self.extremes else ():
            if reason not in self._ends or sign * value > sign * self._ends[reason][0]:
                self._ends[reason] = (value, image.image_id, _view(image, reason))

    def on_scoring_end(self, validation: Validation) -> None:
        """Choose, after the first validation, and log."""
        if not self.chosen:
            self.chosen = self._first
            for reason, (_, image_id, view) in self._ends.items():
                self.chosen.setdefault(image_id, reason)
                self._views.setdefault(image_id, view)
        for image_id, view in self._views.items():
            for logger in self._loggers:
                logger.log_cells(f"images/{image_id}", view, logged_step(validation.trainer))
        self._views, self._ends = {}, {}


def _view(image: ScoredImage, reason: str) -> CellsView:
    prediction, names = image.prediction, image.detections.cell_type_names
    counts = f"{len(prediction)} cells predicted, {len(image.cells)} annotated"
    caption = f"{image.image_id} ({reason}): average precision {image.average_precision:.3f}, {counts}"
    return CellsView(image.grey, image.cells, prediction.instances, prediction.scores, names, caption)
