"""Predictions where nobody has labelled: every way to a score leaves out those of a naive dense reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sartorius.callbacks.crop_scores import cell_scores
from sartorius.callbacks.scored_images import ScoredImage
from sartorius.data.competition.about import About
from sartorius.data.competition.audit import audit
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.dataset import InstanceDataset, Target
from sartorius.errors import InputError
from sartorius.metrics.box_ap import BoxAP
from sartorius.metrics.functional import Intersections, image_row
from sartorius.metrics.instance_scores import overlap_row
from sartorius.metrics.mask_ap import MaskAP
from sartorius.metrics.pixels import pixel_row, scores_per_image, summary
from sartorius.metrics.unlabelled import boxes_left_out, left_out
from sartorius.postprocess.saved import to_saved
from sartorius.reports.image_cells import Predicted, compare_image
from sartorius.rescoring.examples import Example
from sartorius.running import scoring
from sartorius.running.saved_cells import SavedCells
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.instances import Instances
from sartorius.tuning.precision import rate_cells
from tests.metrics.test_functional import dense_row, masks_to_runs, random_masks
from tests.postprocess.pipelines import pipeline

SIZE = 60
POST = pipeline(score=0.1)
BOOTSTRAP = {"samples": 20, "seed": 0, "level": 0.95}


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True cells, predictions and ignored pixels of no cell: bool [M, H, W], [N, H, W] and [H, W]."""
    random = np.random.default_rng(seed)
    truth = random_masks(random, 9, SIZE)
    predictions = np.concatenate((np.roll(truth, random.integers(-1, 2, 2), (1, 2)), random_masks(random, 25, SIZE)))
    ignored = np.zeros((SIZE, SIZE), bool)
    ignored[:, random.integers(15, 45) :] = True
    ignored |= random.random((SIZE, SIZE)) < 0.1
    return truth, predictions, ignored & ~truth.any(axis=0)


def counted(predictions: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Pixel by pixel: bool [N], at most half of each lies in ignored pixels."""
    return np.array([(mask & ignored).sum() <= mask.sum() / 2 for mask in predictions])


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_those_without_the_predictions_left_out(seed: int) -> None:
    truth, predictions, ignored = scene(seed)
    keep = counted(predictions, ignored)
    runs, cells = masks_to_runs(predictions), masks_to_runs(truth)
    assert left_out(runs, ignored).tolist() == (~keep).tolist() and 3 < keep.sum() < len(keep)
    shared = Intersections.of(runs, cells, ignored)
    np.testing.assert_array_equal(shared.row(4), dense_row(4, predictions[keep], truth))
    np.testing.assert_array_equal(image_row(4, runs, cells, ignored), shared.row(4))
    assert shared.row(4)[1:-2].tolist() == image_row(4, runs, cells)[1:-2].tolist(), "none of them is a hit"
    alone = Intersections.of(masks_to_runs(predictions[keep]), cells)
    np.testing.assert_array_equal(overlap_row(4, shared), overlap_row(4, alone))
    assert shared.left_out == (~keep).sum()


def test_exactly_half_is_counted_and_edges_are_exact() -> None:
    ignored = np.zeros((3, 8), bool)
    ignored[:, 4:] = True
    masks = np.zeros((5, 3, 8), bool)
    masks[0, 0, 2:6] = masks[1, 0, 3:6] = masks[2, 2, 4:8] = masks[3, :, :] = True  # a half, more, all, a half; empty
    assert left_out(masks_to_runs(masks), ignored).tolist() == [False, True, True, False, False]
    assert left_out(masks_to_runs(masks), None).tolist() == [False] * 5
    assert left_out(masks_to_runs(masks[:0]), ignored).tolist() == []
    assert left_out(masks_to_runs(masks[:4]), np.ones((3, 8), bool)).all()
    with pytest.raises(ValueError, match="cannot be compared"):
        Intersections.of(masks_to_runs(masks), np.zeros((8, 3), int), ignored)


def test_boxes_that_may_be_hits_are_kept() -> None:
    ignored = np.zeros((40, 40), bool)
    ignored[:, 20:] = True
    cells = np.array([[14.0, 5, 34, 15]])
    boxes = np.array([[14.4, 5, 34, 15], [15, 20, 35, 30], [5, 5, 25, 15], [50, 50, 60, 60], [10, 10, 30, 20]])
    assert boxes_left_out(boxes, cells, ignored).tolist() == [False, True, False, False, False]
    assert boxes_left_out(boxes, cells[:0], ignored).tolist() == [True, True, False, False, False]
    assert boxes_left_out(boxes[:0], cells, ignored).tolist() == []
    assert not boxes_left_out(boxes, cells, None).any()


def test_average_precision_ranks_only_what_is_counted() -> None:
    truth, predictions, ignored = scene(0)
    random, keep = np.random.default_rng(0), counted(predictions, ignored)
    scores, types = random.random(len(predictions)), np.zeros(len(predictions), int)
    real = Instances.from_masks(truth, np.zeros(len(truth)))
    found = []
    for chosen, mask in ((keep, None), (keep | True, ignored)):
        masks = MaskAP(("a",))
        runs = masks_to_runs(predictions[chosen])
        masks.update(0, runs, scores[chosen], types[chosen], real.to_runs(), real.cell_types, mask)
        found.append(masks.compute())
    assert found[0] == found[1] and 0 < found[0]["mask_ap"] < 1
    boxes = np.array([[*np.argwhere(m).min(0)[::-1], *(np.argwhere(m).max(0)[::-1] + 1)] for m in predictions], float)
    kept, values = ~boxes_left_out(boxes, real.boxes, ignored), []
    for chosen, mask in ((kept, None), (kept | True, ignored)):
        metric = BoxAP(("a",))
        metric.update(0, boxes[chosen], scores[chosen], types[chosen], real.boxes, real.cell_types, mask)
        values.append(metric.compute()["box_ap"])
    assert values[0] == values[1] and 3 < kept.sum() < len(kept)


def test_pixels_that_nobody_has_labelled_are_not_counted() -> None:
    random = np.random.default_rng(0)
    foreground, truth = torch.from_numpy(random.random((20, 30))), torch.from_numpy(random.random((20, 30)) < 0.3)
    ignored = torch.zeros((20, 30), dtype=torch.bool)
    ignored[:, 12:] = True
    row, bce = pixel_row(3, foreground, truth, 0.5, ignored)
    part, part_bce = pixel_row(3, foreground[:, :12], truth[:, :12], 0.5)
    assert row.tolist() == part.tolist() and float(bce) == pytest.approx(float(part_bce))
    row, bce = pixel_row(3, foreground, truth, 0.5, torch.ones_like(ignored))
    values = summary(row[None].numpy(), bce[None].numpy())
    assert all(np.isfinite(value) for value in values.values())
    assert scores_per_image(row[None].numpy(), bce[None].numpy())["dice"].tolist() == [1.0]


def test_masks_of_given_boxes_are_compared_on_labelled_pixels() -> None:
    true = np.zeros((1, 30, 40), bool)
    true[0, 5:15, 5:20] = True
    wide, cells = true.copy(), Instances.from_masks(true, [0])
    wide[0, 5:15, 20:35] = True
    ignored = np.zeros((30, 40), bool)
    ignored[:, 20:] = True
    found = Detections.from_instances("p", Instances.from_masks(wide, [0]), np.ones(1), 30)
    boxes = np.array([[5.0, 5, 35, 15]])
    assert cell_scores(found, cells, boxes, 0.5)[0, 0] == pytest.approx(0.5)
    seen = cell_scores(found, cells, boxes, 0.5, ignored)[0]
    assert seen[:2].tolist() == [1, 1] and seen[2] > cell_scores(found, cells, boxes, 0.5)[0, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Competition:
    """Two labelled images with an unlabelled part that reaches under a cell, one without, and their detections."""
    images, written = [], DetectionsFolder(tmp_path / "detections")
    written.write_meta(cell_types=["cell"], mask_size=16, postprocess=to_saved(POST))
    for seed in range(3):
        random = np.random.default_rng(seed)
        truth, predictions, ignored = scene(seed)
        cells = Instances.from_masks(truth, np.zeros(len(truth)))
        ignored[10:20, 10:20] = True  # also over cells
        image = random.integers(0, 255, (SIZE, SIZE)).astype(np.uint8)
        images.append(Labelled(f"p{seed}", image, cells, group=f"g{seed}", ignored=ignored if seed < 2 else None))
        found = Instances.from_masks(predictions, np.zeros(len(predictions)))
        scores = random.uniform(0.2, 1, len(predictions))
        written.write(Detections.from_instances(f"p{seed}", found, scores, 16, ("cell",)))
    write_labelled(tmp_path, About(("cell",)), images)
    return Competition(tmp_path, ("cell",))


def test_every_way_to_the_score_agrees(folder: Competition, capsys: pytest.CaptureFixture[str]) -> None:
    """evaluate, the validation of a training, the report, the filter and pseudo-labels: the naive reference of each."""
    saved = SavedCells([folder.root / "detections"], truth=folder)
    scored = scoring.score(folder, scoring.from_detections(saved, folder, folder.ids), BOOTSTRAP)
    left = 0
    for index, image_id in enumerate(folder.ids):
        final, truth = saved.cells(saved.detections(image_id)), folder.instances(image_id)
        masks, true = (
            np.array([(of.layers == k + 1).any(axis=0) for k in range(len(of))]) for of in (final.instances, truth)
        )
        ignored = folder.ignored(image_id)
        keep = np.ones(len(masks), bool) if ignored is None else counted(masks, ignored)
        assert ignored is None or not (ignored & truth.foreground()).any()
        expected = dense_row(index, masks[keep], true)
        left += int((~keep).sum())
        line = scored.table.iloc[index]
        assert [line.predictions, line.cells] == expected[-2:].tolist() and line.true_positives_50 == expected[1]
        image, target = InstanceDataset(folder, [image_id])[0]
        seen = ScoredImage(image, replace(target, index=index), saved.detections(image_id), POST)
        np.testing.assert_array_equal(seen.row, expected)
        predicted = Predicted(folder.ids, lambda _, final=final: (final.instances, final.scores), ("cell",))
        compared = compare_image(image_id, predicted, folder, index)
        np.testing.assert_array_equal(compared.row, expected)
        assert compared.counted.tolist() == keep.tolist() and compared.hit.sum() == expected[1]
        assert compared.scores.tolist() == final.scores[keep].tolist()
        (inside, _), (others, _) = compared.split(final.instances, final.scores)
        assert (len(inside), len(others)) == (keep.sum(), (~keep).sum())
        example = Example.of(saved.detections(image_id), final, truth.to_runs(), ignored)
        whole = Example.of(saved.detections(image_id), final, truth.to_runs())
        np.testing.assert_array_equal(example.row(np.ones(len(example.areas), bool))[1:], expected[1:])
        np.testing.assert_array_equal(example.features, whole.features[keep])
        np.testing.assert_array_equal(example.iou, whole.iou[keep])
        rated = rate_cells(saved.detections(image_id), truth.to_runs(), POST, ignored)
        assert len(rated.scores) == len(rated.right) == keep.sum() and rated.right.sum() == expected[1]
    assert scored.numbers["predictions_left_out"] == left > 5
    assert f"{left} predictions lie mostly where nobody has labelled" in capsys.readouterr().out


def test_without_unlabelled_pixels_nothing_changes(folder: Competition) -> None:
    for image_id in folder.ids:
        folder.images[image_id] = replace(folder.images[image_id], unlabelled=(), unlabelled_rows=())
    saved = SavedCells([folder.root / "detections"], truth=folder)
    scored = scoring.score(folder, scoring.from_detections(saved, folder, folder.ids), BOOTSTRAP)
    assert "predictions_left_out" not in scored.numbers
    assert scored.table.predictions.tolist() == [len(saved.cells(saved.detections(name))) for name in folder.ids]


def test_a_target_and_its_folder_ignore_the_same_pixels(folder: Competition) -> None:
    for image_id in folder.ids:
        target = InstanceDataset(folder, [image_id])[0][1]
        assert isinstance(target, Target)
        ignored = folder.ignored(image_id)
        assert (target.ignored is None) == (ignored is None)
        assert ignored is None or (target.ignored is not None and (target.ignored.numpy() == ignored).all())


def test_an_image_without_a_labelled_pixel_is_in_no_mean(folder: Competition) -> None:
    """It would score 1: all predictions are left out, and there are no cells."""
    saved = SavedCells([folder.root / "detections"], truth=folder)
    before = scoring.score(folder, scoring.from_detections(saved, folder, folder.ids), BOOTSTRAP)
    nothing, none = np.ones((SIZE, SIZE), bool), Instances.empty(SIZE, SIZE)
    dark = np.zeros((SIZE, SIZE), np.uint8)
    partly = nothing.copy()
    partly[0, 0] = False
    blank = [Labelled("p3", dark, none, group="g3", ignored=nothing), Labelled("p4", dark, none, ignored=partly)]
    write_labelled(folder.root, About(("cell",)), blank[:1])
    with pytest.warns(UserWarning, match=r"1 images of which no pixel is labelled are left out \(p3\)"):
        after = Competition(folder.root, ("cell",))
    assert (
        after.ids == folder.ids and after.blank == ["p3"] and "p3" not in make_folds(after, 2, 0).table["id"].tolist()
    )
    scored = scoring.score(after, scoring.from_detections(saved, after, after.ids), BOOTSTRAP)
    assert scored.numbers == before.numbers and scored.table.equals(before.table)
    with pytest.raises(InputError, match="no pixel of image p3 is labelled"):
        after.record("p3")
    with pytest.warns(UserWarning, match="no pixel"):
        notes = audit(Competition(folder.root, ("cell",), keep_going=True)).notes
    assert "images of which no pixel is labelled, in no training and no score: 1 (p3)" in notes
    write_labelled(folder.root, About(("cell",)), blank[1:])  # one labelled pixel is background, which counts
    with pytest.warns(UserWarning, match="no pixel"):
        assert Competition(folder.root, ("cell",)).ids == ("p0", "p1", "p2", "p4")
