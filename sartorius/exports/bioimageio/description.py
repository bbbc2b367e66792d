"""The description of a BioImage.IO package: its `rdf.yaml`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sartorius.errors import InputError
from sartorius.exports.trained import ModelCard, TrainedModel
from sartorius.modules.unet import UNetModule
from sartorius.structures.reading import plain
from sartorius.structures.version import VERSION

# The last version in which documentation and covers are names of files: Java's readers take nothing else
FORMAT_VERSION = "0.5.10"
_NAME = re.compile(r"[A-Za-z0-9_+\- ()]{5,128}")
_DOI = re.compile(r"\b10\.\d{4,9}/\S*[^\s.,;)\]]")
_URL = re.compile(r"https?://\S*[^\s.,;)\]]")


@dataclass(frozen=True)
class TensorSizes:
    """Heights and widths that the network takes: `least` and `step` more as often as wanted.

    step: pixels. halo: pixels along each edge of a tile whose output is to be cropped.
    """

    step: int
    halo: int

    @property
    def least(self) -> int:
        """The smallest that leaves something within its halo."""
        return (2 * self.halo // self.step + 1) * self.step


def describe(model: TrainedModel, module: UNetModule, sizes: TensorSizes, folder: Path) -> dict[str, Any]:
    """Describe a package whose other files lie in a folder."""
    card = model.card
    return {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": card.name,
        "description": card.description[:1024],
        "authors": [{"name": name.replace("/", " ").replace("\\", " ")} for name in card.authors],
        "cite": citations(card.cite),
        "license": card.license,
        "tags": ["unet", "2d", "cells", "instance-segmentation", "semantic-segmentation", "pytorch"],
        "documentation": "README.md",
        "covers": ["cover.png"],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(model.metadata, sizes, folder)],
        "outputs": [_output(module, model.metadata, sizes, folder)],
        "weights": _weights(folder),
        "config": _config(model, module),
    }


def check_name(card: ModelCard) -> None:
    """Raise InputError for a name that the zoo does not take."""
    if not _NAME.fullmatch(card.name):
        raise InputError(
            f"name={card.name}: BioImage.IO takes 5 to 128 letters, digits, spaces and _ + - ( ); give another name="
        )


def channel_names(module: UNetModule) -> list[str]:
    """Name the channels of a U-Net's maps, in their order."""
    several = {"offset": ["offset_y", "offset_x"], "types": [f"type_{name}" for name in module.cell_type_names]}
    return [channel for name in module.layout.slices for channel in several.get(name, [name])]


def citations(text: str | None) -> list[dict[str, str]]:
    """List the citation of a card as BioImage.IO wants it, with a DOI or a URL; nothing where it has neither."""
    if text and (doi := _DOI.search(text)):
        return [{"text": text, "doi": doi[0]}]
    return [{"text": text, "url": url[0]}] if text and (url := _URL.search(text)) else []


def missing_metadata(card: ModelCard) -> str:
    """Name the options of what BioImage.IO asks for and a card lacks; "" where it is complete."""
    there = {"authors=": card.authors, "license=": card.license, "cite= with a DOI or URL": citations(card.cite)}
    return ", ".join(option for option, value in there.items() if not value)


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _space(axis: str, metadata: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Describe an axis of space; its scale is that of the images the network was trained on, where that is known."""
    pixel = metadata.get("pixel_size")
    scale = {"scale": 1.0} if pixel is None else {"scale": float(pixel), "unit": "micrometer"}
    return {"type": "space", "id": axis, **others, **scale}


def _input(metadata: Mapping[str, Any], sizes: TensorSizes, folder: Path) -> dict[str, Any]:
    size = {"min": sizes.least, "step": sizes.step}
    return {
        "id": "image",
        "description": "Grey levels 0 to 255; the network normalises them itself",
        "axes": [
            {"type": "batch", "id": "batch"},
            {"type": "channel", "id": "channel", "channel_names": ["grey"]},
            *(_space(axis, metadata, size=dict(size)) for axis in "yx"),
        ],
        "data": {"type": "float32", "range": [0.0, 255.0]},
        "test_tensor": _file(folder / "test_input.npy"),
        "sample_tensor": _file(folder / "sample_input.png"),
    }


def _output(module: UNetModule, metadata: Mapping[str, Any], sizes: TensorSizes, folder: Path) -> dict[str, Any]:
    axes = [
        _space(axis, metadata, size={"tensor_id": "image", "axis_id": axis, "offset": 0}, halo=sizes.halo)
        for axis in "yx"
    ]
    return {
        "id": "maps",
        "description": "Probabilities of pixels, and offsets to the centre of their cell in pixels",
        "axes": [
            {"type": "batch", "id": "batch"},
            {"type": "channel", "id": "channel", "channel_names": channel_names(module)},
            *axes,
        ],
        "data": {"type": "float32"},
        "test_tensor": _file(folder / "test_output.npy"),
        "sample_tensor": _file(folder / "sample_output.tif"),
    }


def _weights(folder: Path) -> dict[str, Any]:
    import onnx

    graph = folder / "weights.onnx"
    opset = next(entry.version for entry in onnx.load(graph).opset_import if not entry.domain)
    return {
        "onnx": {**_file(graph), "opset_version": opset},
        "torchscript": {
            **_file(folder / "weights.pt"),
            "parent": "onnx",  # one entry must have none
            "pytorch_version": torch.__version__.partition("+")[0],
        },
    }


def _config(model: TrainedModel, module: UNetModule) -> dict[str, Any]:
    """Collect what the zoo has no fields for: about the network, and how this program makes cells of its maps."""
    metadata = model.metadata
    settings = {
        "version": VERSION,
        "cell_types": module.cell_type_names,
        "pixel_size": metadata.get("pixel_size"),
        **{key: metadata["model"].get(key) for key in ("layout", "decoder", "inference", "mask_size")},
        "postprocess": metadata.get("postprocess"),
    }
    return {
        "bioimageio": {
            "architecture_type": "2D U-Net",
            "target_structure": list(module.cell_type_names),
            "task": "instance segmentation",
            "model_parameter_count": sum(weight.numel() for weight in module.network.parameters()),
            "out_of_scope_use": model.card.not_for,
        },
        "sartorius": plain(settings, model.source),
    }
