"""The competition's counts of an image: from text, and from label maps, beside pycocotools.

From text, pycocotools is fed the row-major runs as COCO RLE of the transposed image, so that it decodes nothing: its
fastest way. From label maps it is given masks in its own memory order, the making of which is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.metrics.functional import THRESHOLDS, image_row
from sartorius.structures import rle
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.instances import Instances

Texts = Sequence[str]


def counts_from_text(predicted: Texts, true: Texts) -> list[int]:
    """Ours: true positives at the ten thresholds, from text."""
    row = image_row(0, rle.parse(predicted, HEIGHT, WIDTH), rle.parse(true, HEIGHT, WIDTH))
    return row[1:-2].tolist()


def coco_from_text(text: str) -> dict[str, Any]:
    """The text of a cell as uncompressed COCO RLE of the transposed image."""
    numbers = np.array(text.split(), dtype=np.int64)
    edges = np.empty(len(numbers) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, HEIGHT * WIDTH
    edges[1:-1:2] = numbers[0::2] - 1
    edges[2:-1:2] = edges[1:-1:2] + numbers[1::2]
    return {"size": [WIDTH, HEIGHT], "counts": np.diff(edges)}


def peer_from_text(predicted: Texts, true: Texts) -> list[int]:
    """The peer: pycocotools on the swapped runs."""
    sides = [coco.frPyObjects([coco_from_text(text) for text in texts], WIDTH, HEIGHT) for texts in (predicted, true)]
    return counts_of(coco.iou(*sides, np.zeros(len(true), np.uint8)))


def peer_from_masks(predicted: NDArray[np.uint8], true: NDArray[np.uint8]) -> list[int]:
    """The peer: pycocotools on masks [H, W, N]."""
    iou = coco.iou(coco.encode(predicted), coco.encode(true), np.zeros(true.shape[2], np.uint8))
    return counts_of(iou)


def counts_of(iou: NDArray[np.float64]) -> list[int]:
    """True positives from all IoUs [predictions, cells]; where two cells meet one prediction, one counts."""
    hits = [iou > threshold for threshold in THRESHOLDS]
    return [int(min(hit.any(axis=0).sum(), hit.any(axis=1).sum())) for hit in hits]


def masks_of(instances: Instances) -> NDArray[np.uint8]:
    """One mask a cell, [H, W, N] in column-major order as pycocotools wants it."""
    masks = np.zeros((HEIGHT, WIDTH, len(instances)), np.uint8, order="F")
    for layer in instances.layers:
        y, x = np.nonzero(layer)
        masks[y, x, layer[y, x].astype(int) - 1] = 1
    return masks


def rows() -> Iterator[Row]:
    """Milliseconds an image, the mean over all images of the medians of each."""
    scored, source = images.scored()
    text, maps = [], []
    for predicted, true in scored:
        left, right = instances(predicted), instances(true)
        left_masks, right_masks = masks_of(left), masks_of(right)
        row = image_row(0, left, right)[1:-2].tolist()
        results = (counts_from_text(predicted, true), peer_from_text(predicted, true), row)
        expect(all(result == peer_from_masks(left_masks, right_masks) for result in results), "true positives")
        text.append(
            side_by_side(
                lambda p=predicted, t=true: counts_from_text(p, t),  # type: ignore[misc]
                lambda p=predicted, t=true: peer_from_text(p, t),  # type: ignore[misc]
                seconds=0.2,
            )
        )
        maps.append(
            side_by_side(
                lambda p=left, t=right: image_row(0, p, t),  # type: ignore[misc]
                lambda p=left_masks, t=right_masks: peer_from_masks(p, t),  # type: ignore[misc]
                seconds=0.2,
            )
        )
    same = "true positives at 10 thresholds of every image"
    what = f"per image, mean of {len(scored)} {source} ones"
    text_ms, maps_ms = np.mean(text, axis=0).tolist(), np.mean(maps, axis=0).tolist()
    yield Row(f"score from text, {what}", "ms", text_ms[0], text_ms[1], "pycocotools, swapped runs", same, at_least=1)
    yield Row(f"score from maps, {what}", "ms", maps_ms[0], maps_ms[1], "pycocotools encode + iou", same, at_least=10)


def instances(texts: Texts) -> Instances:
    """The cells of an image, their type left open."""
    return Instances.from_rles(texts, np.zeros(len(texts)), HEIGHT, WIDTH)
