"""COCO mask AP beside pycocotools, which is given column-major masks: another encoder, another evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sartorius.data.competition.folder import Competition
from sartorius.metrics.mask_ap import MaskAP
from sartorius.structures.instances import Instances
from tests.metrics.test_functional import masks_to_runs, random_masks

TYPES = ("shsy5y", "astro", "cort")
Image = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_images(seed: int, n: int, cells: int, size: int = 40) -> list[Image]:
    """Masks, scores, types, true masks, true types of n images; overlapping cells, noisy copies and strangers."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        truth = random_masks(random, cells, size)
        masks = np.concatenate((truth ^ (random.random(truth.shape) < 0.003), random_masks(random, cells // 2, size)))
        types = random.integers(0, 3, cells)
        found = np.concatenate((np.where(random.random(cells) < 0.8, types, 0), random.integers(0, 3, cells // 2)))
        images.append((masks, random.permutation(len(masks)) / len(masks), found, truth, types))
    return images


def ours(images: list[Image], max_detections: int = 2000) -> dict[str, float | None]:
    metric = MaskAP(TYPES, max_detections)
    for k, (masks, scores, found, truth, types) in enumerate(images):
        metric.update(k, masks_to_runs(masks), scores, found, masks_to_runs(truth), types)
    return metric.compute()


def reference(images: list[Image], max_detections: int, agnostic: bool = False) -> np.ndarray:
    """Precision [10 thresholds, 101 recalls, types] of pycocotools."""
    sides = [], []
    for k, (masks, scores, found, truth, types) in enumerate(images):
        for side, stack, kinds in ((sides[0], truth, types), (sides[1], masks, found)):
            for mask, kind, score in zip(stack, kinds, scores if stack is masks else kinds, strict=True):
                segmentation = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                side.append({"image_id": k, "category_id": int(kind), "segmentation": segmentation, "iscrowd": 0,
                             "area": float(mask.sum()), "score": float(score), "id": len(side) + 1})  # fmt: skip
    loaded = []
    for side in sides:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": k, "height": one[0].shape[1], "width": one[0].shape[2]} for k, one in enumerate(images)],
            "categories": [{"id": k} for k in range(3)],
            "annotations": side,
        }
        coco.createIndex()
        loaded.append(coco)
    evaluation = COCOeval(*loaded, "segm")
    evaluation.params.maxDets = [1, 10, max_detections]
    evaluation.params.useCats = not agnostic
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, 2]


def mean(precision: np.ndarray) -> float:
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize(("seed", "max_detections"), [(0, 2000), (1, 2000), (2, 2000), (3, 20)])
def test_agrees_with_pycocotools(seed: int, max_detections: int) -> None:
    images = random_images(seed, 3, 40)
    result, expected = ours(images, max_detections), reference(images, max_detections)
    for name, part in (("mask_ap", expected), ("mask_ap_50", expected[:1]), ("mask_ap_75", expected[5:6])):
        assert result[name] == pytest.approx(mean(part), abs=1e-12)
        for k, kind in enumerate(TYPES):
            assert result[f"{name}_{kind}"] == pytest.approx(mean(part[:, :, k]), abs=1e-12)
    agnostic = reference(images, max_detections, agnostic=True)
    assert result["mask_ap_agnostic"] == pytest.approx(mean(agnostic), abs=1e-12)
    assert result["mask_ap_agnostic_50"] == pytest.approx(mean(agnostic[0]), abs=1e-12)
    assert 0.05 < result["mask_ap"] != result["mask_ap_agnostic"] < 1


def test_more_than_100_cells_an_image_count() -> None:
    """pycocotools' own summary counts 100; a perfect prediction of 300 cells must score 1."""
    truth = np.zeros((300, 30, 40), bool)
    for k in range(300):
        truth[k, 2 * (k // 20) : 2 * (k // 20) + 2, 2 * (k % 20) : 2 * (k % 20) + 2] = True
    kinds, scores = np.zeros(300, np.int64), np.linspace(0.1, 1, 300)
    assert ours([(truth, scores, kinds, truth, kinds)])["mask_ap"] == pytest.approx(1.0)
    assert ours([(truth, scores, kinds, truth, kinds)], 100)["mask_ap"] == pytest.approx(34 / 101)


def test_a_type_that_the_data_lack_is_wrong_by_type_and_right_without() -> None:
    mask, kinds = np.ones((1, 3, 4), bool), np.zeros(1, np.int64)
    result = ours([(mask, np.ones(1), kinds + 3, mask, kinds)])
    assert result["mask_ap"] == result["mask_ap_shsy5y"] == 0 and result["mask_ap_agnostic"] == pytest.approx(1.0)


def test_empties() -> None:
    none, one = np.zeros((0, 3, 4), bool), np.ones((1, 3, 4), bool)
    no_kinds, kinds = np.zeros(0, np.int64), np.zeros(1, np.int64)
    nothing, alarm = (none, np.zeros(0), no_kinds, none, no_kinds), (one, np.ones(1), kinds, none, no_kinds)
    missed = (none, np.zeros(0), no_kinds, one, kinds)
    assert set(ours([nothing, alarm]).values()) == {None}
    assert (
        ours([missed])["mask_ap"] == ours([missed])["mask_ap_agnostic"] == 0 and ours([missed])["mask_ap_cort"] is None
    )
    assert set(MaskAP(TYPES).compute().values()) == {None}
    empty = (np.concatenate((one, one & False)), np.array([0.5, 0.9]), np.zeros(2, np.int64), one, kinds)
    assert ours([empty])["mask_ap"] == pytest.approx(1.0), "a cell without pixels is no detection"


def test_real_annotations_beside_pycocotools(real_data: Path) -> None:
    truth, random, images = Competition(real_data / "sartorius"), np.random.default_rng(0), []
    for image_id in truth.ids[::6]:
        layers = truth.instances(image_id).layers[:, :260, :352]
        cells = np.array([(layers == v).any(axis=0) for v in np.unique(layers[layers > 0])]).reshape(-1, 260, 352)
        moved = np.roll(cells, tuple(random.integers(-2, 3, 2)), axis=(1, 2))
        types = np.full(len(cells), TYPES.index(truth.record(image_id).cell_type))
        images.append((moved, random.permutation(len(moved)) / len(moved), types, cells, types))
    metric = MaskAP(TYPES)
    for k, (masks, scores, found, cells, types) in enumerate(images):
        sides = [Instances.from_masks(stack, np.zeros(len(stack))).to_runs() for stack in (masks, cells)]
        metric.update(k, sides[0], scores, found, sides[1], types)
    assert metric.compute()["mask_ap"] == pytest.approx(mean(reference(images, 2000)), abs=1e-12)
