"""IoU and Dice of single cells that are segmented in given boxes, beside an ellipse in the same box.

The ellipse is the best guess from the box alone; the difference is the network's. All overlaps are counted in pixels
of the image, on lists of pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning import LightningModule, Trainer

from sartorius.callbacks.scored_images import ImageCallback, ScoredImage, Validation, gather_images
from sartorius.errors import InputError
from sartorius.files import write_csv
from sartorius.modules.base import BoxPromptedModule
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.arrays import AnyFloats, Bools, Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

COLUMNS = ("iou", "dice", "iou_ellipse")


class CropScores(ImageCallback):
    """Scores of every cell of the validation images against the mask that was segmented in its box; overlaps stay.

    Logs val/iou, val/dice and val/iou_ellipse, means over cells, and val/iou_<cell type> and
    val/iou_ellipse_<cell type>. For a BoxPromptedModule.

    folder: of the run; gets crop_scores.csv, a row per cell type, when the best checkpoint is validated. threshold:
    probability above which a pixel belongs to a cell.
    """

    def __init__(self, folder: str | Path, threshold: float) -> None:
        self.folder, self.threshold = Path(folder), threshold
        self.table = pd.DataFrame()  # of the last validation

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise InputError for a module that finds its boxes itself."""
        if not isinstance(pl_module, BoxPromptedModule):
            raise InputError(
                f"callbacks.crop_scores: {type(pl_module).__name__} is not given the boxes of cells; leave it out with "
                "callbacks.crop_scores=null"
            )
        self._module: BoxPromptedModule = pl_module

    def on_scoring_start(self, validation: Validation) -> None:
        """Start with no cells."""
        self._cells: dict[int, pd.DataFrame] = {}

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Compare the cells of an image with the masks that were segmented in their boxes."""
        boxes = self._module.given_boxes(image.target).cpu().numpy()
        scores = cell_scores(image.detections, image.cells, boxes, self.threshold, image.ignored)
        names = [image.detections.cell_type_names[k] for k in image.target.cell_types.tolist()]
        self._cells[image.index] = pd.DataFrame(scores, columns=list(COLUMNS)).assign(cell_type=names)

    def on_scoring_end(self, validation: Validation) -> None:
        """Log the means, and write the table of the best checkpoint; a collective call. Nothing without cells."""
        cells = gather_images(self._cells)
        if not sum(map(len, cells.values())):
            return
        self.table = summary(pd.concat([cells[index] for index in sorted(cells)]))
        validation.log(named(self.table), "val/iou", int(self.table.cells["all"]))
        if not validation.in_fit and validation.trainer.is_global_zero:
            write_csv(self.folder / "crop_scores.csv", self.table.reset_index())


def cell_scores(
    detections: Detections, cells: Instances, boxes: AnyFloats, threshold: float, ignored: Bools | None = None
) -> Floats:
    """Return IoU and Dice of each cell with the detection of the same index, and IoU with the ellipse in its box.

    boxes: [N, 4], as given. ignored: bool [H, W], pixels that nobody has labelled, which do not count. Returns float64
    [N, 3], columns as in COLUMNS. Raises ValueError where the numbers
    of cells differ.
    """
    if not len(detections) == len(cells) == len(boxes):
        raise ValueError(f"{detections.image_id}: {len(detections)} detections, {len(cells)} cells, {len(boxes)} boxes")
    count, height, width = len(cells), cells.height, cells.width
    pasted = paste_masks(detections.boxes, detections.masks, np.full(count, threshold), height, width)
    true, found = cells.to_runs().pixels(), [(pasted.pixel, pasted.mask), ellipses(boxes, height, width).pixels()]
    if ignored is not None:
        labelled = ~ignored.reshape(-1)
        found = [(pixel[labelled[pixel]], mask[labelled[pixel]]) for pixel, mask in found]
    (iou, dice), (bar, _) = (_overlap(true, masks, count, height * width) for masks in found)
    return np.column_stack((iou, dice, bar))


def _overlap(a: tuple[Ints, Ints], b: tuple[Ints, Ints], count: int, size: int) -> tuple[Floats, Floats]:
    """Return IoU and Dice of mask k of `a` and mask k of `b`, given as (pixel, mask); 0 where both are empty."""
    both = np.intersect1d(a[1] * size + a[0], b[1] * size + b[0], assume_unique=True)
    shared = np.bincount(both // size, minlength=count)
    total = np.bincount(a[1], minlength=count) + np.bincount(b[1], minlength=count)
    return shared / np.maximum(total - shared, 1), 2 * shared / np.maximum(total, 1)


def ellipses(boxes: AnyFloats, height: int, width: int) -> Runs:
    """Return the ellipses in boxes [N, 4]: pixels whose centre lies in them, within the image. N may be 0."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    top = np.clip(np.ceil(y1 - 0.5), 0, height).astype(np.int64)
    rows = np.maximum(np.clip(np.ceil(y2 - 0.5), 0, height).astype(np.int64) - top, 0)
    cell = np.repeat(np.arange(len(x1)), rows)
    y = np.arange(len(cell)) - np.repeat(np.cumsum(rows) - rows, rows) + top[cell]
    down = (2 * y + 1 - (y1 + y2)[cell]) / np.maximum(y2 - y1, 1e-9)[cell]  # -1 to 1 from edge to edge
    half = (x2 - x1)[cell] / 2 * np.sqrt(np.maximum(1 - down**2, 0))
    middle = ((x1 + x2) / 2)[cell]
    left = np.clip(np.ceil(middle - half - 0.5), 0, width).astype(np.int64)
    stop = np.clip(np.floor(middle + half - 0.5) + 1, 0, width).astype(np.int64)
    kept = stop > left
    start, length = y[kept] * width + left[kept], (stop - left)[kept]
    return Runs(start, length, cell[kept], len(x1), height, width)


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """Return means over cells, a row `all` and one per cell type: cells, COLUMNS and gain (IoU minus the ellipse's)."""
    parts = {"all": cells, **{str(name): part for name, part in cells.groupby("cell_type")}}
    rows = {name: {"cells": len(part), **part[list(COLUMNS)].mean()} for name, part in parts.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").astype({"cells": int}).rename_axis("cell_type")
    return table.assign(gain=table.iou - table.iou_ellipse)


def named(table: pd.DataFrame) -> dict[str, float]:
    """Return the logged metrics of a `summary`: the COLUMNS of all cells, both IoUs of each cell type."""
    results = {f"val/{column}": float(table[column]["all"]) for column in COLUMNS}
    for name in table.index.drop("all"):
        results |= {f"val/{column}_{name}": float(table[column][name]) for column in ("iou", "iou_ellipse")}
    return results
