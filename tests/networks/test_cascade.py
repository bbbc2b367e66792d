"""The cascade: each stage as the paper says, against plain arithmetic, box by box."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sartorius.networks.cascade import CascadeHeads, Stage
from sartorius.structures.instances import Instances

from .conftest import STAGES, target_of, tiny_network

LOSSES = {f"loss_{term}_stage{k}" for term in ("classifier", "box") for k in range(3)}


def cascade(**heads: Any) -> nn.Module:
    return tiny_network(parts={"cascade": STAGES}, **heads)


def test_every_parameter_learns_and_every_stage_has_its_losses(example: Any) -> None:
    image, instances = example
    network = cascade()
    losses = network([image, image], [target_of(instances)] * 2)
    assert set(losses) == LOSSES | {"loss_objectness", "loss_rpn_box", "loss_mask"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_image_without_cells_or_without_proposals_trains(example: Any) -> None:
    image, instances = example
    for options, target in (({}, Instances.empty(70, 90)), ({"min_size": 1e4}, instances)):
        network = cascade(**options)
        losses = network([image], [target_of(target)])
        torch.stack(list(losses.values())).sum().backward()
        assert losses["loss_mask"] == losses["loss_box_stage2"] == 0
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_detections_are_bounded_and_half_precision_works(example: Any) -> None:
    network = cascade(detections=7).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network([example[0]])[0]
    assert 0 < len(found.boxes) <= 7
    assert (found.boxes[:, 2].max() <= 90) and (found.boxes[:, 3].max() <= 70)
    assert ((found.scores >= 0) & (found.scores <= 1)).all() and (found.scores.diff() <= 0).all()
    assert found.masks.shape[1:] == (28, 28)
    with torch.no_grad():
        nothing = cascade(score=1.1).eval()([example[0]])[0]
    assert nothing.boxes.shape == (0, 4) and nothing.masks.shape == (0, 28, 28)


def test_it_learns(example: Any) -> None:
    torch.manual_seed(0)
    image, instances = example
    network = cascade()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    totals = []
    for _ in range(12):
        loss = torch.stack(list(network([image], [target_of(instances)]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert np.mean(totals[-3:]) < 0.7 * totals[0]


def test_names_and_shapes_of_its_weights() -> None:
    state = cascade().state_dict()
    boxes = {name: tuple(v.shape) for name, v in state.items() if name.startswith("roi_heads.box")}
    channels = 256 * 7 * 7
    expected = {}
    for k in range(3):
        for layer, shape in (("fc6", (32, channels)), ("fc7", (32, 32))):
            expected[f"roi_heads.box_head.{k}.{layer}.weight"] = shape
            expected[f"roi_heads.box_head.{k}.{layer}.bias"] = shape[:1]
        for layer, shape in (("cls_score", (4, 32)), ("bbox_pred", (4, 32))):
            expected[f"roi_heads.box_predictor.{k}.{layer}.weight"] = shape
            expected[f"roi_heads.box_predictor.{k}.{layer}.bias"] = shape[:1]
    assert boxes == expected
    plain = {name for name in tiny_network().state_dict() if "roi_heads.box" not in name}
    assert {name for name in state if "roi_heads.box" not in name} == plain


class Corners(nn.Module):
    """In the place of RoIAlign: a region's features are its corners, times a weight that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, features: Any, rois: torch.Tensor) -> torch.Tensor:
        return rois[:, 1:] * self.weight


class Known(nn.Module):
    """Three logits and a box code that are simple functions of a region's corners."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k = self.stage + 1
        logits = torch.stack((x[:, 0] / 10, x[:, 1] / (5 * k), x.sum(dim=1) / 40), dim=1)
        return logits, torch.stack((x[:, 2] / 60, -x[:, 3] / 90, x[:, 0] / 100, x[:, 1] / 100 - 0.1 * k), dim=1)


def known_heads(**options: Any) -> CascadeHeads:
    stages = [Stage(stage["foreground_iou"], tuple(stage["coder"])) for stage in STAGES]
    given = {
        "foreground_iou": 0.5, "batch": 100, "positive_fraction": 0.5, "mask_batch": 4, "score": 0.0, "nms_iou": 0.9,
        "detections": 10, "min_size": 1.0, "mask_size": 2, **options,
    }  # fmt: skip
    identities, known = nn.ModuleList(nn.Identity() for _ in range(3)), nn.ModuleList(Known(k) for k in range(3))
    masks = nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))
    return CascadeHeads(Corners(), identities, known, Corners(), *masks, stages=stages, **given)


def by_hand(k: int, box: list[float]) -> tuple[list[float], list[float]]:
    """What `Known(k)` makes of a box: its class probabilities, and the four numbers of its code."""
    x1, y1, x2, y2 = box
    logits = [x1 / 10, y1 / (5 * (k + 1)), (x1 + y1 + x2 + y2) / 40]
    powers = [math.exp(value) for value in logits]
    return [p / sum(powers) for p in powers], [x2 / 60, -y2 / 90, x1 / 100, y1 / 100 - 0.1 * (k + 1)]


def moved(k: int, box: list[float], code: list[float], width: int, height: int) -> list[float]:
    """The box that a code of stage k means (Girshick et al. 2014, R-CNN, appendix C), cut at the image's edges."""
    weights = STAGES[k]["coder"]
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + w / 2 + code[0] / weights[0] * w, box[1] + h / 2 + code[1] / weights[1] * h
    w, h = w * math.exp(code[2] / weights[2]), h * math.exp(code[3] / weights[3])
    corners = (x - w / 2, width), (y - h / 2, height), (x + w / 2, width), (y + h / 2, height)
    return [min(max(value, 0), limit) for value, limit in corners]


def overlap(a: list[float], b: list[float]) -> float:
    across, down = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return across * down / (sum(areas) - across * down)


BOXES = [[3.0, 4.0, 20.0, 15.0], [10.0, 2.0, 30.0, 22.0], [0.0, 0.0, 12.0, 40.0], [3.0, 3.0, 26.0, 17.0]]


def test_inference_is_a_chain_of_boxes_and_the_mean_of_probabilities() -> None:
    width, height = 50, 45
    with torch.no_grad():
        probability, boxes = known_heads().classify([], torch.tensor(BOXES), 0, (height, width))
    for row, start in enumerate(BOXES):
        box, seen = start, []
        for k in range(3):
            values, code = by_hand(k, box)
            seen.append(values)
            box = moved(k, box, code, width, height)
        np.testing.assert_allclose(boxes[row], box, rtol=1e-5)
        np.testing.assert_allclose(probability[row], np.mean(seen, axis=0), rtol=1e-5)


def target_of_boxes(boxes: list[list[int]], types: list[int], height: int, width: int) -> Any:
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return target_of(Instances.from_masks(masks, types))


def test_losses_of_each_stage_by_hand() -> None:
    """Every proposal is sampled; from the second stage on regions are the moved ones, with a higher IoU for cells."""
    width, height = 50, 45
    cells = [[4, 4, 20, 16], [31, 28, 48, 45]]
    target = target_of_boxes(cells, [0, 1], height, width)
    losses = known_heads(positive_fraction=1.0).losses([], [torch.tensor(BOXES)], [target], 1.0)
    regions = [*BOXES, *(list(map(float, cell)) for cell in cells)]
    stands = []
    for k, stage in enumerate(STAGES):
        entropy = smooth = 0.0
        following, count = [], 0
        for box in regions:
            ious = [overlap(box, list(map(float, cell))) for cell in cells]
            own = int(np.argmax(ious)) if max(ious) >= stage["foreground_iou"] else None
            values, code = by_hand(k, box)
            entropy -= math.log(values[0 if own is None else own + 1])
            if own is not None:
                count += 1
                w, h = box[2] - box[0], box[3] - box[1]
                x1, y1, x2, y2 = cells[own]
                exact = [
                    ((x1 + x2) / 2 - (box[0] + box[2]) / 2) / w, ((y1 + y2) / 2 - (box[1] + box[3]) / 2) / h,
                    math.log((x2 - x1) / w), math.log((y2 - y1) / h),
                ]  # fmt: skip
                off = [abs(c - e * weight) for c, e, weight in zip(code, exact, stage["coder"], strict=True)]
                smooth += sum(d - 1 / 18 if d > 1 / 9 else d * d * 4.5 for d in off)
            following.append(moved(k, box, code, width, height))
        stands.append(count)
        assert losses[f"loss_classifier_stage{k}"].item() == pytest.approx(entropy / len(regions), rel=1e-4)
        assert losses[f"loss_box_stage{k}"].item() == pytest.approx(smooth / len(regions), rel=1e-4)
        regions = following
    assert stands[0] > stands[2] > 0  # the test has seen the IoU rise


def test_each_stage_sends_back_a_third_of_its_gradient() -> None:
    target = target_of_boxes([[4, 4, 20, 16]], [0], 45, 50)
    proposals = [torch.tensor(BOXES)]

    heads = known_heads(positive_fraction=1.0)
    heads.losses([], proposals, [target], 1.0)["loss_classifier_stage0"].backward()

    def loss_at(weight: float) -> float:
        moved_by_hand = known_heads(positive_fraction=1.0)
        with torch.no_grad():
            moved_by_hand.box_align.weight.fill_(weight)
        return moved_by_hand.losses([], proposals, [target], 1.0)["loss_classifier_stage0"].item()

    slope = (loss_at(1.01) - loss_at(0.99)) / 0.02
    assert heads.box_align.weight.grad.item() == pytest.approx(slope / 3, rel=1e-2)


def test_the_mask_head_learns_on_the_last_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [[4, 4, 20, 16], [31, 28, 48, 45]]
    target = target_of_boxes(cells, [0, 1], 45, 50)
    heads, seen = known_heads(positive_fraction=1.0), []
    masks = heads._masks
    monkeypatch.setattr(heads, "_masks", lambda features, rois: seen.append(rois) or masks(features, rois))
    heads.losses([], [torch.tensor(BOXES)], [target], 1.0)
    last = []
    for box in [*BOXES, *(list(map(float, cell)) for cell in cells)]:
        for k in range(3):
            box = moved(k, box, by_hand(k, box)[1], 50, 45)
        if max(overlap(box, list(map(float, cell))) for cell in cells) >= 0.5:
            last.append(box)
    found = sorted(seen[0][:, 1:].tolist())
    assert len(found) == min(len(last), 4) > 0
    for box in found:
        assert min(np.abs(np.subtract(box, other)).max() for other in last) < 1e-3
