"""Weights to start from: none, ImageNet's for the body, COCO's for the whole detector, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor, nn

from sartorius.errors import InputError

# torchvision saved its first detectors under these names; its modules still translate them, tensors by tensor
RENAMED = {
    "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
    "rpn.head.conv.bias": "rpn.head.conv.0.0.bias",
    **{
        f"{old}.{p}": f"{new}.{p}"
        for p in ("weight", "bias")
        for k in range(4)
        for old, new in (
            (f"roi_heads.mask_head.mask_fcn{k + 1}", f"roi_heads.mask_head.{k}.0"),
            (f"backbone.fpn.inner_blocks.{k}", f"backbone.fpn.inner_blocks.{k}.0"),
            (f"backbone.fpn.layer_blocks.{k}", f"backbone.fpn.layer_blocks.{k}.0"),
        )
    },
}


@dataclass(frozen=True)
class LoadReport:
    """What of a file of weights found its place: names of tensors loaded, of other shape, and not in the file."""

    source: str
    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        for title, names in (
            ("other shape, start from nothing", self.reshaped),
            ("not in it, start from nothing", self.missing),
        ):
            if names:
                text += f"; {title}: {', '.join(names)}"
        return text


def load_weights(network: nn.Module, source: str | Path, detector: str, body: str) -> LoadReport:
    """Start `network` (a MaskRCNN) from `source`: "coco", "imagenet" or a file of a state dict or of a checkpoint.

    detector, body: torchvision's names of the models whose weights "coco" and "imagenet" mean. A tensor whose name or
    shape does not fit keeps its initial values and is named in the report; raises InputError when the backbone does
    not fit as a whole, the download fails, or the file is not one of weights. Reading a file executes nothing in it.
    """
    if str(source) == "coco":
        state = _download(detector)
    elif str(source) == "imagenet":
        state = {
            f"backbone.body.{name}": value for name, value in _download(body).items() if not name.startswith("fc.")
        }
    else:
        state = _read(Path(source))
    state = {RENAMED.get(name, name): value for name, value in state.items()}
    own = network.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError(f"model.weights={source}: none of its {len(state)} tensors has a name and shape of this model")
    lost = [name for name in own if name.startswith("backbone.body.") and name not in fitting]
    lost = [name for name in lost if not name.endswith("num_batches_tracked")]
    if lost:
        raise InputError(
            f"model.weights={source}: {len(lost)} tensors of the backbone do not fit, such as {lost[0]}: it is of "
            "another body (model.body), or has another norm (model.network.norm=group, batch or frozen_batch)"
        )
    network.load_state_dict(fitting, strict=False)
    reshaped = tuple(name for name in own if name in state and name not in fitting)
    return LoadReport(str(source), tuple(fitting), reshaped, tuple(name for name in own if name not in state))


def _download(model: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(model).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise InputError(
            f"the weights of {model} could not be downloaded ({error}). Without a network: model.weights=none, or "
            f"fetch {weights.url} elsewhere, and give the file as model.weights=FILE"
        ) from error
    return state


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"model.weights={path}: no such file; expected none, coco, imagenet or a file of weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for files that are not its own
        raise InputError(
            f"model.weights={path}: not a file of PyTorch weights ({str(error).splitlines()[0]})"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = {name.removeprefix("network."): value for name, value in content["state_dict"].items()}
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"model.weights={path}: expected a state dict (tensors by name) or a checkpoint of sartorius.train"
        )
    return content
