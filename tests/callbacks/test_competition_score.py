from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from sartorius.callbacks.competition_score import CompetitionScore, mean_scores
from sartorius.callbacks.scored_images import ScoredImage, ScoredImages
from sartorius.data.dataset import Batch, Target
from sartorius.metrics.report import per_image_table
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from tests.callbacks.conftest import Run
from tests.postprocess.pipelines import pipeline


def cells(*corners: tuple[int, int], kind: int = 0) -> Instances:
    """Squares of 10 pixels with these upper left corners."""
    masks = np.zeros((len(corners), 40, 40), bool)
    for k, (y, x) in enumerate(corners):
        masks[k, y : y + 10, x : x + 10] = True
    return Instances.from_masks(masks, [kind] * len(corners)) if corners else Instances.empty(40, 40)


class Logged:
    """What a LightningModule would log."""

    device = "cpu"

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def log_dict(self, values: dict[str, float], **_: Any) -> None:
        self.values |= values

    def log(self, name: str, value: float, **_: Any) -> None:
        self.values[name] = value


def validate(
    images: list[tuple[Instances, Instances]], sanity: bool = False, **options: Any
) -> tuple[CompetitionScore, dict[str, float]]:
    """Score (truth, perfect detections of something) pairs, one image a batch."""
    callback: Any = ScoredImages(pipeline(score=0.1, mask=0.5, box_nms=1.0, mask_nms=1.0, min_area=0))
    score = CompetitionScore(**options)
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer = SimpleNamespace(sanity_checking=sanity, state=state, callbacks=[callback, score])
    module = Logged()
    callback.setup(trainer, module, "fit")
    callback.on_validation_epoch_start(trainer, module)
    for index, (truth, found) in enumerate(images):
        kind = CELL_TYPES[int(truth.cell_types[0])] if len(truth) else "astro"
        target = Target.from_instances(f"p{index}", index, truth, kind)
        detections = Detections.from_instances(f"p{index}", found, np.full(len(found), 0.9), 28, CELL_TYPES)
        callback.on_validation_batch_end(
            trainer, module, [detections], Batch([torch.zeros(1, 40, 40, dtype=torch.uint8)], [target]), index
        )
    callback.on_validation_epoch_end(trainer, module)
    return score, module.values


def test_the_score_is_the_mean_over_images() -> None:
    both, one = cells((0, 0), (20, 20)), cells((0, 0))
    scored, logged = validate([(both, both), (both, one), (cells((5, 5), kind=2), cells((25, 25), kind=2))])
    assert logged["val/map"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert logged["val/map_shsy5y"] == pytest.approx((1 + 1 / 2) / 2)
    assert logged["val/map_cort"] == 0
    assert "val/map_astro" not in logged
    assert logged["val/precision_95"] == pytest.approx(1 / 2)
    assert logged["score"] == logged["val/map"]
    assert 0 < logged["val/box_ap"] < 1
    assert scored.result.images == ("p0", "p1", "p2")
    assert scored.result.cell_types == ("shsy5y", "shsy5y", "cort")


def test_the_fields_scores_are_logged_where_asked_for() -> None:
    both, one = cells((0, 0), (20, 20)), cells((0, 0))
    images = [(both, both), (both, one), (cells(), cells())]
    scored, logged = validate(images, instance_scores=True)
    assert logged["val/f1"] == logged["val/pq"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert logged["val/aji"] == logged["val/f1_recall"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert logged["val/f1_precision"] == logged["val/sq"] == 1
    result = scored.result
    assert result.overlaps.shape == (3, 6) and result.overlaps[:, 0].tolist() == result.rows[:, 0].tolist()
    table = per_image_table(result.rows, result.images, result.cell_types, result.overlaps)
    assert table.pq.tolist() == pytest.approx([1, 2 / 3, 1])
    scored, logged = validate(images)
    assert "val/pq" not in logged and scored.result.overlaps is None


def test_empty_images() -> None:
    _, logged = validate([(cells(), cells()), (cells(), cells((0, 0)))])
    assert logged["val/map"] == 1 / 2
    assert logged["val/map_astro"] == 1 / 2


def test_no_images_and_sanity_checks_log_nothing() -> None:
    assert validate([])[1] == {}
    scored, logged = validate([(cells((0, 0)), cells((0, 0)))], sanity=True)
    assert logged == scored.result.metrics == {}


def test_overlapping_truth_reaches_the_score_whole() -> None:
    truth = cells((0, 0), (5, 5))
    image: Any = ScoredImage(None, Target.from_instances("p", 0, truth), None, None)  # type: ignore[arg-type]
    assert np.array_equal(image.cells.areas, [100, 100])


def test_scores_are_float64() -> None:
    rows = np.array([[0, *[1] * 10, 1, 2], [1, *[1] * 10, 1, 1]])
    assert mean_scores(rows, ["a", "b"])["val/map"] == (1 / 2 + 1) / 2


def test_a_run_keeps_the_scores_of_its_best_checkpoint(run: Run) -> None:
    assert run.metrics["val/map"] == pytest.approx(run.scored.result.metrics["val/map"])
    assert list(run.scored.result.images) == run.data.val_images


def test_cell_types_are_those_of_the_data(run: Run) -> None:
    types = [run.data.competition.cell_type(image_id) for image_id in run.scored.result.images]
    assert list(run.scored.result.cell_types) == types
