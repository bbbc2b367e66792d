"""Dense maps of windows: as without windows where the margin covers the receptive field; exact where windows agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sartorius.errors import InputError
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.tta import Augmented
from sartorius.inference.windows import FiveCrops, Tiles, Whole, Windows
from sartorius.structures.arrays import GreyImage
from sartorius.structures.blocks import Blocks
from sartorius.structures.detections import Detections
from sartorius.structures.large_image import LargeImage
from sartorius.structures.windows import Window

OPTIONS = {"batch": 3, "join_iou": 0.5}
WINDOWS = {
    "tiles": Tiles(32, 12, margin=4, **OPTIONS),
    "no margin to spare": Tiles(24, 9, margin=4, **OPTIONS),
    "five crops": FiveCrops(40, 44, margin=4, **OPTIONS),
}


def make_image(height: int = 61, width: int = 75, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(0, 256, (1, height, width), generator=torch.Generator().manual_seed(0)).to(dtype)


def whole_numbers(crops: Tensor) -> Tensor:
    """A network of receptive field radius 4 whose sums of whole numbers are exact in any order."""
    kernel = torch.randint(-3, 4, (2, 1, 5, 5), generator=torch.Generator().manual_seed(1)).float()
    hidden = F.conv2d(crops.float(), kernel, padding=2).clamp(min=0)
    return F.conv2d(hidden, torch.ones(3, 2, 5, 5), padding=2)


@pytest.mark.parametrize("name", WINDOWS)
def test_maps_are_those_of_the_whole_image(name: str) -> None:
    image = make_image()
    expected = whole_numbers(image[None])[0]
    assert torch.equal(WINDOWS[name].maps(whole_numbers, image), expected)
    assert torch.equal(Whole().maps(whole_numbers, image), expected)


@pytest.mark.parametrize("name", WINDOWS)
def test_maps_of_a_float_network(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 2, 5, padding=2)).requires_grad_(
        False
    )
    image = make_image(dtype=torch.float32) / 255
    torch.testing.assert_close(WINDOWS[name].maps(network, image), network(image[None])[0], rtol=0, atol=1e-6)


def test_a_margin_below_the_receptive_field_shows() -> None:
    image = make_image()
    found = Tiles(32, 12, margin=2, **OPTIONS).maps(whole_numbers, image)
    assert not torch.equal(found, whole_numbers(image[None])[0])


@pytest.mark.parametrize("shape", [(20, 90), (90, 20), (7, 5), (1, 1), (32, 32), (33, 32)])
def test_images_smaller_than_a_tile_in_a_dimension(shape: tuple[int, int]) -> None:
    image = make_image(*shape)
    assert torch.equal(WINDOWS["tiles"].maps(whole_numbers, image), whole_numbers(image[None])[0])


def test_weights_rise_over_what_is_left_of_the_overlap() -> None:
    """Two tiles that say 0 and 1: the share of the second rises evenly between the margins."""
    seen = []

    def numbered(crops: Tensor) -> Tensor:
        seen.extend(crops)
        return torch.full(crops.shape, float(len(seen) - 1))

    row = Tiles(10, 6, margin=1, batch=1, join_iou=0.5).maps(numbered, torch.zeros(1, 10, 14))[0, 0]
    left = [0.0] * (4 + 1)  # columns that only the first sees, and the second's margin
    rising = [k / 5 for k in range(1, 5)]  # 6 - 2 * 1 columns
    assert row.tolist() == pytest.approx(left + rising + [1.0] * (4 + 1), abs=1e-6)


def test_as_many_windows_at_once_as_asked_for() -> None:
    sizes: list[tuple[int, ...]] = []

    def recording(crops: Tensor) -> Tensor:
        sizes.append(tuple(crops.shape))
        return crops

    WINDOWS["tiles"].maps(recording, make_image(32, 32 + 6 * 20).float())  # 7 tiles
    assert sizes == [(3, 1, 32, 32), (3, 1, 32, 32), (1, 1, 32, 32)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_equal_values_stay_equal_in_any_dtype(dtype: torch.dtype) -> None:
    image = torch.rand((1, 61, 75), generator=torch.Generator().manual_seed(2)).to(dtype)
    found = WINDOWS["tiles"].maps(lambda crops: crops, image)
    assert found.dtype == dtype
    assert torch.equal(found, image)


@pytest.mark.parametrize("windows", [*WINDOWS.values(), Whole(), Enlarged(windows=WINDOWS["tiles"], factor=2.0)])
@pytest.mark.parametrize("region", [Window(0, 0, 9, 30), Window(17, 20, 44, 31), Window(60, 74, 1, 1)])
def test_maps_of_a_region_are_those_of_the_image(windows: Windows, region: Window) -> None:
    torch.manual_seed(0)
    network, image = nn.Conv2d(1, 3, 5, padding=2).requires_grad_(False), make_image(dtype=torch.float32)
    found = windows.maps(network, image, None, region)
    assert torch.equal(found, windows.maps(network, image)[:, region.rows, region.columns])


def test_tiles_read_no_more_of_a_large_image_than_windows() -> None:
    image, sizes = make_image(), []

    def read(rows: slice, columns: slice) -> GreyImage:
        sizes.append((rows.stop - rows.start, columns.stop - columns.start))
        return image[0].numpy()[rows, columns]

    large = LargeImage(*image.shape[-2:], read, by=Blocks(1, 40, 8))
    assert torch.equal(WINDOWS["tiles"].maps(whole_numbers, large), WINDOWS["tiles"].maps(whole_numbers, image))
    assert set(sizes) == {(32, 32)}


@pytest.mark.parametrize("windows", [Whole(), Augmented(symmetries=["none", "left_right"], scales=[1.0], fuse=None)])
def test_a_large_image_is_refused_where_all_of_it_would_be_read(windows: Windows) -> None:
    large = LargeImage(30_000, 20_000, lambda rows, columns: np.zeros((1, 1), np.uint8), by=Blocks(1, 40, 8))
    with pytest.raises(InputError, match="needs the whole image in memory, and one of 30000 x 20000 px"):
        windows.maps(whole_numbers, large)
    with pytest.raises(InputError, match="is read by regions; give "):
        windows.detect(lambda crop: Detections.empty("p", 1, 1), large, "p")


def test_what_a_margin_holds_does_not_matter() -> None:
    def broken_at_edges(crops: Tensor) -> Tensor:
        result = F.pad(crops.float()[..., 4:-4, 4:-4], (4, 4, 4, 4), value=torch.nan)
        return result

    found = WINDOWS["tiles"].maps(broken_at_edges, make_image())
    assert torch.isfinite(found[:, 4:-4, 4:-4]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_maps_stay_on_the_device() -> None:
    image = make_image().cuda()
    found = WINDOWS["tiles"].maps(lambda crops: crops.float(), image)
    assert found.device == image.device and torch.equal(found, image.float())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Tiles(32, 32, margin=4, **OPTIONS), "tiles of 32 px that share 32 px"),
        (lambda: Tiles(32, -1, margin=0, **OPTIONS), "tiles of 32 px that share -1 px"),
        (lambda: Tiles(32, 8, margin=4, **OPTIONS), "leave pixels uncovered; give overlap=9 or more"),
        (lambda: Tiles(32, 8, margin=-1, **OPTIONS), "inference.margin: .* at least 0, got -1"),
        (
            lambda: Tiles(32, 8, margin=1, batch=0, join_iou=0.5),
            "inference.batch: .* at least 1, got 0",
        ),
        (
            lambda: Tiles(32, 8, margin=1, batch=1, join_iou=0.0),
            "inference.join_iou: .* above 0, up to 1, got 0.0",
        ),
        (lambda: FiveCrops(0, 8, margin=1, **OPTIONS), "crops of 0 x 8 px"),
        (lambda: FiveCrops(30, 8, margin=-1, **OPTIONS), "inference.margin: .* at least 0, got -1"),
    ],
)
def test_windows_that_cannot_be(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_five_crops_that_do_not_cover() -> None:
    image = make_image(60, 75)
    message = (
        "five crops of 34 x 44 px .* margin of 4 px do not cover an image of 60 x 75 px; the smallest .* 35 x 42 px"
    )
    with pytest.raises(InputError, match=message):
        FiveCrops(34, 44, margin=4, **OPTIONS).maps(whole_numbers, image)
    smallest = FiveCrops(35, 42, margin=4, **OPTIONS)
    assert torch.equal(smallest.maps(whole_numbers, image), whole_numbers(image[None])[0])
