"""Which files a person means, and their ids."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartorius.data.files.listing import list_files
from sartorius.errors import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "sub/inner.png", "sub/deep/b.TIF", "sub/c.ome.tif", ".hidden/d.png", "sub/.e.png"):
        path = tmp_path / "plate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(path)
    (tmp_path / "plate" / "notes.txt").write_text("")
    return tmp_path / "plate"


ALL = ["a", "sub__c", "sub__deep__b", "sub__inner"]


def test_a_folder_with_its_sub_folders(folder: Path) -> None:
    found = list_files(str(folder))
    assert list(found) == ALL and found["sub__deep__b"] == folder / "sub" / "deep" / "b.TIF"


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*.png", ["a"]),
        ("**/*.png", ["a", "sub__inner"]),
        ("sub/*", ["c", "inner"]),
        ("s*/inner.png", ["sub__inner"]),
        ("sub/in[n]er.png", ["inner"]),
    ],
)
def test_a_glob_counts_from_its_fixed_part(folder: Path, pattern: str, ids: list[str]) -> None:
    assert list(list_files(f"{folder}/{pattern}")) == ids


def test_a_list_counts_from_the_common_folder(folder: Path) -> None:
    one, two = str(folder / "sub" / "inner.png"), str(folder / "a.png")
    assert list(list_files([one])) == ["inner"] == list(list_files(one))
    assert list(list_files([one, two])) == ["a", "sub__inner"]
    assert list(list_files([str(folder / "sub"), two, two])) == ALL


def test_a_name_with_brackets_is_a_file_first(folder: Path) -> None:
    (folder / "a.png").rename(folder / "a[1].png")
    assert list(list_files(str(folder / "a[1].png"))) == ["a[1]"]


def test_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for images, message in (
        (str(tmp_path / "nowhere"), "nowhere: no such file or folder of images"),
        (f"{folder}/*.bmp", "no file has such a name"),
        (str(tmp_path / "empty"), "empty: no images in it; expected files ending in .png, .tif"),
        ([], "images: an empty list"),
    ):
        with pytest.raises(InputError, match=message):
            list_files(images)


def test_two_files_of_one_id(folder: Path) -> None:
    Image.fromarray(GREY).save(folder / "a.bmp")
    Image.fromarray(GREY).save(folder / "sub__inner.png")
    with pytest.raises(InputError, match=r"a\.bmp and .*a\.png have the same id 'a'; rename one; .*'sub__inner'"):
        list_files(str(folder))


def test_files_that_are_not_read_do_not_vanish(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x.czi", "sub/y.webp", "z.gif"):
        (folder / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert list(list_files(str(folder))) == ALL
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("left out, of formats that are not read: 3 files (")
    assert all(name in line for name in ("x.czi", "y.webp", "z.gif", "sartorius[formats]"))
    with pytest.raises(InputError, match=r"no images in it.*; of formats that are not read: .*x\.czi"):
        list_files(f"{folder}/*.[cg]*i*")


def test_results_are_no_images(folder: Path) -> None:
    (folder / "out" / "overlays").mkdir(parents=True)
    Image.fromarray(GREY).save(folder / "out" / "overlays" / "a.png")
    assert list(list_files(str(folder), folder / "out")) == ALL
    assert list(list_files(str(folder))) == ["a", "out__overlays__a", *ALL[1:]]
    (folder / "out" / "detections").mkdir()
    (folder / "out" / "detections" / "meta.json").write_text("{}")
    assert list(list_files(str(folder))) == ALL, "of an earlier run"


def test_a_link_to_a_folder_is_followed_once(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "zlink").symlink_to(folder / "sub")
    assert list(list_files(str(folder))) == ALL
