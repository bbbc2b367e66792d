"""Short edges from a list, and slices enlarged: sizes, ids, areas; windows of the grid and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize as skimage_resize

from sartorius.data.augmentation.crops import SliceCrop, resized
from sartorius.data.augmentation.layers import LayerTransform
from sartorius.data.augmentation.scales import ShortEdgeCrop
from sartorius.errors import InputError
from sartorius.structures.instances import Instances
from sartorius.structures.windows import tiles

EDGES: dict[str, Any] = {"short_edges": [40, 60, 80], "max_size": 110, "on_cell": 0.0, "fill": 255}


def make_image(height: int = 60, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and two layers in which each pixel is its own cell."""
    image = np.random.default_rng(0).integers(0, 255, (height, width)).astype(np.uint8)
    layers = (np.arange(height * width) + 65536 - height * width).astype(np.uint16).reshape(1, height, width)
    return image, np.concatenate([layers, layers[:, ::-1]])


@pytest.mark.parametrize("size", [(120, 180), (60, 90), (76, 98), (30, 45), (44, 68), (1, 1)])
def test_ids_are_those_of_the_nearest_pixel_centre(size: tuple[int, int]) -> None:
    image, layers = make_image()
    cut = resized(image, layers, *size)
    rows, columns = (
        np.floor((np.arange(new) + 0.5) * (old / new)).astype(int) for new, old in zip(size, (60, 90), strict=True)
    )
    np.testing.assert_array_equal(cut.layers, layers[:, rows][:, :, columns])
    assert cut.layers.dtype == np.uint16 and cut.image.dtype == np.uint8
    assert cut.image.shape == size
    assert cut.area == size[0] * size[1] / (60 * 90)


def test_grey_levels_are_interpolated_at_pixel_centres() -> None:
    image, layers = make_image()
    expected = skimage_resize(image.astype(float), (120, 180), order=1, mode="edge", anti_aliasing=False)
    assert np.abs(resized(image, layers, 120, 180).image - expected).max() <= 1
    means = image.reshape(30, 2, 45, 2).mean(axis=(1, 3))
    assert np.abs(resized(image, layers, 30, 45).image - means).max() <= 0.5


def test_short_edges_are_drawn_evenly_and_the_long_edge_is_bounded() -> None:
    image, layers = make_image()
    crop = ShortEdgeCrop(height=None, width=None, **EDGES)
    sizes = [crop(image, layers, np.random.default_rng(seed)).image.shape for seed in range(90)]
    limited = (round(60 * 110 / 90), 110)  # 80 x 120 would be longer than 110
    assert set(sizes) == {(40, 60), (60, 90), limited}
    assert min(sizes.count(size) for size in set(sizes)) > 15


@pytest.mark.parametrize("on_cell", [0.0, 1.0])
def test_crops_of_one_size_whatever_the_scale(on_cell: float) -> None:
    image, layers = np.full((60, 90), 50, np.uint8), np.full((1, 60, 90), 3, np.uint16)
    crop = ShortEdgeCrop(height=32, width=36, **EDGES | {"on_cell": on_cell})
    cuts = [crop(image, layers, np.random.default_rng(seed)) for seed in range(40)]
    assert {cut.image.shape for cut in cuts} == {(32, 36)}
    assert all((cut.image == 50).all() and (cut.layers == 3).all() for cut in cuts)
    assert {round(cut.area**0.5, 6) for cut in cuts} == {round(s, 6) for s in (40 / 60, 1, 110 / 90)}
    padded = ShortEdgeCrop(height=128, width=128, **EDGES)(image, layers, np.random.default_rng(0))
    covered = padded.layers[0] > 0
    inside, outside = (ndimage.binary_erosion(part, np.ones((3, 3))) for part in (covered, ~covered))
    assert (padded.image[inside] == 50).all() and (padded.image[outside] == 255).all()
    assert inside.any() and outside.any()


def test_visible_share_is_of_the_scaled_area() -> None:
    masks = np.zeros((1, 60, 90), bool)
    masks[0, 25:35, 40:50] = True
    instances = Instances.from_masks(masks, [1])
    for edge in (30, 120):
        crop = ShortEdgeCrop(height=None, width=None, **EDGES | {"short_edges": [edge], "max_size": 180})
        transform = LayerTransform((), crop, min_visible=1.0)
        result = transform(np.zeros((60, 90), np.uint8), instances, np.random.default_rng(0))
        assert result.kept.tolist() == [0]
        assert result.instances.areas.tolist() == [100 * (edge / 60) ** 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"short_edges": []}, "expected at least one"),
        ({"short_edges": [0]}, "of 1 px"),
        ({"max_size": 79}, "max_size=79"),
        ({"height": None}, "give both"),
        ({"on_cell": 2}, "on_cell: expected a number from 0 to 1, got 2"),
    ],
)
def test_short_edges_that_cannot_be(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShortEdgeCrop(**{"height": 8, "width": 8, **EDGES, **bad})


def test_slices_are_windows_of_the_grid_enlarged() -> None:
    image, layers = make_image()
    crop = SliceCrop(height=32, width=40, overlap=8, factor=2.0)
    windows = {layers[0, window.top, window.left]: window for window in crop.windows(60, 90)}
    assert [(w.top, w.left) for w in windows.values()] == [(t, x) for t in (0, 24, 28) for x in (0, 32, 50)]
    seen = set()
    for seed in range(120):
        cut = crop(image, layers, np.random.default_rng(seed))
        window = windows[cut.layers[0, 0, 0]]
        seen.add(window)
        expected = layers[:, window.rows, window.columns].repeat(2, axis=1).repeat(2, axis=2)
        np.testing.assert_array_equal(cut.layers, expected)
        assert cut.image.shape == (64, 80) and cut.area == 4.0
    assert seen == set(windows.values())


@pytest.mark.parametrize("shape", [(70, 90), (20, 100), (16, 16), (1, 1)])
def test_square_slices_are_tiles(shape: tuple[int, int]) -> None:
    assert SliceCrop(height=32, width=32, overlap=8, factor=1.5).windows(*shape) == tiles(*shape, 32, 8)


def test_slices_of_smaller_images_and_odd_factors() -> None:
    image, layers = make_image(20, 90)
    cut = SliceCrop(height=33, width=33, overlap=8, factor=1.5)(image, layers, np.random.default_rng(0))
    assert cut.image.shape == cut.layers.shape[1:] == (50, 50)  # 49.5, to the even one
    assert cut.layers[:, :30].all() and not cut.layers[:, 31:].any()
    same = SliceCrop(height=20, width=90, overlap=0, factor=1.0)(image, layers, np.random.default_rng(0))
    np.testing.assert_array_equal(same.image, image)
    np.testing.assert_array_equal(same.layers, layers)


def test_slices_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"transform\.crop\.factor: expected a number of at least 1, got 0\.5"):
        SliceCrop(height=8, width=8, overlap=2, factor=0.5)
    with pytest.raises(InputError, match="tiles of 8 px that share 8 px"):
        SliceCrop(height=16, width=8, overlap=8, factor=2)
