"""An image from its file to its label image, on a CPU in one thread: our U-Net beside StarDist 0.9 and Cellpose 3.

CPU seconds an image, which other programs on the machine change little, and the peak memory of a process. Ours is
`experiment=unet_cpu` through `sartorius.load`: the checkpoint that SARTORIUS_CHECKPOINT names, else random weights,
which find few cells or none (cells take a tenth of the time). The peers run in an environment of their own, whose
Python SARTORIUS_PEERS names (`inference_peers.sh` makes it); without it there is nothing to measure.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import images
from benchmarks.inference_peers import measured, read
from benchmarks.measure import Row, in_subprocess

IMAGES, REPEATS = 20, 3
BARS = {"32-true": 1.0, "bf16-mixed": None}  # bfloat16 is fast on some CPUs only
FEW = 3  # images for Cellpose
NAMES = {"stardist": "StarDist 0.9", "cellpose": "Cellpose 3"}


def save_random(path: Path) -> None:
    """Write a checkpoint of `experiment=unet_cpu` that has learned nothing."""
    import torch

    from sartorius.networks import checkpoints
    from sartorius.running import building, wiring

    cfg = wiring.compose("train", ["experiment=unet_cpu", "model.network.encoder.weights=none"])
    module = building.build_module(cfg, pretrained=False)
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, path)


def ours(paths: Sequence[str], checkpoint: str, precision: str, repeats: int) -> dict[str, Any]:
    """Measure our U-Net, and count its cells."""
    import torch

    import sartorius

    torch.set_num_threads(1)
    model = sartorius.load(checkpoint, f"trainer.precision={precision}", device="cpu")
    counts = {path: len(model(read(path))) for path in paths}
    return measured(lambda path: model(read(path)).labels, paths, repeats) | {"cells": sum(counts.values())}


def rows() -> Iterator[Row]:
    """Seconds and peak memory beside each peer."""
    if (python := os.environ.get("SARTORIUS_PEERS")) is None:
        print("inference: SARTORIUS_PEERS names no Python of the peers, see inference_peers.sh", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(path) for path in sorted((images.competition_folder(Path(folder)) / "train").glob("*.png"))]
        paths, source = paths[:IMAGES], "generated" if images.real_data() is None else "real"
        if (checkpoint := os.environ.get("SARTORIUS_CHECKPOINT")) is None:
            save_random(Path(checkpoint := f"{folder}/random.ckpt"))
        mine = {
            precision: in_subprocess("benchmarks.inference:ours", paths, checkpoint, precision, REPEATS)
            for precision in BARS
        }
        for peer, name in NAMES.items():
            some = (paths, REPEATS) if peer == "stardist" else (paths[:FEW], 1)
            theirs = in_subprocess(f"benchmarks.inference_peers:{peer}", *some, interpreter=(python,))
            for precision, found in mine.items():
                same = f"{len(paths)} images; {found['cells']} cells of ours"
                what, peer_name = f"{source} image -> labels, {precision}", f"{name}, {theirs['weights']} weights"
                yield Row(
                    f"{what}, CPU time",
                    "s",
                    found["seconds"],
                    theirs["seconds"],
                    peer_name,
                    same,
                    at_least=BARS[precision],
                )
                yield Row(f"{what}, peak", "MB", found["megabytes"], theirs["megabytes"], peer_name, same)
