"""Checkpoint metadata beside the weights, read without running code from the file.

The metadata are the module's `hparams`, which Lightning stores: `format_version`, `model` (the resolved config of the
module), `cell_types`, `postprocess`, `data` (its name), `config` (the whole resolved config) and, after a fit,
`trained_on` (see `data.provenance`).
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError
from sartorius.structures import constructible

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule
    from torch import Tensor, nn

log = logging.getLogger(__name__)

KEY = "hyper_parameters"  # Lightning's
FORMAT_VERSION = 2
MOST = 1_000_000  # plain values of metadata: ten a trained image, and the config


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this program (tensors on the CPU, no code is run); raises InputError for another file."""
    from sartorius.networks.torch_files import check_tensors, read_torch  # torch: not for --help

    path = Path(str(checkpoint))
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected a file such as runs/<run>/checkpoints/best.ckpt")
    state: dict[str, Any] = read_torch(path, str(path))
    metadata = metadata_of(state, str(path))
    if metadata is None or not isinstance(state.get("state_dict"), dict):
        raise InputError(f"{path}: not a checkpoint of sartorius.train")
    check_tensors(state["state_dict"], str(path))
    state[KEY] = constructible.plain(metadata, str(path), MOST)
    return state


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


def check_resume(checkpoint: str | Path, module: LightningModule, split: Sequence[str]) -> None:
    """Raise InputError when `checkpoint` cannot continue the training of `module` (with its `hparams`).

    That is: no checkpoint, another model, another split, with which validation images would be trained on, or another
    kind of weight averaging than its own. Another precision is a warning. split: keys of the data config that decide on
    the split.
    """
    state = read_checkpoint(checkpoint)
    before, now = state[KEY].get("config", {}), module.hparams.get("config", {})
    _check_split(checkpoint, split, before.get("data", {}), now.get("data", {}))
    kind, wanted_kind = (str((config.get("averaging") or {}).get("_target_", "")) for config in (before, now))
    if kind not in ("", wanted_kind):  # to start an average is fine; without it the mean itself would be trained
        name = kind.rpartition(".")[2].lower()
        raise InputError(f"{checkpoint}: holds weights averaged by {kind}; resume with averaging={name}")
    _warn_of_precision(checkpoint, *(config.get("trainer", {}).get("precision") for config in (before, now)))
    saved = {name: tuple(value.shape) for name, value in state["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if saved == wanted:
        return
    name = min(n for n in saved.keys() | wanted.keys() if saved.get(n) != wanted.get(n))
    raise InputError(
        f"{checkpoint}: holds another model than the one configured: '{name}' is {saved.get(name, 'absent')} there and "
        f"{wanted.get(name, 'absent')} here; resume with the experiment and options that wrote it"
    )


def _check_split(checkpoint: str | Path, split: Sequence[str], saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in split:
        if saved.get(key) != wanted.get(key):
            raise InputError(
                f"{checkpoint}: was trained with data.{key}={saved.get(key)}, resumed with data.{key}="
                f"{wanted.get(key)}: it could train on validation images; give the same split, or start a new run"
            )


def _warn_of_precision(checkpoint: str | Path, saved: Any, wanted: Any) -> None:
    """Warn where the precision differs, as `auto` may on another machine: the numbers differ from here on."""
    if saved is not None and str(saved) != str(wanted):
        log.warning(
            "%s: was trained with trainer.precision=%s, resumed with trainer.precision=%s; to keep the first, set "
            "trainer.precision=%s", checkpoint, saved, wanted, saved,
        )  # fmt: skip


def build_model(metadata: Mapping[str, Any], state: Mapping[str, Tensor], checkpoint: str | Path) -> Any:
    """Build the model of a checkpoint's metadata, without pretrained weights: the checkpoint supplies them.

    Raises InputError where the metadata name anything but `constructible` parts, and for a model that is larger than
    the weights in `state`.
    """
    from sartorius.networks.allocation import LimitedAllocation

    with LimitedAllocation(state, str(checkpoint)):
        return constructible.build(without_weights(metadata["model"]), str(checkpoint))


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
