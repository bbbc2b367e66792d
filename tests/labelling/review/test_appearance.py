"""How images look: waves in their bands, brightness, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest

from sartorius.labelling.review.appearance import appearance, standardised


def waves(length: float, height: int = 300, width: int = 420) -> np.ndarray:
    return (128 + 60 * np.sin(2 * np.pi * np.arange(width) / length) + np.zeros((height, 1))).astype(np.uint8)


@pytest.mark.parametrize("length", [4, 9, 20, 50])
def test_a_wave_stands_in_the_band_of_its_length(length: float) -> None:
    spectrum = appearance(waves(length))[16:]
    edges = np.geomspace(1 / 128, 0.5, 13)
    assert int(spectrum.argmax()) == int(np.digitize(1 / length, edges)) - 1


def test_the_histogram_is_of_shares() -> None:
    image = np.zeros((40, 50), np.uint8)
    image[:10] = 255
    found = appearance(image)
    assert found[0] == pytest.approx(np.sqrt(0.75)) and found[15] == pytest.approx(0.5)
    assert found[1:15].tolist() == [0] * 14


def test_the_size_of_an_image_is_no_feature() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(100, 150, (900, 1400)).astype(np.uint8)
    small, large = appearance(noise[:300, :400]), appearance(noise)
    assert np.abs(small - large).max() < 0.35
    louder = appearance(((noise.astype(int) - 125) * 3 + 125).astype(np.uint8))
    assert (louder[16:] - large[16:]).mean() == pytest.approx(np.log(9), abs=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 5), (40, 4000), (257, 256)])
def test_odd_sizes_and_plain_images_are_finite(shape: tuple[int, int]) -> None:
    for image in (np.full(shape, 7, np.uint8), np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)):
        assert appearance(image).shape == (28,) and np.isfinite(appearance(image)).all()


def test_standardised_parts_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(3, 5, size=(2000, 28))
    images[:, 27] = 4.0  # the same in all: no weight
    found = standardised(images)
    assert (found[:, :16] ** 2).sum(axis=1).mean() == pytest.approx(0.5)
    assert (found[:, 16:27] ** 2).sum(axis=1).mean() == pytest.approx(0.5 * 11 / 12) and not found[:, 27].any()
