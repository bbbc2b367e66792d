"""Dense maps of an image with 500 cells to cells: ours beside skimage's peaks and watershed.

The maps are what a network should predict, made from the cells, blurred and with smooth noise, so that both sides have
something to get wrong and the truth is known. Both take the same height and foreground; ours also measures scores and
cell types. To Detections, the peer cuts out and resizes each cell in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from benchmarks.submission import mean_iou
from sartorius.networks.cell_maps import MapLayout, map_targets
from sartorius.postprocess.decoders import OffsetVoting, Watershed
from sartorius.postprocess.maps import CellMaps
from sartorius.postprocess.paste import paste_masks
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances

CELLS = 500
FOREGROUND = 0.3
MASK_SIZE = 28
WATERSHED = Watershed(FOREGROUND, border_weight=0.5, smooth=0.0, depth=0.2, peak=0.3, min_area=20)
OFFSET_VOTING = OffsetVoting(FOREGROUND, smooth=1.5, depth=0.3, min_area=20, largest_piece=True)
PEER_DISTANCE = 5  # pixels between peaks; of 2 to 6 what finds nearest to the right number of cells

Label = NDArray[np.integer]


def maps_of(instances: Instances, seed: int = 0) -> CellMaps:
    """The true maps, blurred by a pixel, with noise of 2 pixels' width: 0.7 in logits, 1.5 pixels in offsets."""
    rng = np.random.default_rng(seed)
    layout = MapLayout(types=1, border=2, centre=True, offset_scale=1.0)
    true = map_targets(
        torch.from_numpy(instances.layers.astype(np.int32)), torch.from_numpy(instances.cell_types), layout
    )

    def noise(sigma: float) -> NDArray[np.float32]:
        field = cv2.GaussianBlur(rng.normal(size=true.foreground.shape).astype(np.float32), (0, 0), 2.0)
        return np.asarray(field * np.float32(sigma / field.std()))

    def soft(plane: torch.Tensor) -> NDArray[np.float32]:
        likely = cv2.GaussianBlur(plane.numpy(), (0, 0), 1.0).clip(0.02, 0.98)
        return np.asarray(1 / (1 + np.exp(-np.log(likely / (1 - likely)) - noise(0.7))), np.float32)

    offset = true.offset.numpy() + np.stack([noise(1.5), noise(1.5)])
    types = rng.dirichlet(np.ones(3), true.foreground.shape).astype(np.float32).transpose(2, 0, 1)
    return CellMaps(soft(true.foreground), soft(true.border), soft(true.centre), offset, np.ascontiguousarray(types))


def detections_of(maps: CellMaps) -> Detections:
    """Ours: maps to soft detections."""
    found = WATERSHED(maps)
    return Detections.from_regions(
        "benchmark", found.regions, maps.foreground, found.scores, found.cell_types, MASK_SIZE
    )


def peer_regions(maps: CellMaps) -> Label:
    """The peer: peaks of the same height as seeds of a watershed within the same foreground."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    assert maps.centre is not None and maps.border is not None
    height = maps.centre - np.float32(WATERSHED.border_weight) * maps.border
    inside = maps.foreground > FOREGROUND
    peaks = peak_local_max(
        height, min_distance=PEER_DISTANCE, threshold_abs=WATERSHED.peak, labels=inside.astype(np.uint8),
        exclude_border=False,
    )  # fmt: skip
    seeds = np.zeros(height.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    found: Label = watershed(-height, seeds, mask=inside)
    return found


def peer_detections(maps: CellMaps) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """The peer: boxes [N, 4] and masks [N, M, M], one cell after the other."""
    from skimage.measure import regionprops

    boxes, masks = [], []
    for cell in regionprops(peer_regions(maps)):
        y1, x1, y2, x2 = cell.bbox
        boxes.append((x1, y1, x2, y2))
        masks.append(cv2.resize(maps.foreground[y1:y2, x1:x2] * cell.image, (MASK_SIZE, MASK_SIZE)))
    return np.array(boxes, np.float32), np.array(masks, np.float16)


def above(maps: CellMaps, regions: Label) -> Label:
    """Without the pixel by which our regions are larger than what was divided."""
    return np.where(maps.foreground > FOREGROUND, regions, 0)


def quality(regions: Label, instances: Instances) -> tuple[int, float]:
    """Number of cells, and the mean over the true cells of the best IoU with any of them."""
    count = int(regions.max(initial=0))
    cells = Instances.from_label_map(regions, np.zeros(count))
    return count, mean_iou(instances.to_runs(), cells.to_runs())


def pasted(boxes: NDArray[np.float32], masks: NDArray[np.float16], shape: tuple[int, ...]) -> Label:
    """Masks in boxes as a label map again, above one half."""
    found = paste_masks(boxes, masks, np.full(len(boxes), 0.5), shape[0], shape[1])
    label_map = np.zeros(shape, np.int64)
    label_map.ravel()[found.pixel] = found.mask + 1
    return label_map


def agree(ours: Label, peer: Label, instances: Instances) -> str:
    """Ours must find about as many cells as there are, at least as well as the peer."""
    (mine, my_iou), (theirs, their_iou) = quality(ours, instances), quality(peer, instances)
    close = abs(mine - len(instances)) <= 0.05 * len(instances) and my_iou >= their_iou
    return expect(
        close, f"{mine} and {theirs} of {len(instances)} cells, mean best IoU {my_iou:.3f} and {their_iou:.3f}"
    )


def rows() -> Iterator[Row]:
    """Milliseconds an image."""
    cv2.setNumThreads(1)
    sample = images.crowded(CELLS)
    instances = sample.instances()
    maps = maps_of(instances)
    detections, other = detections_of(maps), peer_detections(maps)
    shape, whole = maps.foreground.shape, peer_regions(maps)
    sides = [
        ("regions, watershed", WATERSHED, peer_regions, above(maps, WATERSHED(maps).regions), whole),
        ("regions, offset voting", OFFSET_VOTING, peer_regions, above(maps, OFFSET_VOTING(maps).regions), whole),
        ("detections, watershed", detections_of, peer_detections,
         pasted(detections.boxes, detections.masks, shape), pasted(*other, shape)),
    ]  # fmt: skip
    for what, ours, peer, mine, theirs in sides:
        same = agree(mine, theirs, instances)
        milliseconds = side_by_side(lambda f=ours: f(maps), lambda f=peer: f(maps))  # type: ignore[misc]
        name = "skimage peaks + watershed" + (", a cell at a time" if peer is peer_detections else "")
        yield Row(
            f"maps -> {what}, {len(instances)} {sample.source} cells", "ms", *milliseconds, name, same, at_most=50
        )
