"""Reading images: headers, grey values, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sartorius.data.image_files import read_header
from sartorius.data.images import LEVELS, ImageFolder, list_images, read_grey
from sartorius.errors import InputError

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_grey_pixels_and_header_come_back(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY)
    assert read_header(path) == (6, 8, "8-bit", "grey")
    np.testing.assert_array_equal(read_grey(path), GREY)
    assert read_grey(path).dtype == np.uint8


@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_are_grey_where_accepted(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "a.png", np.stack([GREY] * 3 + [np.full_like(GREY, 255)] * (channels - 3), axis=-1))
    np.testing.assert_array_equal(read_grey(path, accept_rgb=True), GREY)
    with pytest.raises(InputError, match=r"a\.png: an image of kind 8-bit RGB.*; expected 8-bit grey"):
        read_grey(path)


def test_coloured_image_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.stack([GREY, GREY, 255 - GREY], axis=-1))
    with pytest.raises(InputError, match="coloured image.*convert"):
        read_grey(path, accept_rgb=True)


def test_16_bit_is_refused_everywhere(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 200)
    for accept_rgb in (False, True):
        with pytest.raises(InputError, match="kind 16-bit grey; expected 8-bit grey"):
            read_grey(path, accept_rgb)


def test_the_remedy_is_offered_where_it_exists(tmp_path: Path) -> None:
    for path in (save(tmp_path / "a.png", GREY.astype(np.uint16)), save(tmp_path / "b.tif", GREY.astype(np.float32))):
        with pytest.raises(
            InputError, match="kind (16-bit|32-bit float) grey.*or have it converted: data.levels=standardise"
        ):
            read_grey(path, accept_rgb=True)
    with pytest.raises(InputError, match="expected one of exact, range, standardise"):
        read_grey(tmp_path / "a.png", levels="percentiles")


RAMP = np.arange(37 * 51).reshape(37, 51)
DEEP = {
    "8-bit": (RAMP // 8).astype(np.uint8),
    "16-bit": (1000 + 30 * RAMP).astype(np.uint16),
    "32-bit": (RAMP * 5 - 4000).astype(np.int32),
    "float": (RAMP / 1e4 - 0.05).astype(np.float32),
    "RGB": np.stack([RAMP // 8] * 3, axis=-1).astype(np.uint8),
}


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, "tif") for name in DEEP), ("8-bit", "png"), ("16-bit", "png"), ("RGB", "png")]
)
def test_any_depth_is_scaled_where_asked_for(tmp_path: Path, name: str, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", DEEP[name])
    image = read_grey(path, levels="standardise")
    assert (image.dtype, image.shape) == (np.uint8, (37, 51))
    assert (image.mean(), image.std()) == (pytest.approx(128, abs=0.1), pytest.approx(11.58, abs=0.1))
    image = read_grey(path, levels="range")
    assert (image.min(), image.max()) == (0, 255)
    ramp = RAMP // 8 if name in ("8-bit", "RGB") else RAMP
    np.testing.assert_allclose(image, ramp * (255 / ramp.max()), atol=0.51)  # rounded


def test_standardised_images_are_clipped(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 100, np.uint16)
    pixels[0, 0], pixels[0, 1] = 60000, 0
    image = read_grey(save(tmp_path / "a.png", pixels), levels="standardise")
    assert (image[0, 0], image[5, 5]) == (255, 127)


def test_colour_by_luminance(tmp_path: Path) -> None:
    pixels = np.zeros((1, 5, 3), np.uint8)
    pixels[0, [0, 1, 2], [0, 1, 2]] = 250
    pixels[0, 3] = 250
    image = read_grey(save(tmp_path / "a.png", pixels), levels="range")
    assert image.tolist() == [[round(0.299 * 255), round(0.587 * 255), round(0.114 * 255), 255, 0]]


@pytest.mark.parametrize("levels", ["range", "standardise"])
def test_a_image_of_one_value(tmp_path: Path, levels: str) -> None:
    path = save(tmp_path / "a.tif", np.full((4, 5), 900, np.uint16))
    np.testing.assert_array_equal(read_grey(path, levels=levels), np.full((4, 5), 128))


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    pixels = np.ones((4, 5), np.float32)
    pixels[1, 2], pixels[0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"a\.tif: 2 pixels are NaN or infinite"):
        read_grey(save(tmp_path / "a.tif", pixels), levels="range")


@pytest.mark.parametrize("levels", ["exact", "standardise"])
def test_several_pages_are_refused(tmp_path: Path, levels: str) -> None:
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(InputError, match=r"a\.tif: 3 pages; expected one image a file"):
        read_grey(tmp_path / "a.tif", accept_rgb=True, levels=levels)
    page.save(tmp_path / "b.tif", save_all=True)
    np.testing.assert_array_equal(read_grey(tmp_path / "b.tif"), GREY)


def test_16_bit_channels_of_a_png_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.stack([GREY.astype(np.uint16) * 200] * 3, axis=-1))
    for levels in LEVELS:
        with pytest.raises(InputError, match="16 bits in each of several channels"):
            read_grey(tmp_path / "a.png", accept_rgb=True, levels=levels)


@pytest.mark.parametrize("mode", ["1", "LA", "P"])
def test_other_modes_of_grey_images(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png", accept_rgb=True), expected)
    if mode != "1":
        np.testing.assert_array_equal(expected, GREY)


@pytest.mark.parametrize("shape", [(1, 1), (37, 51), (1, 9)])
def test_any_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.arange(shape[0] * shape[1]).reshape(shape).astype(np.uint8)
    np.testing.assert_array_equal(read_grey(save(tmp_path / "a.tif", pixels)), pixels)


def test_missing_foreign_and_cut_off_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such image"):
        read_header(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="not a readable image"):
        read_grey(tmp_path / "text.png")
    whole = save(
        tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    ).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.png: cut off or damaged"):
        read_grey(tmp_path / "cut.png")


def test_listing_is_sorted_and_leaves_other_files_out(tmp_path: Path) -> None:
    for name in ("b.png", "a.tif", ".hidden.png"):
        save(tmp_path / name, GREY)
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in list_images(tmp_path)] == ["a.tif", "b.png"]
    save(tmp_path / "a.png", GREY)
    with pytest.raises(InputError, match="same id 'a'"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        list_images(tmp_path / "none")


def test_an_image_too_large_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    path = save(tmp_path / "a.png", GREY)
    monkeypatch.setattr("sartorius.data.images._to_levels", starve)
    with pytest.raises(
        InputError, match=r"a\.png: too large for the memory \(Unable to allocate 9 GiB\); cut the image"
    ):
        read_grey(path, levels="range")


def test_images_of_sub_folders_are_missed(tmp_path: Path) -> None:
    """A folder may be called like an image; one without images is nothing to tell of."""
    for name in ("plate/well", "x.png", ".cache", "notes", "z.tif"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("plate/well/b.jpg", "x.png/a.png", ".cache/a.png"):
        save(tmp_path / name, GREY)
    (tmp_path / "notes" / "a.txt").write_text("")
    remedy = r"sub-folders \(plate, x\.png\).*; give one of them, or move the images up"
    with pytest.raises(InputError, match=rf"{tmp_path}: no images in it, only in its {remedy}"):
        list_images(tmp_path)
    save(tmp_path / "a.png", GREY)
    with pytest.warns(UserWarning, match=f"{tmp_path}: the images of its {remedy}"):
        assert list_images(tmp_path) == [tmp_path / "a.png"]
    assert list_images(tmp_path / "x.png") == [tmp_path / "x.png" / "a.png"]
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(match="left out"), pytest.raises(InputError, match=r"dangling\.png: no such image"):
        read_grey(list_images(tmp_path)[1])


def test_folder_as_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in it"):
        ImageFolder(tmp_path)
    save(tmp_path / "b.png", GREY)
    save(tmp_path / "a.png", GREY.T.copy())
    source = ImageFolder(tmp_path)
    assert source.ids == ("a", "b")
    np.testing.assert_array_equal(source.image("a"), GREY.T)
    assert len(source.instances("a")) == 0
    assert source.instances("a").layers.shape == (1, 8, 6)
