"""The cells of an image in numbers, and how far models agree on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sartorius.labelling.review.quality import FEATURES, Quality, joined, quality_of
from sartorius.postprocess.saved import from_saved
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs
from tests.reports.folders import POST


def squares(*places: int, scores: list[float], agreement: list[float] | None = None) -> tuple[Quality, Runs]:
    """Cells of 10x10 px in the rows 5 to 15 at these columns, in an image of 40x100 px."""
    masks = np.zeros((len(places), 40, 100), bool)
    for mask, x in zip(masks, places, strict=True):
        mask[5:15, x : x + 10] = True
    cells = Instances.from_masks(masks, np.zeros(len(places), np.int64))
    detections = Detections.from_instances("a", cells, np.array(scores, np.float32))
    if agreement is not None:
        detections = replace(detections, agreement=np.array(agreement, np.float32))
    final = from_saved(POST, None, "test")(detections)
    return quality_of(detections, final, final.instances.to_runs()), final.instances.to_runs()


def test_features_of_two_squares() -> None:
    quality, _ = squares(10, 50, scores=[0.9, 0.7], agreement=[0.5, 1.0])
    assert quality.features is not None and quality.agreement == pytest.approx(0.75) and quality.count == 2
    found = dict(zip(FEATURES, quality.features, strict=True))
    assert found["cells"] == pytest.approx(np.log(3)) and found["score"] == pytest.approx(0.8)
    assert found["low_score"] == pytest.approx(0.72) and found["area"] == pytest.approx(np.log(100))
    assert found["covered"] == pytest.approx(200 / 4000) and 0.9 < found["inside"] <= 1
    assert found["undecided"] == pytest.approx(1 - 26**2 / 28**2)  # the rim of a mask of 28x28


def test_an_image_without_cells_has_no_features() -> None:
    quality, _ = squares(10, scores=[0.1])  # below the threshold
    assert quality == Quality(None, None, 0)


def test_models_agree_as_far_as_they_score_each_other() -> None:
    """a and b share one of three squares at every threshold; c finds nothing; by hand."""
    (a, of_a), (b, of_b), (c, of_c) = (
        squares(10, 50, scores=[0.9, 0.7]), squares(10, 80, scores=[0.8, 0.8]), squares(10, scores=[0.1])
    )  # fmt: skip
    assert joined([a], [of_a]) is a
    both = joined([a, b], [of_a, of_b])
    assert both.agreement == pytest.approx(1 / 3) and both.count == 2
    assert a.features is not None and b.features is not None
    assert both.features == pytest.approx((a.features + b.features) / 2)
    three = joined([a, b, c], [of_a, of_b, of_c])
    assert three.agreement == pytest.approx((1 / 3 + 0 + 0) / 3) and three.features == pytest.approx(both.features)
    nothing = joined([c, c], [of_c, of_c])
    assert nothing.features is None and nothing.agreement == 1
