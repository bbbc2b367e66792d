"""Run-length text as other programs write it, by code that shares nothing with the package's readers."""

from __future__ import annotations

import numpy as np

from sartorius.structures import rle

WRITTEN = [None, "written column by column", "counted from 0", "written column by column and counted from 0"]


def text_of(pixels: np.ndarray, first: int) -> str:
    """Text of sorted 0-based pixels, the first of an image counted as `first`."""
    ends = np.flatnonzero(np.diff(pixels, append=-9) != 1)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return " ".join(f"{pixels[a] + first} {b - a + 1}" for a, b in zip(starts, ends, strict=True))


def written(runs: rle.Runs, how: str | None) -> list[str]:
    """The texts of cells, column by column or counted from 0; no cell may begin at pixel 0 then."""
    texts = []
    for cell in range(runs.count):
        mine = runs.cell == cell
        pairs = zip(runs.start[mine].tolist(), runs.length[mine].tolist(), strict=True)
        pixels = np.array([pixel for start, length in pairs for pixel in range(start, start + length)])
        if how and "column" in how:
            pixels = np.sort(pixels % runs.width * runs.height + pixels // runs.width)
        texts.append(text_of(pixels, 0 if how and "0" in how else 1))
    return [f"1 {text[2:]}" if text.startswith("0 ") else text for text in texts]


def discs(height: int, width: int, radius: float = 6.3, shift: float = 0.0) -> list[str]:
    """Text of a grid of discs `shift` pixels to the right; the edge cuts those of the first column and row."""
    y, x = np.mgrid[:height, :width] + 0.5
    centres = [(cy, cx) for cy in range(1, height, 15) for cx in range(1, width, 17)][1:]
    return [text_of(np.flatnonzero((y - cy) ** 2 + (x - cx - shift) ** 2 < radius**2), 1) for cy, cx in centres]
