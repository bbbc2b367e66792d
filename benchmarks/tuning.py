"""A trial of tuning on 100 images of 100 cells: from counts, beside post-processing and scoring every image again.

The detections are those of a model that sees every cell of generated images and half of them a second time beside
themselves. Both sides work in memory; rows of all images must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.postprocess import BoxNMS, MaskNMS, MinArea, Overlaps, PasteMasks, Postprocess, Score, ThresholdTypes
from sartorius.structures import rle
from sartorius.structures.detections import Detections
from sartorius.tuning.scorer import CountScorer, PipelineScorer
from sartorius.tuning.space import ByType, thresholds_of
from sartorius.tuning.tables import Tables

IMAGES, DRAWN, CELLS = 100, 10, 100  # each drawn image comes several times, with other scores
MASK_SIZE = 28
START = Postprocess(
    types=ThresholdTypes("image"), score=Score(0.3), box_nms=BoxNMS(0.7), mask=PasteMasks(0.5), mask_nms=MaskNMS(0.3),
    overlaps=Overlaps(), min_area=MinArea(20),
)  # fmt: skip
SCORES = (0.3, 0.4, 0.5, 0.6)
MASKS = (0.4, 0.45, 0.5, 0.55)


def tables(count: int = IMAGES, drawn: int = DRAWN, cells: int = CELLS) -> Tables:
    """`count` images in memory, in turn of the three cell types."""
    found: dict[str, Detections] = {}
    truth: dict[str, rle.Runs] = {}
    for k in range(count):
        random, sample = np.random.default_rng(k), images.generated(cells, seed=k % drawn)
        exact = Detections.from_instances(f"image{k}", sample.instances(), random.uniform(0.2, 1, cells), MASK_SIZE)
        twice = exact.select(np.concatenate([np.arange(cells), random.permutation(cells)[: cells // 2]]))
        boxes = twice.boxes + random.normal(0, 1.5, (len(twice), 1)).astype(np.float32)
        scores = random.uniform(0.2, 1, len(twice)).astype(np.float32)
        found[exact.image_id] = replace(twice, boxes=boxes, scores=scores, cell_types=np.full(len(twice), k % 3))
        truth[exact.image_id] = sample.instances().to_runs()
    floor = {"score.threshold": 0.05, "box_nms.threshold": 0.3}
    return Tables(list(found), found.__getitem__, truth.__getitem__, START, floor, cache_megabytes=1000)


def trials(names: tuple[str, ...]) -> dict[str, list[ByType]]:
    """What is tried: other scores and areas, or other masks."""
    base = thresholds_of(START, names)
    level = base["score.threshold"]
    return {
        "score and area": [
            {**base, "score.threshold": level * 0 + s, "min_area.pixels": level * 100 * s} for s in SCORES
        ],
        "mask": [{**base, "mask.threshold": level * 0 + value} for value in MASKS],
    }


def rows() -> Iterator[Row]:
    """Milliseconds a trial of all images; masks of the grid have been made before."""
    made = tables()
    fast, slow = CountScorer(made, made.images), PipelineScorer(made, made.images)
    for what, tried in trials(made.cell_type_names).items():
        differing = sum(not np.array_equal(fast.rows(thresholds), slow.rows(thresholds)) for thresholds in tried)
        same = expect(not differing, f"rows of {len(made.images)} images in {len(tried)} trials")
        mine, theirs = cycle(tried), cycle(tried)
        milliseconds = side_by_side(lambda t=mine: step(fast, t), lambda t=theirs: step(slow, t))  # type: ignore[misc]
        name = f"trial of {what} thresholds, {len(made.images)} images of {CELLS} cells"
        bar = {"mask": 200}.get(what, 20)
        yield Row(name, "ms", *milliseconds, "post-processing and metric", same, at_most=bar)


def step(scorer: CountScorer | PipelineScorer, tried: Iterator[ByType]) -> None:
    """One trial, another than the last."""
    scorer.rows(next(tried))
