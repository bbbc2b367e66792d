"""The writer of bundles."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from sartorius.data.provenance import SPLIT
from sartorius.errors import InputError
from sartorius.exports.bundle.card import card_of, readme
from sartorius.exports.trained import TrainedModel
from sartorius.files import atomic_path, write_zip
from sartorius.formats.cells import Cells
from sartorius.networks import bundles
from sartorius.networks.checkpoints import without_weights
from sartorius.structures.arrays import AnyInts
from sartorius.structures.instances import MAX_CELLS
from sartorius.structures.version import VERSION

_KEPT = ("format_version", "cell_types", "postprocess", "data", "pixel_size", "reading", "trained_on", "images")
_OF_DATA = ("_target_", *SPLIT, "cell_type_names", "val_batch_size")  # decide on the validation images of a fold
_FILES = ("fold_file", "annotation_files")  # of which the names are kept
log = logging.getLogger(__name__)


def write_bundle(model: TrainedModel, path: Path, weights: str = "float32") -> None:
    """Write a bundle, atomically, and read it again.

    weights: "float32" as they are, or "float16": those of two dimensions and more, the others (biases, norms) as they
    are; `model.module` gets the rounded ones. The second of two stages has no example, it finds no cells by itself.

    Raises InputError for weights that float16 cannot hold, or that are NaN.
    """
    state = packed(model.module.state_dict(), weights, model.source)
    if weights == "float16":
        model.module.load_state_dict(state)
    cells = None if model.needs_boxes else model.find_cells(model.example)
    if cells is not None and not len(cells):
        log.warning("%s: the model finds no cell in the example, which checks little; give example=FILE", path)
    members = _members(model, state, weights, cells)
    with atomic_path(path) as temporary:
        write_zip(temporary, members)
        bundles.read_bundle(temporary, str(path))


def _members(model: TrainedModel, state: Mapping[str, Tensor], weights: str, cells: Cells | None) -> dict[str, bytes]:
    """Make the content of each file in a bundle."""
    content, card = save(dict(state)), card_of(model, sum(value.numel() for value in state.values()), weights)
    manifest = {
        "format": bundles.FORMAT,
        "format_version": bundles.FORMAT_VERSION,
        "sartorius": VERSION,
        "metadata": shared_metadata(model.metadata),
        "weights": {"sha256": hashlib.sha256(content).hexdigest(), "dtype": weights},
        "card": card,
        "example": {} if cells is None else {"name": model.example_name, "cell_types": cells.types},
    }
    members = {
        bundles.MANIFEST: json.dumps(manifest, indent=1, allow_nan=False).encode(),
        bundles.WEIGHTS: content,
        bundles.CARD: readme(card).encode(),
    }
    if cells is not None:
        members |= {bundles.EXAMPLE: _png(model.example), bundles.EXAMPLE_CELLS: _png(cells.labels)}
    return members


def packed(state: Mapping[str, Tensor], weights: str, source: str) -> dict[str, Tensor]:
    """Copy weights as they are stored; see `write_bundle`."""
    half = {
        name: value.half() if weights == "float16" and value.is_floating_point() and value.ndim > 1 else value.clone()
        for name, value in state.items()
    }
    for name, value in half.items():
        if value.dtype == torch.float16 and not torch.isfinite(value).all() and torch.isfinite(state[name]).all():
            largest = float(state[name].abs().max())
            raise InputError(f"{source}: '{name}' holds {largest:g}, float16 holds 65504 at most; give weights=float32")
    return {name: value.contiguous() for name, value in half.items()}


def shared_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copy what the cells depend on and where the model comes from, without paths of this machine."""
    data = (metadata.get("config") or {}).get("data") or {}
    kept = {key: _file_names(data[key]) if key in _FILES else data[key] for key in _OF_DATA if key in data}
    if (cleaning := data.get("cleaning")) is not None:
        kept["cleaning"] = {"drop_images": cleaning.get("drop_images", [])}
    fitted = metadata.get("filter")
    return {
        **{key: metadata[key] for key in _KEPT if key in metadata},
        "model": without_weights(metadata["model"]),
        "config": {"data": kept} if kept else {},
        "filter": fitted and {**fitted, "file": Path(fitted["file"]).name},
    }


def _file_names(files: Any) -> Any:
    """Leave out the folder of a file, or of each in a mapping; None stays None."""
    if isinstance(files, Mapping):
        return {key: _file_names(file) for key, file in files.items()}
    return files and Path(str(files)).name


def _png(pixels: AnyInts) -> bytes:
    """Encode an image [H, W], uint8, or labels uint16."""
    buffer = io.BytesIO()
    if pixels.max(initial=0) > MAX_CELLS:
        raise InputError(f"example: {pixels.max()} cells, a label image holds {MAX_CELLS}; give a smaller example=")
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
