"""The model of a package: a network in ONNX, and what turns its maps into cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sartorius.data.channels import choose_channel
from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.exports.onnx.standalone.resizing import bilinear, mirror_to_multiple
from sartorius.exports.onnx.standalone.second import SecondStage, check_finite
from sartorius.exports.onnx.standalone.tiling import predict_maps
from sartorius.inference.scaled import resized, scaled_size
from sartorius.networks.normalisation import LEAST_STD
from sartorius.postprocess.cleaning import FillHoles, LargestPiece, ReopenHoles
from sartorius.postprocess.decoders import Components, OffsetVoting, Watershed
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.maps import CellMaps
from sartorius.postprocess.steps import (
    BoxNMS,
    MaskNMS,
    MaxDetections,
    MinArea,
    Overlaps,
    PasteMasks,
    Score,
    ThresholdTypes,
)
from sartorius.structures import rle
from sartorius.structures.arrays import Floats32, GreyImage, LabelMap, Plane, Scores
from sartorius.structures.detections import Detections

FORMAT, FORMAT_VERSION = "sartorius-onnx", 1
NETWORK, SECOND, SETTINGS = "network.onnx", "second.onnx", "settings.json"  # SECOND: where there are two stages
DECODERS: dict[str, Any] = {kind.__name__: kind for kind in (Components, OffsetVoting, Watershed)}
STEPS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ThresholdTypes, Score, MaxDetections, BoxNMS, PasteMasks, MaskNMS, Overlaps, MinArea, LargestPiece, FillHoles,
        ReopenHoles,
    )
}  # fmt: skip


@dataclass(frozen=True)
class FoundCells:
    """The N cells of an image, best score first; N may be 0.

    labels: uint16 [H, W], 0 is background and k + 1 is cell k. scores: float32 [N] in 0..1. types: a name a cell.
    """

    labels: LabelMap
    scores: Scores
    types: list[str]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def rles(self) -> list[str]:
        """The run-length text of each cell: pairs of start (counted from 1, row by row) and length."""
        return rle.format(rle.from_layers(self.labels, len(self)))


class OnnxModel:
    """A function of an image that finds its cells: `Model()(image).labels`.

    folder: with network.onnx and settings.json; None: that of this file. threads: of onnxruntime; None: its own choice.
    channel: of images with several, counted from 0; None: that of the training.

    Raises InputError for a folder of another format version and settings that are none.
    """

    def __init__(
        self, folder: str | Path | None = None, threads: int | None = None, channel: int | None = None
    ) -> None:
        folder = Path(__file__).resolve().parent if folder is None else Path(folder)
        file = folder / SETTINGS
        try:
            settings: dict[str, Any] = json.loads(file.read_text("utf-8"))
            if (settings["format"], settings["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise InputError(f"{file}: expected {FORMAT} of version {FORMAT_VERSION}; export the model again")
            self.settings, self.cell_type_names = settings, tuple(settings["cell_types"])
            self.network, self.maps = settings["network"], {k: slice(*v) for k, v in settings["maps"].items()}
            self.levels, self.decoder = Levels(**settings["levels"]), _built(DECODERS, settings["decoder"])
            self.channel = settings.get("channel") if channel is None else channel
            second = settings.get("second")
            steps = {name: _built(STEPS, step) for name, step in settings["postprocess"].items()}
        except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not the settings of a model ({error!r}); export it again") from error
        self.postprocess, self._network = Postprocess(None, **steps), _opened(folder / NETWORK, threads)
        self.second = None
        if second is not None:
            try:
                self.second = SecondStage(network=_opened(folder / SECOND, threads), **second)
            except TypeError as error:
                raise InputError(f"{file}: not the settings of a second stage ({error}); export it again") from error

    def __call__(self, image: NDArray[Any], pixel_size: float | None = None, name: str = "image") -> FoundCells:
        """Find the cells of an image, numbers [H, W] or [H, W, channels]; name: of the image, for errors.

        Where the training had one channel alone it is taken, see `choose_channel`. Grey levels are brought to those of
        the training. pixel_size: see `find_cells`. Raises InputError as these do, and for NaN and infinity.
        """
        return self.find_cells(self.levels(choose_channel(image, self.channel, name), name), pixel_size, name)

    def find_cells(self, grey: GreyImage, pixel_size: float | None = None, name: str = "image") -> FoundCells:
        """Find the cells of an image uint8 [H, W] at the grey levels of the training.

        pixel_size: micrometres above 0; where that of the training is known too, the image is resized to it for the
        network. Raises InputError for another pixel size.
        """
        if pixel_size is not None and not 0 < pixel_size < np.inf:
            raise InputError(f"--pixel-size {pixel_size}: expected micrometres above 0")
        trained = self.settings["pixel_size"]
        scale = 1.0 if pixel_size is None or trained is None else pixel_size / trained
        found = self._detect(_rescaled(grey, scale).astype(np.float32), name)
        final = self.postprocess(resized(found, *grey.shape))
        types = [self.cell_type_names[k] for k in final.cell_types]
        return FoundCells(final.instances.layers[0], final.scores, types)

    def _detect(self, image: Plane, name: str) -> Detections:
        logits = predict_maps(self.settings["windows"], self._logits, image, self.maps.get("offset"))
        check_finite(name, logits)
        maps = {key: logits[part] for key, part in self.maps.items()}
        single = {key: expit(maps[key][0]) for key in ("foreground", "border", "centre") if key in maps}
        offset, types = maps.get("offset"), maps.get("types")
        if offset is not None:
            offset = offset * np.float32(self.settings["offset_scale"])
        if types is not None:
            types = np.exp(types - types.max(axis=0))
            types /= types.sum(axis=0)
        cells = self.decoder(CellMaps(**single, offset=offset, types=types))
        size, names = self.settings["mask_size"], self.cell_type_names
        found = Detections.from_regions(
            name, cells.regions, single["foreground"], cells.scores, cells.cell_types, size, names
        )
        if self.second is None:
            return found
        return self.second(_normalised(image, self.second.mean, self.second.std), found)

    def _logits(self, crops: Floats32) -> Floats32:
        """Apply the network to crops [B, 1, h, w] of grey levels; logits [B, C, h, w]."""
        (height, width), scale = crops.shape[-2:], self.network["scale"]
        if not self.network["normalises"]:
            crops = _normalised(crops, self.network["mean"], self.network["std"])
        if scale != 1:
            crops = bilinear(crops, int(height * scale), int(width * scale), scale)
        rows, columns = crops.shape[-2:]
        logits = self._network(mirror_to_multiple(crops, self.network["multiple"]))[..., :rows, :columns]
        return logits if scale == 1 else bilinear(logits, height, width)


def _opened(path: Path, threads: int | None) -> Callable[[Floats32], Floats32]:
    """Open a network of one input and one output; raises InputError for a file that is none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (name,) = (given.name for given in session.get_inputs())
    except Exception as error:  # onnxruntime raises a dozen kinds
        raise InputError(f"{path}: not a network that onnxruntime reads ({error})") from error

    def network(values: Floats32) -> Floats32:
        (result,) = session.run(None, {name: values})
        return np.asarray(result)

    return network


def _built(known: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    """Build the decoder or the step of post-processing that settings with a `kind` describe."""
    return known[settings["kind"]](**{key: value for key, value in settings.items() if key != "kind"})


def _normalised(crops: Floats32, mean: float | None, std: float | None) -> Floats32:
    """Shift and scale grey levels; None: by the crop's own statistics."""
    shift = crops.mean(axis=(-2, -1), keepdims=True) if mean is None else np.float32(mean)
    spread = crops.std(axis=(-2, -1), keepdims=True).clip(LEAST_STD) if std is None else np.float32(std)
    return np.asarray((crops - shift) / spread, np.float32)


def _rescaled(grey: GreyImage, scale: float) -> GreyImage:
    """Resize an image uint8 [H, W], smoothed before it is made smaller."""
    height, width = grey.shape
    size = scaled_size(height, width, scale)
    if size == grey.shape:
        return grey
    return np.rint(bilinear(grey.astype(np.float32), *size, antialias=True)).clip(0, 255).astype(np.uint8)
