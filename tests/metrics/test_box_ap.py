from __future__ import annotations

import numpy as np
import pytest
import torch

from sartorius.metrics.box_ap import BoxAP

TYPES = ("shsy5y", "astro", "cort")
Image = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_images(seed: int, n: int, cells: int) -> list[Image]:
    """Boxes, scores, types, true boxes, true types of n images; detections are jittered cells and noise."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        corner, size = random.uniform(0, 400, (cells, 2)), random.uniform(8, 40, (cells, 2))
        truth = np.concatenate([corner, corner + size], axis=1)
        types = random.integers(0, 3, cells)
        boxes = np.concatenate([truth + random.normal(0, 2, truth.shape), truth[: cells // 2] + 15])
        found = np.concatenate([types, types[: cells // 2]])
        images.append((boxes, random.uniform(0, 1, len(boxes)), found, truth, types))
    return images


def reference(images: list[Image], max_detections: int) -> float:
    """pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(k: int, boxes: np.ndarray, types: np.ndarray, scores: np.ndarray) -> list[dict]:
        sizes = boxes[:, 2:] - boxes[:, :2]
        return [
            {
                "image_id": k,
                "bbox": [*b[:2], *s],
                "category_id": int(t),
                "area": float(s.prod()),
                "iscrowd": 0,
                "score": c,
            }
            for b, s, t, c in zip(boxes, sizes, types, scores, strict=True)
        ]

    truth, found = COCO(), COCO()
    for coco, part in ((truth, slice(3, 5)), (found, slice(0, 3))):
        annotations = []
        for k, image in enumerate(images):
            boxes, *rest = image[part]
            scores, types = rest if len(rest) == 2 else (np.ones(len(boxes)), rest[0])
            annotations += rows(k, boxes, types, scores)
        coco.dataset = {
            "images": [{"id": k} for k in range(len(images))],
            "categories": [{"id": k} for k in range(3)],
            "annotations": [{**a, "id": k + 1} for k, a in enumerate(annotations)],
        }
        coco.createIndex()
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.params.maxDets = [1, 10, max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("max_detections", [100, 2000])
def test_agrees_with_pycocotools(max_detections: int) -> None:
    images = random_images(0, 3, 500)
    metric = BoxAP(TYPES, max_detections)
    for k, image in enumerate(images):
        metric.update(k, *image)
    result = metric.compute()
    assert result["box_ap"] == pytest.approx(reference(images, max_detections), abs=1e-9)
    assert 0 < result["box_ap"] < result["box_ap_50"] <= 1


def test_counting_100_detections_hides_recall_that_2000_show() -> None:
    boxes = np.stack([np.arange(300) * 20.0, np.zeros(300), np.arange(300) * 20.0 + 10, np.full(300, 10.0)], axis=1)
    few, many = BoxAP(("cell",), 100), BoxAP(("cell",))
    for metric in (few, many):
        metric.update(0, boxes, np.linspace(0.1, 1, 300), np.zeros(300), boxes, np.zeros(300))
    assert many.compute()["box_ap"] == pytest.approx(1.0)
    assert few.compute()["box_ap"] == pytest.approx(34 / 101)  # recalls 0, 0.01, ... 0.33


def test_empties() -> None:
    nothing, box = (np.zeros((0, 4)), np.zeros(0), np.zeros(0)), np.array([[0.0, 0, 5, 5]])
    metric = BoxAP(TYPES)
    metric.update(0, *nothing, np.zeros((0, 4)), np.zeros(0))
    metric.update(1, box, [0.5], [0], np.zeros((0, 4)), np.zeros(0))
    assert set(metric.compute().values()) == {None}
    metric.update(2, *nothing, box, [1])
    assert metric.compute()["box_ap"] == 0.0
    metric.update(3, box, [0.9], [1], box, [1])
    result = metric.compute()
    assert result["box_ap_astro"] == pytest.approx(51 / 101) and result["box_ap_cort"] is None


def test_a_image_that_two_processes_saw_counts_once() -> None:
    image = random_images(1, 1, 30)[0]
    alone = BoxAP(TYPES)
    twice = BoxAP(TYPES, distributed_available_fn=lambda: True, dist_sync_fn=lambda x, group=None: [x, x.clone()])
    for metric in (alone, twice):
        metric.update(7, *image)
    assert twice.compute() == alone.compute()
    assert all(isinstance(state, torch.Tensor) for state in twice.detections)
