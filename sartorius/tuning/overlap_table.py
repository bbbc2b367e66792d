"""The overlaps of one image as a search of thresholds needs them: counts in place of pixels.

The pixels that masks share do not depend on which of them are kept. The pixels of an image that the same candidates
cover are one *region*; the best one kept of those gets the whole region. So once the masks are made (a mask threshold
for each candidate), areas after overlap removal and intersections with the true cells are sums over regions, for every
score, NMS and area threshold: exactly those of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.postprocess import BoxNMS, MaskNMS, Postprocess, ThresholdTypes
from sartorius.postprocess.nms import mask_intersections
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.structures.arrays import Bools, Floats, Ints, Ints32, Scores
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

_BLOCK_PAIRS = 1 << 18  # box pairs compared at once: some 10 MB


@dataclass(frozen=True)
class CandidateTable:
    """The N detections of an image that may become cells, best first, without their masks.

    source: int64 [N], position in the detections. scores: float32 [N]. kind: int64 [N], the cell type whose thresholds
    hold for it: its own, or the image's. box_i < box_j: int32 [B], boxes that overlap; box_shared, box_union: float64
    [B], square pixels. cells: number of true cells with pixels.
    """

    source: Ints
    scores: Scores
    kind: Ints
    box_i: Ints32
    box_j: Ints32
    box_shared: Floats
    box_union: Floats
    cells: int

    def __len__(self) -> int:
        return len(self.scores)


def candidate_table(
    detections: Detections, truth: Runs, post: Postprocess, least_score: float, least_iou: float
) -> CandidateTable:
    """List the candidates of `post` while no score threshold is below `least_score`, no box NMS below `least_iou`."""
    types, box_nms = post.find(ThresholdTypes), post.find(BoxNMS)
    kind = detections.cell_types
    if types is not None and types.of == "image" and len(detections):
        kind = np.full_like(kind, detections.prevailing_type)
    source = np.flatnonzero(detections.scores >= np.float32(least_score))
    source = source[np.argsort(-detections.scores[source], kind="stable")]
    i, j, shared, union = _close_boxes(detections.boxes[source].astype(np.float64), least_iou)
    if box_nms is not None and not box_nms.class_agnostic:
        same = detections.cell_types[source][i] == detections.cell_types[source][j]
        i, j, shared, union = i[same], j[same], shared[same], union[same]
    cells = int(np.count_nonzero(truth.areas))
    pairs = i.astype(np.int32), j.astype(np.int32), shared, union
    return CandidateTable(source, detections.scores[source], kind[source], *pairs, cells)


def _close_boxes(boxes: Floats, above: float) -> tuple[Ints, Ints, Floats, Floats]:
    """Find pairs i < j of boxes [N, 4] with an IoU above `above`: (i, j, shared, union), in square pixels.

    The arithmetic is that of `nms.box_nms`, so that every comparison with a threshold comes out the same.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    step = max(1, _BLOCK_PAIRS // max(len(boxes), 1))
    parts = []
    for start in range(0, max(len(boxes), 1), step):
        block, rest = boxes[start : start + step, None], boxes[None, start:]
        shared = np.minimum(block[..., 2], rest[..., 2]) - np.maximum(block[..., 0], rest[..., 0])
        np.maximum(shared, 0, out=shared)
        shared *= np.maximum(np.minimum(block[..., 3], rest[..., 3]) - np.maximum(block[..., 1], rest[..., 1]), 0)
        union = areas[start : start + step, None] + areas[start:] - shared
        i, j = np.nonzero(shared > above * union)
        i, j = i[i < j], j[i < j]
        parts.append((i + start, j + start, shared[i, j], union[i, j]))
    i, j, shared, union = (np.concatenate(part) for part in zip(*parts, strict=True))
    return i, j, shared, union


@dataclass(frozen=True)
class OverlapTable:
    """The regions of one image, at one mask threshold for each of the N candidates.

    areas: [N], pixels of each mask. mask_i < mask_j: [M], masks that overlap; mask_shared, mask_whole: [M], pixels
    shared and the denominator of their overlap. pixels: [S], size of each region; first: [S], where its candidates
    begin in cover: [C], best first. truth_region, truth_cell, truth_pixels: [T], the pixels that each region shares
    with each true cell; true_areas: [T], pixels of that cell.
    ignored: [S], pixels of each region that nobody has labelled. All int32.
    """

    areas: Ints32
    mask_i: Ints32
    mask_j: Ints32
    mask_shared: Ints32
    mask_whole: Ints32
    pixels: Ints32
    first: Ints32
    cover: Ints32
    truth_region: Ints32
    truth_cell: Ints32
    truth_pixels: Ints32
    true_areas: Ints32
    ignored: Ints32

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(array.nbytes for array in vars(self).values())


def overlap_table(
    detections: Detections,
    source: Ints,
    truth: Runs,
    post: Postprocess,
    mask: Floats,
    ignored: Bools | None = None,
) -> OverlapTable:
    """Count the overlaps of detections `source` [N], at mask thresholds `mask` [N], with each other and the true cells.

    ignored: bool [H, W], pixels that nobody has labelled. Raises ValueError where detections and truth are of images of
    different size.
    """
    height, width = detections.height, detections.width
    if (height, width) != (truth.height, truth.width):
        raise ValueError(f"detections of an image of {width}x{height}, cells of {truth.width}x{truth.height} pixels")
    pasted = paste_masks(detections.boxes[source], detections.masks[source], mask, height, width)
    i, j, shared = mask_intersections(pasted)
    areas, mask_nms = pasted.areas, post.find(MaskNMS)
    smaller = mask_nms is not None and mask_nms.overlap == "iom"
    whole = np.minimum(areas[i], areas[j]) if smaller else areas[i] + areas[j] - shared
    region_of, pixels, first, cover = _regions(pasted)
    at, cell = truth.pixels()
    region = region_of[at]
    inside = region >= 0
    pairs, counts = np.unique(region[inside] * max(truth.count, 1) + cell[inside], return_counts=True)
    truth_region, truth_cell = np.divmod(pairs, max(truth.count, 1))
    unlabelled = np.zeros(len(pixels), np.int64)
    if ignored is not None:
        unlabelled = np.bincount(region_of[ignored.reshape(-1) & (region_of >= 0)], minlength=len(pixels))
    arrays = (areas, i, j, shared, whole, pixels, first, cover, truth_region, truth_cell, counts)
    return OverlapTable(*(a.astype(np.int32) for a in (*arrays, truth.areas[truth_cell], unlabelled)))


def _regions(pasted: PastedMasks) -> tuple[Ints, Ints, Ints, Ints]:
    """Return (region of each pixel of the image, -1 for none; pixels of each region; first; cover), see `OverlapTable`.

    Region k < count is covered by mask k alone, and may be empty. The others are the leaves of a tree of masks, best
    first: pixels that reach the same leaf are covered by the same masks.
    """
    size = pasted.height * pasted.width
    covers = np.bincount(pasted.pixel, minlength=size)
    region_of = np.full(size, -1, dtype=np.int64)
    contested = covers[pasted.pixel] > 1
    region_of[pasted.pixel[~contested]] = pasted.mask[~contested]
    order = np.argsort(pasted.pixel[contested], kind="stable")  # within a pixel the masks stay sorted, best first
    pixel, mask = pasted.pixel[contested][order], pasted.mask[contested][order]
    begin = np.flatnonzero(np.diff(pixel, prepend=-1))
    number = covers[pixel[begin]]
    node, nodes = mask[begin].copy(), pasted.count
    for depth in range(1, int(number.max(initial=1))):
        deeper = np.flatnonzero(number > depth)
        ways, way = np.unique(node[deeper] * pasted.count + mask[begin[deeper] + depth], return_inverse=True)
        node[deeper] = nodes + way
        nodes += len(ways)
    leaves, sample, region = np.unique(node, return_index=True, return_inverse=True)
    region_of[pixel[begin]] = pasted.count + region
    alone = np.bincount(pasted.mask[~contested], minlength=pasted.count)
    pixels = np.concatenate((alone, np.bincount(region, minlength=len(leaves))))
    length = number[sample]
    inner = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    cover = np.concatenate((np.arange(pasted.count), mask[np.repeat(begin[sample], length) + inner]))
    lengths = np.concatenate((np.ones(pasted.count, np.int64), length))
    return region_of, pixels, np.cumsum(lengths) - lengths, cover
