from __future__ import annotations

import numpy as np
import pytest
from hard_masks import JoinRule, free_cells, match

from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.rle import Runs

H, W = 40, 60


def cells(*boxes: tuple[int, int, int, int]) -> Runs:
    """Full boxes x1, y1, x2, y2, which may overlap."""
    masks = np.zeros((len(boxes), H, W), np.int64)
    for k, (x1, y1, x2, y2) in enumerate(boxes):
        masks[k, y1:y2, x1:x2] = k + 1
    return rle.from_layers(masks, len(boxes)) if boxes else rle.parse([], H, W)


def boxes(runs: Runs) -> list[tuple[int, ...]]:
    pixel, cell = runs.pixels()
    y, x = pixel // W, pixel % W
    of = [cell == k for k in range(runs.count)]
    return [(x[m].min(), y[m].min(), x[m].max() + 1, y[m].max() + 1) for m in of]


def rule(**changes: float | bool) -> JoinRule:
    plain = {"match_iou": 0.3, "confirmed_only": False, "add": False, "free_share": 0.2}
    plain |= {"weight": 0.0, "offset": 0.0, "smooth": 0.0}
    return JoinRule(**{**plain, **changes})  # type: ignore[arg-type]


FIRST = cells((2, 2, 12, 12), (30, 5, 42, 17))
SECOND = cells((2, 2, 14, 12), (10, 25, 20, 35), (40, 5, 44, 17))


def test_the_first_set_alone_comes_back_as_it_was() -> None:
    joined = rule()(FIRST, SECOND)
    assert rle.format(joined) == rle.format(FIRST)
    assert rule()(FIRST, cells()).count == 2 and rule(confirmed_only=True)(FIRST, cells()).count == 0


def test_what_is_confirmed_and_what_is_added() -> None:
    assert boxes(rule(confirmed_only=True)(FIRST, SECOND)) == [(2, 2, 12, 12)]
    # of the third of the second set a half lies in the first's: not free
    assert boxes(rule(add=True)(FIRST, SECOND)) == [(2, 2, 12, 12), (30, 5, 42, 17), (10, 25, 20, 35)]
    assert boxes(rule(add=True, free_share=0.5)(FIRST, SECOND))[-1] == (42, 5, 44, 17), "no pixel twice"
    assert boxes(rule(add=True)(cells(), SECOND)) == boxes(SECOND)
    assert rule(add=True)(cells(), cells()).count == 0


def test_the_mean_of_two_shapes_lies_between_them() -> None:
    assert boxes(rule(weight=1.0, confirmed_only=True)(FIRST, SECOND)) == [(2, 2, 14, 12)]
    wide = cells((10, 10, 20, 20)), cells((6, 10, 24, 20))
    ((x1, y1, x2, y2),) = boxes(rule(weight=0.5, confirmed_only=True)(*wide))
    assert (y1, y2) == (10, 20) and (x1, x2) == (8, 22), "half of 4 pixels on both sides"


def test_outlines_move() -> None:
    square = cells((10, 10, 20, 20))
    assert boxes(rule(offset=1.0)(square, cells())) == [(9, 9, 21, 21)]
    assert boxes(rule(offset=-1.0)(square, cells())) == [(11, 11, 19, 19)]
    assert rule(offset=-1.0)(cells((5, 5, 7, 30)), cells()).count == 0, "nothing is left of a thin one"
    assert rule(smooth=2.0)(square, cells()).areas[0] < 100, "corners are rounded"
    whole = cells((0, 0, W, H))
    assert rule(smooth=1.0)(whole, whole).areas.tolist() == [W * H]


def test_an_outline_does_not_move_into_another_cell() -> None:
    joined = rule(offset=2.0)(cells((5, 5, 15, 15), (16, 5, 26, 15)), cells())
    assert joined.areas.sum() == len(np.unique(joined.pixels()[0]))


def test_matching_is_one_to_one_and_closest_first() -> None:
    first, second = cells((0, 0, 10, 10), (0, 0, 10, 12)), cells((0, 0, 10, 11), (0, 0, 10, 12))
    assert match(first, second, 0.3).tolist() == [[1, 1], [0, 0]]
    assert match(first, second, 0.95).tolist() == [[1, 1]]
    assert match(cells(), second, 0.0).shape == (0, 2)


def test_free_cells() -> None:
    assert free_cells(FIRST, SECOND, 0.2).tolist() == [False, True, False]
    assert free_cells(FIRST, rle.parse(["", "1 3"], H, W), 1.0).tolist() == [False, True]


def test_bad_input() -> None:
    for changes, message in (
        ({"match_iou": 1.5}, "match_iou: expected a number from 0 to 1"),
        ({"weight": -0.1}, "weight"),
        ({"offset": 9.0}, "offset=9.0"),
        ({"smooth": -1.0}, "smooth=-1.0"),
    ):
        with pytest.raises(InputError, match=message):
            rule(**changes)
    with pytest.raises(ValueError, match="cannot be compared"):
        rule()(FIRST, rle.parse(["1 1"], 5, 5))
