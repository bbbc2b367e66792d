"""Training crops are windows of inference; smaller images are mirrored, their cells are not."""

from __future__ import annotations

from collections.abc import Callable

import albumentations as A
import numpy as np
import pytest

from sartorius.data.augmentation.crops import FiveCrop, TileCrop, pixel_of_a_cell
from sartorius.data.augmentation.layers import LayerTransform
from sartorius.errors import InputError
from sartorius.structures.instances import Instances
from sartorius.structures.windows import five_crops, tiles


def places(height: int = 90, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """An image that tells rows from columns, and layers whose ids say where each pixel was."""
    image = (np.arange(height)[:, None] * 2 + np.arange(width) % 2).astype(np.uint8)
    layers = np.arange(1, height * width + 1).astype(np.uint16).reshape(1, height, width)
    return image, np.concatenate([layers, layers[:, ::-1]])


def drawn(crop: Callable, image: np.ndarray, layers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    cuts = [crop(image, layers, np.random.default_rng(seed)) for seed in range(60)]
    assert {cut.area for cut in cuts} == {1.0}
    return [(cut.image, cut.layers) for cut in cuts]


@pytest.mark.parametrize(
    ("crop", "windows"),
    [(TileCrop(40, 12), tiles(90, 120, 40, 12)), (FiveCrop(50, 64), five_crops(90, 120, 50, 64))],
)
def test_every_window_is_drawn_and_nothing_else(crop: Callable, windows: list) -> None:
    image, layers = places()
    expected = {layers[0, window.top, window.left]: window for window in windows}
    seen = set()
    for cut, planes in drawn(crop, image, layers):
        window = expected[planes[0, 0, 0]]
        seen.add(window)
        np.testing.assert_array_equal(cut, image[window.rows, window.columns])
        np.testing.assert_array_equal(planes, layers[:, window.rows, window.columns])
    assert seen == set(windows)


@pytest.mark.parametrize("crop", [TileCrop(64, 8), FiveCrop(64, 64)])
@pytest.mark.parametrize("shape", [(50, 100), (100, 50), (20, 15), (1, 1), (3, 64)])
def test_smaller_images_are_mirrored_without_their_cells(crop: Callable, shape: tuple[int, int]) -> None:
    image, layers = places(*shape)
    for cut, planes in drawn(crop, image, layers)[:5]:
        assert cut.shape == (64, 64) and planes.shape == (2, 64, 64)
        height, width = min(shape[0], 64), min(shape[1], 64)
        assert planes[:, :height, :width].all()
        assert not planes[:, height:].any() and not planes[:, :, width:].any()
        period = max(2 * (height - 1), 1)
        for row in range(64):  # 0 1 2 1 0 1 2 ...
            at = row % period
            np.testing.assert_array_equal(cut[row], cut[min(at, period - at) if height > 1 else 0])


def test_pixels_are_drawn_evenly_among_cells_whatever_their_size() -> None:
    layers = np.zeros((2, 20, 30), np.uint16)
    layers[0, 3:15, 4:20], layers[1, 10, 7] = 2, 65535
    drawn = [pixel_of_a_cell(layers, np.random.default_rng(seed)) for seed in range(200)]
    assert 70 < sum(pixel == (10, 7) for pixel in drawn) < 130  # half of them, four deviations either way
    assert all(layers[:, row, column].any() for row, column in drawn)  # type: ignore[misc]
    assert pixel_of_a_cell(np.zeros((2, 3, 4), np.uint16), np.random.default_rng(0)) is None


def test_in_a_transform() -> None:
    masks = np.zeros((2, 90, 120), bool)
    masks[0, 2:12, 2:12] = masks[1, 70:80, 100:110] = True
    instances = Instances.from_masks(masks, [0, 1])
    transform = LayerTransform([A.D4(p=1.0)], TileCrop(64, 16), min_visible=0.5)
    results = [transform(np.zeros((90, 120), np.uint8), instances, np.random.default_rng(s)) for s in range(20)]
    assert all(result.image.shape == result.instances.layers.shape[1:] == (64, 64) for result in results)
    assert {tuple(result.kept.tolist()) for result in results} >= {(), (0,), (1,)}
    again = transform(np.zeros((90, 120), np.uint8), instances, np.random.default_rng(7))
    np.testing.assert_array_equal(again.instances.layers, results[7].instances.layers)


def test_crops_that_cannot_be() -> None:
    with pytest.raises(InputError, match="tiles of 8 px that share 8 px"):
        TileCrop(8, 8)
    with pytest.raises(InputError, match="crops of 8 x 0 px"):
        FiveCrop(8, 0)
