"""Writing the cells of an image in every format, beside predicting them with the U-Net of `unet_cpu`.

120 cells are as many as a real image has on average. The network starts from nothing, which costs the same; what it
would say is replaced by maps of the cells, so that decoding and post-processing have cells to find.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import images
from benchmarks.decode import detections_of, maps_of
from benchmarks.measure import Row, expect, side_by_side
from benchmarks.submission import finalised
from sartorius.formats.cells import Cells
from sartorius.formats.folder import FORMATS, CellsFolder
from sartorius.running import wiring
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.instances import Instances

CELLS = 120
NAMES = ["a", "b", "c", "d"]
FILES = {"labels": "labels/a.tif", "outlines": "outlines/a.txt", "rois": "rois/a.zip", "geojson": "geojson/a.geojson"}


def rows() -> Iterator[Row]:
    """Milliseconds of the processor an image, without waiting for the disk; the bar is a tenth of the prediction."""
    sample = images.crowded(CELLS)
    maps = maps_of(sample.instances())
    config = wiring.compose("train", ["experiment=unet_cpu", "model.network.encoder.weights=null"])
    network = wiring.instantiate(config.model.network).eval()
    batch = torch.from_numpy(sample.image.copy())[None, None].float()

    def predict() -> Instances:
        with torch.inference_mode():
            network(batch)
        return finalised(detections_of(maps))

    instances = predict()
    scores = torch.linspace(1, 0, len(instances)).numpy()
    with tempfile.TemporaryDirectory() as folder:

        def write(formats: list[str]) -> None:
            files = CellsFolder(folder, formats)
            for name in NAMES:  # cells anew: they keep their measurements
                files.add(Cells(name, instances, scores, CELL_TYPES, 0.65, sample.image))
            files.finish(NAMES)

        write(list(FORMATS))
        read = [Cells.load(Path(folder) / file, images.HEIGHT, images.WIDTH) for file in FILES.values()]
        same = expect(
            all(cells.instances.to_rles() == instances.to_rles() for cells in read),
            f"{len(instances)} cells, {', '.join(FILES)} read back to the same masks",
        )
        for what, formats, bar in (
            ("every format for programs", [name for name in FORMATS if name != "overlay"], 10.0),
            ("overlay", ["overlay"], None),
        ):
            ours, peer = side_by_side(lambda f=formats: write(f), predict, clock=time.process_time)  # type: ignore[misc]
            ours, name = ours / len(NAMES), "predicting the image, U-Net lite0"
            yield Row(f"{CELLS} {sample.source} cells -> {what}", "CPU ms", ours, peer, name, same, at_least=bar)
