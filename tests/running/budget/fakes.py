"""A clock that passes only when somebody sleeps, and commands that write real files as it passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder
from tests.postprocess.pipelines import saved
from tests.postprocess.shapes import random_detections

SIZE = (50, 70)
POST = saved(score=0.2, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)


@dataclass
class FakeClock:
    """Seconds since 1970; `watch` is called after every sleep."""

    time: float = 1000.0
    watch: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.watch()


def write(folder: Path, image_id: str, seed: int) -> None:
    """Detections of an image, of which post-processing keeps some."""
    found = random_detections(seed, 6)
    boxes = np.clip(found.boxes, 0, [found.width, found.height] * 2)
    DetectionsFolder(folder).write(replace(found, image_id=image_id, boxes=boxes, cell_type_names=CELL_TYPES))


@dataclass
class FakeJob:
    """A command that takes `startup` seconds and then `each` seconds for each of its images."""

    clock: FakeClock
    begun: float
    startup: float
    each: float
    todo: Sequence[str]
    make: Callable[[str], None]
    ends_with: int = 0
    stopped: bool = False
    made: int = 0

    def code(self) -> int | None:
        if self.stopped:
            return -9
        due = (self.clock.time - self.begun - self.startup) / self.each if self.each else len(self.todo)
        for image_id in self.todo[self.made : max(int(due), 0)]:
            self.make(image_id)
            self.made += 1
        return self.ends_with if self.made == len(self.todo) and due >= 0 else None

    def stop(self) -> None:
        self.stopped = self.code() is None


@dataclass
class FakeJobs:
    """Starts fake commands. each: seconds of an image and view, by member; a member without one fails at once.

    started: names of passes and `ensemble`, in order, with the number of images to do.
    """

    clock: FakeClock
    ids: Sequence[str]
    each: Mapping[str, float]
    joining: float = 0.2
    startup: float = 5.0
    skipped: Mapping[str, str] = field(default_factory=dict)
    out_of_memory: Sequence[str] = ()  # names of passes, or `joined`
    started: list[tuple[str, int]] = field(default_factory=list)
    options: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, command: str, options: Mapping[str, Any], log: Path) -> FakeJob:
        folder = Path(options["output"]) / "detections"
        meta = {"cell_types": list(CELL_TYPES), "mask_size": 14, "postprocess": POST, "skipped": dict(self.skipped)}
        DetectionsFolder(folder).write_meta(**meta)
        self.options.append(options)
        there = DetectionsFolder(folder).image_ids() if command == "predict" else []
        todo = [image_id for image_id in self.ids if image_id not in {*there, *self.skipped}]
        name = folder.parent.name
        self.started.append((name, len(todo)))
        seed = 100 * len(self.started)  # every join gives other detections
        begin = self.clock.time, self.startup
        if command == "ensemble" and name not in self.out_of_memory:
            return FakeJob(self.clock, *begin, self.joining, todo, lambda i: write(folder, i, seed + self.ids.index(i)))
        member = Path(options.get("checkpoint", name)).stem
        if member not in self.each or name in self.out_of_memory:
            log.write_text("a warning\nerror: memory ran out\n")
            return FakeJob(self.clock, *begin, 0, [], print, 1)
        each = self.each[member] * options["views"]
        return FakeJob(
            self.clock, *begin, each, todo, lambda i: write(folder, i, self.ids.index(i)), 3 * bool(self.skipped)
        )
