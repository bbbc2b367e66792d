"""Reading images: headers, grey values, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartorius.data.image_files import read_header
from sartorius.data.images import list_images, read_grey
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


@pytest.mark.parametrize("pixels", [np.stack([GREY] * 3, axis=-1), GREY.astype(np.uint16), GREY.astype(np.float32)])
def test_anything_but_8_bit_grey_is_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    path = save(tmp_path / ("a.tif" if pixels.dtype.kind == "f" else "a.png"), pixels)
    with pytest.raises(InputError, match=r"a\.(png|tif): an image of kind .*; expected 8-bit grey; convert it"):
        read_grey(path)


@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_are_grey_where_accepted(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "a.png", np.stack([GREY] * 3 + [np.full_like(GREY, 255)] * (channels - 3), axis=-1))
    np.testing.assert_array_equal(read_grey(path, accept_rgb=True), GREY)
    save(path, np.stack([GREY, GREY, 255 - GREY], axis=-1))
    with pytest.raises(InputError, match="coloured image.*convert"):
        read_grey(path, accept_rgb=True)


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
    monkeypatch.setattr("sartorius.data.images.decode", starve)
    with pytest.raises(
        InputError, match=r"a\.png: too large for the memory \(Unable to allocate 9 GiB\); cut the image"
    ):
        read_grey(path)


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
