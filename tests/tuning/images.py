"""Random images with true cells that overlap, in memory, and searches over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sartorius.postprocess import Postprocess
from sartorius.structures import rle
from sartorius.structures.arrays import Bools
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances
from sartorius.tuning.tables import Tables
from tests.postprocess.pipelines import pipeline
from tests.postprocess.shapes import random_detections

NAMES = ("shsy5y", "astro", "cort")
SETTINGS: dict[str, Any] = {"score": 0.3, "mask": 0.5, "box_nms": 0.9, "mask_nms": 0.3, "min_area": 10}
START = pipeline(**SETTINGS)
FLOOR = dict.fromkeys(START.searchable, 0.0)


def truth_of(found: Detections, seed: int) -> rle.Runs:
    """Some of the detections pasted at 0.4 as true cells, moved by up to a pixel; they overlap, and one is empty."""
    random = np.random.default_rng([seed, 1])
    everything = pipeline(mask=0.4)
    masks = [np.zeros((found.height, found.width), bool)]
    for k in random.permutation(len(found))[: len(found) // 2]:
        cell = everything(found.select([k])).instances.foreground()
        masks.append(np.roll(cell, random.integers(-1, 2, 2), (0, 1)))
    return Instances.from_masks(np.array(masks), np.zeros(len(masks))).to_runs()


class Images:
    """P random images; `loaded` notes every look at one. One type each where `single`, and `last` without cells."""

    def __init__(self, count: int, detections: int = 25, single: bool = False) -> None:
        self.found: dict[str, Detections] = {}
        self.truth: dict[str, rle.Runs] = {}
        self.loaded: list[str] = []
        self.ignored: dict[str, Bools] = {}
        for seed in range(count):
            found = replace(random_detections(seed, detections), image_id=f"p{seed}")
            if single:
                found = replace(found, cell_types=np.full(len(found), seed % 2))
            self.found[found.image_id], self.truth[found.image_id] = found, truth_of(found, seed)

    def load(self, image_id: str) -> Detections:
        self.loaded.append(image_id)
        return self.found[image_id]

    def tables(self, post: Postprocess = START, floor: dict[str, float] | None = None, megabytes: float = 10) -> Tables:
        truth = self.truth.__getitem__
        return Tables(list(self.found), self.load, truth, post, floor or FLOOR, megabytes, self.ignored.get)


def random_thresholds(seed: int) -> dict[str, Any]:
    """Five thresholds for three types, from loose to strict."""
    random = np.random.default_rng(seed)
    return {
        "score.threshold": random.uniform(0, 0.8, 3),
        "mask.threshold": random.choice([0.2, 0.4, 0.5, 0.6, 0.8], 3),
        "box_nms.threshold": random.choice([0.1, 0.3, 0.6, 1.0], 3),
        "mask_nms.threshold": random.choice([0.0, 0.05, 0.3, 0.6, 1.0], 3),
        "min_area.pixels": random.integers(0, 60, 3).astype(float),
    }
