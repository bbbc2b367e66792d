"""Several models as one: each detects the cells of an image, and their detections are joined as an ensemble's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from sartorius.data import provenance
from sartorius.data.files.reading import Reading
from sartorius.errors import InputError
from sartorius.fusion.join import join_detections, joined_postprocess
from sartorius.fusion.methods import Method
from sartorius.fusion.pool import ImageType, MemberDetections, counted_as
from sartorius.inference.windows import in_memory
from sartorius.modules.base import SegmentationModule
from sartorius.networks.checkpoints import FORMAT_VERSION
from sartorius.structures import checks
from sartorius.structures.constructible import config_of, constructible

if TYPE_CHECKING:
    from sartorius.data.dataset import Batch
    from sartorius.inference.windows import Windows
    from sartorius.structures.detections import Detections

_HINT = "predict with each of them, and join their detections with `ensemble`"


@constructible
class JoinedModule(SegmentationModule):
    """Models whose detections of an image are joined by `method`, see `fusion.methods`. Not trained as a whole.

    members: by name. member_weights, mask_thresholds: of each member, a number for each of the K cell types, see
    `pool.MemberDetections`. min_score, calibrate, image_type: see `pool.pool`. cell_type_names: of the result; members
    may have fewer, in any order.
    """

    def __init__(
        self,
        members: Mapping[str, SegmentationModule] | None,
        method: Method,
        *,
        member_weights: Mapping[str, Sequence[float]] | None,
        min_score: float,
        calibrate: bool,
        image_type: ImageType,
        mask_thresholds: Mapping[str, Sequence[float]] | None = None,
        cell_type_names: Sequence[str] = (),
    ) -> None:
        if not members or member_weights is None or mask_thresholds is None:
            raise InputError(
                "a joined model is put together for predict and export, from trained parts: model=joined "
                "'model.members={a: A.ckpt, b: B.ckpt}'"
            )
        super().__init__(cell_type_names)
        for name, member in members.items():
            if not isinstance(member, SegmentationModule):
                raise InputError(f"model.members.{name}: a {type(member).__name__}, expected a model")
        checks.one_of("model", ("each", "majority"), image_type=image_type)
        checks.fractions("model", min_score=min_score, mask_thresholds=_flat(mask_thresholds))
        checks.numbers("model", 0, member_weights=_flat(member_weights))
        count = len(self.cell_type_names)
        self.weights, self.mask_thresholds = (
            [np.array([*table.get(name, ())], np.float64) for name in members]
            for table in (member_weights, mask_thresholds)
        )
        if any(len(values) != count for values in (*self.weights, *self.mask_thresholds)):
            raise InputError(f"model.members: expected a weight and a mask threshold for each of {count} cell types")
        self.names, self.members, self.method = tuple(members), nn.ModuleList(members.values()), method
        self.pooling: dict[str, Any] = {"min_score": min_score, "calibrate": calibrate, "image_type": image_type}
        known = [member.inference for member in self._members]
        self.inference = None if None in known else known[0]

    @property
    def _members(self) -> list[SegmentationModule]:
        return [cast(SegmentationModule, member) for member in self.members]

    @property
    def export_settings(self) -> dict[str, Any]:
        """Those of each member, by its name."""
        return {name: member.export_settings for name, member in zip(self.names, self._members, strict=True)}

    def take_capped(self) -> str | None:
        """Name the images of which a member did not keep all detections."""
        told = [member.take_capped() for member in self._members]
        named = [f"{name}: {text}" for name, text in zip(self.names, told, strict=True) if text is not None]
        return "; ".join(named) or None

    def change_windows(self, change: Callable[[Windows], Windows]) -> None:
        """Change the windows of every member; raises InputError where one takes whole images only."""
        for member in self._members:
            member.change_windows(change)
        self.inference = self._members[0].inference

    def described(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return `model` with the windows that the members have now."""
        parts = zip(self.names, self._members, strict=True)
        return {**model, "members": {name: member.described(model["members"][name]) for name, member in parts}}

    def detect(self, batch: Batch) -> list[Detections]:
        """Detect the cells of every image: NumPy, on the CPU; an image may have none."""
        return self._join(batch, [member.detect(batch) for member in self._in_memory(batch)])

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Detections]:
        """Detect the cells at the scale of each image's target; they are joined in the pixels of its file."""
        return self._join(batch, [member.predict_step(batch, batch_idx) for member in self._in_memory(batch)])

    def _in_memory(self, batch: Batch) -> list[SegmentationModule]:
        for image in batch.images:
            in_memory(image, "model=joined", _HINT)
        return self._members

    def _join(self, batch: Batch, found: Sequence[Sequence[Detections]]) -> list[Detections]:
        """Join what each member found, image by image."""
        joined = []
        for image in zip(*found, strict=True):
            parts = [
                MemberDetections(counted_as(detections, self.cell_type_names, name), weights, thresholds)
                for name, detections, weights, thresholds in zip(
                    self.names, image, self.weights, self.mask_thresholds, strict=True
                )
            ]
            joined.append(join_detections(parts, self.method, **self.pooling))
        return joined

    def configure_optimizers(self) -> Any:
        """Raise InputError: the members are trained by themselves."""
        raise InputError("a joined model is not trained as a whole: train each of model.members")


def _flat(table: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {f"{name}.{k}": value for name, values in table.items() for k, value in enumerate(values)}


def joined_metadata(module: JoinedModule) -> dict[str, Any]:
    """Make the metadata of a joined model from those of its members: where they differ, of none or of all.

    The post-processing is that of an ensemble of them. Raises InputError for members whose images must be read or
    resized in different ways.
    """
    metas = dict(zip(module.names, [member.hparams for member in module._members], strict=True))
    readings = {name: Reading.of_training(meta) for name, meta in metas.items()}
    levels = {name: reading.levels for name, reading in readings.items()}
    _check_same("grey levels", {name: f"mean {one.mean:g}, deviation {one.std:g}" for name, one in levels.items()})
    _check_same("pixel sizes", {name: str(meta.get("pixel_size")) for name, meta in metas.items()})
    _check_same("channels, pages or levels", {name: str(reading.options()) for name, reading in readings.items()})
    names, (first, *others) = list(module.cell_type_names), metas.values()
    tables = {"member_weights": module.weights, "mask_thresholds": module.mask_thresholds}
    model = {
        "_target_": f"{JoinedModule.__module__}.{JoinedModule.__name__}",
        "members": {name: meta["model"] for name, meta in metas.items()},
        "method": config_of(module.method),
        **{key: dict(zip(metas, [v.tolist() for v in values], strict=True)) for key, values in tables.items()},
        **module.pooling,
        "cell_type_names": names,
    }
    saved = [meta.get("postprocess") for meta in metas.values()]
    known: dict[str, str] = {}
    for meta in metas.values():
        known |= meta.get(provenance.KEY) or {}
    alike = all(_split(meta) == _split(first) for meta in others)
    return {
        "format_version": FORMAT_VERSION,
        "model": model,
        "cell_types": names,
        "postprocess": joined_postprocess(saved, {}, names, module.pooling["calibrate"] or module.method.voted),
        "data": " + ".join(dict.fromkeys(str(meta["data"]) for meta in metas.values() if meta.get("data"))) or None,
        "pixel_size": first.get("pixel_size"),
        "reading": first.get("reading"),
        "config": first.get("config") if alike else {},
        provenance.KEY: known,
        **({provenance.OWN: first[provenance.OWN]} if alike and provenance.OWN in first else {}),
    }


def _check_same(what: str, values: Mapping[str, str]) -> None:
    if len(set(values.values())) > 1:
        told = ", ".join(f"{name}: {value}" for name, value in values.items())
        raise InputError(f"model.members: trained on different {what} ({told}); {_HINT}")


def _split(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Choose what decides on the validation images of a model's metadata."""
    data = (metadata.get("config") or {}).get("data") or {}
    return {key: data.get(key) for key in ("_target_", *provenance.SPLIT)}
