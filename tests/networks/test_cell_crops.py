"""Squares, jitter, crops on the device, the box as a prompt, and masks moved from box to box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.networks.cell_crops import CropNetwork, crop, draw_boxes, jitter, resample, squares, tighten
from sartorius.postprocess.paste import paste_masks

BOXES = torch.tensor([[10.0, 20.0, 30.0, 24.0], [0.0, 0.0, 4.0, 6.0], [500.0, 300.0, 540.0, 380.0]])
NOTHING = torch.zeros(0, 4)


def network(prompt: bool = True, size: int = 16, body: nn.Module | None = None) -> CropNetwork:
    body = nn.Conv2d(1 + prompt, 2, 1) if body is None else body
    return CropNetwork(body, size=size, margin=0.25, min_side=12, mean=128.0, std=10.0, prompt=prompt)


def test_squares_are_square_and_around_the_centre() -> None:
    found = squares(BOXES, margin=0.25, min_side=12)
    sides = found[:, 2:] - found[:, :2]
    assert sides.tolist() == [[20 * 1.5] * 2, [12, 12], [80 * 1.5] * 2]
    assert torch.equal((found[:, :2] + found[:, 2:]) / 2, (BOXES[:, :2] + BOXES[:, 2:]) / 2)
    assert squares(NOTHING, 0.25, 12).shape == (0, 4)
    half = squares(torch.tensor([[700.0, 500.0, 703.0, 503.0]], dtype=torch.float16), 0, 1)
    assert half.dtype == torch.float32  # so that nothing after it is rounded


def test_jitter_stays_within_its_amount_and_is_a_function_of_the_generator() -> None:
    many = BOXES[[0, 2]].repeat(500, 1)
    extent = (many[:, 2:] - many[:, :2]).repeat(1, 2)
    moved = (jitter(many, 0.1, torch.Generator().manual_seed(1)) - many) / extent
    assert moved.abs().max() <= 0.1 + 1e-4
    assert moved.abs().max() > 0.099
    assert torch.allclose(moved.mean(dim=0), torch.zeros(4), atol=4 * 0.1 / (3 * len(many)) ** 0.5)
    widest = jitter(many, 0.49, torch.Generator().manual_seed(1))
    assert (widest[:, 2:] > widest[:, :2]).all()
    again = jitter(BOXES, 0.1, torch.Generator().manual_seed(3))
    assert torch.equal(again, jitter(BOXES, 0.1, torch.Generator().manual_seed(3)))
    assert torch.equal(jitter(BOXES, 0.0), BOXES)
    assert jitter(NOTHING, 0.1).shape == (0, 4)


def test_a_crop_is_the_image_and_outside_it_nothing() -> None:
    image = torch.arange(48.0).reshape(1, 6, 8) + 1
    whole = crop(image, torch.tensor([[2.0, 1.0, 6.0, 5.0]]), 4)
    assert torch.equal(whole[0], image[:, 1:5, 2:6])
    beyond = crop(image, torch.tensor([[-4.0, 0.0, 0.0, 4.0], [6.0, 4.0, 10.0, 8.0]]), 4)[:, 0]
    assert beyond[0, :, :3].abs().max() == 0  # the pixel beside the image repeats its edge, as RoIAlign has it
    assert torch.equal(beyond[1, :2, :2], image[0, 4:, 6:])
    assert beyond[1, 3, 3] == 0
    assert crop(image, NOTHING, 4).shape == (0, 1, 4, 4)


def test_regions_stay_exact_under_autocast() -> None:
    image = torch.rand(1, 400, 700) * 255
    boxes = torch.tensor([[601.3, 301.7, 617.9, 318.2]])
    plain = network().crops(image, boxes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network().crops(image, boxes), plain)


def test_the_box_is_drawn_softly() -> None:
    regions = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    drawn = draw_boxes(torch.tensor([[0.5, 1.0, 3.25, 9.0]]), regions, 4)[0, 0]
    column, row = torch.tensor([0.5, 1.0, 1.0, 0.25]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    assert torch.allclose(drawn, row[:, None] * column)
    coarse = draw_boxes(torch.tensor([[0.5, 1.0, 3.25, 9.0]]), regions, 1)
    assert coarse.item() == pytest.approx(2.75 / 4 * 3 / 4)
    assert draw_boxes(NOTHING, NOTHING, 4).shape == (0, 1, 4, 4)


def test_network_normalises_and_prompts() -> None:
    image = torch.full((1, 60, 60), 138, dtype=torch.uint8)
    box = torch.tensor([[20.0, 20.0, 30.0, 40.0]])
    crops = network().crops(image, box)
    assert crops.shape == (1, 2, 16, 16)
    assert torch.allclose(crops[:, 0], torch.ones(1))  # (138 - 128) / 10
    assert crops[0, 1].sum() * (30 / 16) ** 2 == pytest.approx(10 * 20, rel=1e-5)  # pixels of the box
    assert network(prompt=False).crops(image, box).shape == (1, 1, 16, 16)
    assert network()(crops).shape == (1, 2, 16, 16)
    assert network(body=nn.Identity())(network().crops(image, NOTHING)).shape == (0, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert network()(crops).dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"size": 0}, {"margin": -0.1}, {"min_side": 0}])
def test_impossible_crops(wrong: dict[str, float]) -> None:
    options = {"size": 16, "margin": 0.2, "min_side": 12, "mean": 0.0, "std": 1.0, "prompt": True, **wrong}
    with pytest.raises(InputError, match="model.network.(size|margin|min_side): expected"):
        CropNetwork(nn.Identity(), **options)


def test_tight_boxes_hold_what_is_above() -> None:
    probability = torch.zeros(3, 8, 8)
    probability[0, 2:5, 3:4] = 0.6
    probability[2, :, :] = 1.0
    regions = torch.tensor([[10.0, 20.0, 18.0, 28.0], [0.0, 0.0, 8.0, 8.0], [-4.0, -8.0, 12.0, 8.0]])
    boxes, found = tighten(probability, regions, 0.5, height=30, width=10)
    assert found.tolist() == [False, False, True]  # the first lies outside an image 10 pixels wide
    assert boxes[2].tolist() == [0, 0, 10, 8]
    boxes, found = tighten(probability, regions, 0.5, height=30, width=40)
    assert found.tolist() == [True, False, True]
    assert boxes[0].tolist() == [10 + 3 - 1, 20 + 2 - 1, 10 + 4 + 1, 20 + 5 + 1]
    assert boxes.dtype == torch.float32
    assert [len(part) for part in tighten(probability[:0], NOTHING, 0.5, 8, 8)] == [0, 0]


def pixels(boxes: torch.Tensor, masks: torch.Tensor) -> set[int]:
    return set(paste_masks(boxes.numpy(), masks.numpy(), np.full(len(boxes), 0.5), 60, 80).pixel.tolist())


def test_masks_in_their_tight_box_paste_as_before() -> None:
    """A disc in a square, moved to its tight box: the same pixels but for the odd one at the edge."""
    region = torch.tensor([[13.3, 8.7, 45.3, 40.7]])
    at = (torch.arange(64) + 0.5) / 64 * 2 - 1
    disc = torch.sigmoid(20 * (0.5 - (at[None, :] ** 2 + (2 * at[:, None]) ** 2).sqrt()))[None]
    box, found = tighten(disc, region, 0.1, 60, 80)
    assert found.all()
    before, after = pixels(region, disc), pixels(box, resample(disc, region, box, 56))
    assert len(before) > 90
    assert len(before ^ after) <= 0.03 * len(before)
    same = resample(disc, region, region, 64)  # two samples a bin: smoothed a little, at 0.5 nearly the same
    assert len(before ^ pixels(region, same)) <= 0.03 * len(before)


def test_resampling_is_zero_outside_and_bounded_for_boxes_without_extent() -> None:
    old, new = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    moved = resample(torch.ones(1, 5, 5), old, new, 8)
    assert torch.equal(moved[0, :, :4], torch.ones(8, 4))
    assert moved[0, :, 5:].abs().max() == 0
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert resample(torch.ones(1, 5, 5), point, torch.tensor([[0.0, 0.0, 700.0, 500.0]]), 8).shape == (1, 8, 8)
    assert resample(torch.ones(0, 5, 5), NOTHING, NOTHING, 8).shape == (0, 8, 8)
