"""Candidates: the detections of an image that may still become cells, between two steps of post-processing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from sartorius.errors import InputError
from sartorius.postprocess.paste import PastedMasks, paste_masks
from sartorius.postprocess.thresholds import PerType, per_type
from sartorius.structures.arrays import Bools, Boxes, Floats, Ints, LabelMap, Layers, Scores
from sartorius.structures.detections import Detections
from sartorius.structures.instances import MAX_CELLS, Instances, areas_of


@dataclass(frozen=True)
class Candidates:
    """The N candidates of one image, best score first; N may be 0.

    detections: all of the image. source: int64 [N], position of each candidate in them. types: int64 [N], the cell type
    whose thresholds hold for it. masks: the pixels of each candidate, None before they are pasted: PastedMasks, or
    layers uint16 [L, H, W] where candidate k is k + 1. mask_threshold: float64 [N], probability above which its
    pixels were pasted, None before. disjoint: no pixel belongs to two candidates any more, so there is one layer.
    """

    detections: Detections
    source: Ints
    types: Ints
    masks: PastedMasks | Layers | None = None
    mask_threshold: Floats | None = None
    disjoint: bool = False

    @classmethod
    def of(cls, detections: Detections) -> Candidates:
        """Take all detections, sorted by falling score; equal scores keep their order."""
        source = np.argsort(-detections.scores, kind="stable")
        return cls(detections, source, detections.cell_types[source])

    def __len__(self) -> int:
        return len(self.source)

    @property
    def boxes(self) -> Boxes:
        """float32 [N, 4]."""
        return self.detections.boxes[self.source]

    @property
    def scores(self) -> Scores:
        """float32 [N], falling."""
        return self.detections.scores[self.source]

    @property
    def cell_types(self) -> Ints:
        """int64 [N], index into the detections' cell_type_names."""
        return self.detections.cell_types[self.source]

    def limits(self, setting: str, values: PerType) -> Floats:
        """Look up the value of a setting for each candidate, float64 [N].

        Raises InputError, naming the setting, where a cell type of the detections has none.
        """
        return per_type(setting, values, self.detections.cell_type_names)[self.types]

    def select(self, keep: Bools) -> Candidates:
        """Keep the candidates of a boolean mask [N], in their order."""
        if keep.all():
            return self
        masks = self.masks
        if isinstance(masks, PastedMasks):
            masks = masks.select(keep)
        elif masks is not None:
            new = np.zeros(len(keep) + 1, dtype=np.uint16)
            new[1:][keep] = np.arange(1, int(keep.sum()) + 1)
            masks = new[masks]
        threshold = None if self.mask_threshold is None else self.mask_threshold[keep]
        return replace(self, source=self.source[keep], types=self.types[keep], masks=masks, mask_threshold=threshold)

    def paste(self, threshold: Floats) -> PastedMasks:
        """Find the pixels of each candidate whose probability is above its threshold [N]."""
        masks = self.detections.masks[self.source]
        return paste_masks(self.boxes, masks, threshold, self.detections.height, self.detections.width)

    def pasted(self) -> PastedMasks:
        """Return the masks as flat pixels. Raises InputError before they are pasted."""
        if not isinstance(masks := self._masks(), np.ndarray):
            return masks
        runs = Instances(masks, self.cell_types).to_runs()
        pixel, cell = runs.pixels()
        return PastedMasks(pixel, cell, len(self), runs.height, runs.width)

    def layers(self) -> Layers:
        """Return the masks in layers, candidate k as k + 1. Raises InputError before they are pasted."""
        masks = self._masks()
        return masks if isinstance(masks, np.ndarray) else layers_of(masks)

    def areas(self) -> Ints:
        """Count the pixels of each candidate, int64 [N]. Raises InputError before masks are pasted."""
        masks = self._masks()
        return areas_of(masks, len(self)) if isinstance(masks, np.ndarray) else masks.areas

    def with_layers(self, layers: ArrayLike) -> Candidates:
        """Give the candidates other pixels; those left without any are dropped."""
        changed = replace(self, masks=np.asarray(layers, dtype=np.uint16))
        return changed.select(changed.areas() > 0)

    def check_disjoint(self) -> None:
        """Raise InputError unless no pixel belongs to two candidates."""
        if not self.disjoint:
            raise InputError("postprocess: no step removes overlaps, and a cell's pixels must be its own; add overlaps")

    def _masks(self) -> PastedMasks | Layers:
        if self.masks is None:
            raise InputError("postprocess: a step needs the masks before they are pasted; move it behind `mask`")
        return self.masks


def layers_of(pasted: PastedMasks) -> Layers:
    """Arrange masks in layers [L, H, W], mask k as k + 1; masks of one layer share no pixel."""
    return Instances.from_runs(pasted.to_runs(), np.zeros(pasted.count, np.int64)).layers


def remove_overlaps(masks: PastedMasks | Layers) -> LabelMap:
    """Draw a label map [H, W], mask k as k + 1; a pixel of several masks goes to the first, the best score."""
    if isinstance(masks, PastedMasks):
        label_map = np.zeros(masks.height * masks.width, dtype=np.uint16)
        label_map[masks.pixel[::-1]] = masks.mask[::-1] + 1  # of repeated indices the last assignment stays
        return label_map.reshape(masks.height, masks.width)
    free = np.uint16(MAX_CELLS)
    first = np.where(masks == 0, free, masks - np.uint16(1)).min(axis=0)
    return np.where(masks.any(axis=0), first + np.uint16(1), 0).astype(np.uint16)
