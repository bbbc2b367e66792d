"""Training examples of the false-positive filter: the cells of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sartorius.errors import InputError
from sartorius.metrics.functional import ROW_LENGTH, true_positives
from sartorius.metrics.unlabelled import left_out
from sartorius.postprocess.finalise import Finalised
from sartorius.rescoring.cell_features import cell_features
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs


@dataclass(frozen=True)
class Example:
    """The N cells of an image: features float64 [N, F], and the overlaps with true cells that the score needs.

    pairs: (i, j, shared pixels) of cells and true cells that overlap, areas and true_areas: int64, pixels.
    """

    image_id: str
    features: Floats
    pairs: tuple[Ints, Ints, Ints]
    areas: Ints
    true_areas: Ints

    @classmethod
    def of(cls, detections: Detections, finalised: Finalised, truth: Runs, ignored: Bools | None = None) -> Example:
        """Compare an image's cells with its annotation; InputError where they differ in size.

        Those mostly in `ignored` pixels, bool [H, W], which nobody has labelled, are only surroundings of others.
        """
        runs = finalised.instances.to_runs()
        if (runs.height, runs.width) != (truth.height, truth.width):
            raise InputError(
                f"image {detections.image_id}: {runs.width}x{runs.height} pixels, its annotation "
                f"{truth.width}x{truth.height}; the detections are of another image"
            )
        pairs = rle.intersections(runs, truth)
        features, areas = cell_features(detections, finalised.source, runs), runs.areas
        if ignored is not None:
            counted = ~left_out(runs, ignored)
            (i, j, shared), number = (part[counted[pairs[0]]] for part in pairs), np.cumsum(counted) - 1
            pairs, features, areas = (number[i], j, shared), features[counted], areas[counted]
        return cls(detections.image_id, features, pairs, areas, truth.areas)

    @cached_property
    def iou(self) -> Floats:
        """The best IoU of each cell with a true one, float64 [N]; 0 where it overlaps none."""
        i, j, shared = self.pairs
        best = np.zeros(len(self.areas))
        np.maximum.at(best, i, shared / (self.areas[i] + self.true_areas[j] - shared))
        return best

    def row(self, keep: Bools) -> Ints:
        """Make the image's row of `metrics.functional`, index 0, with only the cells of `keep` [N]."""
        i, j, shared = (part[keep[self.pairs[0]]] for part in self.pairs)
        row = np.zeros(ROW_LENGTH, np.int64)
        row[1:-2] = true_positives(i, j, shared, self.areas, self.true_areas)
        row[-2:] = np.count_nonzero(keep), np.count_nonzero(self.true_areas)
        return row


def rows_of(examples: Sequence[Example], kept: Sequence[Bools]) -> Ints:
    """Make the rows int64 [P, 13] of images with only the cells of `kept`, bool [N] each, numbered by position."""
    rows = np.array([e.row(keep) for e, keep in zip(examples, kept, strict=True)], np.int64).reshape(-1, ROW_LENGTH)
    rows[:, 0] = np.arange(len(rows))
    return rows
