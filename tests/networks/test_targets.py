"""Ignored pixels and weights of images in the losses of a Mask R-CNN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from sartorius.data.dataset import Target
from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.cascade import CascadeHeads
from sartorius.networks.losses import bce_dice
from sartorius.networks.matching import BACKGROUND, BETWEEN, match_images
from sartorius.networks.rpn import RegionProposals
from sartorius.networks.targets import certain_bins, leave_out, share_inside
from sartorius.structures.instances import Instances

from .conftest import STAGES, tiny_network

EVERYTHING = 10**6  # sampled: nothing is left to chance


def target(instances: Instances, ignored: Tensor | None = None, weight: float = 1.0) -> Any:
    return replace(Target.from_instances("p", 0, instances, "cort"), ignored=ignored, weight=weight)


def region(height: int = 70, width: int = 90, seed: int = 0) -> Tensor:
    """bool [H, W]: random blobs over a third of the image."""
    noise = torch.rand((1, height, width), generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(noise, 9, 1, 4, count_include_pad=False)[0]
    return smooth > smooth.flatten().quantile(2 / 3)


def by_pixels(mask: Tensor, box: list[float]) -> float:
    """The share of the box inside the image, from the overlap of the box with every single pixel."""
    overlaps = []
    for low, high, count in ((box[1], box[3], mask.shape[0]), (box[0], box[2], mask.shape[1])):
        edges = np.arange(count)
        overlaps.append((np.minimum(edges + 1, high) - np.maximum(edges, low)).clip(0))
    area = np.outer(*overlaps)
    return float((area * mask.numpy()).sum() / area.sum()) if area.sum() > 0 else 0.0


def test_share_of_a_box_is_exact() -> None:
    mask, rng = region(), np.random.default_rng(0)
    start = rng.uniform(-20, 90, (300, 2))
    boxes = np.concatenate((start, start + rng.uniform(0.1, 60, (300, 2))), axis=1)
    boxes[:4] = [[0, 0, 90, 70], [-9, -9, -1, -1], [89.5, 69.5, 120, 99], [5, 5, 5, 9]]
    found = share_inside(mask, torch.tensor(boxes, dtype=torch.float32))
    assert found.dtype == torch.float32
    expected = [by_pixels(mask, box) for box in boxes.astype(np.float32).tolist()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert found[1] == found[3] == 0
    assert found[0] == pytest.approx(float(mask.float().mean()))
    assert share_inside(mask, torch.zeros(0, 4)).shape == (0,)


def test_only_background_is_left_out(example: tuple[Tensor, Instances]) -> None:
    mask = torch.zeros(70, 90, dtype=torch.bool)
    mask[:, :10] = True
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 10], [0, 0, 19, 10], [50, 50, 60, 60], [0, 0, 5, 5]])
    match = torch.tensor([BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, 1])
    own = target(example[1], mask)
    assert leave_out(match, boxes, own, 0.5, 1.0).tolist() == [BETWEEN, BACKGROUND, BETWEEN, BACKGROUND, 1]
    assert leave_out(match, 2 * boxes, own, 0.5, 2.0).tolist() == [BETWEEN, BACKGROUND, BETWEEN, BACKGROUND, 1]
    assert leave_out(match, boxes, target(example[1]), 0.5, 1.0) is match


def test_anchors_in_ignored_pixels_have_no_loss(example: tuple[Tensor, Instances]) -> None:
    """The loss is that over the other anchors alone, and its gradient is zero at those left out."""
    mask, instances = region(), example[1]
    mask &= torch.from_numpy(~instances.foreground())
    rpn = RegionProposals(
        AnchorGrid([[8, 16]], [1.0]), 4, foreground_iou=0.6, background_iou=0.3, batch=EVERYTHING,
        positive_fraction=1.0, before_nms=(9, 9), after_nms=(9, 9), nms_iou=0.7, min_size=1.0, ignored_share=0.5,
    )  # fmt: skip
    anchors = torch.cat(rpn.anchors([torch.zeros(1, 4, 18, 23)], (72, 92)))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, len(anchors)), generator=generator).requires_grad_()
    codes = torch.randn((1, len(anchors), 4), generator=generator).requires_grad_()
    loss = rpn._losses(anchors, logits, codes, [target(instances, mask)], 1.0)
    sum(loss.values()).backward()

    (match,) = match_images([anchors], [torch.from_numpy(instances.boxes)], 0.6, 0.3, rescue=True)
    doubtful = torch.tensor([by_pixels(mask, box) > 0.5 for box in anchors.tolist()]) & (match == BACKGROUND)
    counted = (match != BETWEEN) & ~doubtful
    assert 50 < int(doubtful.sum()) < int(counted.sum())
    expected = F.binary_cross_entropy_with_logits(logits[0, counted], (match[counted] >= 0).float())
    assert loss["loss_objectness"].item() == pytest.approx(expected.item())
    assert logits.grad is not None
    assert torch.equal(logits.grad[0] != 0, counted)
    nothing, plain = (
        rpn._losses(anchors, logits, codes, [target(instances, none)], 1.0)["loss_objectness"].item()
        for none in (torch.zeros_like(mask), None)
    )
    assert nothing == pytest.approx(plain)
    assert nothing != pytest.approx(expected.item(), rel=1e-3)


def test_bins_that_read_ignored_pixels_have_no_loss(example: tuple[Tensor, Instances]) -> None:
    mask = region(seed=1)
    own, other = target(example[1], mask), target(example[1])
    rois = torch.tensor([[18.3, 8.1, 46.0, 33.2], [38, 24, 66, 48]])
    found = certain_bins([own, other], [rois, rois[:1]], 14)
    assert found is not None
    read = roi_align(mask.float()[None, None], torch.cat((torch.zeros(2, 1), rois), 1), 14, 1.0, 0, aligned=True)
    assert torch.equal(found[:2], (read[:, 0] == 0).float())
    assert 0 < float(found[:2].mean()) < 1
    assert (found[2] == 1).all()
    assert certain_bins([other], [rois], 14) is None

    logits = torch.randn((3, 14, 14), generator=torch.Generator().manual_seed(0)).requires_grad_()
    wanted = (torch.rand((3, 14, 14), generator=torch.Generator().manual_seed(1)) > 0.5).float()
    loss = bce_dice(logits, wanted, dice=0.0, certain=found)
    loss.backward()
    at = found.bool()
    assert loss.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits[at], wanted[at]).item())
    assert torch.equal(logits.grad != 0, at)
    assert bce_dice(logits, wanted, dice=0.0, certain=torch.zeros_like(found)).item() == 0


def test_mask_loss_with_weights_as_arithmetic() -> None:
    logits, wanted = torch.zeros(2, 1, 2), torch.ones(2, 1, 2)
    certain = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]]])
    log2 = float(torch.tensor(2.0).log())
    weights = torch.tensor([1.0, 0.5])
    assert float(bce_dice(logits, wanted, dice=0.0, samples=weights)) == pytest.approx((2 + 2 * 0.5) * log2 / 4)
    assert float(bce_dice(logits, wanted, dice=0.0, certain=certain, samples=weights)) == pytest.approx(
        (2 + 0.5) * log2 / 3
    )


def losses_of(weights: tuple[float, float], ignored: Tensor | None, example: tuple[Tensor, Instances]) -> Any:
    """All losses and the gradient of two images of these weights; the second has other grey levels."""
    torch.manual_seed(0)
    network = tiny_network()
    image, instances = example
    torch.manual_seed(1)
    losses = network([image, 255 - image], [target(instances, ignored, weight) for weight in weights])
    network.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    return {**{name: value.item() for name, value in losses.items()}, "gradient": gradient}


def test_a_image_of_half_the_weight_has_half_its_share(example: tuple[Tensor, Instances]) -> None:
    both, second, half = (losses_of(weights, region(), example) for weights in ((1.0, 1.0), (0.0, 1.0), (0.5, 1.0)))
    for name, value in both.items():
        torch.testing.assert_close((value + second[name]) / 2, half[name], rtol=1e-4, atol=1e-5)
        assert torch.as_tensor(value != second[name]).any()


@pytest.mark.parametrize("parts", [{}, {"cascade": STAGES}], ids=["mask_rcnn", "cascade"])
def test_a_image_that_is_ignored_altogether_trains(example: tuple[Tensor, Instances], parts: Any) -> None:
    network = tiny_network(parts=parts)
    for image, cells in (example, (torch.rand((1, 64, 96)), Instances.empty(64, 96))):
        losses = network([image], [target(cells, torch.ones(image.shape[1:], dtype=torch.bool))])
        network.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        assert losses["loss_mask"] == 0
        assert len(cells) or not any(losses.values())


@pytest.mark.parametrize("parts", [{}, {"cascade": STAGES}], ids=["mask_rcnn", "cascade"])
def test_no_head_is_taught_background_by_ignored_pixels(example: tuple[Tensor, Instances], parts: Any) -> None:
    """Of regions everywhere the heads are given those of cells and those that lie mostly in labelled pixels."""
    instances = example[1]
    mask = region() & torch.from_numpy(~instances.foreground())
    heads = tiny_network(parts=parts, batch=EVERYTHING, positive_fraction=1.0).roi_heads
    corner = torch.cartesian_prod(torch.arange(0, 70, 6), torch.arange(0, 50, 6)).float()
    boxes = torch.cat((corner, corner + torch.tensor([16.0, 18.0])), 1)
    regions = heads.sampled([boxes], [target(instances, mask)], 0.5, 1.0)
    every = heads.sampled([boxes], [target(instances)], 0.5, 1.0)
    if isinstance(heads, CascadeHeads):
        codes = torch.zeros((len(regions.rois), 4))
        regions, every = (
            heads._next_regions(0, codes[:1].expand(len(of.rois), 4), of, [target(instances, ignored)], 0.6, 1.0)
            for of, ignored in ((every, mask), (every, None))
        )
    inside = torch.tensor([by_pixels(mask, box) for box in regions.rois[:, 1:].tolist()])
    assert (inside[regions.owner < 0] <= 0.5).all() and (regions.owner >= 0).sum() == (every.owner >= 0).sum() > 0
    left = torch.tensor([by_pixels(mask, box) > 0.5 for box in every.rois[:, 1:].tolist()]) & (every.owner < 0)
    assert len(regions.rois) == len(every.rois) - int(left.sum()) and int(left.sum()) > 5
