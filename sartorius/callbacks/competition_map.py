"""The competition's score at every validation: decisions are made here, the module hands over soft detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from sartorius.callbacks.gather import gather_images
from sartorius.data.dataset import Batch, Target
from sartorius.metrics import functional
from sartorius.metrics.box_ap import BoxAP
from sartorius.metrics.competition_map import CompetitionMap as Rows
from sartorius.postprocess.finalise import Finalised
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs


def true_cells(target: Target) -> Instances:
    """The annotated cells of an image as they were fed to the model, overlaps kept."""
    return Instances(target.layers.cpu().numpy().astype(np.uint16), target.cell_types.cpu().numpy())


@dataclass(frozen=True)
class Scored:
    """An image that was compared with its cells.

    image: uint8 [1, H, W]. target: its annotation. cells: the annotated cells. found: the cells that the detections
    became. row: int64 [13], see `metrics.functional`. names: of the cell types. runs: of the cells found, of the
    annotated ones.
    """

    image: Tensor
    target: Target
    cells: Instances
    found: Finalised
    row: NDArray[np.int64]
    names: tuple[str, ...]
    runs: tuple[Runs, Runs]

    @property
    def average_precision(self) -> float:
        """What the competition averages over images, 0 to 1."""
        return float(functional.average_precision_per_image(self.row[None])[0])


def scored_batch(trainer: Trainer) -> list[Scored]:
    """The images of the validation batch at hand, for callbacks after CompetitionMap; [] without one."""
    scoring = competition_map_of(trainer)
    return [] if scoring is None else scoring.batch


def competition_map_of(trainer: Trainer) -> CompetitionMap | None:
    """The trainer's callback of this kind; None without one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, CompetitionMap)), None)


class CompetitionMap(Callback):
    """Scores whole images after overlap removal, and logs the mean over images.

    Logs val/map (the competition's score), val/map_<cell type>, val/precision_50 ... val/precision_95 (per-image
    means at one IoU threshold) and val/box_ap (COCO, before post-processing). Lightning's sanity check before
    training is not scored. An image without cells counts under its cell type too.

    Args:
        postprocess: turns Detections into Finalised.
        box_ap: also count val/box_ap, which takes longer than the rest with hundreds of images.
        max_detections: highest-scoring boxes an image that val/box_ap counts.
    """

    def __init__(
        self, postprocess: Callable[[Detections], Finalised], box_ap: bool = True, max_detections: int = 2000
    ) -> None:
        self.postprocess = postprocess
        self.box_ap = box_ap
        self.max_detections = max_detections
        self.results: dict[str, float] = {}  # of the last validation, as are the three below
        self.rows = np.zeros((0, functional.ROW_LENGTH), np.int64)
        self.images: tuple[str, ...] = ()
        self.cell_types: tuple[str, ...] = ()  # of the images
        self.batch: list[Scored] = []  # the images of the last batch

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no rows."""
        self._rows = Rows().to(pl_module.device)
        self._boxes: BoxAP | None = None
        self._names: dict[int, tuple[str, str]] = {}  # index -> image, cell type

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Detections],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Compare each image's detections with its cells."""
        self.batch = []
        if trainer.sanity_checking:
            return
        for image, detections, target in zip(batch.images, outputs, batch.targets, strict=True):
            cells, found = true_cells(target), self.postprocess(detections)
            runs = (found.instances.to_runs(), cells.to_runs())
            self._rows.update(target.index, *runs)
            row = self._rows.rows[-1][0].cpu().numpy()
            self.batch.append(Scored(image, target, cells, found, row, detections.cell_type_names, runs))
            self._names[target.index] = (target.image_id, target.cell_type or "unknown")
            if self.box_ap:
                self._count_boxes(pl_module, target, detections, cells)

    def _count_boxes(
        self, pl_module: LightningModule, target: Target, detections: Detections, cells: Instances
    ) -> None:
        if self._boxes is None:
            self._boxes = BoxAP(detections.cell_type_names, self.max_detections).to(pl_module.device)
        self._boxes.update(
            target.index, detections.boxes, detections.scores, detections.cell_types, cells.boxes, cells.cell_types
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores, which `results` keeps in float64; a collective call."""
        self.batch = []
        if trainer.sanity_checking:
            return
        self.rows = self._rows.gathered_rows()
        names = gather_images(self._names)
        self.images = tuple(names[index][0] for index in self.rows[:, 0].tolist())
        self.cell_types = tuple(names[index][1] for index in self.rows[:, 0].tolist())
        if not self.images:
            return
        self.results = scores(self.rows, self.cell_types)
        if self._boxes is not None and (box_ap := self._boxes.compute()["box_ap"]) is not None:
            self.results["val/box_ap"] = box_ap
        fitting = trainer.state.fn == TrainerFn.FITTING  # the curve of the fit ends with the fit
        pl_module.log_dict(self.results, logger=fitting, batch_size=len(self.rows))
        pl_module.log("score", self.results["val/map"], prog_bar=True, logger=False, batch_size=len(self.rows))


def scores(rows: NDArray[np.int64], cell_types: Sequence[str]) -> dict[str, float]:
    """What is logged: val/map, val/map_<cell type>, val/precision_<percent>, means over images.

    rows: int64 [P, 13] as in `metrics.functional`, P >= 1; cell_types: [P], the type of each image.
    """
    by_type = functional.mean_by_group(functional.average_precision_per_image(rows), cell_types)
    by_threshold = functional.precision_per_image(rows).mean(axis=0).tolist()
    results = {"val/map": functional.competition_map(rows)}
    results |= {f"val/map_{name}": value for name, value in sorted(by_type.items())}
    percents = functional.THRESHOLD_PERCENT.tolist()
    return results | {f"val/precision_{p}": value for p, value in zip(percents, by_threshold, strict=True)}
