"""The `run.py` of an ONNX package beside the same model in torch, on a CPU in one thread: an image to its label image.

The checkpoint that SARTORIUS_CHECKPOINT names, a U-Net, else random weights, which find few cells or none.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import images, inference
from benchmarks.inference_peers import measured, read
from benchmarks.measure import Row, expect, in_subprocess

LEAST_IOU = 0.999  # of the cells of both sides, on average


def export(checkpoint: str, folder: str) -> str:
    """Write and unpack the package of a checkpoint; returns its folder."""
    from sartorius import export
    from sartorius.running import wiring

    export.main(wiring.compose("export", [f"checkpoint={checkpoint}", "format=onnx", f"output={folder}/unet.zip"]))
    with zipfile.ZipFile(f"{folder}/unet.zip") as archive:
        archive.extractall(folder)
    return f"{folder}/unet"


def _model(folder: str) -> Any:
    sys.path.insert(0, folder)
    import run  # type: ignore[import-not-found]

    return run.Model(threads=1)


def packaged(paths: Sequence[str], folder: str, repeats: int) -> dict[str, Any]:
    """Measure run.py."""
    model = _model(folder)
    return measured(lambda path: model(read(path)).labels, paths, repeats)


def agreement(paths: Sequence[str], checkpoint: str, folder: str) -> list[float]:
    """Return the IoU of each cell of torch with its nearest of run.py, and 0 for each cell that one has more."""
    import sartorius
    from sartorius.metrics.functional import Intersections

    ours, peer, found = _model(folder), sartorius.load(checkpoint, device="cpu"), list[float]()
    for path in paths:
        cells, packaged_cells = peer(read(path)), ours(read(path))
        shared = Intersections.of(cells.labels, packaged_cells.labels)
        best = dict.fromkeys(range(max(len(cells), len(packaged_cells))), 0.0)
        for cell, iou in zip(shared.i.tolist(), shared.iou.tolist(), strict=True):
            best[cell] = max(best[cell], iou)
        found += best.values()
    return found


def rows() -> Iterator[Row]:
    """Seconds and peak memory beside torch."""
    with tempfile.TemporaryDirectory() as temporary:
        paths = [str(path) for path in sorted((images.competition_folder(Path(temporary)) / "train").glob("*.png"))]
        paths, source = paths[: inference.IMAGES], "generated" if images.real_data() is None else "real"
        if (checkpoint := os.environ.get("SARTORIUS_CHECKPOINT")) is None:
            inference.save_random(Path(checkpoint := f"{temporary}/random.ckpt"))
        folder = in_subprocess("benchmarks.onnx_package:export", checkpoint, temporary)
        iou = in_subprocess("benchmarks.onnx_package:agreement", paths, checkpoint, folder)
        mean = sum(iou) / max(len(iou), 1)
        same = expect(mean >= LEAST_IOU or not iou, f"{len(paths)} images; IoU {mean:.5f} of {len(iou)} cells")
        mine = in_subprocess("benchmarks.onnx_package:packaged", paths, folder, inference.REPEATS)
        theirs = in_subprocess("benchmarks.inference:ours", paths, checkpoint, "32-true", inference.REPEATS)
        for unit, key, what in (("s", "seconds", "CPU time"), ("MB", "megabytes", "peak")):
            name = f"{source} image -> labels, run.py of format=onnx, {what}"
            yield Row(name, unit, mine[key], theirs[key], "the same U-Net in torch", same)
