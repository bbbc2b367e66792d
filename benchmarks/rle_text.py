"""Run-length text of every cell to a map and back: layered map beside one mask a cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.instances import Instances


def decode(text: str) -> NDArray[np.uint8]:
    """The decoder of the competition's public notebooks: one mask [H, W]."""
    numbers = np.asarray(text.split(), dtype=int)
    mask = np.zeros(HEIGHT * WIDTH, dtype=np.uint8)
    for start, length in zip(numbers[0::2] - 1, numbers[1::2], strict=True):
        mask[start : start + length] = 1
    return mask.reshape(HEIGHT, WIDTH)


def encode(mask: NDArray[np.uint8]) -> str:
    """The encoder of the competition's public notebooks."""
    pixels = np.concatenate([[0], mask.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def ours(texts: Sequence[str]) -> list[str]:
    """Text -> layered map -> text."""
    return Instances.from_rles(texts, np.zeros(len(texts)), HEIGHT, WIDTH).to_rles()


def peer(texts: Sequence[str]) -> list[str]:
    """Text -> a stack of masks -> text."""
    masks = np.stack([decode(text) for text in texts])
    return [encode(mask) for mask in masks]


def rows() -> Iterator[Row]:
    """Milliseconds for the image of 547 cells."""
    sample = images.densest()
    same = expect(ours(sample.texts) == peer(sample.texts) == sample.texts, "the text of every cell")
    mine, theirs = side_by_side(lambda: ours(sample.texts), lambda: peer(sample.texts))
    what = f"text -> map -> text, {len(sample.texts)} {sample.source} cells"
    yield Row(what, "ms", mine, theirs, "notebook RLE, mask a cell", same)
