"""A trained model with all that its cells depend on, ready to be written in any format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sartorius.data.dataset import Batch, Target
from sartorius.formats.cells import Cells
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring import saved as saved_filter
from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances

if TYPE_CHECKING:
    from sartorius.modules.base import SegmentationModule


INTENDED_USE = "Finding single cells in label-free microscope images like those that it was trained on, for research."
NOT_FOR = (
    "Diagnosis or any decision about a person; images of other cells, stains, magnifications or microscopes, unless "
    "you checked it on annotated ones of your own. A score on other images tells little about yours."
)


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a model card tells beside the metadata.

    name: of the model. description, intended_use, not_for: sentences. authors: their names. license: an SPDX
    identifier, None where the authors have not chosen. cite: text or DOI of what to cite. score: out-of-fold
    `competition_map`, its `competition_map_interval` and the number of `images`, as `evaluate` wrote them; None where
    nothing has measured it.
    """

    name: str
    description: str
    authors: Sequence[str]
    license: str | None
    cite: str | None
    score: Mapping[str, Any] | None
    intended_use: str = INTENDED_USE
    not_for: str = NOT_FOR


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A module in eval mode on the CPU, and what turns its detections into cells.

    module: with the windows and views that it predicts through. metadata: as in a checkpoint (see
    `networks.checkpoints`): `model` describes `module`, `postprocess` are the settings of its post-processing and
    `filter` the entry of a false-positive filter (see `rescoring.saved`), None without one. example: an image [H, W],
    uint8, at the grey levels of the training, with the name of its file. source: the files that the module was loaded
    from, for messages.
    """

    module: SegmentationModule
    metadata: Mapping[str, Any]
    card: ModelCard
    example: GreyImage
    example_name: str
    source: str

    @property
    def needs_boxes(self) -> bool:
        """Whether the module finds no cells by itself: a crop segmenter, the second of two stages."""
        return isinstance(self.module, CropSegmenterModule)

    def find_cells(self, image: GreyImage) -> Cells:
        """Find the cells of an image [H, W] at its own scale, as `predict` does; raises InputError if `needs_boxes`."""
        fitted = saved_filter.from_entry(self.metadata.get(saved_filter.KEY), self.source)
        names = self.module.cell_type_names
        post = from_saved(self.metadata.get("postprocess"), None, self.source, names)
        target = Target.from_instances(self.example_name, 0, Instances.empty(*image.shape))
        with torch.inference_mode():
            (found,) = self.module.predict_step(Batch([torch.from_numpy(image.copy())[None]], [target]), 0)
        return Cells.of(saved_filter.with_filter(post, fitted)(found), found, image)
