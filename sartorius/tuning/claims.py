"""One image as a search of thresholds needs it: counts in place of pixels.

What the masks of the candidates share does not depend on which of them are kept. The pixels of an image that the same
candidates claim are one *patch*; whoever of them is the best one kept gets the whole patch. So once the masks are made
(a mask threshold for each candidate), areas after overlap removal and intersections with the true cells are sums over
patches, for every score, NMS and area threshold: exactly those of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.nms import mask_intersections
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.structures.arrays import Ints
from sartorius.structures.arrays import Ints32 as Small
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

_BLOCK_PAIRS = 1 << 18  # box pairs compared at once: some 10 MB


@dataclass(frozen=True)
class Candidates:
    """The N detections of an image that may become cells, best first, without their masks.

    source: int64 [N], position in the detections. scores: float32 [N]. kind: int64 [N], whose thresholds hold for it:
    its own cell type, or the image's. box_i < box_j: int32 [B], boxes that overlap; box_shared, box_union: float64
    [B], square pixels. cells: number of true cells with pixels.
    """

    source: Ints
    scores: NDArray[np.float32]
    kind: Ints
    box_i: Small
    box_j: Small
    box_shared: NDArray[np.float64]
    box_union: NDArray[np.float64]
    cells: int

    def __len__(self) -> int:
        return len(self.scores)


def candidates_of(found: Detections, truth: Runs, post: Postprocess, floor: dict[str, float]) -> Candidates:
    """What `post` could keep of the detections while no threshold is below `floor` (score and box_nms matter)."""
    kind = found.cell_types
    if post.image_type == "majority" and len(found):
        kind = np.full_like(kind, found.prevailing_type)
    source = np.flatnonzero(found.scores >= np.float32(floor["score"]))
    source = source[np.argsort(-found.scores[source], kind="stable")]
    i, j, shared, union = _close_boxes(found.boxes[source].astype(np.float64), floor["box_nms"])
    if not post.class_agnostic:
        same = found.cell_types[source][i] == found.cell_types[source][j]
        i, j, shared, union = i[same], j[same], shared[same], union[same]
    cells = int(np.count_nonzero(truth.areas))
    pairs = i.astype(np.int32), j.astype(np.int32), shared, union
    return Candidates(source, found.scores[source], kind[source], *pairs, cells)


def _close_boxes(
    boxes: NDArray[np.float64], above: float
) -> tuple[Ints, Ints, NDArray[np.float64], NDArray[np.float64]]:
    """Pairs i < j of boxes [N, 4] with an IoU above `above`: (i, j, shared, union), in square pixels.

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
class Claims:
    """Who claims which pixels of one image, at one mask threshold for each of the N candidates.

    areas: [N], pixels of each mask. mask_i < mask_j: [M], masks that overlap; mask_shared, mask_whole: [M], pixels
    shared and what the overlap is a part of. pixels: [S], size of each patch; first: [S], where its claimants begin in
    claimant: [C], best first. truth_patch, truth_cell, truth_pixels: [T], what each patch shares with each true cell;
    true_areas: [T], pixels of that cell. All int32.
    """

    areas: Small
    mask_i: Small
    mask_j: Small
    mask_shared: Small
    mask_whole: Small
    pixels: Small
    first: Small
    claimant: Small
    truth_patch: Small
    truth_cell: Small
    truth_pixels: Small
    true_areas: Small

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


def claims_of(found: Detections, source: Ints, truth: Runs, post: Postprocess, mask: NDArray[np.float64]) -> Claims:
    """The claims of detections `source` [N] with mask thresholds `mask` [N], beside the true cells.

    Raises ValueError where detections and truth are of images of different size.
    """
    if (found.height, found.width) != (truth.height, truth.width):
        raise ValueError(
            f"detections of an image of {found.width}x{found.height}, cells of {truth.width}x{truth.height} pixels"
        )
    pasted = paste_masks(found.boxes[source], found.masks[source], mask, found.height, found.width)
    i, j, shared = mask_intersections(pasted)
    areas = pasted.areas
    whole = areas[i] + areas[j] - shared if post.overlap == "iou" else np.minimum(areas[i], areas[j])
    patch_of, pixels, first, claimant = _patches(pasted)
    at, cell = truth.pixels()
    patch = patch_of[at]
    inside = patch >= 0
    pairs, counts = np.unique(patch[inside] * max(truth.count, 1) + cell[inside], return_counts=True)
    truth_patch, truth_cell = np.divmod(pairs, max(truth.count, 1))
    arrays = (areas, i, j, shared, whole, pixels, first, claimant, truth_patch, truth_cell, counts)
    return Claims(*(a.astype(np.int32) for a in (*arrays, truth.areas[truth_cell])))


def _patches(pasted: PastedMasks) -> tuple[Ints, Ints, Ints, Ints]:
    """(patch of each pixel of the image, -1 for none; pixels of each patch; first; claimant) as in `Claims`.

    Patch k < count is what mask k claims alone, possibly nothing. The others are found by descending a tree of
    claimants, best first: pixels that came the same way are claimed by the same masks.
    """
    size = pasted.height * pasted.width
    claims = np.bincount(pasted.pixel, minlength=size)
    patch_of = np.full(size, -1, dtype=np.int64)
    contested = claims[pasted.pixel] > 1
    patch_of[pasted.pixel[~contested]] = pasted.mask[~contested]
    order = np.argsort(pasted.pixel[contested], kind="stable")  # within a pixel the masks stay sorted, best first
    pixel, mask = pasted.pixel[contested][order], pasted.mask[contested][order]
    begin = np.flatnonzero(np.diff(pixel, prepend=-1))
    number = claims[pixel[begin]]
    node, nodes = mask[begin].copy(), pasted.count
    for depth in range(1, int(number.max(initial=1))):
        deeper = np.flatnonzero(number > depth)
        ways, way = np.unique(node[deeper] * pasted.count + mask[begin[deeper] + depth], return_inverse=True)
        node[deeper] = nodes + way
        nodes += len(ways)
    ends, sample, patch = np.unique(node, return_index=True, return_inverse=True)
    patch_of[pixel[begin]] = pasted.count + patch
    alone = np.bincount(pasted.mask[~contested], minlength=pasted.count)
    pixels = np.concatenate((alone, np.bincount(patch, minlength=len(ends))))
    length = number[sample]
    inner = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    claimant = np.concatenate((np.arange(pasted.count), mask[np.repeat(begin[sample], length) + inner]))
    lengths = np.concatenate((np.ones(pasted.count, np.int64), length))
    return patch_of, pixels, np.cumsum(lengths) - lengths, claimant
