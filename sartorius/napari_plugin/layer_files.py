"""Files of this program as layers of napari: a bundle's example, and cells written in the formats of `convert`.

Nothing of napari is imported: it calls these functions, and takes layers as tuples of data, attributes and kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.structures.arrays import AnyInts
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import MAX_CELLS, Instances

LayerTuple = tuple[Any, dict[str, Any], str]


def reader_of(path: str | list[str]) -> Callable[[str | list[str]], list[LayerTuple]] | None:
    """Return the reader of a bundle of `export`; None for other files, and for several at once."""
    from sartorius.networks.bundles import is_bundle

    return read_bundle if isinstance(path, str) and is_bundle(Path(path)) else None


def read_bundle(path: str | list[str]) -> list[LayerTuple]:
    """Read the example image of a bundle and the cells that its model found there; raises as `read_example` does."""
    from sartorius.exports.bundle.example import read_example

    example, name = read_example(Path(str(path))), Path(str(path)).stem
    features = {"index": np.arange(1, len(example.cell_types) + 1), "type": example.cell_types}
    cells = {"name": f"{name} cells", "features": features}
    return [(example.image, {"name": name}, "image"), (example.labels.astype(np.int32), cells, "labels")]


def write_cells(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a layer of labels, [H, W] or layers of cells that overlap [L, H, W]; returns the path.

    Types and scores are taken from the layer's features `index`, `type` and `score`, where it has them. Raises
    InputError for other shapes and too many cells.
    """
    labels: AnyInts = np.asarray(data)
    if labels.ndim == 2:
        labels = labels[None]
    values = np.unique(labels[labels > 0])
    if labels.ndim != 3 or labels.min(initial=0) < 0 or len(values) > MAX_CELLS:
        raise InputError(
            f"{path}: labels of {np.asarray(data).ndim} dimensions with {len(values)} cells; expected 2, or layers of "
            f"them, labels from 0 and at most {MAX_CELLS} cells: show one plane in a layer of its own"
        )
    features = attributes.get("features")
    rows = {} if features is None or "index" not in features else features.set_index("index").to_dict("index")
    known = [rows.get(value, {}) for value in values.tolist()]
    types = [str(row.get("type", UNTYPED)) for row in known]
    names = tuple(dict.fromkeys(types)) or (UNTYPED,)
    numbers = np.searchsorted(values, labels) + 1
    layers = np.where(labels > 0, numbers, 0).astype(np.uint16)
    cells = Cells(
        Path(path).stem,
        Instances(layers, np.array([names.index(name) for name in types], np.int64)),
        np.array([row.get("score", np.nan) for row in known], np.float32),
        names,
    )
    return [str(cells.save(path))]
