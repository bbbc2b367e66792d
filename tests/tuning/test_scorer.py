from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartorius.data.competition import Competition
from sartorius.detections import Detections
from sartorius.errors import InputError
from sartorius.instances import Instances
from sartorius.metrics.functional import competition_map
from sartorius.postprocess.nms import suppress
from sartorius.tuning.scorer import CountScorer, PipelineScorer, scorer_of, survivors, with_thresholds
from tests.tuning.pictures import FLOOR, NAMES, START, Pictures, random_thresholds

RULES: list[dict[str, Any]] = [
    {},
    {"picture_type": "majority"},
    {"class_agnostic": False},
    {"overlap": "iom"},
    {"max_detections": 9, "picture_type": "majority", "overlap": "iom"},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rows_are_those_of_the_whole_pipeline(rules: dict[str, Any]) -> None:
    tables = Pictures(4).tables(replace(START, **rules))
    fast, slow = CountScorer(tables, tables.pictures), PipelineScorer(tables, tables.pictures)
    found = 0
    for seed in range(12):
        thresholds = random_thresholds(seed)
        rows = fast.rows(thresholds)
        np.testing.assert_array_equal(rows, slow.rows(thresholds))
        found += rows[:, 1].sum()
        changed = {**thresholds, "score": thresholds["score"] / 2, "min_area": thresholds["min_area"] / 2}
        np.testing.assert_array_equal(fast.rows(changed), slow.rows(changed))
    assert found > 20, "something was hit at all"


def test_the_rows_of_real_detections(real_data: Path) -> None:
    """Annotated cells of three crowded pictures as detections, with others' shapes among them."""
    truth = Competition(real_data / "sartorius")
    pictures = Pictures(0)
    random = np.random.default_rng(0)
    for picture in truth.ids[:3]:
        cells = truth.instances(picture)
        exact = Detections.from_instances(picture, cells, random.uniform(0.3, 1, len(cells)))
        moved = replace(exact, boxes=exact.boxes + random.normal(0, 3, (*exact.boxes.shape[:1], 1)))
        joined = {n: np.concatenate([getattr(exact, n), getattr(moved, n)]) for n in ("boxes", "cell_types", "masks")}
        scores = random.uniform(0.1, 1, 2 * len(cells)).astype(np.float32)
        types = random.integers(0, 3, 2 * len(cells))
        pictures.found[picture] = replace(exact, **joined | {"cell_types": types}, scores=scores)
        pictures.truth[picture] = truth.runs(picture)
    tables = pictures.tables()
    fast, slow = CountScorer(tables, tables.pictures), PipelineScorer(tables, tables.pictures)
    for seed in range(3):
        rows = fast.rows(random_thresholds(seed))
        np.testing.assert_array_equal(rows, slow.rows(random_thresholds(seed)))
    assert rows[:, 1].sum() > 5


def test_cleaned_cells_are_scored_by_the_pipeline() -> None:
    early = ("min_area", "overlaps", "largest_piece", "fill_holes", "rebreak")
    for change in ({"largest_piece": True}, {"fill_holes": True}, {"rebreak": 0.6}, {"order": early}):
        tables = Pictures(2).tables(replace(START, **change))
        assert isinstance(scorer_of(tables, tables.pictures), PipelineScorer)
    tables = Pictures(1).tables()
    assert isinstance(scorer_of(tables, tables.pictures), CountScorer)


def test_some_of_the_pictures() -> None:
    tables = Pictures(4).tables()
    rows = CountScorer(tables, tables.pictures).rows(random_thresholds(0))
    part = CountScorer(tables, ["p3", "p1"]).rows(random_thresholds(0))
    np.testing.assert_array_equal(part[:, 1:], rows[[3, 1], 1:])
    assert part[:, 0].tolist() == [0, 1]


def test_nothing_found_and_no_cells() -> None:
    pictures = Pictures(1)
    pictures.found["bare"] = Detections.empty("bare", 50, 70)
    pictures.truth["bare"] = pictures.truth["p0"]
    for name, picture in (("blank", "bare"), ("false", "p0")):
        pictures.found[name] = replace(pictures.found[picture], picture=name)
        pictures.truth[name] = Instances.empty(50, 70).to_runs()
    tables = pictures.tables()
    rows = CountScorer(tables, tables.pictures).rows(random_thresholds(0))
    np.testing.assert_array_equal(rows, PipelineScorer(tables, tables.pictures).rows(random_thresholds(0)))
    assert rows[1, -2] == 0 < rows[1, -1] and rows[2, -2:].tolist() == [0, 0] and rows[3, -1] == 0 < rows[3, -2]
    assert competition_map(CountScorer(tables, ["bare", "blank", "false"]).rows(random_thresholds(0))) == 1 / 3
    assert len(CountScorer(tables, []).rows(random_thresholds(0))) == 0


def test_thresholds_down_to_the_floor_are_exact() -> None:
    """Candidates and pairs that no trial needs are left out."""
    pictures = Pictures(2)
    tables = pictures.tables(floor={**FLOOR, "score": 0.4, "box_nms": 0.3})
    assert len(tables.candidates["p0"]) == np.count_nonzero(pictures.found["p0"].scores >= np.float32(0.4))
    fast, slow = CountScorer(tables, tables.pictures), PipelineScorer(tables, tables.pictures)
    thresholds = random_thresholds(1) | {"score": np.full(3, 0.4), "box_nms": np.full(3, 0.3)}
    np.testing.assert_array_equal(fast.rows(thresholds), slow.rows(thresholds))


def test_masks_are_pasted_once_for_each_value_of_the_grid() -> None:
    pictures = Pictures(3, single=True)
    tables = pictures.tables()
    scorer = CountScorer(tables, tables.pictures)
    pictures.loaded.clear()
    for seed in range(4):
        scorer.rows(random_thresholds(seed) | {"mask": np.array([0.4, 0.5, 0.1 * seed])})
    assert pictures.loaded == ["p0", "p1", "p2"], "type 2 is in no picture"
    scorer.rows(random_thresholds(0) | {"mask": np.array([0.4, 0.6, 0.5])})
    assert pictures.loaded == ["p0", "p1", "p2", "p1"]
    small = pictures.tables(megabytes=0)
    first, again = (CountScorer(small, small.pictures).rows(random_thresholds(0)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(small._claims) == 1


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
    post = replace(START, score={"default": 0.2, "other": 0.9}, overlap="iom")
    tuned = with_thresholds(post, NAMES, random_thresholds(0))
    assert tuned.overlap == "iom" and tuned.score["default"] == 0.2 and tuned.score["other"] == 0.9
    assert tuned.mask["default"] == 0.5 and tuned.mask["cort"] == random_thresholds(0)["mask"][2]
    assert isinstance(tuned.min_area["astro"], int)


def test_pictures_that_do_not_fit() -> None:
    pictures = Pictures(2)
    pictures.truth["p1"] = Instances.empty(70, 50).to_runs()
    with pytest.raises(InputError, match="picture p1: detections of 70x50 pixels, its cells are of 50x70"):
        pictures.tables()
    pictures = Pictures(2)
    pictures.found["p1"] = replace(pictures.found["p1"], cell_type_names=("a", "b", "c"))
    with pytest.raises(InputError, match="picture p1: cell types a, b, c, others have shsy5y, astro, cort"):
        pictures.tables()
