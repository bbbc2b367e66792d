"""What a detection must pass to become a cell, per cell type.

Public teams gained 0.012 to 0.05 mAP from thresholds per type, more than from most changes of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError

DEFAULT = "default"  # the key for cell types that are not named
PerType = Mapping[str, float] | float


@dataclass(frozen=True)
class Thresholds:
    """Each field is one number, or a number per cell type name; the key `default` serves the types not named.

    Args:
        score: detections below it are dropped, 0..1.
        mask: a pixel belongs to the cell where its probability is above it, 0..1.
        box_nms: IoU of boxes above which the lower-scoring detection is dropped, 0..1; 1 drops nothing.
        mask_nms: the same for the pasted masks.
        min_area: cells with fewer pixels, after overlaps are removed, are dropped.
    """

    score: PerType
    mask: PerType
    box_nms: PerType
    mask_nms: PerType
    min_area: PerType

    def __post_init__(self) -> None:
        for field in fields(self):
            check(field.name, getattr(self, field.name), np.inf if field.name == "min_area" else 1.0)

    def for_types(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Each field as float64 [K], in the order of the K cell type names.

        Raises InputError for a type that a field neither names nor has a `default` for.
        """
        return {field.name: per_type(field.name, getattr(self, field.name), names) for field in fields(self)}


def check(field: str, values: PerType, upper: float) -> None:
    """Raise InputError, naming the field of the post-processing, unless all its numbers lie in 0 to `upper`."""
    for name, value in values.items() if isinstance(values, Mapping) else [("", values)]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= upper:
            where = f"{field}.{name}".rstrip(".")
            raise InputError(f"postprocess.{where}: expected a number from 0 to {upper:g}, got {value!r}")


def per_type(field: str, values: PerType, names: Sequence[str]) -> NDArray[np.float64]:
    """The number of each cell type, float64 [K]; raises InputError for a type without one, naming the field."""
    if not isinstance(values, Mapping):
        return np.full(len(names), float(values))
    for name in names:
        if name not in values and DEFAULT not in values:
            raise InputError(
                f"postprocess.{field} has no value for cell type {name!r}, only for {', '.join(values)}; "
                f"add postprocess.{field}.{name}=... or postprocess.{field}.{DEFAULT}=..."
            )
    return np.array([float(values.get(name, values.get(DEFAULT, np.nan))) for name in names])
