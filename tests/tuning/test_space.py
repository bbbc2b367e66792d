from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.tuning import SearchSpace
from sartorius.tuning.space import ThresholdGrid, floor
from tests.tuning.images import START

NONE: dict[str, Any] = dict.fromkeys(("score", "mask", "box_nms", "mask_nms", "min_area"))


def grids(**ranges: Any) -> dict[str, ThresholdGrid]:
    return SearchSpace(**NONE | ranges).grids(START)


def test_a_grid_holds_both_ends_and_round_numbers() -> None:
    grid = grids(score={"threshold": {"low": 0.05, "high": 0.95, "step": 0.05}})["score.threshold"]
    assert [grid.value(k) for k in range(grid.last + 1)] == [round(0.05 * k, 2) for k in range(1, 20)]
    assert [grid.nearest(value) for value in (0.0, 0.06, 0.08, 0.95, 1.0)] == [0, 0, 1, 18, 18]
    single = grids(mask={"threshold": {"low": 0.5, "high": 0.5, "step": 0.1}})["mask.threshold"]
    assert single.last == 0 and single.value(0) == 0.5


def test_the_steps_say_what_can_be_searched() -> None:
    offered = {f"{step}.{'pixels' if step == 'min_area' else 'threshold'}" for step in NONE}
    assert set(SearchSpace().grids(START)) == offered == set(START.searchable)
    assert SearchSpace().grids(START)["min_area.pixels"] == ThresholdGrid(0, 400, 10)
    changed = SearchSpace(mask={"threshold": {"high": 0.6}}, score={"threshold": None}).grids(START)
    assert changed["mask.threshold"] == ThresholdGrid(0.2, 0.6, 0.05)
    assert set(changed) == offered - {"score.threshold"} and next(iter(changed)) == "mask.threshold"
    assert set(SearchSpace(opened={"pixels": {"low": 1}}).grids(START)) == offered, "no such step"


def test_the_floor_holds_where_the_search_starts() -> None:
    start = {"score.threshold": np.array([0.02, 0.5]), "mask.threshold": np.array([0.5, 0.5])}
    lowest = floor(grids(mask={"threshold": {"low": 0.2, "high": 0.8, "step": 0.1}}), start)
    assert lowest == {"score.threshold": 0.02, "mask.threshold": 0.2}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "search: every threshold is null"),
        (
            {"mask": {"threshold": {"low": 0.1, "up": 0.5}}},
            "mask.threshold: expected low, high and step, got low, up",
        ),
        ({"mask": {"threshold": {"high": "much"}}}, "search.mask.threshold.high: expected a number, got 'much'"),
        (
            {"mask": {"threshold": {"low": 0.5, "high": 0.1}}},
            "mask.threshold: expected low <= high, got low 0.5",
        ),
        ({"score": {"threshold": {"high": 1.5}}}, "search.score.threshold: .*expected a number from 0 to 1, got 1.5"),
        ({"score": {"threshold": {"step": 0}}}, "search.score.threshold.step: expected a number above 0, got 0"),
        ({"min_area": {"pixels": {"high": 105}}}, "search.min_area.pixels: steps of 10 from 0 do not end at 105"),
        ({"score": {"treshold": None}}, "search.score.treshold: post-processing offers no such setting, only score.t"),
        ({"overlaps": {"pixels": {"low": 1}}}, "search.overlaps.pixels: post-processing offers no such setting"),
    ],
)
def test_bad_ranges_are_named(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grids(**ranges)
