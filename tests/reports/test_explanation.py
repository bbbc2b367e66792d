"""What each step drops, and what became of each missed cell, on images worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sartorius.metrics.functional import image_row
from sartorius.postprocess import Postprocess, Step
from sartorius.postprocess.candidates import Candidates
from sartorius.reports.explanation import explain
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs
from tests.postprocess.pipelines import pipeline
from tests.postprocess.shapes import detections, random_detections
from tests.tuning.images import truth_of


@dataclass(frozen=True)
class WithoutTheThird(Step):
    """A filter of false positives that drops the third detection."""

    def __call__(self, candidates: Candidates) -> Candidates:
        return candidates.select(candidates.source != 2)


def cells(*boxes: tuple[int, int, int, int]) -> Runs:
    """Annotated full boxes (x1, y1, x2, y2) in an image of 40 x 60."""
    masks = np.zeros((len(boxes), 40, 60), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances.from_masks(masks, np.zeros(len(boxes))).to_runs()


def test_every_way_to_miss_a_cell() -> None:
    found = detections(
        [
            [0, 0, 10, 10],  # 0 is right
            [20, 0, 30, 10],  # 1 its score is too low
            [0, 20, 10, 28],  # 2 suppressed by 3, which is no better
            [0, 20, 10, 30],  # 3
            [20, 20, 24, 24],  # 4 too small
            [40, 0, 50, 10],  # 5 half of it lies under 6
            [40, 4, 50, 14],  # 6
            [40, 30, 43, 40],  # 7 shares 30 of 100 pixels
        ],
        [0.9, 0.2, 0.5, 0.8, 0.7, 0.6, 0.95, 0.9],
    )
    truth = cells(
        (0, 0, 10, 10), (20, 0, 30, 10), (20, 20, 24, 24), (40, 0, 50, 10), (40, 30, 50, 40), (55, 30, 60, 35)
    )
    post = pipeline(score=0.3, box_nms=0.7, mask_nms=0.6, min_area=20)
    told = explain(post, found, truth)
    assert told.steps == "8 -> score 7 -> box_nms 6 -> min_area 5"
    assert told.left[:3] == (("types", 8), ("score", 7), ("max_detections", 7)) and told.left[-1] == ("min_area", 5)
    assert (told.image_id, told.detections, told.cells) == ("image_id", 8, 6)
    assert [(one.cell, one.detection, one.dropped_by) for one in told.missed] == [
        (1, 1, "score"), (3, 5, None), (4, 7, None), (5, None, None), (2, 4, "min_area"),
    ]  # fmt: skip
    by_cell = {one.cell: one for one in told.missed}
    assert by_cell[1].reason == "candidate of IoU 1.00, score 0.20: dropped by score"
    assert by_cell[3].reason == "candidate of IoU 1.00, score 0.60: kept, but IoU 0.40 in the end"
    assert by_cell[4].reason == "no candidate above IoU 0.5 (best 0.30)" and by_cell[4].final_iou == 0.3
    assert by_cell[5].reason == "no candidate above IoU 0.5" and by_cell[5].score == 0.0
    assert (by_cell[5].x, by_cell[5].y, by_cell[5].area) == (57.5, 32.5, 25)


def test_nms_and_the_filter_are_named() -> None:
    found = detections([[0, 0, 10, 10], [0, 0, 10, 14], [30, 0, 40, 10]], [0.5, 0.9, 0.8])
    truth = cells((0, 0, 10, 9), (30, 0, 40, 10))

    def filtered(post: Postprocess) -> Postprocess:
        return Postprocess(**post.steps, filter=WithoutTheThird())

    told = explain(filtered(pipeline(box_nms=0.7)), found, truth)
    assert told.steps == "3 -> box_nms 2 -> filter 1"
    assert [(one.cell, one.dropped_by) for one in told.missed] == [(1, "filter")], "the larger box is good enough"
    told = explain(filtered(pipeline(mask_nms=0.7)), found, cells((0, 0, 10, 7)))
    assert [(one.detection, one.dropped_by, one.iou) for one in told.missed] == [(0, "mask_nms", 0.7)]


def test_a_cell_whose_candidate_belongs_to_another() -> None:
    """One prediction is above IoU 0.5 with two overlapping cells: one is found, the other missed."""
    told = explain(pipeline(), detections([[0, 0, 10, 10]], [0.9]), cells((0, 0, 10, 9), (0, 1, 10, 9)))
    (missed,) = told.missed
    assert (missed.cell, missed.final_iou) == (1, 0.8)
    assert missed.reason == "candidate of IoU 0.80, score 0.90: kept, and matched with another cell"


def test_nothing_detected_and_nothing_annotated() -> None:
    nothing = detections([], [])
    told = explain(pipeline(), nothing, cells((0, 0, 10, 10)))
    assert told.steps == "0" and [one.reason for one in told.missed] == ["no candidate above IoU 0.5"]
    told = explain(pipeline(), detections([[0, 0, 10, 10]], [0.9]), cells())
    assert (told.cells, told.missed) == (0, ())
    with pytest.raises(ValueError, match="cannot be compared"):
        explain(pipeline(), nothing, replace(cells(), width=61))


@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_the_score(seed: int) -> None:
    found = random_detections(seed, 40)
    truth = truth_of(found, seed)
    post = pipeline(score=0.3, box_nms=0.8, mask_nms=0.4, min_area=15)
    told, final = explain(post, found, truth), post(found)
    row = image_row(0, final.instances, truth)
    assert told.left[-1][1] == row[-2] == len(final) and told.cells == row[-1]
    assert len(told.missed) == row[-1] - row[1] > 0
    kept = set(final.source.tolist())
    for missed in told.missed:
        assert (missed.detection in kept) == (missed.dropped_by is None and missed.detection is not None)
        assert missed.dropped_by is None or missed.final_iou == 0
        assert 0 <= missed.final_iou <= 1 and 0 <= missed.iou <= 1
