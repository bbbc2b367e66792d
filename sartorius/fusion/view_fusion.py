"""Test-time augmentation's views joined as an ensemble joins its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sartorius.fusion.methods import Method
from sartorius.fusion.pool import MASK_THRESHOLD, MemberDetections, pool
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections


@constructible
@dataclass(frozen=True, kw_only=True)
class ViewFusion:
    """Joins the detections of an image's views, all with one weight.

    method: clusters and fuses cells, see `fusion.methods`. min_score: detections below it are left out first.
    """

    method: Method
    min_score: float

    def __call__(self, views: Sequence[Detections]) -> Detections:
        """Join the views into one set of detections, best score first, with `agreement`."""
        equal = np.ones(len(views[0].cell_type_names))
        members = [MemberDetections(view, weights=equal, mask_thresholds=equal * MASK_THRESHOLD) for view in views]
        return self.method(pool(members, min_score=self.min_score, calibrate=False, image_type="each"))
