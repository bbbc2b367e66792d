from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.tuning import SearchSpace

NONE: dict[str, Any] = dict.fromkeys(("score", "mask", "box_nms", "mask_nms", "min_area"))


def space(**grids: dict[str, Any]) -> SearchSpace:
    return SearchSpace(**NONE | grids)


def test_a_grid_holds_both_ends_and_round_numbers() -> None:
    grid = space(score={"low": 0.05, "high": 0.95, "step": 0.05}).grids["score"]
    assert [grid.value(k) for k in range(grid.last + 1)] == [round(0.05 * k, 2) for k in range(1, 20)]
    assert [grid.nearest(value) for value in (0.0, 0.06, 0.08, 0.95, 1.0)] == [0, 0, 1, 18, 18]
    single = space(mask={"low": 0.5, "high": 0.5, "step": 0.1}).grids["mask"]
    assert single.last == 0 and single.value(0) == 0.5


def test_the_floor_holds_where_the_search_starts() -> None:
    start = {"score": np.array([0.02, 0.5]), "mask": np.array([0.5, 0.5])}
    found = space(mask={"low": 0.2, "high": 0.8, "step": 0.1}).floor(start)
    assert found == {"score": 0.02, "mask": 0.2}


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({}, "search: every threshold is null"),
        ({"mask": {"low": 0.1, "high": 0.5}}, "search.mask: expected low, high and step, got low, high"),
        ({"mask": {"low": 0.1, "high": "much", "step": 0.1}}, "search.mask.high: expected a number, got 'much'"),
        ({"mask": {"low": 0.5, "high": 0.1, "step": 0.1}}, "search.mask: expected 0 <= low <= high <= 1"),
        ({"score": {"low": 0.5, "high": 1.5, "step": 0.1}}, "search.score: expected 0 <= low <= high <= 1"),
        ({"score": {"low": 0.0, "high": 1.0, "step": 0}}, "search.score.step: expected a number above 0, got 0"),
        ({"min_area": {"low": 0, "high": 105, "step": 10}}, "search.min_area: steps of 10 from 0 do not end at 105"),
    ],
)
def test_bad_grids_are_named(grids: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        space(**grids)
