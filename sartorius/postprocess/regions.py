"""Operations on the cells of a label map: largest pieces and holes, in one pass over the image for all cells."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sartorius.postprocess.paste import PastedMasks
from sartorius.structures.arrays import AnyInts, Bools, Ints, Ints32, LabelMap


def in_largest_piece(labels: AnyInts) -> Bools:
    """Mask the pixels of labels [H, W] in the largest 8-connected piece of their label; of equal ones, the upper."""
    from skimage.measure import label  # slow to import, and only needed where the config asks for it

    pieces = label(labels, connectivity=2)
    owner = np.zeros(int(pieces.max(initial=0)) + 1, dtype=np.int64)
    owner[pieces.ravel()] = labels.ravel()
    areas = np.bincount(pieces.ravel(), minlength=len(owner))
    best_first = np.lexsort((np.arange(len(owner)), -areas, owner))
    largest = np.zeros(len(owner), dtype=bool)
    largest[best_first[np.unique(owner[best_first], return_index=True)[1]]] = True
    return np.asarray(largest[pieces])


def keep_largest_piece(label_map: LabelMap) -> LabelMap:
    """Keep, of a label map [H, W], only the largest piece of each cell, see `in_largest_piece`."""
    return np.where(in_largest_piece(label_map), label_map, 0).astype(np.uint16)


def fill_holes(label_map: LabelMap) -> LabelMap:
    """Give every background region of a label map [H, W] that a single cell encloses to that cell.

    A region (4-connected) that touches the image's border or two cells stays background.
    """
    holes, count = ndimage.label(label_map == 0)
    low, high = np.full(count + 1, np.iinfo(np.int64).max), np.zeros(count + 1, dtype=np.int64)
    for hole, cell in _neighbours(holes, label_map):
        np.minimum.at(low, hole, cell)
        np.maximum.at(high, hole, cell)
    fill = np.where(low == high, high, 0)
    for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fill[border] = 0
    fill[0] = 0
    return np.where(label_map > 0, label_map, fill[holes]).astype(np.uint16)


def _neighbours(holes: Ints32, label_map: LabelMap) -> list[tuple[Ints, Ints]]:
    """List (hole, cell) of every pair of pixels that share an edge, one array pair for each of the four directions."""
    pairs = []
    for axis in (0, 1):
        size = label_map.shape[axis]
        front, back = [slice(None)] * 2, [slice(None)] * 2
        front[axis], back[axis] = slice(0, max(size - 1, 0)), slice(1, None)
        for a, b in ((tuple(front), tuple(back)), (tuple(back), tuple(front))):
            touching = (holes[a] > 0) & (label_map[b] > 0)
            pairs.append((holes[a][touching].astype(np.int64), label_map[b][touching].astype(np.int64)))
    return pairs


def open_holes(label_map: LabelMap, sure: PastedMasks) -> LabelMap:
    """Remove, from a label map [H, W] with cell k as k + 1, the unsure pixels that a cell's sure ones enclose.

    sure: the pixels of each cell that are more probable than where holes are opened; pixels that the label map gives to
    another cell do not count. A cell without sure pixels stays as it is, so does the rim of every cell.
    """
    drawn = label_map.reshape(-1)[sure.pixel] == sure.mask + 1
    core = np.zeros(label_map.shape, dtype=np.uint16)
    core.reshape(-1)[sure.pixel[drawn]] = sure.mask[drawn] + 1
    holes = (core == 0) & (label_map > 0) & (fill_holes(core) == label_map)
    return np.where(holes, 0, label_map).astype(np.uint16)
