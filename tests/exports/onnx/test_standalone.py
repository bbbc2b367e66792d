"""Each part of run.py against what it stands for."""

import io
import zlib
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage.measure import label as skimage_label
from torch.nn import functional as F

from sartorius.data.channels import choose_channel
from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.exports.onnx.standalone import files, opencv, resizing, tiling
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.tta import Augmented
from sartorius.inference.views import SYMMETRIES
from sartorius.inference.windows import FiveCrops, Tiles, Whole
from sartorius.networks.unet import reflect_to_multiple
from tests.data.files.reading import read

RNG = np.random.default_rng(0)
SHAPES = [(1, 1), (1, 9), (7, 1), (3, 3), (40, 57)]


@pytest.mark.parametrize("shape", SHAPES)
def test_opencv(shape):
    for dtype in (np.uint16, np.float64):
        plane = RNG.integers(0, 60000, shape).astype(dtype)
        kernel = np.ones((3, 3), np.uint8)
        np.testing.assert_array_equal(opencv.dilate(plane, kernel), cv2.dilate(plane, kernel))
    for sigma in (0.3, 0.7, 1.5, 4.0):
        for plane in (RNG.random(shape, np.float32), np.zeros(shape, np.float32), np.full(shape, 1e6, np.float32)):
            blurred = opencv.GaussianBlur(plane, (0, 0), sigma)
            assert blurred.dtype == np.float32
            np.testing.assert_allclose(blurred, cv2.GaussianBlur(plane, (0, 0), sigma), rtol=3e-6, atol=1e-7)
    for share in (0, 0.3, 0.6, 1):
        pixels = (RNG.random(shape) < share).astype(np.uint8)
        count, pieces = cv2.connectedComponents(pixels, connectivity=4)
        found = opencv.connectedComponents(pixels, connectivity=4)
        assert found[0] == count
        np.testing.assert_array_equal(found[1], pieces)
        labels = pixels * RNG.integers(1, 4, shape)
        np.testing.assert_array_equal(opencv.label(labels, 2), skimage_label(labels, connectivity=2))


def test_pieces_are_not_joined_around_the_edge():
    labels = np.zeros((4, 5), np.int64)
    labels[:, 0] = labels[:, -1] = 1
    np.testing.assert_array_equal(opencv.label(labels, 2), skimage_label(labels, connectivity=2))


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((1, 1), (3, 4)),
        ((9, 14), (18, 28)),
        ((33, 20), (17, 31)),
        ((520, 704), (416, 563)),
        ((520, 704), (650, 880)),
        ((5, 5), (5, 5)),
    ],
)
def test_resizing(size, new):
    values = RNG.random((2, 3, *size), np.float32)
    wanted = F.interpolate(torch.from_numpy(values), new, mode="bilinear").numpy()
    atol = 1e-6 if max(size) < 100 else 5e-5  # torch rounds the places of far pixels, in several ways
    np.testing.assert_allclose(resizing.bilinear(values, *new), wanted, atol=atol)
    smooth = F.interpolate(torch.from_numpy(values), new, mode="bilinear", antialias=True).numpy()
    np.testing.assert_allclose(resizing.bilinear(values, *new, antialias=True), smooth, atol=atol)
    for factor in (1.5, 2.0, 0.7):
        if min(size) * factor >= 1 and max(size) < 100:
            scaled = F.interpolate(torch.from_numpy(values), scale_factor=factor, mode="bilinear").numpy()
            np.testing.assert_allclose(resizing.bilinear(values, *scaled.shape[-2:], factor), scaled, atol=2e-6)
    mirrored = reflect_to_multiple(torch.from_numpy(values), 16).numpy()
    np.testing.assert_array_equal(resizing.mirror_to_multiple(values, 16), mirrored)


TILES = Tiles(size=32, overlap=12, margin=3, batch=3, join_iou=0.5)
CROPS = FiveCrops(height=30, width=40, margin=2, batch=2, join_iou=0.5)


@pytest.mark.parametrize(
    "windows",
    [
        Whole(),
        TILES,
        CROPS,
        Enlarged(windows=TILES, factor=1.7),
        Augmented(symmetries=list(SYMMETRIES), scales=[1.0], fuse=None, windows=TILES),
        Augmented(symmetries=["none", "turn_90"], scales=[0.8, 1.0, 1.3], fuse=None, windows=Whole()),
    ],
)
@pytest.mark.parametrize("size", [(50, 70), (20, 33)])
def test_maps_of_windows(windows, size):
    kernel = torch.from_numpy(RNG.normal(size=(4, 1, 5, 5)).astype(np.float32))

    def network(crops):
        return F.conv2d(torch.as_tensor(np.ascontiguousarray(crops)), kernel, padding=2)

    def described(part):
        inner = {"windows": described(part.windows)} if "windows" in vars(part) else {}
        return {"kind": type(part).__name__, **{k: v for k, v in asdict(part).items() if k != "fuse"}, **inner}

    image = RNG.uniform(0, 255, size).astype(np.float32)
    wanted = windows.maps(network, torch.from_numpy(image)[None], slice(1, 3)).numpy()
    found = tiling.predict_maps(described(windows), lambda crops: network(crops).numpy(), image, slice(1, 3))
    np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=1e-5)  # values up to some 1000


def test_windows_that_do_not_cover():
    by = {"kind": "FiveCrops", "height": 10, "width": 10, "margin": 0, "batch": 1}
    with pytest.raises(ValueError, match="do not cover an image of 40 x 40"):
        tiling.predict_maps(by, lambda crops: crops, np.zeros((40, 40), np.float32), None)


def encoded(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(17, 23), (17, 23, 3), (17, 23, 4), (1, 1)])
def test_png_of_8_bits(tmp_path, shape):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    smooth = np.add.accumulate(np.ones(shape, np.uint8) * 3, axis=1, dtype=np.uint8)  # other filters
    for image in (pixels, smooth, pixels // 2 + smooth // 2):
        (tmp_path / "a.png").write_bytes(encoded(image))
        found = files.read_image(tmp_path / "a.png")
        np.testing.assert_array_equal(found, image[..., :3] if image.ndim == 3 else image)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_of_16_bits_and_every_filter(tmp_path, channels):
    pixels = RNG.integers(0, 65536, (12, 9, channels)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), pixels[..., ::-1] if channels == 3 else pixels[..., 0])
    found = files.read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(found, pixels if channels == 3 else pixels[..., 0])
    for kind in range(5):  # filtered by OpenCV's own encoder
        options = [cv2.IMWRITE_PNG_FILTER, 8 << kind] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
        cv2.imwrite(str(tmp_path / "a.png"), pixels[..., 0] // 300 * 200, options)
        np.testing.assert_array_equal(files.read_image(tmp_path / "a.png"), pixels[..., 0] // 300 * 200)


def test_other_files(tmp_path):
    pixels = RNG.integers(0, 65536, (12, 9)).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    for name in ("a.npy", "a.tif"):
        np.testing.assert_array_equal(files.read_image(tmp_path / name), pixels)
    Image.fromarray((pixels >> 8).astype(np.uint8)).convert("P").save(tmp_path / "p.png")
    assert files.read_image(tmp_path / "p.png").shape == (12, 9, 3)


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def saved_files(folder):
    """Files whose numbers are no grey levels yet: inverted, of a palette, CMYK, turned, with alpha or more channels."""
    colours = RNG.integers(0, 256, (12, 9, 4), np.uint8)
    grey, deep = colours[..., 0], RNG.integers(0, 65536, (12, 9), np.uint16)
    tifffile.imwrite(folder / "white.tif", grey, photometric="miniswhite")
    tifffile.imwrite(folder / "white16.tif", deep, photometric="miniswhite")
    palette = RNG.integers(0, 65536, (3, 256), np.uint16)
    tifffile.imwrite(folder / "palette.tif", grey, photometric="palette", colormap=palette)
    tifffile.imwrite(folder / "turned.tif", grey, photometric="minisblack", extratags=[(274, "H", 1, 6, True)])
    tifffile.imwrite(folder / "alpha.tif", colours, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(folder / "grey.tif", grey, photometric="minisblack")
    Image.fromarray(colours, "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colours[..., :3]).save(folder / "turned.jpg", exif=exif(8))
    Image.fromarray(colours[..., :3]).save(folder / "turned.png", exif=exif(3))
    Image.fromarray(deep).save(folder / "turned16.png", exif=exif(5))
    Image.fromarray(grey).convert("P").save(folder / "palette.png")
    Image.fromarray(grey > 99).save(folder / "bits.png")
    Image.fromarray(colours[..., :2], "LA").save(folder / "alpha.png")
    Image.fromarray(colours[..., :3]).save(folder / "colours.bmp")
    return sorted(folder.iterdir())


def told(reading):
    """An image, or why there is none."""
    try:
        return reading()
    except InputError as error:
        return str(error)


LEVELS = Levels(levels="standardise")


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
def test_files_are_read_as_predict_reads_them(tmp_path):
    paths = saved_files(tmp_path)
    assert len(paths) == 14
    for path in paths:
        for channel in (None, 0, 1, 3):
            wanted = told(lambda path=path, channel=channel: read(path, "standardise", channel=channel))
            found = told(lambda path=path, channel=channel: LEVELS(files.read_image(path, channel)))
            np.testing.assert_array_equal(found, wanted, f"{path.name} {channel}")
    grey = files.read_image(tmp_path / "grey.tif")
    np.testing.assert_array_equal(files.read_image(tmp_path / "white.tif"), 255 - grey)
    np.testing.assert_array_equal(files.read_image(tmp_path / "turned.tif"), np.rot90(grey, -1))


@pytest.mark.filterwarnings("ignore:.*stored as RGB with separate:DeprecationWarning")
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("axes", ["CYX", "YXC", "YXS"])
def test_a_channel_of_a_tiff_is_that_of_predict(tmp_path, axes, count):
    """Of three and four planes tifffile makes the samples of colours, whatever it calls their axis."""
    pixels, path = RNG.integers(0, 256, (count, 12, 9), np.uint8), tmp_path / "a.tif"
    tifffile.imwrite(path, pixels if axes == "CYX" else np.moveaxis(pixels, 0, -1).copy(), metadata={"axes": axes})
    for channel in (*range(count + 1), None):
        wanted = told(lambda channel=channel: read(path, "standardise", channel=channel))
        found = told(lambda channel=channel: LEVELS(files.read_image(path, channel)))
        assert isinstance(found, str) == isinstance(wanted, str)
        if not isinstance(found, str):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", ["imagej", "ome", "samples"])
def test_a_channel_of_a_tiff(tmp_path, kind):
    channels, path = RNG.integers(0, 256, (2, 12, 9), np.uint8), tmp_path / "a.tif"
    if kind == "samples":
        tifffile.imwrite(path, np.moveaxis(channels, 0, -1), photometric="minisblack", planarconfig="contig")
    else:
        tifffile.imwrite(path, channels, photometric="minisblack", **{kind: True}, metadata={"axes": "CYX"})
    for channel in (0, 1):
        np.testing.assert_array_equal(files.read_image(path, channel), channels[channel])
    with pytest.raises(InputError, match="a.tif: no channel 2, it has 2; give channel=0 to 1"):
        files.read_image(path, 2)
    message = "channel 2 is neither colour nor alpha" if kind == "samples" else "2 channels; give channel=0 to 1"
    with pytest.raises(InputError, match=f"a.tif: {message}"):
        files.read_image(path)


def test_several_planes_are_refused(tmp_path):
    planes = RNG.integers(0, 256, (3, 12, 9), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="a.tif: 3 Z planes; expected one image a file: save the planes apart"):
        files.read_image(tmp_path / "a.tif", 1)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_channel_of_an_array(tmp_path, where):
    def chosen(pixels, channel):
        if where == "memory":
            return choose_channel(pixels, channel, "a.npy")
        np.save(tmp_path / "a.npy", pixels)
        return files.read_image(tmp_path / "a.npy", channel)

    pixels = RNG.integers(0, 256, (12, 9, 4), np.uint8)
    grey = pixels[..., 0]
    for count in (1, 2, 3, 4):
        for channel in range(count):
            np.testing.assert_array_equal(chosen(pixels[..., :count], channel), pixels[..., channel])
        with pytest.raises(InputError, match=f"a.npy: no channel {count}, it has {count}; give channel=0"):
            chosen(pixels[..., :count], count)
    np.testing.assert_array_equal(chosen(grey, 1), grey)
    opaque = np.full((12, 9), 255, np.uint8)
    for shown in (grey, pixels[..., :3]):
        np.testing.assert_array_equal(chosen(shown, None), shown)
        np.testing.assert_array_equal(chosen(np.dstack((shown, opaque)), None), shown)
    for count in (2, 4):
        with pytest.raises(InputError, match=f"a.npy: {count} channels, neither colours nor opaque alpha; give chan"):
            chosen(pixels[..., :count], None)
    for bad in (np.zeros((0, 4)), np.zeros((2, 2, 2, 2)), np.zeros((3, 3), "c8")):
        with pytest.raises(InputError, match=r"a.npy: .*; expected numbers \[height, width\]"):
            chosen(bad, None)


def test_bad_files(tmp_path):
    good = encoded(RNG.integers(0, 256, (30, 40), np.uint8))
    header = bytearray(good)
    header[28] = 1  # interlaced, its sum not mended
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    large = bytearray(good)
    large[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    large[29:33] = zlib.crc32(bytes(large[12:29])).to_bytes(4, "big")
    changed = bytearray(good)
    changed[60] ^= 1
    bad = {
        "cut.png": good[:-30],
        "changed.png": changed,
        "interlaced.png": header,
        "large.png": large,
        "text.png": b"a",
    }
    for name, content in {**bad, "pickle.npy": b"\x93NUMPY", "empty.tif": b""}.items():
        (tmp_path / name).write_bytes(bytes(content))
        with pytest.raises(InputError, match=rf"{name}: not a readable image"):
            files.read_image(tmp_path / name)
    with pytest.raises(InputError, match="absent.png: not a readable"):
        files.read_image(tmp_path / "absent.png")


@pytest.mark.parametrize("suffix", [".png", ".npy", ".tif"])
def test_label_images(tmp_path, suffix):
    labels = RNG.integers(0, 65536, (31, 18)).astype(np.uint16)
    files.write_labels(tmp_path / f"a{suffix}", labels)
    found = files.read_image(tmp_path / f"a{suffix}")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, labels)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
