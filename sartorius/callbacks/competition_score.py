"""The competition's score of every validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sartorius.callbacks.scored_images import CompetitionResult, ImageCallback, ScoredImage, Validation, gather_images
from sartorius.metrics import functional
from sartorius.metrics.box_ap import BoxAP
from sartorius.metrics.competition_map import CompetitionMap
from sartorius.metrics.instance_scores import overlap_row, scores_per_image
from sartorius.structures.arrays import Floats, Ints


class CompetitionScore(ImageCallback):
    """Scores of whole images after post-processing, logged as means over images.

    Logs val/map (the competition's score), val/map_<cell type>, val/precision_50 ... val/precision_95 (per-image
    means at one IoU threshold) and val/box_ap (COCO, before post-processing). Lightning's sanity check before
    training is not scored. An image without cells counts under its cell type too.

    box_ap: also count val/box_ap, which takes longer than the rest with hundreds of images. max_detections:
    highest-scoring boxes an image that val/box_ap counts. instance_scores: also log val/f1, val/pq, val/aji and the
    rest of `metrics.instance_scores.MEANINGS`, and keep them for the run's files.
    """

    def __init__(self, box_ap: bool = True, max_detections: int = 2000, instance_scores: bool = False) -> None:
        self.box_ap = box_ap
        self.max_detections = max_detections
        self.instance_scores = instance_scores
        self.result = CompetitionResult(np.zeros((0, functional.ROW_LENGTH), np.int64), (), (), {})  # the last one

    def on_scoring_start(self, validation: Validation) -> None:
        """Start with no rows."""
        self._rows = CompetitionMap().to(validation.module.device)
        self._boxes: BoxAP | None = None
        self._images: dict[int, tuple[str, str, Floats | None]] = {}  # index -> image, cell type, overlaps

    def on_scored_image(self, validation: Validation, image: ScoredImage) -> None:
        """Add the image's row, and its boxes before post-processing."""
        self._rows.update(image.row)
        overlaps = overlap_row(image.index, image.intersections) if self.instance_scores else None
        self._images[image.index] = (image.image_id, image.cell_type, overlaps)
        if self.box_ap:
            detections, cells = image.detections, image.cells
            if self._boxes is None:
                self._boxes = BoxAP(detections.cell_type_names, self.max_detections).to(validation.module.device)
            self._boxes.update(
                image.index, detections.boxes, detections.scores, detections.cell_types, cells.boxes, cells.cell_types,
                image.ignored,
            )  # fmt: skip

    def on_scoring_end(self, validation: Validation) -> None:
        """Log the scores and add them to the validation in float64; a collective call."""
        rows, known = self._rows.gathered_rows(), gather_images(self._images)
        if not len(rows):
            return
        images, cell_types, counts = zip(*(known[index] for index in rows[:, 0].tolist()), strict=True)
        overlaps = np.array(counts) if self.instance_scores else None
        metrics = mean_scores(rows, cell_types)
        if overlaps is not None:
            metrics |= {f"val/{key}": float(values.mean()) for key, values in scores_per_image(rows, overlaps).items()}
        if self._boxes is not None and (box_ap := self._boxes.compute()["box_ap"]) is not None:
            metrics["val/box_ap"] = box_ap
        self.result = validation.result = CompetitionResult(rows, images, cell_types, metrics, overlaps)
        validation.log(metrics, "val/map", len(rows))


def mean_scores(rows: Ints, cell_types: Sequence[str]) -> dict[str, float]:
    """Return the logged means over images: val/map, val/map_<cell type>, val/precision_<percent>.

    rows: int64 [P, 13] as in `metrics.functional`, P >= 1; cell_types: [P], the type of each image.
    """
    by_type = functional.mean_by_group(functional.average_precision_per_image(rows), cell_types)
    by_threshold = functional.precision_per_image(rows).mean(axis=0).tolist()
    metrics = {"val/map": functional.competition_map(rows)}
    metrics |= {f"val/map_{name}": value for name, value in sorted(by_type.items())}
    percents = functional.THRESHOLD_PERCENT.tolist()
    return metrics | {f"val/precision_{p}": value for p, value in zip(percents, by_threshold, strict=True)}
