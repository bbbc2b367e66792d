from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.metrics.functional import competition_map
from sartorius.postprocess.nms import suppress
from sartorius.postprocess.saved import to_saved
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.tuning.scorer import CountScorer, PipelineScorer, scorer_of, survivors
from sartorius.tuning.space import with_thresholds
from tests.postprocess.pipelines import pipeline
from tests.tuning.images import FLOOR, NAMES, SETTINGS, Images, random_thresholds

RULES: list[dict[str, Any]] = [
    {},
    {"types": "image"},
    {"class_agnostic": False},
    {"overlap": "iom"},
    {"max_detections": 9, "types": "image", "overlap": "iom"},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rows_are_those_of_the_whole_pipeline(rules: dict[str, Any]) -> None:
    tables = Images(4).tables(pipeline(**SETTINGS | rules))
    fast, slow = CountScorer(tables, tables.images), PipelineScorer(tables, tables.images)
    found = 0
    for seed in range(12):
        thresholds = random_thresholds(seed)
        rows = fast.rows(thresholds)
        np.testing.assert_array_equal(rows, slow.rows(thresholds))
        found += rows[:, 1].sum()
        changed = {
            **thresholds,
            "score.threshold": thresholds["score.threshold"] / 2,
            "min_area.pixels": thresholds["min_area.pixels"] / 2,
        }
        np.testing.assert_array_equal(fast.rows(changed), slow.rows(changed))
    assert found > 20, "something was hit at all"


def test_predictions_where_nobody_has_labelled_are_not_counted() -> None:
    images = Images(4)
    for image_id in ("p1", "p3"):
        cells = Instances.from_runs(images.truth[image_id], np.zeros(images.truth[image_id].count))
        images.truth[image_id] = cells.select(np.arange(5)).to_runs()
    plain = images.tables()
    earlier = [CountScorer(plain, plain.images).rows(random_thresholds(seed)) for seed in range(12)]
    for image_id in ("p1", "p3"):
        truth, mask = images.truth[image_id], np.zeros((50, 70), bool)
        mask[:, 20:] = True
        mask.reshape(-1)[truth.pixels()[0]] = False
        images.ignored[image_id] = mask
    tables = images.tables()
    assert tables.digest != plain.digest
    fast, slow = CountScorer(tables, tables.images), PipelineScorer(tables, tables.images)
    fewer = 0
    for seed, before in enumerate(earlier):
        rows = fast.rows(random_thresholds(seed))
        np.testing.assert_array_equal(rows, slow.rows(random_thresholds(seed)))
        np.testing.assert_array_equal(rows[[0, 2]], before[[0, 2]])
        np.testing.assert_array_equal(rows[:, 1:-2], before[:, 1:-2])
        fewer += (rows[:, -2] < before[:, -2]).sum()
    assert fewer > 12


def test_the_rows_of_real_detections(real_data: Path) -> None:
    """Annotated cells of three crowded images as detections, with others' shapes among them."""
    truth = Competition(real_data / "sartorius")
    images = Images(0)
    random = np.random.default_rng(0)
    for image_id in truth.ids[:3]:
        cells = truth.instances(image_id)
        exact = Detections.from_instances(image_id, cells, random.uniform(0.3, 1, len(cells)))
        moved = replace(exact, boxes=exact.boxes + random.normal(0, 3, (*exact.boxes.shape[:1], 1)))
        joined = {n: np.concatenate([getattr(exact, n), getattr(moved, n)]) for n in ("boxes", "cell_types", "masks")}
        scores = random.uniform(0.1, 1, 2 * len(cells)).astype(np.float32)
        types = random.integers(0, 3, 2 * len(cells))
        images.found[image_id] = replace(exact, **joined | {"cell_types": types}, scores=scores)
        images.truth[image_id] = truth.runs(image_id)
    tables = images.tables()
    fast, slow = CountScorer(tables, tables.images), PipelineScorer(tables, tables.images)
    for seed in range(3):
        rows = fast.rows(random_thresholds(seed))
        np.testing.assert_array_equal(rows, slow.rows(random_thresholds(seed)))
    assert rows[:, 1].sum() > 5


def test_cleaned_cells_are_scored_by_the_pipeline() -> None:
    early = ("min_area", "overlaps")
    for change in ({"largest_piece": True}, {"fill_holes": True}, {"reopen_holes": 0.6}, {"last": early}):
        tables = Images(2).tables(pipeline(**SETTINGS | change))
        assert isinstance(scorer_of(tables, tables.images), PipelineScorer)
    tables = Images(1).tables()
    assert isinstance(scorer_of(tables, tables.images), CountScorer)


def test_some_of_the_images() -> None:
    tables = Images(4).tables()
    rows = CountScorer(tables, tables.images).rows(random_thresholds(0))
    part = CountScorer(tables, ["p3", "p1"]).rows(random_thresholds(0))
    np.testing.assert_array_equal(part[:, 1:], rows[[3, 1], 1:])
    assert part[:, 0].tolist() == [0, 1]


def test_nothing_found_and_no_cells() -> None:
    images = Images(1)
    images.found["bare"] = Detections.empty("bare", 50, 70)
    images.truth["bare"] = images.truth["p0"]
    for name, image_id in (("blank", "bare"), ("false", "p0")):
        images.found[name] = replace(images.found[image_id], image_id=name)
        images.truth[name] = Instances.empty(50, 70).to_runs()
    tables = images.tables()
    rows = CountScorer(tables, tables.images).rows(random_thresholds(0))
    np.testing.assert_array_equal(rows, PipelineScorer(tables, tables.images).rows(random_thresholds(0)))
    assert rows[1, -2] == 0 < rows[1, -1] and rows[2, -2:].tolist() == [0, 0] and rows[3, -1] == 0 < rows[3, -2]
    assert competition_map(CountScorer(tables, ["bare", "blank", "false"]).rows(random_thresholds(0))) == 1 / 3
    assert len(CountScorer(tables, []).rows(random_thresholds(0))) == 0


def test_thresholds_down_to_the_floor_are_exact() -> None:
    """Candidates and pairs that no trial needs are left out."""
    images = Images(2)
    tables = images.tables(floor={**FLOOR, "score.threshold": 0.4, "box_nms.threshold": 0.3})
    assert len(tables.candidates["p0"]) == np.count_nonzero(images.found["p0"].scores >= np.float32(0.4))
    fast, slow = CountScorer(tables, tables.images), PipelineScorer(tables, tables.images)
    thresholds = random_thresholds(1) | {"score.threshold": np.full(3, 0.4), "box_nms.threshold": np.full(3, 0.3)}
    np.testing.assert_array_equal(fast.rows(thresholds), slow.rows(thresholds))


def test_masks_are_pasted_once_for_each_value_of_the_grid() -> None:
    images = Images(3, single=True)
    tables = images.tables()
    scorer = CountScorer(tables, tables.images)
    images.loaded.clear()
    for seed in range(4):
        scorer.rows(random_thresholds(seed) | {"mask.threshold": np.array([0.4, 0.5, 0.1 * seed])})
    assert images.loaded == ["p0", "p1", "p2"], "type 2 is in no image"
    scorer.rows(random_thresholds(0) | {"mask.threshold": np.array([0.4, 0.6, 0.5])})
    assert images.loaded == ["p0", "p1", "p2", "p1"]
    small = images.tables(megabytes=0)
    first, again = (CountScorer(small, small.images).rows(random_thresholds(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(small._overlaps) == 1


@pytest.mark.parametrize("seed", range(5))
def test_survivors_are_those_of_suppressing_one_by_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    i, j = np.sort(random.integers(0, 60, (2, 200)), axis=0)
    i, j = i[i < j], j[i < j]
    np.testing.assert_array_equal(survivors(np.ones(60, bool), i, j), suppress(60, i, j))
    chain = np.arange(59)
    assert survivors(np.ones(60, bool), chain, chain + 1).tolist() == [True, False] * 30
    without = np.arange(60) != 0
    assert survivors(without, chain, chain + 1).tolist() == [False] + [True, False] * 29 + [True]


def test_the_tuned_postprocess_keeps_what_was_not_tuned() -> None:
    post = pipeline(**SETTINGS | {"score": {"default": 0.2, "other": 0.9}, "overlap": "iom"})
    tuned = to_saved(with_thresholds(post, NAMES, random_thresholds(0)))
    assert tuned["mask_nms"]["overlap"] == "iom"
    assert tuned["score"]["threshold"]["default"] == 0.2 and tuned["score"]["threshold"]["other"] == 0.9
    mask = tuned["mask"]["threshold"]
    assert mask["default"] == 0.5 and mask["cort"] == random_thresholds(0)["mask.threshold"][2]
    assert isinstance(tuned["min_area"]["pixels"]["astro"], int)


def test_images_that_do_not_fit() -> None:
    images = Images(2)
    images.truth["p1"] = Instances.empty(70, 50).to_runs()
    with pytest.raises(InputError, match="image p1: detections of 70x50 pixels, its cells are of 50x70"):
        images.tables()
    images = Images(2)
    images.found["p1"] = replace(images.found["p1"], cell_type_names=("a", "b", "c"))
    with pytest.raises(InputError, match="image p1: cell types a, b, c, others have shsy5y, astro, cort"):
        images.tables()
