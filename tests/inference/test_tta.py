"""Views of an image and the way back: exact for symmetric models, vectors turned, masks with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sartorius.errors import InputError
from sartorius.fusion.methods import NMS, WBF, Method
from sartorius.fusion.view_fusion import ViewFusion
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.tta import Augmented
from sartorius.inference.views import SYMMETRIES, ImageView
from sartorius.inference.windows import Tiles, Whole, Windows
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.postprocess.decoders import Components
from sartorius.structures.detections import Detections

TILES = Tiles(24, 9, margin=4, batch=3, join_iou=0.5)
SIZES = [(37, 51), (51, 37), (32, 32), (1, 5)]
TURNS = {  # of an array [H, W], by NumPy's own functions
    "none": lambda a: a,
    "left_right": np.fliplr,
    "up_down": np.flipud,
    "turn_180": lambda a: np.rot90(a, 2),
    "transpose": np.transpose,
    "turn_90": np.rot90,
    "turn_270": lambda a: np.rot90(a, 3),
    "anti_transpose": lambda a: np.rot90(np.transpose(a), 2),
}


def augmented(
    symmetries: Sequence[str] = tuple(SYMMETRIES), scales: Sequence[float] = (1.0,), **more: Any
) -> Augmented:
    return Augmented(**{"symmetries": symmetries, "scales": scales, "fuse": None, **more})


def make_image(height: int = 37, width: int = 51) -> Tensor:
    whole = torch.randint(0, 256, (1, height, width), generator=torch.Generator().manual_seed(0))
    return whole.to(torch.uint8)


def symmetric(crops: Tensor) -> Tensor:
    """A network that treats all directions alike, of receptive field radius 4, whose sums are exact in any order.

    The third and fourth channels are a vector (dy, dx): the slope of the image.
    """
    kernel = torch.tensor([[1.0, 2, 3, 2, 1], [2, 4, 5, 4, 2], [3, 5, 7, 5, 3], [2, 4, 5, 4, 2], [1, 2, 3, 2, 1]])
    hidden = F.conv2d(crops.float(), kernel[None, None], padding=2)
    slope = torch.tensor([[0.0, -1, 0], [0, 0, 0], [0, 1, 0]])
    vectors = F.conv2d(hidden, torch.stack([slope, slope.T])[:, None], padding=1)
    return torch.cat([hidden, hidden * 2, vectors, hidden + 1], dim=1)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_views_are_numpys(name: str) -> None:
    image = make_image()
    assert np.array_equal(ImageView(name, 1.0).apply(image)[0].numpy(), TURNS[name](image[0].numpy()))


@pytest.mark.parametrize("windows", [Whole(), TILES], ids=["whole", "tiles"])
@pytest.mark.parametrize("shape", SIZES)
def test_maps_of_a_symmetric_network_are_the_plain_ones(shape: tuple[int, int], windows: Windows) -> None:
    image = make_image(*shape)
    expected = symmetric(image[None])[0]
    for symmetry in SYMMETRIES:
        found = augmented([symmetry], windows=windows).maps(symmetric, image, slice(2, 4))
        assert torch.equal(found, expected), symmetry
    assert torch.equal(augmented(windows=windows).maps(symmetric, image, slice(2, 4)), expected)


def test_maps_that_are_no_vectors_are_not_turned() -> None:
    image = make_image()
    turned = augmented(["turn_180"]).maps(symmetric, image)
    plain = symmetric(image[None])[0]
    assert torch.equal(turned[[0, 1, 4]], plain[[0, 1, 4]])
    assert torch.equal(turned[2:4], -plain[2:4])


def test_maps_are_the_mean_of_the_views() -> None:
    seen = iter([1.0, 2.0, 6.0])
    found = augmented(["none", "left_right", "turn_90"]).maps(
        lambda crops: torch.full((1, 2, *crops.shape[-2:]), next(seen)), make_image()
    )
    assert found.shape == (2, 37, 51)
    torch.testing.assert_close(found, torch.full((2, 37, 51), (1 + 2 + 6) / 3))


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.25, 2.0])
@pytest.mark.parametrize("symmetry", ["none", "turn_90", "left_right"])
def test_scales_shift_nothing(scale: float, symmetry: str) -> None:
    """A plane of 3 and 2 grey levels a pixel stays that plane away from the edges, where a pixel has no neighbour."""
    rows, columns = torch.meshgrid(torch.arange(37.0), torch.arange(51.0), indexing="ij")
    plane = (3 * rows + 2 * columns)[None]
    found = augmented([symmetry], [scale]).maps(lambda crops: crops, plane)
    inner = (..., slice(5, -5), slice(5, -5))
    error = found[inner] - plane[inner]
    ripple = 0.1 * (3 + 2) if scale < 1 else 1e-3  # of the filter that shrinks; a shift of half a pixel would be 1 to 2
    assert float(error.abs().max()) < ripple and abs(float(error.mean())) < 0.01


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_vectors_shrink_with_the_image(scale: float) -> None:
    """Each pixel's way to the image's middle, in pixels, whatever the view."""

    def to_middle(crops: Tensor) -> Tensor:
        height, width = crops.shape[-2:]
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        return torch.stack([height / 2 - rows, width / 2 - columns])[None]

    image = make_image(40, 52)
    expected = to_middle(image[None])[0]
    inner = (..., slice(3, -3), slice(3, -3))
    found = augmented(scales=[scale]).maps(to_middle, image, slice(0, 2))
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=1e-4)
    enlarged = Enlarged(windows=Whole(), factor=2.0).maps(to_middle, image, slice(0, 2))
    torch.testing.assert_close(enlarged[inner], expected[inner], rtol=0, atol=1e-4)


def test_a_unet_says_which_maps_are_vectors() -> None:
    """Four steps of 1/2 to the left of each pixel, in the view's pixels whatever the view: they cancel out."""

    class Left(nn.Module):
        def forward(self, crops: Tensor) -> Tensor:
            maps = torch.zeros(len(crops), 3, *crops.shape[-2:])
            maps[:, 2] = -0.5
            return maps

    layout = MapLayout(types=0, centre=False, offset_scale=4.0)
    module = UNetModule(Left(), layout, Components(threshold=0.5, min_area=1), partial(torch.optim.SGD, lr=0.1))
    assert module.activate(module._logits(make_image(), "a"))["offset"][1].unique().tolist() == [4 * -0.5]
    module.inference = augmented(["none", "left_right"])
    assert module.activate(module._logits(make_image(), "a"))["offset"].abs().max() == 0
    module.inference = augmented(["turn_90"])
    # counterclockwise: what is to the left in the view is above in the image
    offset = module.activate(module._logits(make_image(), "a"))["offset"]
    assert (offset[0].unique().tolist(), offset[1].abs().max()) == ([4 * -0.5], 0)


def bright(crop: Tensor) -> Detections:
    """The box around what is bright, and the brightness in it as the mask: exact where 8 divides the box."""
    height, width = crop.shape[-2:]
    rows, columns = (np.flatnonzero((crop[0] > 100).any(dim=axis).numpy()) for axis in (1, 0))
    if not len(rows):
        return Detections.empty("view", height, width, 8)
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    inside = crop[:, box[1] : box[3], box[0] : box[2]].float()
    mask = F.adaptive_avg_pool2d(inside, 8).numpy() / 256
    return Detections(
        "view", height, width, np.array([box], np.float32), np.array([0.5], np.float32), np.ones(1, np.int64),
        mask.astype(np.float16),
    )  # fmt: skip


def spotted(height: int = 37, width: int = 51) -> Tensor:
    """One bright patch of 8 x 16 pixels with a different value in every pixel."""
    image = torch.zeros(1, height, width, dtype=torch.uint8)
    image[0, 5:13, 20:36] = torch.arange(101, 101 + 8 * 16).reshape(8, 16).to(torch.uint8)
    return image


def same(left: Detections, right: Detections) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in ("boxes", "scores", "cell_types", "masks")
    ) and (left.image_id, left.height, left.width) == (right.image_id, right.height, right.width)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_detections_come_back_exactly(symmetry: str) -> None:
    plain = replace(bright(spotted()), image_id="p")
    assert same(augmented([symmetry]).detect(bright, spotted(), "p"), plain)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_detections_of_tiles_come_back(symmetry: str) -> None:
    tiles = Tiles(32, 20, margin=2, batch=1, join_iou=0.5)
    found = augmented([symmetry], windows=tiles).detect(bright, spotted(37, 60), "p")
    assert same(found, replace(bright(spotted(37, 60)), image_id="p"))


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_boxes_come_back_from_a_scale(symmetry: str, scale: float) -> None:
    found = augmented([symmetry], [scale]).detect(bright, spotted(), "p")
    assert (found.height, found.width) == (37, 51)
    assert np.abs(found.boxes - [[20, 5, 36, 13]]).max() <= max(1.0, 1 / scale)


def test_the_joiner_gets_every_view_of_the_image_and_its_answer_counts() -> None:
    given: list[Sequence[Detections]] = []

    def last(found: Sequence[Detections]) -> Detections:
        given.append(found)
        return found[-1]

    found = augmented(scales=[1.0, 2.0], fuse=last).detect(bright, spotted(), "p")
    assert len(given[0]) == 8 * 2 and found is given[0][-1]
    assert {(one.image_id, one.height, one.width) for one in given[0]} == {("p", 37, 51)}
    with pytest.raises(InputError, match="tta.fuse=null"):
        augmented().detect(bright, spotted(), "p")


@pytest.mark.parametrize(
    "method",
    [
        NMS(box_nms=0.7, mask_nms=0.3, mask_iou=0.5),
        WBF(box_iou=0.4, mask_iou=0.4, share_power=1.0),
    ],
)
def test_fused_views_of_a_symmetric_detector_are_the_plain_detections(method: Method) -> None:
    image = spotted()
    image[image > 0] += 40  # every probability above one half: the masks are whole boxes
    plain = bright(image)
    found = augmented(fuse=ViewFusion(method=method, min_score=0.05)).detect(bright, image, "p")
    np.testing.assert_allclose(found.boxes, plain.boxes, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.masks, plain.masks, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, plain.scores, rtol=1e-6)
    assert found.agreement is not None and found.agreement.tolist() == [1.0]
    assert (found.cell_types.tolist(), found.image_id) == (plain.cell_types.tolist(), "p")
    nothing = augmented(fuse=ViewFusion(method=method, min_score=0.05)).detect(bright, torch.zeros(1, 9, 7), "p")
    assert len(nothing) == 0 and (nothing.height, nothing.width) == (9, 7)


def test_a_image_in_which_nothing_is_found() -> None:
    found = augmented(["turn_90"], [0.7]).detect(bright, torch.zeros(1, 37, 51, dtype=torch.uint8), "p")
    assert len(found) == 0 and (found.image_id, found.height, found.width) == ("p", 37, 51)


def test_views_one_by_one() -> None:
    both = augmented(["none", "turn_90"], [1.0, 1.25], windows=TILES)
    assert list(both.apart()) == ["none", "turn_90", "none_x1.25", "turn_90_x1.25"]
    assert both.apart()["turn_90_x1.25"].views == [ImageView("turn_90", 1.25)]
    assert both.apart()["turn_90"].windows is TILES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symmetries": ["rot90"]}, "tta.symmetries: expected one of none, left_right, .*got 'rot90'"),
        ({"scales": [0.0]}, "tta.scales: expected a number above 0, up to 16, got 0.0"),
        ({"scales": ["big"]}, "tta.scales: .*got 'big'"),
        ({"scales": [float("nan")]}, "tta.scales: .*got nan"),
        ({"scales": []}, r"give the views \(none\)"),
        ({"symmetries": ["none", "none"]}, "the views none, none; expected at least one, and each once"),
    ],
)
def test_views_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        augmented(**changes)


def test_fewer_views_are_the_first_symmetries_and_the_scales_near_1() -> None:
    every = augmented(["none", "turn_90"], [0.5, 1.0, 1.5], windows=TILES)
    assert every.limited(99).views == [ImageView(s, scale) for scale in (1.0, 1.5, 0.5) for s in ("none", "turn_90")]
    assert every.limited(4).views == [ImageView(s, scale) for scale in (1.0, 1.5) for s in ("none", "turn_90")]
    assert every.limited(3).views == [ImageView("none", 1.0), ImageView("turn_90", 1.0)]
    assert every.limited(1).views == [ImageView("none", 1.0)] and every.limited(1).windows is TILES
