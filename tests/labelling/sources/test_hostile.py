"""Label files that come from anywhere: nothing in them is executed, and none fills the memory."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sartorius.errors import InputError
from sartorius.labelling.sources.folder import import_folder
from sartorius.structures.safe_pickle import read_npy
from tests.labelling.sources.test_formats import cellpose, drawn, write_image


class Calls:
    """Unpickling it deletes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.remove, (str(self.victim),)


@pytest.mark.parametrize("where", ["masks", "filename", "flows", "outlines"])
def test_a_pickle_calls_nothing(tmp_path: Path, where: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("alive")
    cellpose(tmp_path / "x_seg.npy", drawn(0).layers[0], **{where: [Calls(victim)]})
    with pytest.raises(
        InputError, match=r"x_seg\.npy: refused, it calls posix\.remove; expected a pickle of arrays only"
    ):
        read_npy(tmp_path / "x_seg.npy")
    assert victim.read_text() == "alive"


def test_numpy_files_are_read_as_numpy_does(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array in (np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(12).reshape(3, 4)), np.zeros((0, 3), ">u2")):
        np.save(path, array)
        assert np.array_equal(read_npy(path), array) and read_npy(path).dtype == array.dtype
    masks = drawn(0).layers[0]
    cellpose(path, masks)
    (content,) = read_npy(path)
    assert np.array_equal(content["masks"], masks) and content["filename"].endswith("raw/x.tif")
    assert content["manual_changes"][0][1] == "added mask" and np.isnan(content["diameter"])


def header(shape: tuple[int, ...], descr: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": descr})
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that says this size and has no pixels of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def zip_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tiff_of(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros(shape, np.uint8), compression="zlib", photometric="minisblack")
    return buffer.getvalue()


def polygon(*points: float) -> bytes:
    ring = [[points[k], points[k + 1]] for k in range(0, len(points), 2)]
    feature = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    return json.dumps({"features": [feature]}).encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", header((10**6, 10**6), "<i8"), "it ends within the array"),
        ("x.npy", header((), "|O") + b"\x80\x04.", "not a whole .npy file"),
        ("x.npy", b"\x93NUMPY\x09\x00", "not a whole .npy file"),
        ("x.npy", b"", "not a whole .npy file"),
        ("x.npy", header((2,), "<f4") + bytes(8), r"expected labels \[H, W\]"),
        ("x.png", png_of(90, 61), r"labels of 90x61 pixels, an image of 90x60"),
        ("x.png", png_of(60_000, 60_000), "x.png: not a readable label image"),
        ("x.png", png_of(90, 60), "x.png: not a readable label image"),
        ("x.tif", tiff_of((3000, 60, 90)), None),
        ("x.tif", b"II*\x00\xff\xff\xff\xff", "x.tif: not a readable label image"),
        ("x.tif", b"", "x.tif: not a readable label image"),
        ("x.zip", zip_of("a.roi", bytes(2**28 + 1)), "it unpacks to more than"),
        ("x.zip", zip_of("a.roi", b"Iout" + bytes(60)), "x.zip: ROI .* has no pixels within the image"),
        ("x.zip", b"PK", "x.zip: not a readable ROI zip"),
        ("x.geojson", polygon(1, 1, 1e308, 1, float("nan"), 5, 1, 1), "coordinates that are no numbers"),
        ("x.geojson", b"[" * 100_000, "not valid JSON"),
        ("x.geojson", b'{"image":{"height":60,"width":91},"features":[]}', "of an image of 91x60 pixels, not 90x60"),
        ("x.json", b'{"images":[],"annotations":3}', "no list 'annotations'"),
        ("x.json", b"\xff\xfe", "not valid JSON"),
        ("x.csv", b"id,annotation\n../x,1 2\n", "cannot be an image id"),
        ("x.csv", b"", "the file is empty"),
        ("x.txt", b"1,2,3\n", "line 1: expected x,y,x,y"),
        ("x.docx", b"", "not a label file; expected a name that ends in"),
    ],
)  # fmt: skip
def test_bad_files_end_in_one_line(tmp_path: Path, name: str, content: bytes, message: str | None) -> None:
    write_image(tmp_path / "raw" / "x.tif", drawn(0))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(content)
    if message is None:
        import_folder(tmp_path / "mine", f"{tmp_path}/raw", f"{tmp_path}/out/{name}")
        return
    with pytest.raises(InputError, match=message) as caught:
        import_folder(tmp_path / "mine", f"{tmp_path}/raw", f"{tmp_path}/out/{name}")
    assert "\n" not in str(caught.value) and name in str(caught.value) and not (tmp_path / "mine").exists()
