"""Label images and tables of cells in runs are those of the same cells in layers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from sartorius.formats.cells import Cells
from sartorius.formats.folder import CellsFolder
from sartorius.formats.labels import write_large
from sartorius.formats.large_cells import LargeCells
from sartorius.postprocess.blocks import finalise_by_blocks
from sartorius.structures.blocks import Blocks
from sartorius.structures.rle import Runs
from tests.postprocess.pipelines import pipeline
from tests.postprocess.test_blocks import crowd

POST = pipeline(score=0.2, mask=0.4, mask_nms=0.3, min_area=10)


def both(overlaps: Any) -> tuple[Cells, LargeCells]:
    """The cells of a crowd in an image of 700 x 1100 px, and the same made by blocks."""
    detections = crowd(900, 700, 1100)
    grey = np.random.default_rng(1).integers(0, 256, (700, 1100), dtype=np.uint8)
    cells = Cells.of(POST(detections, overlaps), detections, grey)
    runs = finalise_by_blocks(POST, detections, Blocks(1, 256, 64), overlaps)
    names = detections.cell_type_names
    read = lambda rows, columns: grey[rows, columns]  # noqa: E731
    return cells, LargeCells("crowd", runs.runs, runs.cell_types, runs.scores, names, None, read, block=256)


@pytest.mark.parametrize("overlaps", ["remove", "keep"])
def test_files_are_those_of_an_image_in_memory(overlaps: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small, large = both(overlaps)
    assert len(small) > 250 and (len(small.instances.layers) > 1) == (overlaps == "keep")
    folders = [CellsFolder(tmp_path / name, ["labels", "table", "coco", "overlay"]) for name in ("small", "large")]
    with caplog.at_level(logging.WARNING):
        for folder, cells in zip(folders, (small, large), strict=True):
            assert folder.missing(["crowd"]) == ["crowd"]
            folder.add(cells)
            assert folder.missing(["crowd"]) == []
            folder.finish(["crowd"])
    assert "too large for coco, overlay; labels and table are written" in caplog.text
    with tifffile.TiffFile(tmp_path / "large" / "labels" / "crowd.tif") as file:
        assert file.is_bigtiff and file.pages.first.is_tiled and file.pages.first.dtype == np.uint16
        assert np.array_equal(file.asarray().squeeze(), small.labels)
    for name in ("cells.csv", "images.csv"):
        tables = [pd.read_csv(tmp_path / of / "tables" / name) for of in ("small", "large")]
        pd.testing.assert_frame_equal(*tables, rtol=1e-9)


def test_more_cells_than_16_bits_can_number(tmp_path: Path) -> None:
    count = 70_000
    runs = Runs(np.arange(count) * 4, np.full(count, 2), np.arange(count), count, 100, 3000)
    cells = LargeCells("many", runs, np.zeros(count, int), np.ones(count, np.float32), ("cell",), 0.5, None, 256)
    write_large(cells, tmp_path / "many.tif")
    labels = tifffile.imread(tmp_path / "many.tif")
    assert labels.dtype == np.uint32 and labels.shape == (100, 3000)
    assert np.array_equal(np.flatnonzero(labels.ravel()), np.sort(np.concatenate((runs.start, runs.start + 1))))
    assert labels.max() == count and cells.image_row()["confluence"] == 2 * count / 300_000


def test_no_cells(tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)
    cells = LargeCells(
        "none", Runs(none, none, none, 0, 30, 40), none, none.astype(np.float32), ("cell",), None, None, 8
    )
    folder = CellsFolder(tmp_path, ["labels", "table"])
    folder.add(cells)
    folder.finish(["none"])
    assert not tifffile.imread(tmp_path / "labels" / "none.tif").any()
    assert pd.read_csv(tmp_path / "tables" / "images.csv").loc[0, "status"] == "empty"
