"""Predict, join and submit within a time budget: pass after pass, each made into a complete submission.

A pass is a `predict` of all images by one member in a process of its own: it may run out of memory, be killed at the
deadline and be continued by another session. Detections, logs and times lie in the folder `work`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sartorius.errors import collected
from sartorius.files import write_json
from sartorius.running.budget.deadline import Deadline
from sartorius.running.budget.jobs import Job, StartJob, last_line
from sartorius.running.budget.options import BudgetSettings, Finishing
from sartorius.running.budget.passes import Pace, Pass, TimedMember, next_pass
from sartorius.running.budget.rows import SubmissionRows
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.progress import duration

_LEFT_OUT = 3  # exit code of `predict` and `ensemble` where images were skipped
_LISTED = 10


@dataclass
class Session:
    """The passes of one notebook; `run` returns when they are done or the time is over.

    images: their folder. work: a folder of these members and images alone. start: of `predict` and `ensemble`.
    """

    members: Sequence[TimedMember]
    images: Path
    work: Path
    rows: SubmissionRows
    deadline: Deadline
    start: StartJob
    settings: BudgetSettings
    finishing: Finishing
    _done: dict[str, Pass] = field(default_factory=dict)
    _excluded: set[str] = field(default_factory=set)  # names of passes, and of members that failed
    _each: dict[str, float] = field(default_factory=dict)  # seconds of an image in one view, by member
    _startup: float = 0.0
    _joining: float | None = None
    _written: float = float("-inf")

    def run(self) -> list[str]:
        """Run passes as long as there is time for one; returns the images that have no prediction.

        A submission of these images that is there is gone on with: its rows stay until there are others.
        """
        self._recall()
        if self.rows.recall():
            there = len(self.rows.texts) - len(self.rows.missing)
            self._say(f"{self.rows.path.name}: goes on with the cells that {there} images have in it")
        else:
            self.rows.write()
        if self._done:
            self._publish()
        else:
            self._refresh(self._folder(Pass(self.members[0], 1)) / "detections")
        while (chosen := self._next()) is not None:
            if self._predict(chosen):
                self._publish()
        self.rows.write()
        self._tell()
        return self.rows.missing

    def _next(self) -> Pass | None:
        done = {name: best.views for name, best in self._done.items()}
        left = self.deadline.left - self._reserve()
        if left <= 0:
            return None
        return next_pass(self.members, done, self._is_excluded, self._cost, left)

    def _is_excluded(self, pass_: Pass) -> bool:
        return not self._excluded.isdisjoint((pass_.name, pass_.member.name))

    def _cost(self, pass_: Pass) -> float:
        """Estimate the seconds that are left of a pass; only the start where its member is not measured yet."""
        missing = len(self.rows.texts) - self._count(pass_)
        return self._startup + missing * pass_.views * self._each.get(pass_.member.name, 0.0)

    def _reserve(self) -> float:
        """Seconds that must stay free when a pass ends: to join it with others, to make rows and to write them."""
        if not self._done:
            return self.settings.spare + 3 * self.rows.each
        joining = self.settings.joining if self._joining is None else self._joining
        return self.settings.spare + self._startup + len(self.rows.texts) * (joining + self.rows.each)

    def _folder(self, pass_: Pass) -> Path:
        return self.work / pass_.name

    def _count(self, pass_: Pass) -> int:
        return len(DetectionsFolder(self._folder(pass_) / "detections").image_ids())

    def _recall(self) -> None:
        """Take up the whole passes of earlier sessions, with their times."""
        for file in sorted(self.work.glob("*/done.json")):
            known = json.loads(file.read_text(encoding="utf-8"))
            member = next((member for member in self.members if member.name == known["member"]), None)
            if member is None:
                continue
            self._each[member.name], self._startup = known["each"], max(self._startup, known["startup"])
            if known["views"] >= (self._done[member.name].views if member.name in self._done else 0):
                self._done[member.name] = Pass(member, known["views"])

    def _predict(self, pass_: Pass) -> bool:
        """Run a pass; returns whether it is whole. One that turns out not to fit is stopped, and not tried again."""
        folder, clock = self._folder(pass_), self.deadline.clock
        options = {"checkpoint": str(pass_.member.file), "images": str(self.images), "output": str(folder)}
        more = {"write": [], "on_error": "skip", "views": pass_.views}
        tta = {} if self.finishing.tta is None else {"tta": self.finishing.tta}
        self._say(f"{pass_.name}: predicting {len(self.rows.texts)} images")
        pace = Pace(clock.now(), self.settings.measured)
        pace.note(clock.now(), self._count(pass_))
        job = self.start("predict", {**options, **more, **tta}, self._log(pass_.name))
        try:
            while job.code() is None:
                clock.sleep(self.settings.poll)
                pace.note(clock.now(), self._count(pass_))
                if not self._done:
                    self._refresh(folder / "detections")  # the last time just before the pass is stopped
                if job.code() is None and not self._fits(pass_, pace):
                    self._excluded.add(pass_.name)
                    return False
        finally:
            job.stop()
        return self._ended(pass_, job, pace)

    def _fits(self, pass_: Pass, pace: Pace) -> bool:
        """Whether a running pass will end in time; the very first goes on until there is none left."""
        left = self.deadline.left - self._reserve()
        missing = len(self.rows.texts) - self._count(pass_)
        needed = 0.0 if pace.each is None or not self._done else pace.each * missing
        if left > needed:
            return True
        what = "no time is left" if left <= 0 else f"needs {duration(needed)} more and there are {duration(left)}"
        self._say(f"{pass_.name}: stopped with {missing} images missing, {what}")
        return False

    def _ended(self, pass_: Pass, job: Job, pace: Pace) -> bool:
        """Note a pass that has ended by itself; returns whether it is whole."""
        folder = self._folder(pass_)
        if job.code() not in (0, _LEFT_OUT):
            self._say(f"{pass_.name}: LEFT OUT, it failed: {last_line(self._log(pass_.name))}")
            self._excluded.add(pass_.member.name)
            return False
        each = pace.overall(self.deadline.clock.now()) / pass_.views
        self._each[pass_.member.name] = max(each, self._each.get(pass_.member.name, 0.0))
        self._startup = max(self._startup, pace.startup)
        times = {"each": self._each[pass_.member.name], "startup": self._startup}
        write_json(folder / "done.json", {"member": pass_.member.name, "views": pass_.views, **times})
        self._done[pass_.member.name] = pass_
        return True

    def _refresh(self, folder: Path) -> None:
        """Take what the first pass has predicted so far, and write it every few seconds."""
        if (folder / "meta.json").is_file():
            self._take(folder, own=len(self.members) > 1)
        now = self.deadline.clock.now()
        if now - self._written >= self.settings.refresh:
            self._written = now
            self.rows.write()

    def _publish(self) -> None:
        """Write the submission of the best whole pass of each member.

        Where they cannot be joined the rows stay, and those that are empty are filled from the passes by themselves.
        """
        best = [self._done[member.name] for member in self.members if member.name in self._done]
        folder = self._folder(best[0]) / "detections" if len(best) == 1 else self._join(best)
        if folder is None:
            for pass_ in best:
                self._take(self._folder(pass_) / "detections", own=True, only=self.rows.missing)
            self.rows.write()
            return
        whole = self._take(folder, own=len(best) == 1 and len(self.members) > 1)
        self.rows.write()
        rest = "" if whole else "; not all images, for want of time: the other rows stay those of earlier passes"
        self._say(f"{self.rows.path.name}: {', '.join(pass_.name for pass_ in best)}{rest}")

    def _join(self, best: Sequence[Pass]) -> Path | None:
        """Join passes by `ensemble`; returns the folder of the detections, None where there is no time or it fails."""
        clock, output = self.deadline.clock, self.work / "joined"
        begun = clock.now()
        members = {pass_.member.name: [str(self._folder(pass_) / "detections")] for pass_ in best}
        weights = {name: weight for name, weight in self.finishing.weights.items() if name in members}
        options = {"members": members, "images": "all", "on_error": "skip", "overwrite": True, "output": str(output)}
        given = {"weights": weights} if weights else {}
        job = self.start("ensemble", {**options, **given, **self.finishing.ensemble}, self._log("joined"))
        try:
            while job.code() is None:
                clock.sleep(self.settings.poll)
                if self.deadline.left <= self.settings.spare + len(self.rows.texts) * self.rows.each:
                    self._say("joining: stopped, no time is left; the submission stays that of fewer passes")
                    return None
        finally:
            job.stop()
        if job.code() not in (0, _LEFT_OUT):
            self._say(f"joining: failed, the submission stays as it is: {last_line(self._log('joined'))}")
            return None
        each = (clock.now() - begun) / len(self.rows.texts)
        self._joining = max(self._joining or 0.0, each * (len(best) + 1) / len(best))  # the next joins one more
        return output / "detections"

    def _take(self, folder: Path, own: bool, only: Collection[str] | None = None) -> bool:
        """Make rows of a folder, see `SubmissionRows.take`; own: by what was saved with it alone."""
        changes, chosen = ({}, "saved") if own else (self.finishing.postprocess, self.finishing.filter)
        problems, whole = list[str](), False
        with collected(problems):
            whole = self.rows.take(folder, changes, chosen, lambda: self.deadline.left <= self.settings.spare / 2, only)
        for problem in problems:
            self._say(f"{folder}: {problem}")
        return whole

    def _log(self, name: str) -> Path:
        return self.work / f"{name}.log"

    def _say(self, text: str) -> None:
        print(f"[{duration(max(self.deadline.left, 0))} left] {text}", flush=True)

    def _tell(self) -> None:
        """Tell which images have no prediction, and why where that is known, and whose last one is unusable."""
        skipped: dict[str, Any] = {}
        for pass_ in self._done.values():
            skipped |= DetectionsFolder(self._folder(pass_) / "detections").meta.get("skipped") or {}
        known = {**skipped, **self.rows.problems}
        for image_id in self.rows.missing[:_LISTED]:
            self._say(f"EMPTY ROW: {image_id}: {known.get(image_id, 'no file of it, or not reached in time')}")
        if more := self.rows.missing[_LISTED:]:
            self._say(f"EMPTY ROW: {len(more)} more images")
        kept = [image_id for image_id in self.rows.problems if self.rows.texts[image_id]]
        for image_id in kept[:_LISTED]:
            self._say(f"EARLIER ROW: {image_id}: {self.rows.problems[image_id]}")
