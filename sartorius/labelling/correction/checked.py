"""The labels that corrected cells become: of a whole image, of a marked part and accepted cells, or of these alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sartorius.errors import InputError
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.shapes import EditedCell, instances_of
from sartorius.labelling.regions import near_labels
from sartorius.structures.arrays import Bools
from sartorius.structures.instances import Instances

Part = Literal["marked", "accepted"]


def checked_labels(correction: Correction, part: Part = "marked", margin: int = 30) -> tuple[Instances, Bools | None]:
    """Return the cells that are labels, and the pixels that nobody has checked, bool [H, W]; None for none of them.

    part: `marked` is the region of the correction, or all of the image where none is marked. A cell is a label where
    at least half of it lies in the region; what others have in it is not checked. `accepted` has no region.
    Cells that a person drew or accepted are labels in any case: outside the region each has as background the pixels
    within `margin` of it that no other cell covers.

    Raises InputError for `accepted` without any such cell, and where no pixel would be labelled.
    """
    cells = [correction.cells[number] for number in sorted(correction.cells)]
    size = correction.height, correction.width
    if part == "marked" and correction.region is None:
        return instances_of(cells, *size), None
    region = _covered([correction.region] if part == "marked" and correction.region else [], *size)
    inside = [2 * int((region[_box(cell)] & cell.mask).sum()) >= int(cell.mask.sum()) for cell in cells]
    kept = [cell for cell, within in zip(cells, inside, strict=True) if within or cell.accepted]
    outside = [cell for cell, within in zip(cells, inside, strict=True) if not within]
    if part == "accepted" and not kept:
        raise InputError("no cell is accepted yet: accept some, or save the whole image")
    near = near_labels(_covered([cell for cell in outside if cell.accepted], *size), margin)
    ignored = ~(region | near) | _covered([cell for cell in outside if not cell.accepted], *size)
    if ignored.all() and not kept:
        raise InputError(
            "the marked part has only pixels of cells that lie mostly outside: mark more, or save the whole image"
        )
    return instances_of(kept, *size), ignored


def region_of(ignored: Bools | None) -> EditedCell | None:
    """Return the region that is checked where these pixels, bool [H, W], are not; None for the whole image."""
    if ignored is None or not ignored.any():
        return None
    return EditedCell(0, 0, ignored).with_mask(~ignored, 0, 0)


def _box(cell: EditedCell) -> tuple[slice, slice]:
    return slice(cell.top, cell.bottom), slice(cell.left, cell.right)


def _covered(cells: Sequence[EditedCell], height: int, width: int) -> Bools:
    covered = np.zeros((height, width), bool)
    for cell in cells:
        covered[_box(cell)] |= cell.mask
    return covered
