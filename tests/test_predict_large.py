"""`predict` of images that are read by regions: the files are those of the image in memory, within bounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from hydra import compose, initialize_config_dir
from PIL import Image

from sartorius import convert
from sartorius.data import image_files
from sartorius.data.tiff import MAX_CHUNK
from sartorius.errors import InputError
from sartorius.predict import main
from sartorius.running import wiring
from tests.bright_unet import blobs, write_checkpoint

zarr = pytest.importorskip("zarr")
ROOT = Path(__file__).parents[1]
SMALL = ("large.pixels=100000", "large.block=200", "large.halo=96")  # a large image has more than 100,000 pixels
Write = Callable[[Path, np.ndarray], Any]
FILES: dict[str, Write] = {
    "a.zarr": lambda path, image: _write_zarr(path, image, (128, 130)),
    "tiled.tif": lambda path, image: tifffile.imwrite(path, image, tile=(128, 96), compression="zlib"),
    "big.btf": lambda path, image: tifffile.imwrite(path, image, bigtiff=True, tile=(64, 64)),
    "strips.tif": lambda path, image: tifffile.imwrite(path, image, rowsperstrip=70, compression="lzw"),
    "one_piece.tif": lambda path, image: tifffile.imwrite(path, image, byteorder=">"),
    "white.tif": lambda path, image: tifffile.imwrite(
        path, np.iinfo(image.dtype).max - image, tile=(128, 128), compression="zlib", photometric="miniswhite"
    ),
    "a.png": lambda path, image: Image.fromarray(image).save(path),
}


def _write_zarr(path: Path, image: np.ndarray, chunks: tuple[int, int]) -> None:
    array = zarr.create_array(str(path), shape=image.shape, chunks=chunks, dtype=image.dtype)
    array[:] = image


def run(tmp_path: Path, image: Path, output: str, *overrides: str) -> tuple[np.ndarray, pd.DataFrame]:
    """Predict an image; returns its labels and the table of its cells."""
    if not (tmp_path / "a.ckpt").is_file():
        write_checkpoint(tmp_path / "a.ckpt")
    fixed = [f"checkpoint={tmp_path / 'a.ckpt'}", f"images={image}", f"output={tmp_path / output}"]
    fixed += ["trainer.accelerator=cpu", "data.num_workers=0", "write=[labels,table]", "data.levels=exact"]
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        main(compose("predict", [*fixed, *overrides]))
    (labels,) = (tmp_path / output / "labels").iterdir()
    return tifffile.imread(labels).squeeze(), pd.read_csv(tmp_path / output / "tables" / "cells.csv")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, pd.DataFrame]:
    """Labels and table of the image in memory."""
    folder = tmp_path_factory.mktemp("whole")
    Image.fromarray(blobs()).save(folder / "image.png")
    return run(folder, folder / "image.png", "out")


@pytest.mark.parametrize("name", FILES)
def test_files_are_those_of_the_image_in_memory(
    name: str, tmp_path: Path, expected: tuple[np.ndarray, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    FILES[name](tmp_path / name, blobs())
    if not name.endswith(".png"):
        whole = "sartorius.data.files.source.FileImages._pixels"
        monkeypatch.setattr(whole, lambda *_: pytest.fail("the image was read whole"))
    labels, table = run(tmp_path, tmp_path / name, "out", *SMALL)
    assert len(table) > 250
    assert np.array_equal(labels, expected[0])
    columns = [column for column in table.columns if column != "image"]
    pd.testing.assert_frame_equal(table[columns], expected[1][columns], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["a.zarr", "tiled.tif", "white.tif"])
def test_grey_levels_are_those_of_the_whole_image(name: str, tmp_path: Path) -> None:
    """16 bits, standardised: mean and deviation are of all of it."""
    image = blobs().astype(np.uint16) * 199 + 777
    FILES[name](tmp_path / name, image)
    levels = ("data.levels=standardise", "postprocess.score.threshold=0.05", "postprocess.min_area.pixels=5")
    whole = run(tmp_path, tmp_path / name, "whole", *levels)
    labels, table = run(tmp_path, tmp_path / name, "parts", *levels, *SMALL)
    assert np.array_equal(labels, whole[0])
    assert table["intensity_mean"].tolist() == pytest.approx(whole[1]["intensity_mean"].tolist())


def test_cells_of_windows_are_read_by_processes_of_their_own_and_converted(
    tmp_path: Path, expected: tuple[np.ndarray, pd.DataFrame]
) -> None:
    FILES["a.zarr"](tmp_path / "a.zarr", blobs())
    labels, _ = run(tmp_path, tmp_path / "a.zarr", "out", *SMALL, "data.num_workers=1")
    assert np.array_equal(labels, expected[0])
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        fixed = [f"detections={tmp_path / 'out' / 'detections'}", f"output={tmp_path / 'converted'}", *SMALL]
        convert.main(compose("convert", [*fixed, f"images={tmp_path / 'a.zarr'}"]))
    assert np.array_equal(tifffile.imread(tmp_path / "converted" / "labels" / "a.tif").squeeze(), labels)
    tables = [pd.read_csv(tmp_path / folder / "tables" / "cells.csv") for folder in ("out", "converted")]
    pd.testing.assert_frame_equal(*tables)


def test_the_scale_of_the_training(tmp_path: Path) -> None:
    """Read at 80 %: the cells are those of the resized image, but for single pixels of them."""
    FILES["a.zarr"](tmp_path / "a.zarr", blobs())
    whole, _ = run(tmp_path, tmp_path / "a.zarr", "whole", "scale=0.8")
    labels, table = run(tmp_path, tmp_path / "a.zarr", "parts", "scale=0.8", *SMALL)
    assert labels.shape == whole.shape and len(table) > 150
    assert ((labels > 0) != (whole > 0)).mean() < 1e-4


def test_options_that_need_the_whole_image_are_refused(tmp_path: Path) -> None:
    FILES["a.zarr"](tmp_path / "a.zarr", blobs())
    for options, problem in (
        (["inference=whole"], "inference=whole needs the whole image in memory"),
        (["tta=flips"], "tta= needs the whole image in memory"),
    ):
        with pytest.raises(InputError, match=problem):
            run(tmp_path, tmp_path / "a.zarr", "_".join(options).replace("=", "_"), *SMALL, *options)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formats that decode whole have a limit, others one on what they decode at once."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 100_000)
    monkeypatch.setattr("sartorius.data.files.source.MAX_PIXELS", 100_000)
    FILES["a.png"](tmp_path / "a.png", blobs())
    with pytest.raises(InputError, match="640x600 pixels, more than 100000"):
        run(tmp_path, tmp_path / "a.png", "png", *SMALL)
    FILES["tiled.tif"](tmp_path / "tiled.tif", blobs())
    assert run(tmp_path, tmp_path / "tiled.tif", "tiled", *SMALL)[0].any()
    side = int(MAX_CHUNK**0.5) + 1
    zarr.create_array(str(tmp_path / "b.zarr"), shape=(side, side), chunks=(side, side), dtype="uint8")
    with pytest.raises(InputError, match=r"b\.zarr: chunks of \(4097, 4097\) px, expected 16,777,216 px at most"):
        run(tmp_path, tmp_path / "b.zarr", "zarr", *SMALL)
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((side, side), np.uint8), rowsperstrip=side, compression="zlib")
    with pytest.raises(InputError, match=r"c\.tif: its pixels are decoded 16,785,409 at once"):
        run(tmp_path, tmp_path / "c.tif", "tiff", *SMALL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_square_of_4096_pixels(tmp_path: Path) -> None:
    FILES["a.zarr"](tmp_path / "a.zarr", blobs(4096, 4096))
    write_checkpoint(tmp_path / "a.ckpt", size=256, overlap=64)
    whole = run(tmp_path, tmp_path / "a.zarr", "whole")
    labels, table = run(tmp_path, tmp_path / "a.zarr", "parts", "large.pixels=1000000", "large.block=1000")
    assert len(table) > 10_000
    assert np.array_equal(labels, whole[0])
    pd.testing.assert_frame_equal(table, whole[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_square_of_20000_pixels_within_4_gigabytes(tmp_path: Path) -> None:
    """A generated image, repeated, made bright where there is contrast; peak memory of the whole command."""
    from sartorius.synthetic.image import Appearance, draw_image

    rng = np.random.default_rng(0)
    drawn = draw_image(rng, rng, "shsy5y", (0.5, 0.5), Appearance(height=1000, width=1000)).image
    tile = np.minimum(np.abs(drawn - 128.0) * 5, 255).astype(np.uint8)
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(20_000, 20_000), chunks=(1000, 1000), dtype="uint8")
    for row in range(0, 20_000, 1000):
        array[row : row + 1000] = np.tile(tile, 20)
    write_checkpoint(tmp_path / "a.ckpt", size=512, overlap=64)
    code = (
        "import resource, tests.bright_unet; from sartorius.predict import main; main(); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    options = [f"checkpoint={tmp_path / 'a.ckpt'}", f"images={tmp_path / 'a.zarr'}", f"output={tmp_path / 'out'}"]
    options += ["trainer.accelerator=cpu", "data.num_workers=0", "write=[labels,table]", "data.levels=exact"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    peak = int(done.stdout.rpartition("peak ")[2])  # KiB
    with tifffile.TiffFile(tmp_path / "out" / "labels" / "a.tif") as file:
        page = file.pages.first
        assert file.is_bigtiff and page.is_tiled and page.shape == (20_000, 20_000)
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "cells.csv")) > 300_000
    assert peak < 4 * 2**20
