"""Masks read in other boxes stay where they are."""

from __future__ import annotations

import numpy as np

from sartorius.structures.resample import resample
from tests.postprocess.shapes import dense_paste, random_detections


def test_resampling_moves_nothing() -> None:
    """Read in another box, a mask has the same pixels: against a pixel-by-pixel reference on fine cells."""
    d = random_detections(1, 8)
    wide = d.boxes.astype(float) + np.array([-2.25, -1.5, 3.5, 0.75])
    read = resample(d.masks, d.boxes.astype(float), wide, 112)
    for k in range(len(d)):
        a = dense_paste(d.boxes[k], d.masks[k], d.height, d.width)
        b = dense_paste(wide[k], read[k], d.height, d.width)
        inner = dense_paste(d.boxes[k] + [1, 1, -1, -1], np.ones((2, 2)), d.height, d.width) > 0
        if not inner.any():
            continue  # beside the image
        assert np.abs(a - b)[inner].max() < 0.06, "bilinear reading of a bilinear reading"
        y, x = np.mgrid[: d.height, : d.width]
        for axis in (x, y):
            assert abs((a * axis).sum() / a.sum() - (b * axis).sum() / b.sum()) < 0.1
    assert resample(d.masks[:0], wide[:0], wide[:0], 7).shape == (0, 7, 7)
    same = resample(d.masks, d.boxes.astype(float), d.boxes.astype(float), 14)
    np.testing.assert_allclose(same, d.masks.astype(np.float32), atol=1e-5)
