"""From soft detections to the cells that may be submitted: one label map, no pixel twice.

Order: score, box NMS, paste and mask threshold, mask NMS; then, as configured, overlaps to the better score, cleaning,
area. The area usually comes last: what overlap removal leaves of a cell is what it must be large enough by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.postprocess import regions
from sartorius.postprocess.nms import Overlap, box_nms, mask_nms
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.postprocess.reopen_holes import open_holes
from sartorius.postprocess.thresholds import PerType, Thresholds, check, per_type
from sartorius.structures.arrays import Ints, Layers
from sartorius.structures.detections import Detections
from sartorius.structures.instances import MAX_CELLS, Instances
from sartorius.structures.rle import Runs

STEPS = ("overlaps", "largest_piece", "fill_holes", "reopen_holes", "min_area")


@dataclass(frozen=True)
class Finalised:
    """The N cells of one image, best score first, overlap-free.

    instances: one layer, cell k has value k + 1. scores: float32 [N]. source: int64 [N], index of each cell in the
    detections that it came from. Cell types are those of the detections.
    """

    image_id: str
    instances: Instances
    scores: NDArray[np.float32]
    source: Ints

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def cell_types(self) -> Ints:
        """int64 [N], index into the detections' cell_type_names."""
        return self.instances.cell_types


@dataclass(frozen=True)
class Postprocess:
    """All decisions between detections and cells; a callable that turns Detections into Finalised.

    Args:
        score, mask, box_nms, mask_nms, min_area: see `Thresholds`; a number, or one per cell type.
        max_detections: best-scoring detections an image that are looked at, at most 65535.
        image_type: `each`, thresholds of a detection's own cell type; `majority`, those of the type with the
            largest sum of scores in the image (images hold one type; detections may disagree).
        class_agnostic: box NMS also between detections of different cell types.
        overlap: measure of mask NMS, `iou` or `iom` (see `nms.mask_nms`).
        largest_piece: keep only the largest connected piece of each cell.
        fill_holes: fill background that one cell encloses.
        reopen_holes: open pixels up to this probability that surer ones of a cell enclose (see `reopen_holes`), 0..1, a
            number or one per cell type; None, or what is not above the mask threshold, opens none.
        order: of the steps after mask NMS, each of STEPS once. Steps before `overlaps` see every mask whole, those
            after it what is left of it.
    """

    score: PerType
    mask: PerType
    box_nms: PerType
    mask_nms: PerType
    min_area: PerType
    max_detections: int = 2000
    image_type: Literal["each", "majority"] = "each"
    class_agnostic: bool = True
    overlap: Overlap = "iou"
    largest_piece: bool = False
    fill_holes: bool = False
    reopen_holes: PerType | None = None
    order: Sequence[str] = STEPS
    thresholds: Thresholds = field(init=False, repr=False)

    def __post_init__(self) -> None:
        thresholds = Thresholds(self.score, self.mask, self.box_nms, self.mask_nms, self.min_area)
        object.__setattr__(self, "thresholds", thresholds)
        _check_choice("image_type", self.image_type, ("each", "majority"))
        _check_choice("overlap", self.overlap, ("iou", "iom"))
        object.__setattr__(self, "order", tuple(self.order))
        if sorted(self.order) != sorted(STEPS):
            raise InputError(f"postprocess.order: expected each of {', '.join(STEPS)} once, got {list(self.order)}")
        if self.reopen_holes is not None:
            check("reopen_holes", self.reopen_holes, 1.0)
        if not 1 <= self.max_detections <= MAX_CELLS:
            raise InputError(f"postprocess.max_detections: expected 1 to {MAX_CELLS}, got {self.max_detections}")

    def __call__(self, detections: Detections) -> Finalised:
        """The cells of one image; see `Finalised`. No detections give no cells.

        Raises InputError where a cell type of the detections has no threshold.
        """
        limits = self._limits(detections)
        chosen = np.flatnonzero(detections.scores >= limits["score"].astype(np.float32))
        chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")][: self.max_detections]
        types = detections.cell_types[chosen]
        keep = box_nms(detections.boxes[chosen], types, limits["box_nms"][chosen], self.class_agnostic)
        chosen = chosen[keep]
        pasted = paste_masks(
            detections.boxes[chosen],
            detections.masks[chosen],
            limits["mask"][chosen],
            detections.height,
            detections.width,
        )
        keep = (pasted.areas > 0) & mask_nms(pasted, limits["mask_nms"][chosen], self.overlap)
        chosen = chosen[keep]
        label_map = self._clean(pasted.select(keep), detections.select(chosen), limits, chosen)
        areas = np.bincount(label_map.ravel(), minlength=len(chosen) + 1)[1:]
        source = chosen[areas > 0]
        instances = Instances.from_label_map(_renumber(label_map, areas > 0), detections.cell_types[source])
        return Finalised(detections.image_id, instances, detections.scores[source], source)

    def _limits(self, detections: Detections) -> dict[str, NDArray[np.float64]]:
        """Each threshold for each detection, float64 [N]."""
        by_type = self.thresholds.for_types(detections.cell_type_names)
        if self.reopen_holes is not None:
            by_type["reopen_holes"] = per_type("reopen_holes", self.reopen_holes, detections.cell_type_names)
        types = detections.cell_types
        if self.image_type == "majority" and len(types):
            types = np.full_like(types, detections.prevailing_type)
        return {name: values[types] for name, values in by_type.items()}

    def _clean(
        self, pasted: PastedMasks, found: Detections, limits: dict[str, NDArray[np.float64]], chosen: Ints
    ) -> NDArray[np.uint16]:
        """The label map [H, W] after all steps; cell k is detection k of `found` and has the limits `chosen[k]`."""
        layers = remove_overlaps(pasted)[None] if self.order[0] == "overlaps" else _layers(pasted)
        whole = True
        for step in self.order:
            if step == "overlaps":
                layers, whole = _first_layer(layers), False
            elif step == "fill_holes" and self.fill_holes and whole:
                layers = _filled(layers, len(chosen))
            elif step == "largest_piece" and self.largest_piece:
                layers = np.stack([regions.keep_largest_piece(layer) for layer in layers])
            elif step == "fill_holes" and self.fill_holes:
                layers = np.stack([regions.fill_holes(layer) for layer in layers])
            elif step == "reopen_holes" and self.reopen_holes is not None:
                cuts = np.maximum(limits["reopen_holes"], limits["mask"])[chosen]
                sure = paste_masks(found.boxes, found.masks, cuts, found.height, found.width)
                layers = np.stack([open_holes(layer, sure) for layer in layers])
            elif step == "min_area":
                areas = np.bincount(layers.ravel(), minlength=len(chosen) + 1)
                small = np.append(True, areas[1:] < limits["min_area"][chosen])
                layers = np.where(small[layers], 0, layers).astype(np.uint16)
        return layers[0]


def _layers(pasted: PastedMasks) -> Layers:
    """The masks in layers [L, H, W], mask k as k + 1; masks of one layer share no pixel."""
    lengths = np.ones_like(pasted.pixel)
    runs = Runs(pasted.pixel, lengths, pasted.mask, pasted.count, pasted.height, pasted.width)
    return Instances.from_runs(runs, np.zeros(pasted.count, np.int64)).layers


def _filled(layers: Layers, count: int) -> Layers:
    """The masks with all that each encloses, other cells too, in layers of their own."""
    masks = Instances(layers, np.zeros(count, np.int64))
    pixel, owner = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for k in np.flatnonzero(masks.areas).tolist():
        top, left, mask = masks.crop_mask(k)
        rows, columns = np.nonzero(ndimage.binary_fill_holes(mask))
        pixel.append((rows + top) * masks.width + columns + left)
        owner.append(np.full(len(rows), k))
    return _layers(PastedMasks(np.concatenate(pixel), np.concatenate(owner), count, masks.height, masks.width))


def _first_layer(layers: Layers) -> Layers:
    """One layer [1, H, W]; a pixel that several masks claim goes to the first, the best score."""
    free = np.uint16(MAX_CELLS)
    first = np.where(layers == 0, free, layers - np.uint16(1)).min(axis=0, keepdims=True)
    return np.where(layers.any(axis=0, keepdims=True), first + np.uint16(1), 0).astype(np.uint16)


def remove_overlaps(pasted: PastedMasks) -> NDArray[np.uint16]:
    """A label map [H, W], mask k as k + 1; a pixel that several masks claim goes to the first, the best score."""
    label_map = np.zeros(pasted.height * pasted.width, dtype=np.uint16)
    label_map[pasted.pixel[::-1]] = pasted.mask[::-1] + 1  # of repeated indices the last assignment stays
    return label_map.reshape(pasted.height, pasted.width)


def _renumber(label_map: NDArray[np.uint16], keep: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The label map with only the kept cells [N], numbered 1, 2, ... in their order."""
    new = np.zeros(len(keep) + 1, dtype=np.uint16)
    new[1:][keep] = np.arange(1, int(keep.sum()) + 1)
    return new[label_map]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"postprocess.{name}: expected {' or '.join(choices)}, got {value!r}")
