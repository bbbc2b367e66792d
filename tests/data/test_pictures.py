"""Reading pictures: headers, grey values, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartorius.data.pictures import PictureFolder, list_pictures, read_grey, read_header
from sartorius.errors import InputError

GREY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_grey_pixels_and_header_come_back(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY)
    assert read_header(path) == (6, 8, "L")
    np.testing.assert_array_equal(read_grey(path), GREY)
    assert read_grey(path).dtype == np.uint8


@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_are_grey_where_accepted(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "a.png", np.stack([GREY] * 3 + [np.full_like(GREY, 255)] * (channels - 3), axis=-1))
    np.testing.assert_array_equal(read_grey(path, accept_rgb=True), GREY)
    with pytest.raises(InputError, match=r"a\.png: a picture of mode 'RGBA?'; expected 8-bit grey"):
        read_grey(path)


def test_coloured_picture_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.stack([GREY, GREY, 255 - GREY], axis=-1))
    with pytest.raises(InputError, match="coloured picture.*convert"):
        read_grey(path, accept_rgb=True)


def test_16_bit_is_refused_everywhere(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 200)
    for accept_rgb in (False, True):
        with pytest.raises(InputError, match="mode 'I;16'.*expected 8-bit grey"):
            read_grey(path, accept_rgb)


def test_missing_foreign_and_cut_off_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such picture"):
        read_header(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="not a readable picture"):
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
    assert [path.name for path in list_pictures(tmp_path)] == ["a.tif", "b.png"]
    save(tmp_path / "a.png", GREY)
    with pytest.raises(InputError, match="same id 'a'"):
        list_pictures(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        list_pictures(tmp_path / "none")


def test_folder_as_a_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures in it"):
        PictureFolder(tmp_path)
    save(tmp_path / "b.png", GREY)
    save(tmp_path / "a.png", GREY.T.copy())
    source = PictureFolder(tmp_path)
    assert source.ids == ("a", "b")
    np.testing.assert_array_equal(source.image("a"), GREY.T)
    assert len(source.instances("a")) == 0
    assert source.instances("a").layers.shape == (1, 8, 6)
