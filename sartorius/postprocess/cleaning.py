"""The steps of post-processing that change the shape of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sartorius.errors import InputError
from sartorius.postprocess import regions
from sartorius.postprocess.candidates import Candidates, layers_of
from sartorius.postprocess.paste import PastedMasks
from sartorius.postprocess.step import Step
from sartorius.postprocess.thresholds import PerType
from sartorius.structures import checks
from sartorius.structures.arrays import Layers
from sartorius.structures.instances import Instances


@dataclass(frozen=True)
class LargestPiece(Step):
    """Keep only the largest connected piece of each cell."""

    def __call__(self, candidates: Candidates) -> Candidates:
        """All candidates, smaller."""
        return candidates.with_layers([regions.keep_largest_piece(layer) for layer in candidates.layers()])


@dataclass(frozen=True)
class FillHoles(Step):
    """Fill what a cell encloses: background after `overlaps`, other cells too before it."""

    def __call__(self, candidates: Candidates) -> Candidates:
        """All candidates, larger."""
        layers = candidates.layers()
        if candidates.disjoint:
            return candidates.with_layers([regions.fill_holes(layer) for layer in layers])
        return candidates.with_layers(_filled(layers, len(candidates)))


@dataclass(frozen=True)
class ReopenHoles(Step):
    """Open pixels up to a probability, the threshold, that surer ones of a cell enclose.

    Annotations of astrocytes are often broken (`data.cleaning` counts how), and the score is against the annotations:
    most of the missing pixels are enclosed holes. A network trained on broken masks dips where they usually are, and
    the mask threshold fills these dips.

    threshold: 0..1; one that is not above the mask threshold opens nothing but what `fill_holes` filled.
    """

    threshold: PerType

    def __post_init__(self) -> None:
        checks.fractions("postprocess.reopen_holes", threshold=self.threshold)

    def __call__(self, candidates: Candidates) -> Candidates:
        """All candidates, smaller."""
        threshold, layers = candidates.limits("reopen_holes.threshold", self.threshold), candidates.layers()
        if candidates.mask_threshold is None:
            raise InputError("postprocess.reopen_holes: the masks have no threshold; put it behind `mask`")
        sure = candidates.paste(np.maximum(threshold, candidates.mask_threshold))
        return candidates.with_layers([regions.open_holes(layer, sure) for layer in layers])


def _filled(layers: Layers, count: int) -> Layers:
    """Fill each mask with all that it encloses, other cells too; returns new layers."""
    masks = Instances(layers, np.zeros(count, np.int64))
    pixel, owner = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for k in range(count):
        top, left, mask = masks.crop_mask(k)
        rows, columns = np.nonzero(ndimage.binary_fill_holes(mask))
        pixel.append((rows + top) * masks.width + columns + left)
        owner.append(np.full(len(rows), k))
    return layers_of(PastedMasks(np.concatenate(pixel), np.concatenate(owner), count, masks.height, masks.width))
