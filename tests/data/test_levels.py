"""Grey levels: what stays bit for bit, what is standardised, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sartorius.data.levels import LEVELS, Levels, rows_at_once
from sartorius.errors import InputError

# 37 x 51 pixels of mean 128 and deviation 11.6, as those of the competition
GREY = np.random.default_rng(0).normal(128, 11.58, (37, 51)).round().clip(0, 255).astype(np.uint8)
RAMP = np.arange(37 * 51).reshape(37, 51)

FORMS: dict[str, np.ndarray] = {
    "uint8": GREY,
    "uint16 0..255": GREY.astype(np.uint16),
    "int16 0..255": GREY.astype(np.int16),
    "int64 0..255": GREY.astype(np.int64),
    "uint16 times 257": GREY.astype(np.uint16) * 257,
    "uint32 over its range": GREY.astype(np.uint32) * 16_843_009,
    "float32 0..255": GREY.astype(np.float32),
    "float16 k/255": (GREY / 255).astype(np.float16),
    "float32 k/255": (GREY / 255).astype(np.float32),
    "float64 k/255": GREY / 255,
    "RGB": np.stack([GREY] * 3, axis=-1),
    "RGB of 16 bits": np.stack([GREY.astype(np.uint16) * 257] * 3, axis=-1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("levels", ["auto", "exact"])
def test_the_levels_of_the_training_stay_in_every_form(form: str, levels: str) -> None:
    mapping = Levels(levels=levels).mapping([FORMS[form]], "a")
    assert mapping.reason == ""
    np.testing.assert_array_equal(mapping(FORMS[form]), GREY)


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std() * 11.58 + 128


OTHERS: dict[str, tuple[np.ndarray, str]] = {
    "another mean": (GREY - 20, "another mean or deviation"),
    "another deviation": ((GREY.astype(float) - 128).clip(-20, 20).astype(int) * 6 + 128, "another mean or deviation"),
    "16 bits": ((1000 + 30 * RAMP).astype(np.uint16), "uint16"),
    "16 bits, one of them off the steps": ((GREY.astype(np.uint16) * 257) + (RAMP == 5), "uint16"),
    "negative": (RAMP * 5 - 4000, "int64"),
    "float": ((RAMP / 1e4 - 0.05).astype(np.float32), "float32"),
    "8 bits and one pixel more": (GREY.astype(np.uint16) + 200 * (RAMP == 3).astype(np.uint16), "uint16"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_levels_are_standardised(name: str) -> None:
    pixels, reason = OTHERS[name]
    mapping = Levels().mapping([pixels], "a")
    assert mapping.reason == reason
    np.testing.assert_allclose(mapping(pixels), standardised(pixels.astype(float)).clip(0, 255), atol=0.51)


def test_plausible_is_a_matter_of_the_network() -> None:
    bright = Levels(mean=200, std=5)
    assert bright.mapping([GREY], "a").reason == "another mean or deviation"
    np.testing.assert_allclose(
        bright(GREY), standardised(GREY.astype(float)) / 11.58 * 5 + 200 - 128 / 11.58 * 5, atol=0.51
    )
    assert Levels(mean_tolerance=30)(GREY - 20).tolist() == (GREY - 20).tolist()
    assert Levels(std_factor=1.5).mapping([((GREY.astype(int) - 128) * 2 + 128)], "a").reason
    assert not Levels(std_factor=2.5).mapping([((GREY.astype(int) - 128) * 2 + 128)], "a").reason


def test_colours_by_their_luminance() -> None:
    pixels = np.zeros((1, 5, 3), np.uint8)
    pixels[0, [0, 1, 2], [0, 1, 2]] = 250
    pixels[0, 3] = 250
    image = Levels(levels="range")(pixels)
    assert image.tolist() == [[round(0.299 * 255), round(0.587 * 255), round(0.114 * 255), 255, 0]]
    assert Levels().mapping([pixels], "a").reason == "coloured"
    with pytest.raises(InputError, match="a: coloured values from 0 to 250, expected grey levels 0 to 255; leave out"):
        Levels(levels="exact").mapping([pixels], "a")


@pytest.mark.parametrize("pixels", [RAMP, RAMP / 7, -RAMP, RAMP.astype(np.uint16) * 30])
def test_the_range(pixels: np.ndarray) -> None:
    values = (pixels - pixels.min()) * (255 / np.ptp(pixels))
    np.testing.assert_allclose(Levels(levels="range")(pixels), values, atol=0.51)


def test_standardised_images_are_clipped() -> None:
    pixels = np.full((20, 20), 100, np.uint16)
    pixels[0, 0], pixels[0, 1] = 60000, 0
    image = Levels()(pixels)
    assert (image[0, 0], image[5, 5]) == (255, 127)


@pytest.mark.parametrize("levels", ["auto", "range", "standardise"])
def test_an_image_of_one_value(levels: str) -> None:
    for value in (900, 0):
        np.testing.assert_array_equal(Levels(levels=levels)(np.full((4, 5), value, np.uint16)), np.full((4, 5), 128))


@pytest.mark.parametrize("levels", LEVELS)
def test_values_that_are_no_numbers(levels: str) -> None:
    pixels = np.ones((4, 5), np.float32)
    pixels[1, 2], pixels[0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match="b: 2 pixels are NaN or infinite"):
        Levels(levels=levels)(pixels, "b")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_image_in_parts_is_mapped_as_in_one(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr("sartorius.data.levels._BLOCK", 51 * 5)
    pixels = RAMP.astype(kind) if kind is np.float32 else GREY - 30
    rows = rows_at_once(51)
    parts = [pixels[start : start + rows] for start in range(0, 37, rows)]
    assert rows == 5 and Levels().mapping(parts, "a") == Levels().mapping([pixels], "a")
    mapping = Levels().mapping(parts, "a")
    np.testing.assert_array_equal(np.concatenate([mapping(part) for part in parts]), mapping(pixels))
    assert mapping.shift == pytest.approx(pixels.mean()) and mapping.factor == pytest.approx(11.58 / pixels.std())


def test_wrong_settings() -> None:
    with pytest.raises(InputError, match=r"data\.levels: expected one of auto, exact, range, standardise, got 'best'"):
        Levels(levels="best")
    with pytest.raises(InputError, match=r"data\.std_factor"):
        Levels(std_factor=0.5)


def test_all_images_of_the_competition_stay_as_they_are(real_data: Any) -> None:
    from sartorius.data.images import read_grey

    paths = sorted((real_data / "sartorius").glob("t*/*.png"))
    assert len(paths) == 40
    assert [path for path in paths if Levels().mapping([read_grey(path)], path.name).reason] == []
