from __future__ import annotations

from typing import Any

import pytest

from sartorius.errors import InputError
from sartorius.postprocess.thresholds import per_type
from sartorius.structures.cell_types import CELL_TYPES
from tests.postprocess.pipelines import pipeline


def test_values_come_in_the_order_of_the_names() -> None:
    assert per_type("score", {"cort": 0.55, "shsy5y": 0.15, "astro": 0.35}, CELL_TYPES).tolist() == [0.15, 0.35, 0.55]
    assert per_type("min_area", 75, CELL_TYPES).tolist() == [75.0] * 3
    assert per_type("mask", 0.5, ()).shape == (0,)


def test_default_serves_types_that_are_not_named() -> None:
    assert per_type("score", {"cort": 0.5, "default": 0.2}, ("BV2", "cort")).tolist() == [0.2, 0.5]


def test_a_type_without_a_value_is_named() -> None:
    with pytest.raises(
        InputError, match=r"postprocess.score has no value for cell type 'BV2'.*postprocess.score.default"
    ):
        per_type("score", {"cort": 0.5}, ("cort", "BV2"))


@pytest.mark.parametrize("bad", [1.5, -0.1, "high", None, True, float("nan")])
def test_values_out_of_range_are_refused_by_name(bad: Any) -> None:
    with pytest.raises(InputError, match="postprocess.mask_nms.threshold.astro: expected a number from 0 to 1"):
        pipeline(mask_nms={"astro": bad})
    with pytest.raises(InputError, match="postprocess.score.threshold: expected"):
        pipeline(score=bad)
