"""Turned crops: against SciPy, exact at right angles, never anything from outside the image where they fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sartorius.data.augmentation import rotation
from sartorius.data.augmentation.layers import LayerTransform
from sartorius.data.augmentation.rotation import RotatedCrop, cut_warped, turned, warp
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.structures.instances import Instances

OPTIONS: dict[str, Any] = {"angle": (-180, 180), "scale": (0.8, 1.25), "mirror": 0.5, "on_cell": 0.0, "fill": 255}


def make_image(height: int = 90, width: int = 130) -> tuple[np.ndarray, np.ndarray]:
    """Smooth grey levels, and two layers: squares of 9 pixels under ids up to 65535, the second one shifted."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=(height, width)), 3)
    image = (128 + 40 * image / image.std()).clip(0, 254).astype(np.uint8)
    row, column = np.arange(height)[:, None] // 9, np.arange(width)[None] // 9
    layer = (65535 - (row * 20 + column)).astype(np.uint16)
    return image, np.stack([layer, np.roll(layer, (4, 5), (0, 1))])


def reference(plane: np.ndarray, matrix: np.ndarray, size: tuple[int, int], order: int) -> np.ndarray:
    """The same by SciPy, whose axes are (row, column)."""
    swapped = matrix[::-1, :2][:, ::-1]
    return ndimage.affine_transform(
        plane.astype(float), swapped, matrix[::-1, 2], output_shape=size, order=order, mode="constant"
    )


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [-137.0, -20.0, 3.0, 45.0, 81.5])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_as_scipy_warps(angle: float, scale: float, mirrored: bool) -> None:
    image, layers = make_image()
    matrix = np.column_stack([turned(angle, mirrored) / scale, [66.3, 47.2]])
    matrix[:, 2] -= matrix[:, :2] @ (14.5, 9.5)
    cut = warp(image, layers, matrix, (20, 30), 255)
    assert cut.area == pytest.approx(scale**2)
    assert np.abs(cut.image - reference(image, matrix, (20, 30), 1)).max() <= 1.5  # OpenCV counts in 32nds of a pixel
    for plane, warped in zip(layers, cut.layers, strict=True):
        wrong = warped != reference(plane, matrix, (20, 30), 0)
        assert wrong.mean() <= 0.01  # ties between two pixels
        assert set(np.unique(warped)) <= set(np.unique(plane))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_right_angles_move_pixels_and_mix_none(quarter: int, mirrored: bool) -> None:
    image, layers = make_image(40, 56)
    size = (40, 56) if quarter % 2 == 0 else (56, 40)
    matrix = turned(90 * quarter, mirrored)
    cut = cut_warped(image, layers, np.random.default_rng(0), matrix, size, on_cell=0.0, fill=255)

    def expected(plane: np.ndarray) -> np.ndarray:
        plane = np.rot90(plane, quarter)  # counter-clockwise
        return plane[:, ::-1] if mirrored else plane

    np.testing.assert_array_equal(cut.image, expected(image))
    np.testing.assert_array_equal(cut.layers, np.stack([expected(plane) for plane in layers]))
    assert cut.area == 1.0


def test_every_place_is_drawn_at_right_angles() -> None:
    image, layers = make_image(12, 15)
    crop = RotatedCrop(height=10, width=12, **OPTIONS | {"angle": (0, 0), "scale": (1, 1), "mirror": 0})
    windows = {image[y : y + 10, x : x + 12].tobytes() for y in range(3) for x in range(4)}
    assert {crop(image, layers, np.random.default_rng(s)).image.tobytes() for s in range(150)} == windows


@settings(max_examples=60)
@example(angle=45.0, height=60, width=60, seed=0, on_cell=1.0)
@example(angle=90.0, height=70, width=90, seed=1, on_cell=0.0)
@given(
    angle=st.floats(-180, 180),
    height=st.integers(1, 72),
    width=st.integers(1, 90),
    seed=st.integers(0, 1000),
    on_cell=st.sampled_from([0.0, 1.0]),
)
def test_nothing_from_outside_the_image_where_the_crop_fits(
    angle: float, height: int, width: int, seed: int, on_cell: float
) -> None:
    image, layers = np.full((90, 130), 50, np.uint8), np.full((1, 90, 130), 7, np.uint16)
    span = np.abs(turned(angle, False)) @ (width - 1, height - 1)
    fits = bool((span / 1.25 <= (129, 89)).all())
    crop = RotatedCrop(height=height, width=width, **OPTIONS | {"angle": (angle, angle), "on_cell": on_cell})
    cut = crop(image, layers, np.random.default_rng(seed))
    assert cut.image.shape == (height, width) and cut.layers.shape == (1, height, width)
    assert 0.8**2 - 1e-9 <= cut.area <= 1.25**2 + 1e-9
    if fits:
        assert (cut.image == 50).all()
        assert (cut.layers == 7).all()


def test_the_scale_is_as_large_as_the_angle_needs() -> None:
    image, layers = make_image(101, 141)
    crop = RotatedCrop(height=81, width=81, **OPTIONS | {"angle": (45, 45)})
    needed = 80 * 2**0.5 / 100
    scales = [crop(image, layers, np.random.default_rng(seed)).area ** 0.5 for seed in range(200)]
    assert needed <= min(scales) < needed + 0.01 and 1.24 < max(scales) <= 1.25
    free = RotatedCrop(height=41, width=41, **OPTIONS | {"angle": (45, 45)})
    assert min(free(image, layers, np.random.default_rng(seed)).area for seed in range(200)) < 0.81**2


@pytest.mark.parametrize("shape", [(20, 30), (1, 1), (70, 10)])
def test_smaller_images_are_seen_whole_with_fill_around(shape: tuple[int, int]) -> None:
    image, layers = np.full(shape, 50, np.uint8), np.full((1, *shape), 7, np.uint16)
    crop = RotatedCrop(height=64, width=64, **OPTIONS | {"angle": (0, 0), "scale": (1, 1)})
    for seed in range(10):
        cut = crop(image, layers, np.random.default_rng(seed))
        assert np.count_nonzero(cut.layers) == min(shape[0], 64) * min(shape[1], 64)
        np.testing.assert_array_equal(cut.image, np.where(cut.layers[0] > 0, 50, 255))


@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0])
def test_a_crop_is_placed_on_a_cell_drawn_evenly(angle: float) -> None:
    layers = np.zeros((2, 200, 300), np.uint16)
    layers[0, 60:120, 60:160], layers[1, 150:153, 220:223] = 1, 65535
    image = np.zeros((200, 300), np.uint8)
    crop = RotatedCrop(height=30, width=40, **OPTIONS | {"angle": (angle, angle), "on_cell": 1.0})
    seen = [set(np.unique(crop(image, layers, np.random.default_rng(s)).layers)) - {0} for s in range(120)]
    assert all(seen)
    assert 30 < sum(65535 in found for found in seen) < 90  # half of them
    empty = crop(image, np.zeros((1, 200, 300), np.uint16), np.random.default_rng(0))
    assert not empty.layers.any()


def test_a_cell_in_a_corner_is_approached() -> None:
    layers = np.zeros((1, 100, 140), np.uint16)
    layers[0, :3, :3] = 1
    image = np.full((100, 140), 50, np.uint8)
    straight, turned_by_45 = (
        RotatedCrop(height=30, width=30, **OPTIONS | {"angle": (a, a), "scale": (1, 1), "on_cell": 1.0})
        for a in (0, 45)
    )
    for seed in range(20):
        assert straight(image, layers, np.random.default_rng(seed)).layers.any()
        cut = turned_by_45(image, layers, np.random.default_rng(seed))
        assert not cut.layers.any() and (cut.image == 50).all()


def squares() -> Instances:
    masks = np.zeros((40, 120, 160), bool)
    for k, mask in enumerate(masks):
        y, x = 4 + 14 * (k // 10), 4 + 15 * (k % 10)
        mask[y : y + 12, x : x + 12] = True
    return Instances.from_masks(masks, np.arange(40) % 3)


def test_in_a_transform_cells_are_those_of_masks_warped_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []

    def recorded(image: Any, layers: Any, matrix: np.ndarray, *rest: Any) -> Any:
        drawn.append(matrix)
        return warp(image, layers, matrix, *rest)

    monkeypatch.setattr(rotation, "warp", recorded)
    image, instances = make_image(120, 160)[0], squares()
    transform = LayerTransform((), RotatedCrop(height=70, width=70, **OPTIONS | {"on_cell": 0.8}), min_visible=0.6)
    for seed in range(5):
        result = transform(image, instances, np.random.default_rng(seed))
        area = 1 / abs(np.linalg.det(drawn[-1][:, :2]))
        for k in range(len(instances)):
            alone = reference(instances.layers[0] == k + 1, drawn[-1], (70, 70), 0) > 0
            share = np.count_nonzero(alone) / (area * 144)
            found = np.flatnonzero(result.kept == k)
            assert len(found) == (share >= 0.6) or abs(share - 0.6) < 0.02
            for place in found:
                cell = (result.instances.layers == place + 1).any(axis=0)
                assert np.count_nonzero(cell != alone) <= 1 + 0.02 * alone.sum()  # ties between two pixels
                rows, columns = np.nonzero(cell)
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert result.instances.boxes[place].tolist() == box
                assert result.instances.areas[place] == len(rows)
                assert result.instances.cell_types[place] == k % 3
        assert 5 < len(result.kept) < 40


def test_the_same_generator_gives_the_same_crop_in_another_process() -> None:
    image, instances = make_image(120, 160)[0], squares()
    transform = LayerTransform((), RotatedCrop(height=50, width=60, **OPTIONS | {"on_cell": 0.5}))
    first = transform(image, instances, np.random.default_rng(3))
    again = pickle.loads(pickle.dumps(transform))(image, instances, np.random.default_rng(3))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances.layers, again.instances.layers)
    assert not np.array_equal(first.image, transform(image, instances, np.random.default_rng(4)).image)


def test_images_larger_than_opencv_warps() -> None:
    image = np.full((33_000, 40), 50, np.uint8)
    layers = np.zeros((1, 33_000, 40), np.uint16)
    layers[0, 32_950:32_960, 10:20] = 9
    crop = RotatedCrop(height=20, width=20, **OPTIONS | {"on_cell": 1.0, "fill": 0})
    cut = crop(image, layers, np.random.default_rng(0))
    assert (cut.image == 50).all() and set(np.unique(cut.layers)) == {0, 9}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"scale": (1.2, 0.8)}, r"scale: expected \[from, to\], in this order"),
        ({"scale": (0, 1)}, "scale: expected factors above 0"),
        ({"angle": (5, -5)}, r"angle: expected \[from, to\], in this order"),
        ({"mirror": 1.1}, "mirror: expected a number from 0 to 1, got 1.1"),
        ({"on_cell": -0.1}, "on_cell: expected a number from 0 to 1, got -0.1"),
        ({"fill": 256}, "fill: expected a number from 0 to 255, got 256"),
        ({"height": 0}, "height: expected a number of at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RotatedCrop(**{"height": 8, "width": 8, **OPTIONS, **bad})


def test_densest_real_image(real_data: Path) -> None:
    competition = Competition(real_data / "sartorius")
    image, instances = competition.image("5d066f4c3eef"), competition.instances("5d066f4c3eef")
    crop = RotatedCrop(height=384, width=384, **OPTIONS | {"on_cell": 0.8, "fill": 0})
    for seed in range(4):
        result = LayerTransform((), crop, min_visible=0.25)(image, instances, np.random.default_rng(seed))
        assert result.image.min() >= image.min()  # no fill
        assert len(result.kept) > 100
        assert (result.instances.areas > 0).all()
