"""Weights to start from: ImageNet's for the body, COCO's for the whole detector, or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sartorius.errors import InputError
from sartorius.networks import detectron2_weights
from sartorius.networks.builtin import located
from sartorius.networks.class_mapping import ClassMapping
from sartorius.networks.local_weights import FOLDER, local_download
from sartorius.networks.mask_rcnn import MaskRCNN
from sartorius.networks.weight_files import WeightFile, read_weights

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
log = logging.getLogger(__name__)
BODIES = ("backbone.body.", "encoder.")  # of a Mask R-CNN, of a U-Net


@dataclass(frozen=True)
class LoadReport:
    """The tensors of a network by name that a file of weights filled, that it has in another shape, and that it lacks.

    unused: tensors of the file that the network lacks. heads: the cell types that rows start from, "" where they are
    the same or not known. metadata: of one of our checkpoints, None for other weights.
    """

    source: str
    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...] = ()
    heads: str = ""
    metadata: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.loaded)} tensors loaded"
        if self.heads:
            text += f"; cell types: {self.heads}"
        for title, names in (
            ("other shape, start from nothing", self.reshaped),
            ("not in it, start from nothing", self.missing),
            ("in it, not used", self.unused),
        ):
            if names:
                text += f"; {title}: {', '.join(names)}"
        return text


def load_weights(
    network: nn.Module,
    source: str | Path,
    detector: str | None = None,
    body: str | None = None,
    cell_types: Sequence[str] = (),
    class_mapping: Mapping[str, str] | None = None,
) -> LoadReport:
    """Load weights into a MaskRCNN or a UNet from `source`: coco, imagenet, builtin or a file, see `read_weights`.

    detector, body: torchvision's names of the models whose weights "coco" and "imagenet" are (taken from the folder
    SARTORIUS_WEIGHTS, or else downloaded); None where there are none. cell_types: of the network. Where a checkpoint
    was trained on other cell types, rows are carried over by name; class_mapping gives the names that differ (ours ->
    theirs), see `ClassMapping`. A tensor whose name or shape does not fit keeps its initial values and is named in the
    report.

    Raises InputError when the body does not fit as a whole or is part of a larger one, a part of detectron2's is not
    whole, class_mapping names unknown types, the download fails, or the file is not one of weights.
    """
    wanted = network.state_dict()
    file = _content(source, detector, body)
    if detectron2_weights.is_detectron2(file.state):
        state = _from_detectron2(network, file.state, f"model.weights={source}")
    else:
        state = {RENAMED.get(name, name): value for name, value in file.state.items()}
    state, heads = _map_heads(state, wanted, file, cell_types, class_mapping or {}, str(source))
    fitting = {name: value for name, value in state.items() if name in wanted and wanted[name].shape == value.shape}
    if not fitting:
        raise InputError(f"model.weights={source}: none of its {len(state)} tensors has a name and shape of this model")
    unused = _tracked(name for name in state if name not in wanted)
    _check_body(_tracked(name for name in wanted if name not in fitting), unused, f"model.weights={source}")
    network.load_state_dict(fitting, strict=False)
    reshaped = tuple(name for name in wanted if name in state and name not in fitting)
    missing = tuple(name for name in wanted if name not in state)
    report = LoadReport(str(source), tuple(fitting), reshaped, missing, unused, heads, file.metadata)
    log.info("%s", report)
    return report


def _tracked(names: Iterable[str]) -> tuple[str, ...]:
    """Leave out the counters of batch norms, which not every file has."""
    return tuple(name for name in names if not name.endswith("num_batches_tracked"))


def _content(source: str | Path, detector: str | None, body: str | None) -> WeightFile:
    models = {"coco": detector, "imagenet": body}
    if str(source) not in models:
        return read_weights(located(source))
    model = models[str(source)]
    if model is None:
        raise InputError(
            f"model.weights={source}: torchvision has none for this model; ImageNet's for a timm network: "
            "model.network.encoder.weights=imagenet (U-Net), model.network.backbone.weights=imagenet (Mask R-CNN)"
        )
    state = _download(model)
    if str(source) == "coco":
        return WeightFile(state)
    return WeightFile({f"backbone.body.{name}": value for name, value in state.items() if not name.startswith("fc.")})


def _from_detectron2(network: nn.Module, state: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    if not isinstance(network, MaskRCNN):
        raise InputError(
            f"{source}: weights of detectron2's Mask R-CNN, which a {type(network).__name__} does not take"
        )
    converted = detectron2_weights.convert(state, network.rpn.anchors.sizes, source)
    detectron2_weights.check_parts(converted, network.state_dict(), source)
    return converted


def _map_heads(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    file: WeightFile,
    cell_types: Sequence[str],
    class_mapping: Mapping[str, str],
    source: str,
) -> tuple[Mapping[str, Tensor], str]:
    """Put rows of cell types where the network has them; also return the mapping in words."""
    if not file.cell_types or not cell_types:
        if class_mapping:
            raise InputError(
                f"model.class_mapping={dict(class_mapping)}: {source} does not name the cell types it was trained on; "
                "a checkpoint of sartorius.train does. Set model.class_mapping=null"
            )
        return state, ""
    heads = ClassMapping(file.cell_types, cell_types, class_mapping, source)
    return (state, "") if heads.same else (heads.apply(state, wanted), str(heads))


def _check_body(unfilled: Sequence[str], unused: Sequence[str], source: str) -> None:
    """Raise InputError where the network's body is not wholly in the file, or the file's is a larger one."""
    lost = [name for name in unfilled if name.startswith(BODIES)]
    more = [name for name in unused if name.startswith(BODIES)]
    if lost or more:
        what = (
            f"{len(lost)} tensors of the backbone do not fit, such as {lost[0]}"
            if lost
            else f"{len(more)} tensors of its backbone are not in this one, such as {more[0]}"
        )
        raise InputError(
            f"{source}: {what}: it is of another body (model.body, or the encoder), or has another norm "
            "(model.network.norm=group, batch or frozen_batch)"
        )


def _download(model: str) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(model).DEFAULT
    file = local_download(weights.url)
    if file is not None:
        log.info("the weights of %s are taken from %s", model, file)
        return read_weights(file).state
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise InputError(
            f"the weights of {model} could not be downloaded ({error}). Without a network: model.weights=none, or "
            f"fetch {weights.url} elsewhere and put it into the folder {FOLDER}"
        ) from error
    return state
