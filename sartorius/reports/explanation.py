"""Explanation of an image's score: the detections that each step drops, and the fate of each missed cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sartorius.metrics.functional import match_cells
from sartorius.postprocess import Finalised, PasteMasks, Postprocess, ThresholdTypes
from sartorius.postprocess.candidates import Candidates
from sartorius.structures import rle
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.detections import Detections
from sartorius.structures.rle import Runs

MIN_IOU = 0.5  # above it a detection may be a cell: the lowest threshold of the competition


@dataclass(frozen=True)
class MissedCell:
    """An annotated cell that no predicted one is matched with, and its best candidate.

    cell: number in the truth. x, y: its centre, pixels. area: pixels. detection: the detection whose pasted mask has
    the highest IoU with it, whatever its score; None where none shares a pixel. score: of that detection. iou: its IoU,
    with the whole mask. dropped_by: name of the step that dropped it, None where it was kept. final_iou: IoU of what
    the steps left of it, 0 where it was dropped.
    """

    cell: int
    x: float
    y: float
    area: int
    detection: int | None
    score: float
    iou: float
    dropped_by: str | None
    final_iou: float

    @property
    def reason(self) -> str:
        """Why the cell is missed, in a few words."""
        if self.iou <= MIN_IOU:
            return f"no candidate above IoU {MIN_IOU:g}" + (f" (best {self.iou:.2f})" if self.iou else "")
        candidate = f"candidate of IoU {self.iou:.2f}, score {self.score:.2f}"
        if self.dropped_by is not None:
            return f"{candidate}: dropped by {self.dropped_by}"
        if self.final_iou > MIN_IOU:
            return f"{candidate}: kept, and matched with another cell"
        return f"{candidate}: kept, but IoU {self.final_iou:.2f} in the end"


@dataclass(frozen=True)
class Explanation:
    """The fate of the detections and cells of an image.

    detections: their number. left: (name of the step, candidates left after it) in the order of the steps. cells:
    annotated ones with pixels. missed: those without a match at an IoU above 0.5, largest first.
    """

    image_id: str
    detections: int
    left: tuple[tuple[str, int], ...]
    cells: int
    missed: tuple[MissedCell, ...]

    @property
    def steps(self) -> str:
        """The counts as text: `812 -> score 143 -> box_nms 120`; steps that drop nothing are left out."""
        before, texts = self.detections, [str(self.detections)]
        for name, count in self.left:
            texts += [f"{name} {count}"] if count != before else []
            before = count
        return " -> ".join(texts)


def explain(post: Postprocess, detections: Detections, truth: Runs) -> Explanation:
    """Run post-processing over an image; record the detections that each step drops and the fate of each missed cell.

    truth: the annotated cells. Raises ValueError where truth and detections are of images of different size, and
    InputError as `post` does.
    """
    trace = [(name, candidates.source) for name, candidates in post.run(detections)][1:]
    final = post(detections)
    dropped_by = np.full(len(detections), -1)  # position in the trace, -1 for those that are kept
    for position, (_, source) in reversed([*enumerate(trace)]):
        dropped_by[np.setdiff1d(np.arange(len(detections)), source)] = position
    best, iou = _best_candidates(post, detections, truth)
    final_iou = _final_iou(final, truth, best)
    areas, (x, y) = truth.areas, _centres(truth)
    match = match_cells(final.instances, truth).prediction
    missed = np.flatnonzero((match < 0) & (areas > 0))
    cells = []
    for cell in missed[np.argsort(-areas[missed], kind="stable")].tolist():
        detection = int(best[cell]) if best[cell] >= 0 else None
        step = -1 if detection is None else int(dropped_by[detection])
        score = 0.0 if detection is None else float(detections.scores[detection])
        name = trace[step][0] if step >= 0 else None
        about = (cell, float(x[cell]), float(y[cell]), int(areas[cell]), detection, score)
        cells.append(MissedCell(*about, float(iou[cell]), name, float(final_iou[cell])))
    left = tuple((name, len(source)) for name, source in trace)
    return Explanation(detections.image_id, len(detections), left, int((areas > 0).sum()), tuple(cells))


def _best_candidates(post: Postprocess, detections: Detections, truth: Runs) -> tuple[Ints, Floats]:
    """Return for each of M cells the detection with the highest IoU, -1 for none, and that IoU: int64 and float64 [M].

    The masks are those of all detections, pasted as `post` does. Of equal ones the best score is taken.
    """
    candidates = Candidates.of(detections)
    for step in post.steps.values():
        if isinstance(step, ThresholdTypes | PasteMasks):
            candidates = step(candidates)
    pasted = candidates.pasted()
    i, j, shared = rle.intersections(pasted.to_runs(), truth)
    ratio = shared / (pasted.areas[i] + truth.areas[j] - shared)
    best, iou = np.full(truth.count, -1), np.zeros(truth.count)
    order = np.lexsort((-i, ratio))  # of repeated indices the last assignment stays
    best[j[order]], iou[j[order]] = candidates.source[i[order]], ratio[order]
    return best, iou


def _final_iou(final: Finalised, truth: Runs, best: Ints) -> Floats:
    """Return the IoU of each cell with the rest of its best candidate, float64 [M]; 0 where nothing is left."""
    runs = final.instances.to_runs()
    i, j, shared = rle.intersections(runs, truth)
    same = final.source[i] == best[j]
    i, j, shared = i[same], j[same], shared[same]
    iou = np.zeros(truth.count)
    iou[j] = shared / (runs.areas[i] + truth.areas[j] - shared)
    return iou


def _centres(truth: Runs) -> tuple[Floats, Floats]:
    """Return x and y of the middle of each cell's pixels, float64 [M]; 0 without pixels."""
    pixel, cell = truth.pixels()
    count = np.maximum(truth.areas, 1)
    row, column = np.divmod(pixel, truth.width)
    x, y = (np.bincount(cell, weights=values + 0.5, minlength=truth.count) / count for values in (column, row))
    return x, y
