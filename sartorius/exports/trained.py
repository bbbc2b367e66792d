"""A trained model with all that its cells depend on, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartorius.structures.arrays import GreyImage

if TYPE_CHECKING:
    from sartorius.modules.base import SegmentationModule


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model card tells beside the metadata.

    name: of the model. description: one sentence. authors: their names. license: an SPDX identifier, None where the
    authors have not chosen. cite: text or DOI of what to cite. score: out-of-fold mAP with its interval, as `evaluate`
    wrote it; None where nothing has measured it.
    """

    name: str
    description: str
    authors: Sequence[str]
    license: str | None
    cite: str | None
    score: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A module in eval mode on the CPU, and what turns its detections into cells.

    module: with the windows and views that it predicts through. metadata: as in a checkpoint (see
    `networks.checkpoints`): `model` describes `module`, `postprocess` are the settings of its post-processing and
    `filter` the entry of a false-positive filter (see `rescoring.saved`), None without one. example: an image [H, W],
    uint8, with the name of its file. source: the files that the module was loaded from, for messages.
    """

    module: SegmentationModule
    metadata: Mapping[str, Any]
    card: ModelCard
    example: GreyImage
    example_name: str
    source: str
