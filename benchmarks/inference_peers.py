"""StarDist and Cellpose from an image's file to its label image, in their own environment (`inference_peers.sh`).

With their published weights where these can be downloaded; else with random ones of the same networks, which take the
same time but for what comes of the cells: StarDist's threshold then lets CANDIDATES pixels pass, about those of 200
cells. Cellpose gets images at their own size; enlarging cells of 17 px to its 30 px takes three times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import peak_megabytes

CANDIDATES = 4000  # of StarDist's grid of 2 pixels


def read(path: str) -> Any:
    """Read the pixels of an image, uint8 [H, W]."""
    return np.asarray(Image.open(path).convert("L"))


def measured(label: Callable[[str], Any], paths: Sequence[str], repeats: int) -> dict[str, float]:
    """CPU seconds an image, the mean of each image's least of several repeats, and the peak memory in MB."""
    label(paths[0])  # what is loaded and compiled at first
    least = []
    for path in paths:
        times = []
        for _ in range(repeats):
            start = time.process_time()
            label(path)
            times.append(time.process_time() - start)
        least.append(min(times))
    return {"seconds": sum(least) / len(least), "megabytes": peak_megabytes()}


def stardist(paths: Sequence[str], repeats: int) -> dict[str, Any]:
    """Measure StarDist 2D, 32 rays and a grid of 2 pixels."""
    import tensorflow as tf
    from csbdeep.utils import normalize
    from stardist.models import Config2D, StarDist2D

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        model, threshold = StarDist2D.from_pretrained("2D_versatile_fluo"), None
    except Exception:  # of urllib and Keras
        model = StarDist2D(Config2D(n_rays=32, grid=(2, 2)), name="random", basedir=None)
        probabilities, _ = model.predict(normalize(read(paths[0]), 1, 99.8))
        threshold = float(np.sort(probabilities, axis=None)[-CANDIDATES])

    def label(path: str) -> Any:
        return model.predict_instances(normalize(read(path), 1, 99.8), prob_thresh=threshold)[0]

    return measured(label, paths, repeats) | {"weights": "random" if threshold else "published"}


def cellpose(paths: Sequence[str], repeats: int) -> dict[str, Any]:
    """Measure Cellpose 3."""
    import torch
    from cellpose import models

    torch.set_num_threads(1)
    try:
        model, weights = models.CellposeModel(model_type="cyto3"), "published"
    except Exception:  # of urllib
        model, weights = models.CellposeModel(pretrained_model=False), "random"

    def label(path: str) -> Any:
        return model.eval(read(path), channels=[0, 0], diameter=30)[0]

    return measured(label, paths, repeats) | {"weights": weights}
