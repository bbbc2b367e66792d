"""Post-processing of an image that is larger than memory: no step sees more than a block and what lies around it.

Cells come out as runs, not as a label map. Each is decided in the block of the middle of its box, together with all
detections whose boxes reach within the halo of the block's own; every mask is whole. The result is that of the image in
one piece unless detections in a row, each of which decides about the next, lead further than the halo.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sartorius.errors import InputError
from sartorius.postprocess.candidates import Candidates
from sartorius.postprocess.finalise import Keeping, Postprocess
from sartorius.postprocess.step import Step
from sartorius.structures import rle
from sartorius.structures.arrays import Bools, Boxes, Ints, Scores
from sartorius.structures.blocks import Blocks
from sartorius.structures.detections import Detections
from sartorius.structures.freed_memory import return_freed_memory
from sartorius.structures.rle import Runs
from sartorius.structures.windows import Window, group_by_block


@dataclass(frozen=True)
class CellRuns:
    """The N cells of one image, best score first.

    runs: the pixels of cell k, none across the end of a row. cell_types: int64 [N], index into the detections'
    cell_type_names. scores: float32 [N]. source: int64 [N], index of each cell in the detections that it came from.
    """

    image_id: str
    runs: Runs
    cell_types: Ints
    scores: Scores
    source: Ints

    def __len__(self) -> int:
        return len(self.scores)


def finalise_by_blocks(
    postprocess: Postprocess, detections: Detections, by: Blocks, overlaps: Keeping = "remove"
) -> CellRuns:
    """Return the cells of one image; no detections give no cells. Memory: a block's masks, and the runs of all cells.

    by: the blocks, and the halo of the module's docstring. overlaps: see `Postprocess`. Raises InputError for a step
    that needs the whole image's masks, and as Postprocess does.
    """
    before, steps = _split(postprocess, overlaps)
    candidates = Candidates.of(detections)
    for step in before:
        candidates = step(candidates)
    if candidates.masks is not None:
        raise InputError(
            f"postprocess: {type(before[-1]).__name__} needs the cells of the whole image at once, and image "
            f"{detections.image_id} of {detections.height} x {detections.width} px (height x width) is processed block "
            "by block; leave it out (filter=none), or put it before `mask`"
        )
    parts = [np.zeros((3, 0), np.int64)]
    for own, around in _blocks(candidates.boxes, detections.height, detections.width, by):
        parts.append(_own_runs(candidates, own, around, steps, overlaps))
        return_freed_memory()
    start, length, place = np.concatenate(parts, axis=1)
    order = np.argsort(place, kind="stable")  # a cell's runs are together already, and sorted
    kept, cell = np.unique(place[order], return_inverse=True)
    runs = Runs(start[order], length[order], cell, len(kept), detections.height, detections.width)
    source = candidates.source[kept]
    return CellRuns(detections.image_id, runs, detections.cell_types[source], detections.scores[source], source)


def _split(postprocess: Postprocess, overlaps: Keeping) -> tuple[list[Step], list[Step]]:
    """Split the steps behind the last one that needs the whole image."""
    steps = list(postprocess.chosen(overlaps).values())
    first = max((k + 1 for k, step in enumerate(steps) if step.of_image), default=0)
    return steps[:first], steps[first:]


def _blocks(boxes: Boxes, height: int, width: int, by: Blocks) -> Iterator[tuple[Bools, Bools]]:
    """Yield, for each block that boxes [N, 4] have their middle in, which these are, and which are near them."""
    column, row = ((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, (width - 1, height - 1)).astype(np.int64).T
    for chosen in group_by_block(row, column, width, by.block):
        own = np.zeros(len(boxes), bool)
        own[chosen] = True
        low, high = boxes[own, :2].min(axis=0) - by.halo, boxes[own, 2:].max(axis=0) + by.halo
        yield own, ((boxes[:, :2] <= high) & (boxes[:, 2:] >= low)).all(axis=1)


def _own_runs(candidates: Candidates, own: Bools, around: Bools, steps: list[Step], overlaps: Keeping) -> Ints:
    """Apply the steps to the candidates `around`; returns start, length and place of the runs of those that are `own`.

    int64 [3, R]: runs within a row of the image; places among the candidates.
    """
    whole, near = candidates.detections, candidates.select(around)
    canvas = _canvas(near.boxes, whole.height, whole.width)
    cropped = whole.select(near.source)
    boxes = cropped.boxes - np.array([canvas.left, canvas.top] * 2, np.float32)
    cropped = replace(cropped, height=canvas.height, width=canvas.width, boxes=boxes)
    result = Candidates(cropped, np.arange(len(near)), near.types)
    for step in steps:
        result = step(result)
    if overlaps == "remove":
        result.check_disjoint()
    place = np.flatnonzero(around)[result.source]
    start, end, cell = rle.in_rows(rle.from_layers(result.layers(), len(result)), exactly=True)
    chosen = np.flatnonzero(own[place[cell]])
    row, column = np.divmod(start[chosen], canvas.width)
    begin = (row + canvas.top) * whole.width + column + canvas.left
    return np.stack((begin, end[chosen] - start[chosen], place[cell[chosen]]))


def _canvas(boxes: Boxes, height: int, width: int) -> Window:
    """Return the window that holds boxes [N, 4], N > 0, as far as an image of this size reaches."""
    left, top = np.floor(boxes[:, :2].min(axis=0)).clip(0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.ceil(boxes[:, 2:].max(axis=0)).clip((left + 1, top + 1), (width, height)).astype(int).tolist()
    return Window(top, left, bottom - top, right - left)
