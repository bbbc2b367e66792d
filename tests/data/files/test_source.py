"""Images of any files: ten kinds of one image, stacks, channels and pixel sizes."""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sartorius.data.image_files import decode, read_header
from sartorius.errors import InputError
from tests.data.files.reading import read, source

GREY = np.random.default_rng(0).normal(128, 11.58, (40, 56)).round().clip(0, 255).astype(np.uint8)
RGB = np.stack([GREY] * 3, axis=-1)
UM = {"PhysicalSizeX": 0.65, "PhysicalSizeXUnit": "\u00b5m", "PhysicalSizeY": 0.65, "PhysicalSizeYUnit": "\u00b5m"}


def save_zarr(folder: Path, pixels: np.ndarray, axes: str, zarr_format: int = 2, **scale: Any) -> Path:
    """An OME-Zarr image of one resolution, as NGFF 0.4 or 0.5 has it."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder), mode="w", zarr_format=zarr_format)
    chunks = tuple(min(16, length) for length in pixels.shape)
    group.create_array("0", shape=pixels.shape, chunks=chunks, dtype=pixels.dtype)[:] = pixels
    kinds = {"t": "time", "c": "channel"}
    names = [{"name": scale.get(axis, axis), "type": kinds.get(axis, "space")} for axis in axes]
    for axis in names:
        if axis["type"] == "space" and "size" in scale:
            axis["unit"] = "micrometer"
    sizes = [scale.get("size", 1.0) if axis in "yx" else 1.0 for axis in axes]
    data = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": sizes}]}
    multiscales = [{"version": "0.4", "axes": names, "datasets": [data]}]
    if "factor" in scale:
        sizes = [scale["factor"] if axis in "yx" else 0.1 for axis in axes]
        multiscales[0]["coordinateTransformations"] = [{"type": "scale", "scale": sizes}]
    group.attrs.update({"multiscales": multiscales} if zarr_format == 2 else {"ome": {"multiscales": multiscales}})
    return folder


def tiff(**options: Any) -> Callable[[Path, np.ndarray], Any]:
    return lambda path, pixels: tifffile.imwrite(path, pixels, photometric="minisblack", **options)


def pillow(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


KINDS: dict[str, tuple[Callable[[Path, np.ndarray], Any], np.ndarray]] = {
    "grey.png": (pillow, GREY),
    "colour.png": (pillow, RGB),
    "deep.png": (pillow, GREY.astype(np.uint16) * 257),
    "grey.bmp": (pillow, GREY),
    "grey.pgm": (pillow, GREY),
    "lzw.tif": (tiff(compression="lzw", predictor=True, tile=(16, 32)), GREY),
    "deep.tif": (tiff(compression="zlib", rowsperstrip=7), GREY.astype(np.uint16)),
    "signed.tif": (tiff(byteorder=">"), GREY.astype(np.int32)),
    "float.tif": (tiff(), (GREY / 255).astype(np.float32)),
    "big.btf": (tiff(bigtiff=True), GREY),
    "ome.ome.tif": (tiff(ome=True, metadata={"axes": "YX", **UM}), GREY),
    "imagej.tif": (tiff(imagej=True, metadata={"axes": "YX"}), GREY.astype(np.float32)),
    "image.ome.zarr": (lambda path, pixels: save_zarr(path, pixels, "yx", size=0.65), GREY),
    "new.zarr": (lambda path, pixels: save_zarr(path, pixels, "tczyx", 3), GREY[None, None, None]),
}  # fmt: skip


@pytest.mark.parametrize("levels", ["auto", "exact"])
@pytest.mark.parametrize("name", KINDS)
def test_one_image_in_every_kind_of_file(tmp_path: Path, name: str, levels: str) -> None:
    write, pixels = KINDS[name]
    write(tmp_path / name, pixels)
    found = source(tmp_path, levels)
    assert found.ids == (name.partition(".")[0],)
    image, reason = found.load_and_reason(found.ids[0])
    np.testing.assert_array_equal(image, GREY)
    assert reason == "" and found.size(found.ids[0]) == GREY.shape
    assert found.entries[found.ids[0]].pixel_size == (0.65 if "ome" in name else None)


STACK = np.stack([GREY + np.uint8(k) for k in range(6)]).reshape(2, 3, 40, 56)  # 6 planes of other grey levels


@pytest.mark.parametrize("kind", ["imagej", "ome", "zarr"])
def test_time_and_focus_are_images_of_their_own(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.zarr" if kind == "zarr" else "a.tif")
    if kind == "zarr":
        save_zarr(path, STACK, "tzyx")
    else:
        tiff(**{kind: True}, metadata={"axes": "TZYX"})(path, STACK)
    found = source(path)
    assert found.ids == tuple(f"a_t00{t}_z00{z}" for t in range(2) for z in range(3))
    for k, image_id in enumerate(found.ids):
        np.testing.assert_array_equal(found.image(image_id), GREY + np.uint8(k))
    np.testing.assert_array_equal(read(path, pages="first"), GREY)
    assert source(path, pages="first").ids == ("a",)
    for pages, add in (("max", 2), ("mean", 1)):
        joined = source(path, pages=pages)
        assert joined.ids == ("a_t000", "a_t001")
        np.testing.assert_array_equal(joined.image("a_t001"), GREY + np.uint8(3 + add))


def test_pages_of_a_plain_tiff(tmp_path: Path) -> None:
    tiff(metadata=None)(tmp_path / "a.tif", STACK[0])
    found = source(tmp_path / "a.tif")
    assert found.ids == ("a_p000", "a_p001", "a_p002")
    np.testing.assert_array_equal(found.image("a_p002"), STACK[0, 2])
    np.testing.assert_array_equal(read(tmp_path / "a.tif", pages="max"), STACK[0, 2])
    with pytest.raises(InputError, match="pages: expected one of each, first, max, mean, got 'some'"):
        source(tmp_path / "a.tif", pages="some")


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"photometric": "minisblack", "planarconfig": 2}],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("shape", "axes"), [((3,), "T"), ((4,), "Z"), ((2, 3), "TZ"), ((3, 4), "TZ"), ((1, 3), "TZ")])
def test_planes_that_tifffile_stores_as_colours(
    tmp_path: Path, shape: tuple[int, ...], axes: str, dtype: str, options: dict[str, Any]
) -> None:
    """It does with the last 3 or 4 of a stack: a page has several planes."""
    planes = np.stack([GREY + np.uint8(k) for k in range(math.prod(shape))])
    stack = planes.reshape(*shape, *GREY.shape).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a later tifffile stores them apart
        tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": axes + "YX"}, **options)
    found = source(tmp_path / "a.tif")
    long = [(axis, length) for axis, length in zip(axes.lower(), shape, strict=True) if length > 1]
    expected = ["a"]
    for axis, length in long:
        expected = [f"{name}_{axis}{k:03d}" for name in expected for k in range(length)]
    assert found.ids == tuple(expected)
    for image_id, plane in zip(found.ids, planes, strict=True):
        np.testing.assert_array_equal(found.image(image_id), plane)
    for image_id, plane in zip(found.ids, planes, strict=True):
        image = found.entries[image_id]
        with image.opened() as opened:
            assert opened.rows_at_once(image.planes[0], None) > 0
            np.testing.assert_array_equal(
                opened.region(image.planes[0], None, slice(5, 30), slice(7, 50)), plane[5:30, 7:50]
            )
    np.testing.assert_array_equal(read(tmp_path / "a.tif", channel=0), planes[0])
    with pytest.raises(InputError, match=r"a\.tif: no channel 1, it has 1; give channel=0"):
        read(tmp_path / "a.tif", channel=1)
    with pytest.raises(InputError, match=r"a\.tif: \d+ pages; expected one image a file"):
        read_header(tmp_path / "a.tif")


def test_channels_that_tifffile_stores_as_colours(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tifffile.imwrite(tmp_path / "apart.tif", STACK[0], metadata={"axes": "CYX"})
    beside = np.ascontiguousarray(np.moveaxis(STACK[0], 0, -1))
    tifffile.imwrite(tmp_path / "beside.tif", beside, photometric="rgb", metadata={"axes": "YXC"})
    tifffile.imwrite(tmp_path / "times.tif", beside, photometric="rgb", metadata={"axes": "YXT"})
    with pytest.raises(InputError, match=r"apart\.tif: 3 channels; give channel=0 to 2"):
        source(tmp_path / "apart.tif")
    for channel in range(3):
        np.testing.assert_array_equal(read(tmp_path / "apart.tif", channel=channel), STACK[0, channel])
        np.testing.assert_array_equal(read(tmp_path / "beside.tif", channel=channel), STACK[0, channel])
        np.testing.assert_array_equal(source(tmp_path / "times.tif").image(f"times_t00{channel}"), STACK[0, channel])
    assert decode(tmp_path / "beside.tif")[0].colour == "RGB"


@pytest.mark.parametrize("kind", ["imagej", "ome", "zarr"])
def test_one_of_several_channels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.zarr" if kind == "zarr" else "a.tif")
    if kind == "zarr":
        save_zarr(path, STACK[0], "cyx")
    else:
        tiff(**{kind: True}, metadata={"axes": "CYX"})(path, STACK[0])
    with pytest.raises(InputError, match=r"a\.(tif|zarr): 3 channels; give channel=0 to 2, the one to predict on$"):
        source(path)
    with pytest.raises(InputError, match="3 channels; give channel=0 to 2, the one to predict on, not 3"):
        source(path, channel=3)
    for channel in range(3):
        np.testing.assert_array_equal(read(path, channel=channel), STACK[0, channel])


def test_axes_of_a_zarr_by_their_type(tmp_path: Path) -> None:
    path = save_zarr(tmp_path / "a.zarr", STACK, "tcyx", t="T1", c="channel", y="Y", x="X", size=0.5)
    with pytest.raises(InputError, match="a.zarr: 3 channels; give channel=0 to 2"):
        source(path)
    found = source(path, channel=1)
    assert found.ids == ("a_t000", "a_t001") and found.entries["a_t000"].pixel_size == 0.5
    np.testing.assert_array_equal(found.image("a_t001"), STACK[1, 1])


@pytest.mark.parametrize("axes", ["yx", "cyx"])
def test_the_only_channel_of_a_zarr(tmp_path: Path, axes: str) -> None:
    path = save_zarr(tmp_path / "a.zarr", GREY if axes == "yx" else GREY[None], axes)
    np.testing.assert_array_equal(read(path, channel=0), GREY)
    with pytest.raises(InputError, match="a.zarr: no channel 1, it has 1; give channel=0"):
        read(path, channel=1)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_scale_of_a_zarr_is_multiplied(tmp_path: Path, zarr_format: int) -> None:
    path = save_zarr(tmp_path / "a.zarr", GREY[None], "tyx", zarr_format, size=0.5, factor=1.3)
    assert source(path).entries["a"].pixel_size == pytest.approx(0.65)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_channel_of_colours(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.moveaxis(STACK[0], 0, -1)).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name, channel=1), STACK[0, 1])
    with pytest.raises(InputError, match=r"a\.(png|tif): no channel 3, it has 3; give channel=0 to 2"):
        read(tmp_path / name, channel=3)
    Image.fromarray(GREY).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name, channel=0), GREY)


@pytest.mark.parametrize("channel", [None, 1])
def test_16_bits_in_each_channel_of_a_png(tmp_path: Path, channel: int | None) -> None:
    import imagecodecs

    deep = np.ascontiguousarray(np.moveaxis(STACK[0], 0, -1)).astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    found = read(tmp_path / "a.png", "auto", channel=channel)
    np.testing.assert_array_equal(found, STACK[0, 1]) if channel else np.testing.assert_allclose(
        found.mean(), 128, atol=1
    )


def test_several_images_in_an_ome_tiff(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for k in range(2):
            file.write(STACK[0, k, : 20 + k], photometric="minisblack", metadata={"axes": "YX", "PhysicalSizeX": 1 + k})
    found = source(tmp_path / "a.ome.tif")
    assert found.ids == ("a_s000", "a_s001") and [found.size(image_id) for image_id in found.ids] == [
        (20, 56),
        (21, 56),
    ]
    np.testing.assert_array_equal(found.image("a_s001"), STACK[0, 1, :21])
    assert [found.entries[image_id].pixel_size for image_id in found.ids] == [1, 2]


def test_smaller_copies_of_an_image_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY, photometric="minisblack", subifds=1, metadata=None)
        file.write(GREY[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    assert source(tmp_path / "a.tif").ids == ("a",)


SIZES: dict[str, tuple[dict[str, Any], float | None]] = {
    "OME": ({"ome": True, "metadata": {"axes": "YX", **UM}}, 0.65),
    "OME in \u00e5ngstr\u00f6m": (
        {"ome": True, "metadata": {"PhysicalSizeX": 6500, "PhysicalSizeXUnit": "\u00c5"}},
        0.65,
    ),
    "OME in nm": ({"ome": True, "metadata": {"PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm"}}, 0.325),
    "ImageJ": ({"imagej": True, "metadata": {"unit": "micron"}, "resolution": (2, 2)}, 0.5),
    "ImageJ's own sign": ({"imagej": True, "metadata": {"unit": "\\u00B5m"}, "resolution": (2, 2)}, 0.5),
    "ImageJ in mm": ({"imagej": True, "metadata": {"unit": "mm"}, "resolution": (1000, 1000)}, 1.0),
    "ImageJ without a unit": ({"imagej": True, "resolution": (2, 2)}, None),
    "centimetres": ({"resolution": (20_000, 20_000), "resolutionunit": 3}, 0.5),
    "inches": ({"resolution": (25_400, 25_400), "resolutionunit": 2}, 1.0),
    "no unit": ({"resolution": (20_000, 20_000), "resolutionunit": 1}, None),
    "for printing": ({"resolution": (300, 300), "resolutionunit": 2}, None),
    "none": ({}, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_pixel_size_in_a_tiff(tmp_path: Path, name: str) -> None:
    options, expected = SIZES[name]
    tiff(**options)(tmp_path / "a.tif", GREY)
    found = source(tmp_path).entries["a"].pixel_size
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-4)
    assert source(tmp_path, pixel_size=0.3).entries["a"].pixel_size == 0.3


def test_the_pixel_size_in_a_png(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(25_400 / 0.65,) * 2)
    Image.fromarray(GREY).save(tmp_path / "b.png", dpi=(300, 300))
    found = source(tmp_path)
    assert found.entries["a"].pixel_size == pytest.approx(0.65, rel=1e-4) and found.entries["b"].pixel_size is None


def test_pixels_that_are_not_square(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiff(ome=True, metadata={"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.7})(tmp_path / "a.tif", GREY)
    with caplog.at_level(logging.WARNING):
        assert source(tmp_path).entries["a"].pixel_size is None
    assert "a.tif: pixels of 0.65 x 0.7 um are not square" in caplog.text


def test_a_zarr_hierarchy_is_walked(tmp_path: Path) -> None:
    """A plate: groups of wells, each with fields."""
    for place in ("A/1/0", "A/1/1", "B/2/0"):
        save_zarr(tmp_path / "plate.zarr" / place, GREY, "yx")
    for group in ("", "A", "A/1", "B", "B/2"):
        (tmp_path / "plate.zarr" / group / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    assert source(tmp_path).ids == tuple(f"plate.zarr__{name}" for name in ("A__1__0", "A__1__1", "B__2__0"))
    assert source(tmp_path / "plate.zarr").ids == ("A__1__0", "A__1__1", "B__2__0")


def test_a_plain_zarr_array(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "a.zarr"), STACK[0])
    found = source(tmp_path / "a.zarr")
    assert found.ids == ("a_p000", "a_p001", "a_p002")
    np.testing.assert_array_equal(found.image("a_p001"), STACK[0, 1])


def test_damaged_files_are_problems(tmp_path: Path) -> None:
    from sartorius.data.files.source import FileImages
    from sartorius.data.levels import Levels

    Image.fromarray(GREY).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0cut")
    (tmp_path / "c.png").write_bytes(b"")
    save_zarr(tmp_path / "d.zarr", GREY, "yx")
    (tmp_path / "d.zarr" / ".zattrs").write_text("{")
    found = FileImages(str(tmp_path), levels=Levels())
    assert found.ids == ("a",) and list(found.problems) == ["b", "c", "d"]
    assert all(f"{tmp_path / name}" in found.problems[name[0]] for name in ("b.tif", "c.png", "d.zarr"))


class BioImage:
    """A file of two times and two channels, as `bioio` shows it."""

    scenes = ("a", "b")
    physical_pixel_sizes = SimpleNamespace(X=0.65, Y=0.65, Z=None)

    def __init__(self, path: Path) -> None:
        if path.suffix != ".nd2":
            raise ValueError("no\nreader")

    def set_scene(self, scene: int) -> None:
        self.scene = scene

    @property
    def dims(self) -> Any:
        class Dims(dict[str, tuple[int]]):
            order, X, Y = "TCZYX", 56, 40

        return Dims(T=(2,), C=(2,), Z=(1,))

    def get_image_data(self, order: str, *, T: int = 0, C: int = 0) -> np.ndarray:
        assert order == "YX"
        return GREY + np.uint8(self.scene * 4 + T * 2 + C)


def test_files_of_microscopes_through_bioio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", SimpleNamespace(BioImage=BioImage))
    (tmp_path / "a.nd2").write_bytes(b"")
    found = source(tmp_path, channel=1)
    assert found.ids == tuple(f"a_s00{s}_t00{t}" for s in range(2) for t in range(2))
    for k, image_id in enumerate(found.ids):
        np.testing.assert_array_equal(found.image(image_id), GREY + np.uint8(2 * k + 1))
        assert found.entries[image_id].pixel_size == 0.65
    with pytest.raises(InputError, match=r"a\.nd2: 2 channels; give channel=0 to 1"):
        source(tmp_path)
    (tmp_path / "b.czi").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"b\.czi: none of the installed readers of bioio reads it \(no reader\); install"
    ):
        source(tmp_path / "b.czi")


def test_the_only_channel_of_a_file_of_a_microscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class One(BioImage):
        scenes = ("a",)

        @property
        def dims(self) -> Any:
            class Dims(dict[str, tuple[int]]):
                order, X, Y = "TCZYX", 56, 40

            return Dims(T=(1,), C=(1,), Z=(1,))

    monkeypatch.setitem(sys.modules, "bioio", SimpleNamespace(BioImage=One))
    (tmp_path / "a.nd2").write_bytes(b"")
    np.testing.assert_array_equal(read(tmp_path / "a.nd2", channel=0), GREY)
    with pytest.raises(InputError, match="a.nd2: no channel 2, it has 1; give channel=0"):
        read(tmp_path / "a.nd2", channel=2)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_zarr(tmp_path / "a.zarr", GREY, "yx")
    for name, extra in (("zarr", "zarr"), ("bioio", "formats")):
        monkeypatch.setitem(sys.modules, name, None)
        (tmp_path / "a.czi").write_bytes(b"")
        path = tmp_path / ("a.zarr" if name == "zarr" else "a.czi")
        with pytest.raises(InputError, match=rf"{path}: .*{name}.*pip install 'sartorius\[{extra}\]'"):
            source(path)
