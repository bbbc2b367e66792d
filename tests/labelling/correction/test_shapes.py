"""Masks of single cells, beside masks as large as the image."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import disk, polygon2mask

from sartorius.errors import InputError
from sartorius.labelling.correction.shapes import (
    EditedCell,
    brushed,
    cells_of,
    instances_of,
    parted_by_line,
    parted_by_shape,
    united,
    within_polygon,
    without,
)
from sartorius.structures.instances import Instances


def cell(mask: np.ndarray, **values: object) -> EditedCell:
    """A cell of a mask as large as the image."""
    return EditedCell(0, 0, mask, **values).with_mask(mask, 0, 0)  # type: ignore[arg-type]


def full(part: EditedCell, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[part.top : part.bottom, part.left : part.right] = part.mask
    return mask


def discs(*centres: tuple[int, int], radius: int = 10) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    for centre in centres:
        mask[disk(centre, radius, shape=mask.shape)] = True
    return mask


def test_layers_and_back() -> None:
    """Overlapping cells, in their order, with types; a cell without pixels is left out."""
    masks = np.stack([discs((20, 20)), discs((20, 30)), np.zeros((60, 80), bool), discs((45, 70))])
    layered = Instances.from_masks(masks, [2, 0, 1, 1])
    cells = cells_of(layered, [0.5, 0.25, 0.125, np.nan])
    assert [c.cell_type for c in cells] == [2, 0, 1] and [c.score for c in cells][:2] == [0.5, 0.25]
    assert all((full(c) == mask).all() for c, mask in zip(cells, masks[[0, 1, 3]], strict=True))
    again = instances_of(cells, 60, 80)
    assert again.to_rles() == [layered.to_rles()[k] for k in (0, 1, 3)] and again.cell_types.tolist() == [2, 0, 1]
    assert len(instances_of([], 60, 80)) == 0 and instances_of([], 60, 80).layers.shape == (1, 60, 80)


def test_a_polygon_has_the_pixels_whose_centre_is_inside() -> None:
    points = np.array([[5.2, 4.1], [30.7, 10.3], [25.1, 50.9], [8.4, 33.3]])
    mask, top, left = within_polygon(points, 60, 80)
    found = full(EditedCell(top, left, mask))
    assert (found == polygon2mask((60, 80), points - 0.5)).all() and found.sum() > 500
    outside, _, _ = within_polygon([[-30, -30], [-30, -10], [-10, -10]], 60, 80)
    assert not outside.any()
    mask, top, left = within_polygon([[-5, -5], [-5, 7], [3, 7], [3, -5]], 60, 80)
    assert (top, left, mask.shape) == (0, 0, (3, 7)) and mask.all()
    assert not within_polygon(np.zeros((0, 2)), 60, 80)[0].any()


def test_joined_cells_are_their_union() -> None:
    parts = [cell(discs((20, 20), radius=5), cell_type=1, score=0.9), cell(discs((40, 60)), cell_type=2, score=np.nan)]
    joined = united(parts)
    assert (full(joined) == full(parts[0]) | full(parts[1])).all()
    assert (joined.cell_type, joined.score, joined.accepted) == (2, 0.9, True)


def test_a_line_parts_a_cell_and_loses_nothing() -> None:
    whole = cell(discs((30, 40)), cell_type=1, score=0.5)
    left, right = sorted(parted_by_line(whole, [[10, 38], [50, 42]]), key=lambda part: part.left)
    assert (full(left) ^ full(right) == full(whole)).all() and not (full(left) & full(right)).any()
    assert abs(int(left.mask.sum()) - int(right.mask.sum())) < 30 and left.cell_type == 1 and left.accepted
    assert full(left)[30, 32] and full(right)[30, 48]
    for line in ([[30, 33], [30, 44]], [[2, 2], [2, 70]], [[30, 40], [30, 40]]):
        with pytest.raises(InputError, match="does not part the cell: draw it across"):
            parted_by_line(whole, line)


def test_a_piece_that_the_line_does_not_meet_goes_to_the_nearest_part() -> None:
    mask = discs((30, 30))
    mask[28:33, 44:48] = True
    left, right = sorted(parted_by_line(cell(mask), [[5, 30], [55, 30]]), key=lambda part: part.left)
    assert full(right)[30, 45] and not full(left)[30, 45] and int(left.mask.sum() + right.mask.sum()) == mask.sum()


def test_a_waist_parts_a_cell() -> None:
    whole = cell(discs((30, 30), (30, 46)))
    left, right = sorted(parted_by_shape(whole), key=lambda part: part.left)
    assert (full(left) ^ full(right) == full(whole)).all()
    truth = discs((30, 30)) & ~discs((30, 46))
    assert (full(left) & truth).sum() > 0.98 * truth.sum()
    assert len(parted_by_shape(cell(discs((20, 20), (20, 36), (36, 28), radius=9)))) == 3


@pytest.mark.parametrize("shape", ["disc", "pixel"])
def test_a_shape_without_a_waist_is_not_parted(shape: str) -> None:
    mask = discs((30, 30)) if shape == "disc" else discs((30, 30), radius=1)
    with pytest.raises(InputError, match="no waist"):
        parted_by_shape(cell(mask))


def test_no_pixels() -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        cell(np.zeros((60, 80), bool))


@pytest.mark.parametrize("radius", [0, 2, 5])
def test_a_stroke_has_the_pixels_near_it(radius: int) -> None:
    mask, top, left = brushed([[30, 20], [30, 40]], radius, 60, 80)
    y, x = np.mgrid[:60, :80]
    near = (y - 30) ** 2 + (x - np.clip(x, 20, 40)) ** 2 <= radius**2
    assert (full(EditedCell(top, left, mask)) == near).all()
    mask, top, left = brushed([[-3, 2], [1, 2]], radius, 60, 80)
    near = (y - np.clip(y, -3, 1)) ** 2 + (x - 2) ** 2 <= radius**2
    assert (full(EditedCell(top, left, mask)) == near).all()
    assert brushed([[-20, -20]], radius, 60, 80)[0].size == 0


def test_pixels_are_taken_from_a_cell() -> None:
    first, second = cell(discs((20, 20)), cell_type=1), cell(discs((20, 30)))
    assert (full(without(first, second)) == discs((20, 20)) & ~discs((20, 30))).all()
    assert (full(without(first, cell(discs((45, 70))))) == full(first)).all()
    with pytest.raises(InputError, match="at least one pixel"):
        without(first, first)
