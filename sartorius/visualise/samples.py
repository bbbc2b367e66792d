"""Sheets of the samples that a data module gives to a model, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pytorch_lightning import LightningDataModule
from torch import Tensor

from sartorius.data.dataset import Target
from sartorius.data.loading.sampler import EpochSampler
from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.arrays import ColourImage
from sartorius.structures.instances import Instances
from sartorius.visualise import overlays
from sartorius.visualise.targets import DrawsTargets


@dataclass(frozen=True)
class Sample:
    """One sample as it came out of the loader: image uint8 [1, H, W], its target and the epoch asked for."""

    image: Tensor
    target: Target
    epoch: int


def first_samples(datamodule: LightningDataModule, split: str, count: int, epoch: int = 0) -> list[Sample]:
    """Return the first `count` samples of the `train` or `val` loader, in the order of that epoch; or all of fewer.

    The data module is set up here. Raises InputError for another split, a count below 1 and a loader without samples.
    """
    if split not in ("train", "val") or count < 1 or epoch < 0:
        raise InputError(
            f"split={split}, samples={count}, epoch={epoch}: expected train or val, 1 sample or more, epoch 0 or later"
        )
    datamodule.setup("fit")
    loader: Any = datamodule.train_dataloader() if split == "train" else datamodule.val_dataloader()
    if isinstance(loader.sampler, EpochSampler):
        loader.sampler.set_epoch(epoch)
    drawn = (pair for batch in loader for pair in zip(batch.images, batch.targets, strict=True))
    samples = [Sample(image, target, epoch) for image, target in islice(drawn, count)]
    if not samples:
        raise InputError(
            f"split={split}: the loader has no batch; lower data.batch_size, set data.drop_last=false, or choose a "
            "fold with such images"
        )
    return samples


def draw_samples(samples: list[Sample], columns: int, tile: int, module: DrawsTargets | None = None) -> ColourImage:
    """Draw the sheet, uint8 RGB; with a module each sample stands in a row with its targets (see `DrawsTargets`).

    tile: pixels; samples are enlarged by the whole number that brings their longer side closest to it from below.
    """
    # one stretch for all, or brightness and contrast of the samples could not be compared
    limits = overlays.grey_limits(*(sample.image[0].numpy() for sample in samples))
    rows = []
    for sample in samples:
        scale = max(tile // max(sample.image.shape[-2:]), 1)
        bare = draw_sample(sample, scale, limits, marks=False)
        row = [overlays.captioned(draw_sample(sample, scale, limits), caption(sample))]
        if module is not None:
            shown = module.target_panels(sample.image, sample.target, bare, scale)
            row += [overlays.captioned(image, [text, ""]) for text, image in shown]
        rows.append(row)
    if module is not None:
        columns = max(len(row) for row in rows)
    return overlays.draw_sheet([image for row in rows for image in row], columns)


def draw_sample(sample: Sample, scale: int, limits: tuple[float, float], marks: bool = True) -> ColourImage:
    """Draw a sample enlarged; with `marks` the outlines and boxes of its cells (the chosen ones' where it has such)."""
    image, target = sample.image[0].numpy(), sample.target
    cells = Instances(target.layers.numpy().astype(np.uint16), target.cell_types.numpy())
    shown = cells if marks else Instances.empty(cells.height, cells.width)
    canvas = overlays.draw_overlay(image, shown, scale=scale, opacity=0.0, labels=False, limits=limits)
    if marks:
        boxes = target.boxes.numpy()
        colours = overlays.cell_colours(boxes)[1:] // 2
        chosen = np.arange(len(boxes)) if target.chosen is None else target.chosen.numpy()
        overlays.draw_boxes(canvas, boxes[chosen], colours[chosen], scale)
        if target.ignored is not None:
            overlays.hatch(canvas, target.ignored.numpy(), scale)
    return canvas


def caption(sample: Sample) -> list[str]:
    """Return two lines: the image; its type, cells and epoch, and the ignored pixels and weight of the sample."""
    target = sample.target
    cells = "1 cell" if len(target) == 1 else f"{len(target)} cells"
    cells = cells if target.chosen is None else f"{len(target.chosen)} of {cells}"
    ignored = 0 if target.ignored is None else int(target.ignored.sum())
    parts = [target.cell_type or "type not known", cells, f"epoch {sample.epoch}"]
    parts += [f"{ignored} px ignored"] * bool(ignored) + [f"weight {target.weight:g}"] * (target.weight != 1.0)
    return [target.image_id, ", ".join(parts)]


def table(samples: list[Sample]) -> str:
    """Tabulate samples: image, type, size, cells, the shortest, median and longest side of boxes, grey levels."""
    rows = []
    for sample in samples:
        target, grey = sample.target, sample.image.double()
        sides = (target.boxes[:, 2:] - target.boxes[:, :2]).flatten()
        spread = [sides.min(), sides.median(), sides.max()] if len(sides) else []
        height, width = sample.image.shape[-2:]
        lengths = " ".join(f"{float(side):.0f}" for side in spread) or "-"
        levels = f"{float(grey.mean()):.1f} +- {float(grey.std(correction=0)):.1f}"
        rows.append([target.image_id, target.cell_type, f"{width}x{height}", len(target), lengths, levels])
    columns = ["image_id", "type", "pixels", "cells", "box sides", "grey"]
    return pd.DataFrame(rows, columns=columns).to_string(index=False)


def write_sheet(
    datamodule: LightningDataModule,
    output: Path,
    split: str,
    samples: int,
    columns: int,
    tile: int,
    epoch: int = 0,
    module: DrawsTargets | None = None,
) -> str:
    """Write the sheet of the first samples of a split to `output` (a PNG); returns the table and the path as text.

    module: draw its targets too. Raises InputError as `first_samples` does, and for a sheet without columns or pixels.
    """
    if columns < 1 or tile < 1 or output.suffix.lower() != ".png":
        raise InputError(f"columns={columns}, tile={tile}, output={output}: expected 1 or more, and a name in .png")
    drawn = first_samples(datamodule, split, samples, epoch)
    sheet = draw_samples(drawn, columns, tile, module)
    done, data = cv2.imencode(".png", sheet[..., ::-1])
    if not done:
        raise InputError(f"a sheet of {sheet.shape[1]} x {sheet.shape[0]} px cannot be written; lower samples or tile")
    with atomic_path(output) as temporary:
        temporary.write_bytes(data.tobytes())
    return f"{table(drawn)}\n\nbox sides: shortest, median, longest, pixels\n{output}"
