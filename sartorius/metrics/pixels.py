"""Cells against background, pixel by pixel: one row of counts an image, everything else is arithmetic on rows.

A row is int64 [5]: image index, pixels that are true positives, false positives, false negatives, true negatives;
beside it stands the sum of the binary cross-entropy over the image's pixels. Rows of several processes are
concatenated, deduplicated by image and averaged in float64: the result does not depend on how images are distributed.

A plain name (`iou`) is the mean over images; `pooled_` counts the pixels of all images together, so that images with
more cells weigh more. Of images of one size, accuracy and cross-entropy are the same both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sartorius.metrics.gathered import ImageRows
from sartorius.metrics.report import print_rows
from sartorius.structures.arrays import Floats, Ints

ROW_LENGTH = 5
_LEAST_LOG = -100.0  # as torch's binary_cross_entropy: a wrong pixel that is certain costs 100, not infinity


def pixel_row(
    index: int, foreground: Tensor, truth: Tensor, threshold: float, ignored: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return an image's row, int64 [5], and the sum of its cross-entropy in nats, float32 []; on the device of `truth`.

    foreground: float [H, W], the probability 0..1 that a pixel belongs to any cell; above `threshold` it counts as one.
    truth: bool [H, W]. ignored: bool [H, W], pixels that are not counted. Raises ValueError when foreground and truth
    have different sizes.
    """
    if foreground.shape != truth.shape:
        raise ValueError(f"foreground {tuple(foreground.shape)} and truth {tuple(truth.shape)} must have one size")
    probability = foreground.float()
    if ignored is not None:
        probability, truth = probability[~ignored], truth[~ignored]
    predicted = probability > threshold
    hits, right = (predicted & truth).sum(), (predicted == truth).sum()
    place = torch.tensor(index, device=truth.device)
    row = torch.stack((place, hits, predicted.sum() - hits, truth.sum() - hits, right - hits))
    entropy = -torch.where(truth, probability, 1 - probability).log().clamp(min=_LEAST_LOG).sum()
    return row, entropy.abs()  # no minus zero


def scores_per_image(rows: Ints, bce: Floats) -> dict[str, Floats]:
    """Return accuracy, iou, dice, bce, confluence_true and confluence_predicted of each row, float64 [P].

    rows: int64 [P, 5]; bce: float [P], sums over the pixels of an image; their mean comes back, in nats a pixel.
    accuracy: share of correctly classified pixels, 0..1. iou: TP / (TP + FP + FN). dice: 2 TP / (2 TP + FP + FN), also
    called F1. Both are 1 with no true and no predicted pixel, 0 when only one of them is missing. confluence: share of
    the image that cells cover, 0..1.
    """
    hits, false, missed, background = rows[:, 1:].T
    pixels = np.maximum(rows[:, 1:].sum(axis=1), 1)  # none in an image that nobody has labelled
    return {
        "accuracy": (hits + background) / pixels,
        "iou": _share(hits, hits + false + missed),
        "dice": _share(2 * hits, 2 * hits + false + missed),
        "bce": bce / pixels,
        "confluence_true": (hits + missed) / pixels,
        "confluence_predicted": (hits + false) / pixels,
    }


def _share(part: Ints, whole: Ints) -> Floats:
    return np.divide(part, whole, out=np.ones(len(whole)), where=whole > 0)


def summary(rows: Ints, bce: Floats) -> dict[str, float]:
    """Return the means over images of `scores_per_image`, confluence_error, and pooled_accuracy, _iou, _dice and _bce.

    confluence_error is the mean absolute difference of true and predicted confluence, a share of the image in 0..1.
    {} without images.
    """
    if not len(rows):
        return {}
    values = scores_per_image(rows, bce)
    values["confluence_error"] = np.abs(values["confluence_true"] - values["confluence_predicted"])
    together = scores_per_image(rows.sum(axis=0, keepdims=True), bce.sum(keepdims=True))
    means = {name: float(value.mean()) for name, value in values.items()}
    return means | {f"pooled_{name}": float(together[name][0]) for name in ("accuracy", "iou", "dice", "bce")}


def per_image_table(rows: Ints, bce: Floats, images: Sequence[str], cell_types: Sequence[str]) -> pd.DataFrame:
    """Make a table, a line an image: image_id, cell_type, the columns of `scores_per_image`; in the order of `rows`."""
    names = {"image_id": list(images), "cell_type": list(cell_types)}
    return pd.DataFrame({**names, **scores_per_image(rows, bce)})


def print_table(title: str, table: pd.DataFrame) -> None:
    """Print the means over images of a `per_image_table`, a line for all and one for each cell type in it."""
    rows = []
    for kind in ("all", *sorted({*table.cell_type} - {""})):
        part = table if kind == "all" else table[table.cell_type == kind]
        mean = part[part.columns[2:]].mean()
        plain = [f"{mean[name]:.4f}" for name in ("bce", "iou", "dice")]
        covered = f"{100 * mean.confluence_true:.2f} / {100 * mean.confluence_predicted:.2f}"
        rows.append([kind, str(len(part)), f"{100 * mean.accuracy:.2f}", *plain, covered])
    print_rows(title, ["type", "images", "accuracy\n%", "BCE", "IoU", "Dice", "confluence %\ntrue / found"], rows)


class PixelScores(ImageRows):
    """Rows and cross-entropies of all images of all processes, exact however the images are distributed.

    State: one int64 row [5] and one float32 sum an image. An image that a distributed sampler repeats counts once.

    threshold: a pixel is called a cell's above this probability.
    """

    TABLES = {"rows": ((ROW_LENGTH,), torch.int64), "bce": ((), torch.float32)}  # noqa: RUF012
    rows: list[Tensor]
    bce: list[Tensor]

    def __init__(self, threshold: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def update(self, index: int, foreground: Tensor, truth: Tensor, ignored: Tensor | None = None) -> None:
        """Add one image: its index in the data set, and what `pixel_row` takes."""
        row, bce = pixel_row(index, foreground, truth, self.threshold, ignored)
        self.rows.append(row[None].to(self.device))
        self.bce.append(bce[None].to(self.device))

    def gathered(self) -> tuple[Ints, Floats]:
        """Return (rows int64 [P, 5], bce float64 [P]) of all processes, sorted by image, each once; collective."""
        return _each_once(**self._gathered())

    def compute(self) -> dict[str, float]:
        """Return the `summary` of the images so far."""
        return summary(*_each_once(**self._tables()))


def _each_once(rows: Tensor, bce: Tensor) -> tuple[Ints, Floats]:
    first = np.unique(rows[:, 0].numpy(), return_index=True)[1]
    return rows.numpy()[first], bce.numpy()[first].astype(np.float64)
