"""600 detections of one image to rows of a submission: ours beside torchvision's paste and pycocotools.

Ours does all that a submission needs: thresholds, NMS of boxes and masks, removal of overlaps, text. The peer only
pastes, thresholds and encodes. The detections are those of a perfect model on real cells, so both can be checked
against the cells themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import images
from benchmarks.measure import Row, expect, in_subprocess, peak_megabytes, resident_megabytes, side_by_side
from sartorius.structures import coco_rle, rle
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances

MASK_SIZE = 28
MASK_THRESHOLD = 0.5


def ours(detections: Detections) -> list[str]:
    """The rows, best score first."""
    return finalised(detections).to_rles()


def finalised(detections: Detections) -> Instances:
    """The cells that are submitted."""
    from sartorius.postprocess import BoxNMS, MaskNMS, MinArea, Overlaps, PasteMasks, Postprocess, Score

    decide = Postprocess(
        score=Score(0.1), box_nms=BoxNMS(0.9), mask=PasteMasks(MASK_THRESHOLD), mask_nms=MaskNMS(0.5),
        overlaps=Overlaps(), min_area=MinArea(20),
    )  # fmt: skip
    return decide(detections).instances


def peer(detections: Detections) -> list[dict[str, object]]:
    """COCO RLE of the transposed image of every detection."""
    import torch
    from pycocotools import mask as coco
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    masks = torch.from_numpy(detections.masks.astype(np.float32))[:, None]
    boxes = torch.from_numpy(detections.boxes)
    pasted = paste_masks_in_image(masks, boxes, (detections.height, detections.width))[:, 0] > MASK_THRESHOLD
    # [N, H, W] seen as [W, H, N]: column-major, as pycocotools wants it, without a copy
    rles: list[dict[str, object]] = coco.encode(pasted.numpy().view(np.uint8).T)
    return rles


def mean_iou(cells: rle.Runs, truth: rle.Runs) -> float:
    """The mean over cells of the best IoU with any true cell."""
    i, j, shared = rle.intersections(cells, truth)
    best = np.zeros(cells.count)
    np.maximum.at(best, i, shared / (cells.areas[i] + truth.areas[j] - shared))
    return float(best.mean())


def without_overlaps(cells: rle.Runs, scores: NDArray[np.floating]) -> rle.Runs:
    """Every pixel to the best-scoring cell that claims it: what the peer's masks lack before they may be submitted."""
    pixel, cell = cells.pixels()
    worst_first = np.argsort(scores[cell], kind="stable")
    label_map = np.zeros(HEIGHT * WIDTH, np.int64)
    label_map[pixel[worst_first]] = cell[worst_first] + 1  # of repeated indices the last assignment stays
    return rle.from_layers(label_map.reshape(1, HEIGHT, WIDTH), cells.count)


def increase(side: str, folder: str) -> float:
    """Peak memory above what was resident before, MB; run in a process of its own."""
    detections = Detections.load(next(Path(folder).glob("*.npz")))
    run = {"ours": ours, "peer": peer}[side]
    run(detections.select(np.arange(2)))  # so that imports and buffers of the libraries are not counted
    before = resident_megabytes()
    run(detections)
    return peak_megabytes() - before


def perfect(sample: images.Annotated) -> Detections:
    """What a perfect model would detect in `image`, in a shuffled order of scores."""
    scores: NDArray[np.float64] = np.random.default_rng(0).uniform(0.2, 1.0, len(sample.texts))
    return Detections.from_instances("crowded", sample.instances(), scores, MASK_SIZE)


def rows() -> Iterator[Row]:
    """Milliseconds, and megabytes above what was resident before."""
    sample = images.crowded()
    detections, truth = perfect(sample), rle.parse(sample.texts, HEIGHT, WIDTH)
    cells = finalised(detections)
    mine = mean_iou(cells.to_runs(), truth)
    pasted = coco_rle.decode(peer(detections), HEIGHT, WIDTH)
    theirs = mean_iou(without_overlaps(pasted, detections.scores), truth)
    same = expect(
        mine >= theirs and len(cells) >= 0.95 * len(detections),
        f"{len(cells)} cells kept, mean IoU with the true cells {mine:.3f} and {theirs:.3f}",
    )
    what = f"{len(detections)} detections ({sample.source} cells) -> rows"
    name = "torchvision paste + pycocotools"
    milliseconds = side_by_side(lambda: ours(detections), lambda: peer(detections))
    yield Row(what, "ms", milliseconds[0], milliseconds[1], name, same, at_least=10)
    with tempfile.TemporaryDirectory() as folder:
        detections.save(folder)
        megabytes = [in_subprocess("benchmarks.submission:increase", side, folder) for side in ("ours", "peer")]
    yield Row(f"{what}, peak memory", "MB", megabytes[0], megabytes[1], name, same, at_least=10)
