from __future__ import annotations

import pytest

from sartorius.metrics.pseudo_labels import Counts, Report, matched
from sartorius.structures.rle import RleError


def test_sure_and_doubtful_cells_against_the_truth() -> None:
    truth = ["1 4", "11 4", "31 4"]
    annotations = ["1 4", "11 3", "32 4", "51 9"]  # IoU 1, 3/4, 3/5 and 0
    assert matched(annotations, [False] * 4, truth, 8, 10) == (3, 3, 4)
    assert matched(annotations, [False, True, True, False], truth, 8, 10) == (1, 3, 2)
    assert matched([], [], truth, 8, 10) == (0, 0, 0)
    assert matched(annotations, [False] * 4, [], 8, 10) == (0, 0, 4)


def test_labels_where_nobody_has_labelled_are_neither_right_nor_wrong() -> None:
    truth, annotations = ["1 4", "11 4"], ["1 4", "11 3", "32 4", "49 4", "58 4"]
    assert matched(annotations, [False] * 5, truth, 8, 10, ["1 20", "31 20"]) == (2, 2, 4)  # half of "49 4" is labelled
    assert matched(annotations, [False, True, True, False, True], truth, 8, 10, ["31 50"]) == (1, 2, 1)


def test_an_iou_of_one_half_is_no_match() -> None:
    assert matched(["1 2"], [False], ["1 4"], 8, 10) == (0, 0, 1)


def test_one_label_over_two_cells_matches_one() -> None:
    assert matched(["1 4"], [False], ["1 4", "1 4"], 8, 10) == (1, 1, 1)


def test_a_mask_beyond_the_image() -> None:
    with pytest.raises(RleError):
        matched(["1 4"], [False], ["79 4"], 8, 10)


def test_lines_of_the_report() -> None:
    report = Report(empty=["d"], bad={"e": "e.npz: broken"}, unpredicted=list("fghi"))
    report.counts["cort"] = Counts(
        images=2, kept=4, doubtful=1, dropped=7, cells=5, judged=4, matched=3, matched_or_doubtful=4
    )
    assert report.lines(compared=True) == [
        "cort: 2 images, 4 cells, 1 doubtful, 7 detections dropped; 3 of the cells are right (precision 0.750), of 5 "
        "true ones (recall 0.600, with the doubtful 0.800)",
        "1 images have no cell that passes, and no row: d",
        "4 images of the folder have no detections: f, g, h, ...",
        "1 images cannot be read and are left out: e",
        "  e.npz: broken",
    ]
    assert report.lines(compared=False)[0] == "cort: 2 images, 4 cells, 1 doubtful, 7 detections dropped"
    assert "precision -" in Report(counts={"cort": Counts()}).lines(compared=True)[0]
