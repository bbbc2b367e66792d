from __future__ import annotations

import pytest

from sartorius.errors import InputError
from sartorius.postprocess import Thresholds
from sartorius.structures.cell_types import CELL_TYPES


def thresholds(**changes: object) -> Thresholds:
    return Thresholds(**{"score": 0.3, "mask": 0.5, "box_nms": 0.7, "mask_nms": 0.1, "min_area": 75, **changes})  # type: ignore[arg-type]


def test_values_come_in_the_order_of_the_names() -> None:
    values = thresholds(score={"cort": 0.55, "shsy5y": 0.15, "astro": 0.35}).for_types(CELL_TYPES)
    assert values["score"].tolist() == [0.15, 0.35, 0.55]
    assert values["min_area"].tolist() == [75.0] * 3
    assert thresholds().for_types(())["mask"].shape == (0,)


def test_default_serves_types_that_are_not_named() -> None:
    assert thresholds(score={"cort": 0.5, "default": 0.2}).for_types(("BV2", "cort"))["score"].tolist() == [0.2, 0.5]


def test_a_type_without_a_value_is_named() -> None:
    with pytest.raises(
        InputError, match=r"postprocess.score has no value for cell type 'BV2'.*postprocess.score.default"
    ):
        thresholds(score={"cort": 0.5}).for_types(("cort", "BV2"))


@pytest.mark.parametrize("bad", [1.5, -0.1, "high", None, True, float("nan")])
def test_values_out_of_range_are_refused_by_name(bad: object) -> None:
    with pytest.raises(InputError, match="postprocess.mask_nms.astro: expected a number from 0 to 1"):
        thresholds(mask_nms={"astro": bad})
    with pytest.raises(InputError, match="postprocess.score: expected"):
        thresholds(score=bad)
