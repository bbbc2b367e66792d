"""Giving masks the flaws of the annotations back.

Annotations of astrocytes are often broken (`data.audit` counts how), and the score is against what was annotated. Most
of the missing pixels are enclosed holes. A network that was trained on broken masks dips where they usually are; these
dips, which the mask threshold fills, are opened again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sartorius.postprocess.paste import PastedMasks
from sartorius.postprocess.regions import fill_holes
from sartorius.structures.arrays import LabelMap


def open_holes(label_map: LabelMap, sure: PastedMasks) -> LabelMap:
    """The label map [H, W], cell k as k + 1, without the unsure pixels of a cell that its sure ones enclose.

    sure: the pixels of each cell that are more probable than where holes are opened; pixels that the label map gives to
    another cell do not count. A cell without sure pixels stays as it is, so does the rim of every cell.
    """
    own = label_map.reshape(-1)[sure.pixel] == sure.mask + 1
    core = np.zeros(label_map.shape, dtype=np.uint16)
    core.reshape(-1)[sure.pixel[own]] = sure.mask[own] + 1
    holes: NDArray[np.bool_] = (core == 0) & (label_map > 0) & (fill_holes(core) == label_map)
    return np.where(holes, 0, label_map).astype(np.uint16)
