"""Image files of every storage: the array that was written is what comes back, upright, or the file is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from sartorius.data.image_files import Header, decode, read_header
from sartorius.data.images import read_grey
from sartorius.errors import InputError
from tests.data.files.reading import read as read_image
from tests.data.files.reading import source

SHAPE = (38, 53)
RAMP = np.arange(38 * 53).reshape(SHAPE)


def write(path: Path, pixels: Any, tags: dict[int, Any] | None = None, **options: Any) -> Path:
    """Write a TIFF whose axes are those of one page: [H, W], [H, W, S] or, planar, [S, H, W]; `tags` replace values."""
    if pixels.dtype.kind in "iu" and pixels.itemsize == 8:
        options.pop("predictor", None)
    tifffile.imwrite(path, pixels, metadata=None, **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for code, value in (tags or {}).items():
            file.pages.first.tags[code].overwrite(value)
    return path


def replace_tag(path: Path, code: int, new: int, value: int) -> None:
    """Put a number under a code that tifffile does not write in place of the tag of another code."""
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags[code].offset
    with open(path, "r+b") as raw:
        raw.seek(place)
        raw.write(struct.pack("<HHII", new, 3, 1, value))


def numbers(dtype: str) -> np.ndarray:
    """The whole range of a type; it is not symmetric, so that an inverted or wrapped image is another one."""
    if np.dtype(dtype).kind == "f":
        return (3 * (RAMP / RAMP.max()) ** 2 - 1).astype(dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    last = int(RAMP.max())
    return np.array([low + (high - low) * k * k // last**2 for k in range(last + 1)], dtype).reshape(SHAPE)


TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64"]
NAMES = {"u": "", "i": "signed ", "f": ""}
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True, "byteorder": ">"},
    {"rowsperstrip": 7},
    {"tile": (16, 32)},
    {"compression": "zlib", "predictor": True},
    {"compression": "lzw", "predictor": True, "byteorder": ">", "tile": (32, 16)},
    {"compression": "packbits", "rowsperstrip": 5},
    {"compression": "zstd"},
]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_grey(tmp_path: Path, dtype: str, layout: dict[str, Any]) -> None:
    pixels = numbers(dtype)
    path = write(tmp_path / "a.tif", pixels, photometric="minisblack", **layout)
    header, found = decode(path)
    bits = 8 * pixels.itemsize
    sample = f"{NAMES[pixels.dtype.kind]}{bits}-bit" + " float" * (pixels.dtype.kind == "f")
    assert header == (*SHAPE, sample, "grey") == read_header(path)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_rgb(tmp_path: Path, dtype: str, planar: str, layout: dict[str, Any]) -> None:
    pixels = np.stack([numbers(dtype), numbers(dtype)[::-1], numbers(dtype)[:, ::-1]], -1)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    path = write(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, **layout)
    header, found = decode(path)
    assert (header[:2], header.colour) == (SHAPE, "RGB")
    np.testing.assert_array_equal(found, pixels)
    if dtype in ("uint16", "int8", "float32"):
        grey = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
        expected = (grey - grey.mean()) / grey.std() * 11.58 + 128
        np.testing.assert_allclose(read_image(path, "standardise"), expected, atol=0.51)


@pytest.mark.parametrize("dtype", TYPES)
def test_white_is_the_lowest_value(tmp_path: Path, dtype: str) -> None:
    pixels = numbers(dtype)
    path = write(tmp_path / "a.tif", pixels, photometric="miniswhite")
    np.testing.assert_array_equal(decode(path)[1], -pixels if pixels.dtype.kind == "f" else np.invert(pixels))
    np.testing.assert_array_equal(
        read_image(path, "standardise"),
        read_image(write(tmp_path / "b.tif", decode(path)[1], photometric="minisblack"), "standardise"),
    )


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize(("bits", "dtype"), [(1, "uint8"), (2, "uint8"), (4, "uint8"), (6, "uint8"), (12, "uint16")])
def test_fewer_bits_than_bytes_have(tmp_path: Path, bits: int, dtype: str, white: bool) -> None:
    values, top = (RAMP % 2**bits).astype(dtype), 2**bits - 1
    stored = values.astype(bool) if bits == 1 else values
    photometric = "miniswhite" if white else "minisblack"
    path = write(tmp_path / "a.tif", stored, bitspersample=bits, photometric=photometric)
    header, found = decode(path)
    expected = top - values if white else values
    if bits in (1, 2, 4):
        expected = expected * (255 // top)
    np.testing.assert_array_equal(found, expected)
    assert header.sample == {1: "1-bit", 2: "8-bit", 4: "8-bit", 6: "6-bit", 12: "12-bit"}[bits]
    if bits in (2, 4):
        np.testing.assert_array_equal(read_grey(path), expected)


@pytest.mark.parametrize("order", [1, 2])
def test_order_of_bits_within_bytes(tmp_path: Path, order: int) -> None:
    turned = np.array([int(f"{value:08b}"[::-1], 2) for value in range(256)], np.uint8)
    pixels = numbers("uint8")
    path = write(tmp_path / "a.tif", turned[pixels] if order == 2 else pixels, photometric="minisblack")
    replace_tag(path, 305, 266, order)
    np.testing.assert_array_equal(decode(path)[1], pixels)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("old", [False, True])
def test_palette(tmp_path: Path, bits: int, old: bool) -> None:
    """A grey palette that runs backwards; old files have colours of 8 bits in it."""
    colours = np.linspace(255, 0, 2**bits).astype(np.uint16)
    values = (RAMP % 2**bits).astype(f"uint{bits}")
    colormap = np.stack([colours if old else colours * 257] * 3)
    path = write(tmp_path / "a.tif", values, photometric="palette", colormap=colormap)
    assert read_header(path) == (*SHAPE, f"{bits}-bit", "palette")
    np.testing.assert_array_equal(decode(path)[1][..., 0], colours[values])
    if bits == 8:
        np.testing.assert_array_equal(read_image(path), colours[values])
        with pytest.raises(InputError, match="kind 8-bit palette; expected 8-bit grey"):
            read_grey(path)


LOSSY: list[dict[str, Any]] = [
    {"compression": "jpeg"},
    {"compression": "jpeg", "tile": (32, 32)},
    {"compression": "jpeg", "planarconfig": "separate"},
    {"compression": "jpeg", "subsampling": (1, 1)},
]


@pytest.mark.parametrize("layout", LOSSY, ids=str)
@pytest.mark.parametrize("colour", ["grey", "RGB"])
def test_jpeg_inside(tmp_path: Path, colour: str, layout: dict[str, Any]) -> None:
    y, x = np.indices((64, 96))
    pixels = np.stack([2 * x + y, 200 - x, 3 * y], -1).astype(np.uint8)
    options = {"photometric": "rgb", "planarconfig": "contig", **layout}
    if colour == "grey":
        pixels, options = pixels[..., 0], {"photometric": "minisblack", **layout, "subsampling": None}
        options.pop("planarconfig", None)
    stored = np.moveaxis(pixels, -1, 0) if options.get("planarconfig") == "separate" else pixels
    path = write(tmp_path / "a.tif", stored, compressionargs={"level": 100}, **options)
    header, found = decode(path)
    assert (header.sample, header.colour) == ("8-bit", colour)
    np.testing.assert_allclose(found.astype(int), pixels, atol=6)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["grey.tif", "rgb.tif", "planar.tif", "png", "jpg"])
def test_orientation_of_header_and_pixels(tmp_path: Path, suffix: str, orientation: int) -> None:
    """As Pillow's `exif_transpose` turns the same pixels."""
    path, pixels = tmp_path / f"a.{suffix}", numbers("uint8")
    exif = Image.Exif()
    exif[274] = orientation
    plain = Image.fromarray(pixels)
    plain.getexif()[274] = orientation
    expected = np.asarray(ImageOps.exif_transpose(plain))
    if suffix.endswith(".tif"):
        channels = [pixels] * (1 if suffix == "grey.tif" else 3)
        stored = pixels if len(channels) == 1 else np.stack(channels, 0 if suffix == "planar.tif" else -1)
        kind = {"photometric": "minisblack" if stored.ndim == 2 else "rgb", "planarconfig": None}
        if stored.ndim == 3:
            kind["planarconfig"] = "separate" if suffix == "planar.tif" else "contig"
        write(path, stored, extratags=[(274, 3, 1, orientation, True)], **kind)
    else:
        Image.fromarray(pixels).save(path, exif=exif, quality=100)
    found = read_image(path)
    assert read_header(path)[:2] == found.shape == expected.shape
    np.testing.assert_allclose(found.astype(int), expected, atol=2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("kind", ["eXIf", "zTXt"])
def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path, kind: str) -> None:
    Image.fromarray(numbers("uint8")).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[274] = 6
    data = exif.tobytes()
    if kind == "zTXt":
        data = b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(data):8}\n{data.hex()}\n".encode())
    else:
        data = data.removeprefix(b"Exif\0\0")
    name, content = kind.encode(), (tmp_path / "a.png").read_bytes()
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert read_header(tmp_path / "a.png")[:2] == SHAPE[::-1]
    np.testing.assert_array_equal(read_grey(tmp_path / "a.png"), np.rot90(numbers("uint8"), -1))


ALPHA = np.where(RAMP % 2, 255, 90).astype(np.uint8)
FULL = np.full(SHAPE, 255, np.uint8)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("other", "meaning", "message"),
    [
        (ALPHA, "unassalpha", ""),
        (FULL, "unassalpha", ""),
        (FULL, "assocalpha", ""),
        (FULL, "unspecified", ""),
        (0 * FULL, "unspecified", ""),
        (ALPHA, "assocalpha", "multiplied by alpha; save it without alpha"),
        (0 * FULL, "assocalpha", "multiplied by alpha; save it without alpha"),
        (ALPHA, "unspecified", "channel [24] is neither colour nor alpha; save one channel a file"),
    ],
)
def test_further_channels(
    tmp_path: Path, grey: bool, planar: str, other: np.ndarray, meaning: str, message: str
) -> None:
    channels = [numbers("uint8")] * (1 if grey else 3)
    stored = np.stack([*channels, other], -1 if planar == "contig" else 0)
    photometric = "minisblack" if grey else "rgb"
    path = write(tmp_path / "a.tif", stored, photometric=photometric, planarconfig=planar, extrasamples=[meaning])
    assert read_header(path) == (*SHAPE, "8-bit", "grey+1" if grey else "RGB+1")
    if message:
        with pytest.raises(InputError, match=f"a.tif: .*{message}"):
            decode(path)
    else:
        np.testing.assert_array_equal(read_image(path), numbers("uint8"))


@pytest.mark.parametrize("kind", ["pages", "imagej", "shaped", "ome", "depth", "two sizes", "stk"])
def test_several_images_in_a_file(tmp_path: Path, kind: str) -> None:
    """Refused where one image is expected; every plane is read elsewhere."""
    path, stack = tmp_path / "a.tif", np.stack([numbers("uint8"), numbers("uint8")[::-1], 255 - numbers("uint8")])
    if kind == "pages":
        tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)
    elif kind == "imagej":
        tifffile.imwrite(path, stack, imagej=True, truncate=True, metadata={"axes": "ZYX"})
    elif kind == "shaped":
        tifffile.imwrite(path, stack, photometric="minisblack", truncate=True)
    elif kind == "ome":
        tifffile.imwrite(path, stack, photometric="minisblack", ome=True, metadata={"axes": "ZYX"})
    elif kind == "depth":
        tifffile.imwrite(
            path, np.stack([numbers("uint8")] * 16)[None], volumetric=True, tile=(16, 16, 16), metadata=None
        )
    elif kind == "two sizes":
        with tifffile.TiffWriter(path) as file:
            for page in (numbers("uint8"), numbers("uint8")[:20]):
                file.write(page, photometric="minisblack", metadata=None)
    else:  # MetaMorph: the planes follow each other, a tag has one entry for each
        tags = [(33628, 4, 2, (0, 0), True), (33629, 5, 9, (0, 1) * 9, True)]
        tifffile.imwrite(path, stack[0], photometric="minisblack", metadata=None, extratags=tags)
        with tifffile.TiffFile(path) as file:
            place = file.pages.first.tags[33629].offset
        with open(path, "r+b") as raw:
            raw.seek(place + 4)
            raw.write(struct.pack("<I", 3))
            raw.seek(0, 2)
            raw.write(stack[1:].tobytes())
    for read_one in (read_header, read_grey):
        with pytest.raises(
            InputError, match=r"a\.tif: (2|3|16) pages; expected one image a file: save the pages apart"
        ):
            read_one(path)
    if kind == "depth":
        with pytest.raises(InputError, match=r"a\.tif: 16 planes in one page; save them as pages"):
            source(path)
        return
    planes, axis = source(path), {"ome": "z", "imagej": "z", "two sizes": "s"}.get(kind, "p")
    expected = [stack[0], stack[0][:20]] if kind == "two sizes" else list(stack)
    assert planes.ids == tuple(f"a_{axis}{k:03d}" for k in range(len(expected)))
    for image_id, plane in zip(planes.ids, expected, strict=True):
        np.testing.assert_array_equal(planes.image(image_id), plane)
        assert planes.size(image_id) == plane.shape


def test_one_image_of_every_kind_of_file(tmp_path: Path) -> None:
    for number, options in enumerate(({"imagej": True}, {"ome": True}, {"metadata": None}, {})):
        tifffile.imwrite(tmp_path / f"{number}.tif", numbers("uint8"), photometric="minisblack", **options)
        np.testing.assert_array_equal(read_grey(tmp_path / f"{number}.tif"), numbers("uint8"))


@pytest.mark.parametrize(
    ("photometric", "samples", "message"),
    [("separated", 4, "SEPARATED"), ("cielab", 3, "CIELAB"), ("ycbcr", 3, "YCBCR"), ("cfa", 1, "CFA")],
)
def test_colours_without_a_conversion(tmp_path: Path, photometric: str, samples: int, message: str) -> None:
    code = int(tifffile.PHOTOMETRIC[photometric.upper()])
    pixels = np.stack([numbers("uint8")] * samples, -1)
    kind = {1: "minisblack", 3: "rgb", 4: "separated"}[samples]
    path = write(tmp_path / "a.tif", pixels[..., 0] if samples == 1 else pixels, {262: code}, photometric=kind)
    for read in (read_header, decode):
        with pytest.raises(InputError, match=rf"a\.tif: colours of {message}; save it as grey or RGB"):
            read(path)


def test_numbers_without_a_meaning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("float32").astype(np.complex64), photometric="minisblack")
    with pytest.raises(
        InputError, match=r"a\.tif: pixels of 64 bits in SampleFormat 6; save them as integers or floats"
    ):
        read_header(path)
    path = write(tmp_path / "b.tif", np.stack([numbers("uint8")] * 3, -1), {258: (5, 6, 5)}, photometric="rgb")
    with pytest.raises(InputError, match=r"b\.tif: pixels of \(5, 6, 5\) bits in SampleFormat 1"):
        read_header(path)


CUT = [
    {}, {"rowsperstrip": 5}, {"tile": (16, 16)}, {"compression": "zlib"}, {"compression": "lzw", "rowsperstrip": 9},
    {"compression": "packbits"}, {"compression": "zstd"}, {"compression": "lzw", "predictor": True, "tile": (16, 16)},
    {"compression": "jpeg"}, {"compression": "deflate", "bigtiff": True},
]  # fmt: skip


@pytest.mark.parametrize("layout", [*CUT, "png", "jpg", "bmp"], ids=str)
def test_a_file_that_is_cut_off_anywhere(tmp_path: Path, layout: dict[str, Any] | str) -> None:
    """It is refused, or all pixels were there."""
    pixels = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    if isinstance(layout, str):
        path = tmp_path / f"a.{layout}"
        Image.fromarray(pixels).save(path)
    else:
        path = write(tmp_path / "a.tif", pixels, photometric="minisblack", **layout)
    whole, expected = path.read_bytes(), decode(path)[1]
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        try:
            _, found = decode(path)
        except InputError:
            continue
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"compression": "lzw"}], ids=str)
def test_a_header_needs_no_pixels(tmp_path: Path, layout: dict[str, Any]) -> None:
    """The tags stand in front of the pixels, which may be missing."""
    path = write(tmp_path / "a.tif", numbers("uint16"), photometric="minisblack", **layout)
    with tifffile.TiffFile(path) as file:
        start = min(file.pages.first.dataoffsets)
    path.write_bytes(path.read_bytes()[:start])
    assert read_header(path) == Header(*SHAPE, "16-bit", "grey")
    with pytest.raises(InputError, match=r"a\.tif: cut off or damaged"):
        decode(path)


def test_more_pixels_than_anybody_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("uint8"), {256: 10**6, 257: 10**6}, photometric="minisblack")
    with pytest.raises(
        InputError, match=r"a\.tif: not a readable image \(1000000x1000000 pixels, more than 178956970\)"
    ):
        decode(path)


def test_the_contents_tell_the_format(tmp_path: Path) -> None:
    write(tmp_path / "a.png", numbers("int8"), photometric="minisblack")
    Image.fromarray(numbers("uint8")).save(tmp_path / "a.tif", format="png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png")[1], numbers("int8"))
    np.testing.assert_array_equal(read_grey(tmp_path / "a.tif"), numbers("uint8"))


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    for read in (read_header, decode):
        with pytest.raises(InputError, match="not a readable image .*directory"):
            read(tmp_path)


@pytest.mark.parametrize("layout", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=str)
@pytest.mark.parametrize("code", [258, 339])
def test_a_tag_that_is_lost(tmp_path: Path, code: int, layout: dict[str, Any]) -> None:
    """Its value lies outside the file: without it the pixels would have another meaning."""
    pixels = np.stack([numbers("float32")] * 5, -1)
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[0, 0], **layout)
    with tifffile.TiffFile(path) as file:
        order, big, place = file.byteorder, file.is_bigtiff, file.pages.first.tags[code].offset
    with open(path, "r+b") as raw:
        raw.seek(place + (12 if big else 8))
        raw.write(struct.pack(order + ("Q" if big else "I"), 10**9))
    with pytest.raises(InputError, match=rf"a\.tif: not a readable image \(tag {code} cannot be read\)"):
        read_header(path)


@pytest.mark.parametrize("layout", [{}, {"byteorder": ">", "bigtiff": True}], ids=str)
def test_a_second_page_that_is_lost(tmp_path: Path, layout: dict[str, Any]) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([numbers("uint16")] * 2), photometric="minisblack", metadata=None, **layout
    )
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        second = file.pages[1].offset
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:second])
    with pytest.raises(
        InputError, match=rf"a\.tif: not a readable image \(the second page should begin at byte {second}\)"
    ):
        read_header(tmp_path / "a.tif")


MODES = [
    (mode, compression)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F")
    for compression in (
        "raw",
        "tiff_lzw",
        "tiff_adobe_deflate",
        "packbits",
        "zstd",
        *["group3", "group4"] * (mode == "1"),
    )
]


@pytest.mark.parametrize(("mode", "compression"), MODES)
def test_files_of_another_writer(tmp_path: Path, mode: str, compression: str) -> None:
    """Pillow writes with libtiff."""
    image = Image.fromarray(numbers("uint16")) if mode == "I;16" else Image.fromarray(numbers("uint8")).convert(mode)
    image.save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(
        image.convert("L") if mode in ("1", "LA") else image.convert("RGB") if mode in "RGBAP" else image
    )
    np.testing.assert_array_equal(decode(tmp_path / "a.tif")[1], expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_files_of_opencv(tmp_path: Path, dtype: str) -> None:
    grey = numbers(dtype)
    cv2.imwrite(str(tmp_path / "grey.tif"), grey)
    np.testing.assert_array_equal(decode(tmp_path / "grey.tif")[1], grey)
    colours = np.stack([grey, grey[::-1], grey[:, ::-1]], -1)
    cv2.imwrite(str(tmp_path / "rgb.tif"), colours[..., ::-1])
    np.testing.assert_array_equal(decode(tmp_path / "rgb.tif")[1], colours)
