"""Checkpoint metadata beside the weights, read without running code from the file.

The metadata are the module's `hparams`, which Lightning stores: `format_version`, `model` (the resolved config of the
module), `cell_types`, `postprocess`, `data` (its name), `pixel_size` (of its images in micrometres, None where not
known), `reading` (of its original files, see `data.competition.about`), `config` (the whole resolved config) and, after
a fit, `trained_on` and `images` (see `data.provenance`): of a training on all labelled images, which nothing has
scored, the list of validation images is empty. Those of a bundle have its `card` and may have a `filter` (see
`rescoring.saved`); of `config` they hold what decides on the fold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError
from sartorius.networks import bundles
from sartorius.networks.builtin import NAME, located
from sartorius.structures import constructible, rules
from sartorius.structures.reading import plain

if TYPE_CHECKING:
    from torch import Tensor, nn

KEY = "hyper_parameters"  # Lightning's
FORMAT_VERSION = 2
MOST = 1_000_000  # plain values of metadata: ten a trained image, and the config
_KINDS: dict[str, type] = {"model": dict, "config": dict, "cell_types": list, "trained_on": dict}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "images": lambda value: isinstance(value, dict) and all(isinstance(ids, list) for ids in value.values()),
    "postprocess": lambda value: isinstance(value, dict),
    "data": lambda value: isinstance(value, str),
    "pixel_size": rules.number(above=0).admits,
    "reading": lambda value: isinstance(value, dict),
}


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint or bundle of this program, or `builtin` (tensors on the CPU, no code is run).

    Raises InputError for another file.
    """
    from sartorius.networks.torch_files import check_tensors  # torch: not for --help

    path = located(str(checkpoint))
    if not path.is_file():
        raise InputError(
            f"{path}: no such checkpoint; expected a file such as runs/<run>/checkpoints/best.ckpt, or {NAME}"
        )
    state: dict[str, Any] = read_content(path, str(path))
    metadata = metadata_of(state, str(path))
    if metadata is None or not isinstance(state.get("state_dict"), dict):
        raise InputError(f"{path}: not a checkpoint of sartorius.train")
    check_tensors(state["state_dict"], str(path))
    state[KEY] = plain(metadata, str(path), MOST)
    for key, kind in _KINDS.items():
        if not isinstance(state[KEY].get(key, kind()), kind):
            raise InputError(_other_kind(path, key))
    for key, admits in _OPTIONAL.items():
        if (value := state[KEY].get(key)) is not None and not admits(value):
            raise InputError(_other_kind(path, key))
    return state


def _other_kind(path: Path, key: str) -> str:
    return f"{path}: not a checkpoint of sartorius.train: '{key}' of its metadata is another kind of value"


def read_content(path: Path, source: str) -> Any:
    """Read a file of torch or, in the layout of a checkpoint, a bundle; raises as `read_torch` and `read_bundle` do."""
    from sartorius.networks.torch_files import read_torch

    if not bundles.is_bundle(path):
        return read_torch(path, source)
    bundle = bundles.read_bundle(path, source)
    return {"state_dict": bundle.state, KEY: bundle.metadata}


def metadata_of(content: Any, source: str) -> dict[str, Any] | None:
    """Get the metadata from the content of a checkpoint of this program; None for any other content.

    Raises InputError, which names `source`, for a checkpoint of another format version.
    """
    for key in (KEY, "sartorius"):  # the second in version 1
        metadata = content.get(key) if isinstance(content, dict) else None
        if not isinstance(metadata, dict) or "format_version" not in metadata:
            continue
        if (version := metadata["format_version"]) == FORMAT_VERSION:
            return metadata
        remedy = "train it again" if version == 1 else "update sartorius"
        raise InputError(f"{source}: format version {version}, this program reads {FORMAT_VERSION}; {remedy}")
    return None


def build_model(metadata: Mapping[str, Any], state: Mapping[str, Tensor], checkpoint: str | Path) -> Any:
    """Build the model of a checkpoint's metadata, without pretrained weights: the checkpoint supplies them.

    Raises InputError where the metadata name anything but `constructible` parts, and for a model that is larger than
    the weights in `state`.
    """
    from sartorius.networks.allocation import LimitedAllocation

    with LimitedAllocation(state, str(checkpoint)):
        return constructible.build(without_weights(metadata.get("model")), str(checkpoint))


def load_weights(module: nn.Module, state: dict[str, Any], checkpoint: str | Path) -> None:
    """Load the weights of a checkpoint's content; raises InputError when they do not fit."""
    try:
        module.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        text = textwrap.shorten(str(error), 300, placeholder="...")
        raise InputError(f"{checkpoint}: the weights do not fit the model of its metadata: {text}") from error


def without_weights(node: Any) -> Any:
    """Copy plain containers with every `weights` set to None: the checkpoint supplies them."""
    if isinstance(node, dict):
        return {key: None if key == "weights" else without_weights(value) for key, value in node.items()}
    return [without_weights(value) for value in node] if isinstance(node, list) else node
