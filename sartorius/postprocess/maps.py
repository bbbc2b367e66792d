"""The maps that a dense network predicts of an image, and the cells that a decoder makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.structures.arrays import Ints, LabelMap, Plane, Scores


@dataclass(frozen=True)
class CellMaps:
    """The maps of one image, all float32; None where the network does not predict one.

    foreground: [H, W], probability that a cell covers the pixel, 0..1. border: [H, W], probability that two cells are
    near, 0..1. centre: [H, W], 1 at the middle of a cell and falling to its edge, 0..1. offset: [2, H, W], (dy, dx)
    from the pixel to the middle of its cell, in pixels. types: [K, H, W], probabilities of the K cell types.

    Raises ValueError for another shape or type.
    """

    foreground: Plane
    border: Plane | None = None
    centre: Plane | None = None
    offset: Plane | None = None
    types: Plane | None = None

    def __post_init__(self) -> None:
        size = self.foreground.shape
        if len(size) != 2:
            raise ValueError(f"foreground must be float32 [H, W], got {size}")
        leading = {"offset": (2,), "types": () if self.types is None else self.types.shape[:1]}
        for name, values in vars(self).items():
            expected = (*leading.get(name, ()), *size)
            if values is not None and (values.dtype != np.float32 or values.shape != expected or not values.size):
                raise ValueError(f"{name} must be float32 {expected}, not empty, got {values.dtype} {values.shape}")

    @property
    def height(self) -> int:
        """Rows of the image, pixels."""
        return self.foreground.shape[0]

    @property
    def width(self) -> int:
        """Columns of the image, pixels."""
        return self.foreground.shape[1]


@dataclass(frozen=True)
class Decoded:
    """The N cells of one image; N may be 0.

    regions: uint16 [H, W], 0 is none, k is the k-th cell; every cell has pixels, more than it keeps in the end.
    scores: float32 [N], 0..1. cell_types: int64 [N]. Raises ValueError for another shape or type.
    """

    regions: LabelMap
    scores: Scores
    cell_types: Ints

    def __post_init__(self) -> None:
        shapes = (self.scores.shape, self.cell_types.shape)
        if self.regions.ndim != 2 or self.regions.dtype != np.uint16 or shapes != ((len(self.scores),),) * 2:
            raise ValueError(
                f"regions uint16 [H, W], scores [N] and cell_types [N] expected, got {self.regions.dtype} "
                f"{self.regions.shape}, {self.scores.shape}, {self.cell_types.shape}"
            )

    def __len__(self) -> int:
        return len(self.scores)
