"""An ensemble, which joins its members' detections of an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.errors import InputError
from sartorius.fusion.members import EnsembleMember
from sartorius.fusion.methods import Method
from sartorius.fusion.pool import MASK_THRESHOLD, ImageType, MemberDetections, pool
from sartorius.fusion.sources import MemberSource
from sartorius.postprocess import PasteMasks
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.structures import checks
from sartorius.structures.arrays import Floats
from sartorius.structures.detections import Detections


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Joins the detections of its members, image by image.

    names: the cell types of all members. weights: float64 [K] of each member. min_score, calibrate, image_type: see
    `pool.pool`.
    """

    members: Sequence[EnsembleMember]
    names: tuple[str, ...]
    weights: Mapping[str, Floats]
    method: Method
    min_score: float
    calibrate: bool
    image_type: ImageType

    def __post_init__(self) -> None:
        checks.one_of("", ("each", "majority"), image_type=self.image_type)
        checks.fractions("", min_score=self.min_score)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide the result, but for the method, as plain values for meta.json."""
        return {
            "members": {m.name: [os.path.abspath(source.path) for source in m.sources] for m in self.members},
            "weights": {name: values.tolist() for name, values in self.weights.items()},
            "min_score": self.min_score,
            "calibrate": self.calibrate,
            "image_type": self.image_type,
        }

    @property
    def mask_size(self) -> int:
        """M of the joined masks, the largest of all members."""
        return max(source.mask_size for member in self.members for source in member.sources)

    def postprocess(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the post-processing to save, see `joined_postprocess`."""
        saved = [source.postprocess for member in self.members for source in member.sources]
        return joined_postprocess(saved, changes, self.names, self.calibrate or self.method.voted)

    def files(self, image_id: str) -> list[Path]:
        """List the files that the image's joined detections are made of."""
        return [m.source_of[image_id].file(image_id) for m in self.members if image_id in m.source_of]

    def join(self, image_id: str) -> tuple[Detections | None, list[str]]:
        """Join the detections of an image that at least one member has; returns them, with agreement, and problems.

        A file that cannot be read is a problem, its member counts as not having the image, and the detections are None
        where no member is left. Raises InputError for members that have different sizes of the image.
        """
        problems: list[str] = []
        members = self._load(image_id, problems)
        if not members:
            return None, problems
        how: dict[str, Any] = {key: self.settings[key] for key in ("min_score", "calibrate", "image_type")}
        return join_detections(members, self.method, **how), problems

    def _load(self, image_id: str, problems: list[str]) -> list[MemberDetections]:
        """Load the detections of each member that has the image, in their order; `problems` gets unreadable files.

        Submissions do not know the image's size: they are read last, and not at all where those that know it cannot
        be read.
        """
        having = [(member, member.source_of[image_id]) for member in self.members if image_id in member.source_of]
        loaded: dict[str, MemberDetections] = {}
        first: tuple[MemberSource, Detections] | None = None
        for member, source in sorted(having, key=lambda pair: not pair[1].typed):
            if not source.typed and first is None and any(other.typed for _, other in having):
                continue
            size = (first[1].height, first[1].width) if first is not None else None
            try:
                detections = source.load(image_id, size, self.names)
            except InputError as error:
                problems += error.problems
                continue
            first = first or (source, detections)
            _check_size(source, detections, *first)
            thresholds = source.mask_thresholds(self.names)
            loaded[member.name] = MemberDetections(detections, self.weights[member.name], thresholds, source.typed)
        return [loaded[member.name] for member, _ in having if member.name in loaded]


def join_detections(members: Sequence[MemberDetections], method: Method, **how: Any) -> Detections:
    """Join the detections of at least one member on an image, with agreement; how: see `pool.pool`."""
    everything = pool(members, **how)
    if not len(everything):
        return replace(everything.detections, agreement=np.zeros(0, np.float32))
    return method(everything)


def joined_postprocess(
    saved: Sequence[Mapping[str, Any] | None], changes: Mapping[str, Any], cell_types: Sequence[str], calibrated: bool
) -> dict[str, Any]:
    """Choose the post-processing of joined detections: that of the first member with one, and `changes` on top.

    calibrated: the mask threshold becomes 0.5 where `changes` name none. Raises InputError as `from_saved` does.
    """
    post = from_saved(next((settings for settings in saved if settings), None), changes, "postprocess", cell_types)
    if calibrated and not ({"mask", "_target_"} & changes.keys() or changes.get("file")):
        post = post.with_step(PasteMasks(MASK_THRESHOLD))
    return to_saved(post)


def _check_size(source: MemberSource, detections: Detections, other: MemberSource, reference: Detections) -> None:
    if (detections.height, detections.width) != (reference.height, reference.width):
        raise InputError(
            f"image {detections.image_id}: {detections.width}x{detections.height} pixels in {source.path}, "
            f"{reference.width}x{reference.height} in {other.path}: not the same image; predict it again"
        )
