"""Files of weights: tensors by name and, in our own checkpoints, their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.networks.torch_files import UnsafeFileError, check_tensors
from sartorius.structures.safe_pickle import read_pickle


@dataclass(frozen=True)
class WeightFile:
    """Tensors by name, on the CPU, and the metadata of one of our checkpoints (None: another file)."""

    state: Mapping[str, Tensor]
    metadata: Mapping[str, Any] | None = None

    @property
    def cell_types(self) -> tuple[str, ...]:
        """The cell types that it was trained on, in their order; () where that is not known."""
        return tuple(str(name) for name in (self.metadata or {}).get("cell_types") or ())


def read_weights(path: Path) -> WeightFile:
    """Read a checkpoint of `sartorius.train`, a bundle, a state dict of torch's, or a `.pth` or `.pkl` of detectron2's.

    Nothing in the file is executed. Raises InputError where it is missing, damaged, refused, or holds no tensors or
    several models.
    """
    if not path.is_file():
        raise InputError(
            f"model.weights={path}: no such file; expected none, coco, imagenet, builtin or a file of weights"
        )
    content = read_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    metadata = checkpoints.metadata_of(content, f"model.weights={path}")
    model = (metadata or {}).get("model")
    if isinstance(model, dict) and (several := {"first", "members"} & model.keys()):
        raise InputError(
            f"model.weights={path}: holds several models ({', '.join(several)}); give the checkpoint or bundle of one"
        )
    for key in ("state_dict", "model"):  # of Lightning's checkpoints, of detectron2's
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = {str(name).removeprefix("network."): value for name, value in content[key].items()}
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"model.weights={path}: expected a state dict (tensors by name), a checkpoint of sartorius.train or a file "
            "of detectron2's model zoo"
        )
    arrays = {str(name): value for name, value in content.items()}
    state = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in arrays.items()
    }
    check_tensors(state, f"model.weights={path}")
    return WeightFile(state, metadata)


def _read_torch(path: Path) -> Any:
    try:
        return checkpoints.read_content(path, f"model.weights={path}")
    except UnsafeFileError as error:
        raise InputError(
            f"{error}. Where you trust it, save its weights alone: torch.save(torch.load(FILE, weights_only=False)"
            "['model'], NEW)"
        ) from error
