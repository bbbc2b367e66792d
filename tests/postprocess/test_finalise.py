from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.detections import Detections
from tests.postprocess.pipelines import pipeline
from tests.postprocess.shapes import dense_paste, detections, random_detections

LOOSE = pipeline()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def dense_finalise(
    d: Detections, *, score: float, mask: float, mask_nms: float, min_area: int, **_: float
) -> tuple[np.ndarray, list[int]]:
    """Reference: one full-size mask a detection. Returns the label map and the detections that became cells."""
    order = [k for k in np.argsort(-d.scores, kind="stable") if d.scores[k] >= score]
    rows = np.zeros((len(d), d.height, d.width), bool)
    for k in order:
        rows[k] = dense_paste(d.boxes[k], d.masks[k], d.height, d.width) > mask
    kept: list[int] = []
    for k in order:
        if rows[k].any() and not any(iou(rows[k], rows[a]) > mask_nms for a in kept):
            kept.append(k)
    label_map, taken, final = np.zeros((d.height, d.width), int), np.zeros((d.height, d.width), bool), []
    for k in kept:
        mine = rows[k] & ~taken
        taken |= rows[k]
        if mine.any() and mine.sum() >= min_area:
            final.append(k)
            label_map[mine] = len(final)
    return label_map, final


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_dense_masks(seed: int) -> None:
    d = random_detections(seed, 60)
    settings = {"score": 0.2, "mask": 0.45, "box_nms": 1.0, "mask_nms": 0.2, "min_area": 20}
    label_map, source = dense_finalise(d, **settings)
    final = pipeline(**settings)(d)
    assert final.source.tolist() == source and 3 < len(source) < 50
    assert (final.instances.layers[0] == label_map).mean() > 0.999  # float32 against float64 at the mask threshold
    np.testing.assert_array_equal(final.scores, d.scores[source])
    np.testing.assert_array_equal(final.cell_types, d.cell_types[source])
    assert final.instances.layers[0].dtype == np.uint16 and final.image_id == d.image_id


def test_overlaps_can_be_kept() -> None:
    """Each mask whole, in as few layers as there can be; what `remove` leaves nothing of is there."""
    pair = detections([[5, 5, 15, 15], [10, 5, 20, 15], [11, 6, 14, 9]], [0.4, 0.9, 0.3])
    kept = pipeline(min_area=5, fill_holes=True, largest_piece=True)(pair, "keep")
    assert kept.source.tolist() == [1, 0, 2] and kept.instances.areas.tolist() == [100, 100, 9]
    assert len(kept.instances.layers) == 3 and LOOSE(pair).source.tolist() == [1, 0]
    alone = pipeline(score=0.35)(pair.select([0, 2]), "keep")
    assert alone.instances.layers.shape[0] == 1 and alone.instances.areas.tolist() == [100]
    random = random_detections(0, 60)
    whole, disjoint = pipeline(mask_nms=0.5)(random, "keep"), pipeline(mask_nms=0.5)(random)
    where = [whole.source.tolist().index(k) for k in disjoint.source.tolist()]
    assert (whole.instances.areas[where] >= disjoint.instances.areas).all()
    assert np.array_equal(whole.instances.foreground(), disjoint.instances.foreground())


def test_no_pixel_twice_and_the_better_score_gets_it() -> None:
    final = LOOSE(detections([[5, 5, 15, 15], [10, 5, 20, 15]], [0.4, 0.9]))
    assert final.source.tolist() == [1, 0]
    assert final.instances.areas.tolist() == [100, 50]
    assert final.instances.layers[0][10, 12] == 1
    texts = final.instances.to_rles()
    assert len(rle.overlaps(rle.parse(texts, 40, 60))[0]) == 0 and len(texts) == 2


def test_equal_scores_keep_their_order() -> None:
    assert LOOSE(detections([[0, 0, 4, 4], [8, 8, 12, 12], [20, 20, 24, 24]], [0.5] * 3)).source.tolist() == [0, 1, 2]


def test_area_is_measured_after_overlaps_are_removed() -> None:
    both = detections([[5, 5, 15, 15], [13, 5, 20, 15]], [0.9, 0.8])  # 100 pixels; 70, of which 50 remain
    assert len(pipeline(min_area=50)(both)) == 2
    assert len(pipeline(min_area=51)(both)) == 1


def test_a_cell_that_lies_under_another_vanishes() -> None:
    assert LOOSE(detections([[5, 5, 15, 15], [7, 7, 9, 9]], [0.9, 0.8])).source.tolist() == [0]


def test_thresholds_of_each_type_or_of_the_image() -> None:
    found = detections([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [0.8, 0.7, 0.3], [2, 2, 0])
    score = {"shsy5y": 0.15, "astro": 0.35, "cort": 0.55}
    each = pipeline(score=score)
    assert each(found).source.tolist() == [0, 1, 2]
    majority = pipeline(score=score, types="image")
    assert majority(found).source.tolist() == [0, 1]
    assert majority(found.select([2])).source.tolist() == [0]


def test_a_score_equal_to_the_threshold_stays() -> None:
    for value in (0.15, 0.35, 0.55):
        assert len(pipeline(score=value)(detections([[0, 0, 9, 9]], [value]))) == 1


def test_only_the_best_detections_are_looked_at() -> None:
    found = detections([[0, 0, 4, 4], [8, 8, 12, 12], [20, 20, 24, 24]], [0.5, 0.9, 0.7])
    assert pipeline(max_detections=2)(found).source.tolist() == [1, 2]


def test_box_nms_between_types() -> None:
    twins = detections([[0, 0, 9, 9], [0, 0, 9, 8]], [0.9, 0.8], [0, 1])
    twins = replace(twins, masks=twins.masks * np.array([[1] * 4 + [0] * 4, [0] * 4 + [1] * 4], np.float16)[:, None, :])
    assert len(pipeline(box_nms=0.5)(twins)) == 1
    assert len(pipeline(box_nms=0.5, class_agnostic=False)(twins)) == 2


def test_cleaning_is_optional() -> None:
    ring = detections([[0, 0, 24, 24]], [0.9])
    ring.masks[0, 2:4, 2:4] = 0
    ring.masks[0, 5:, :] = 0
    ring.masks[0, 7, :] = 1
    plain, pieces, filled = (f(ring) for f in (LOOSE, pipeline(largest_piece=True), pipeline(fill_holes=True)))
    assert pieces.instances.areas[0] < plain.instances.areas[0] < filled.instances.areas[0]


def test_no_detections_give_no_cells() -> None:
    for post in (LOOSE, pipeline(types="image", largest_piece=True, fill_holes=True)):
        for found in (Detections.empty("p", 40, 60), detections([[3, 3, 3, 3]], [0.9])):
            final = post(found)
            assert len(final) == 0 and final.instances.layers.shape == (1, 40, 60)
            assert not final.instances.layers.any()
            assert final.instances.to_rles() == [] and final.source.shape == (0,)


def test_more_cells_than_a_byte_holds() -> None:
    boxes = [[3 * x, 3 * y, 3 * x + 2, 3 * y + 2] for y in range(13) for x in range(20)]
    final = LOOSE(detections(boxes, [0.5] * 260))
    assert len(final) == 260 and final.instances.layers[0].max() == 260


def test_bad_settings_are_named() -> None:
    for change, message in (
        ({"types": "any"}, "postprocess.types.of: expected one of detection, image, got 'any'"),
        ({"overlap": "dice"}, "mask_nms.overlap: expected one of iou, iom, got 'dice'"),
        ({"max_detections": 70_000}, "max_detections.count: expected a number from 1 to 65535"),
        ({"score": 2}, "postprocess.score.threshold: expected"),
    ):
        with pytest.raises(InputError, match=message):
            pipeline(**change)
    with pytest.raises(InputError, match="no value for cell type 'shsy5y'"):
        pipeline(score={"cort": 0.5})(detections([[0, 0, 9, 9]], [0.9]))
