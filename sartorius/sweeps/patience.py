"""A launcher that goes on when the process of a member dies: killed, out of memory, out of time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sartorius.sweeps import members

_DIED = "its process ended without a result: killed, out of memory or out of time"


class Patience:
    """Runs members by another launcher until each has a record of what became of it; nothing else comes back.

    Args:
        launcher: Hydra's, set up.
        folder: of the sweep.
    """

    def __init__(self, launcher: Any, folder: Path) -> None:
        self.launcher, self.folder = launcher, folder

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run the members of these overrides, numbered from `initial_job_idx` on.

        Where the launcher gives up, as joblib does when one process of its pool dies, those that it had begun are run
        one by one, since any of them may be the one that kills, and the others together. Raises what it raises where
        it could not begin.
        """
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        for number, overrides in zip(numbers, job_overrides, strict=True):
            self._forget(number, overrides)
        try:
            with _gathering_all(self.launcher):
                self.launcher.launch(job_overrides, initial_job_idx)
        except Exception as error:
            self._go_on(job_overrides, initial_job_idx, error)
        self._bury(job_overrides, initial_job_idx)
        return []

    def _go_on(self, job_overrides: Sequence[Sequence[str]], first: int, error: Exception) -> None:
        states = [self._status(first + k) for k in range(len(job_overrides))]
        if len(states) == 1 and states[0] == members.RUNNING:
            return  # alone, so it was this one
        if members.RUNNING not in states:
            raise error
        print(f"{type(error).__name__}: the members that were running are run again, one by one", file=sys.stderr)
        for k, status in enumerate(states):
            if status == members.RUNNING:
                self.launch([job_overrides[k]], first + k)
        for start, stop in _stretches([status == members.WAITING for status in states]):
            self.launch(job_overrides[start:stop], first + start)

    def _status(self, number: int) -> str:
        member = members.read_member(self.folder, number)
        return members.WAITING if member is None else member.status

    def _forget(self, number: int, overrides: Sequence[str]) -> None:
        """Take away the record of an earlier call, unless it says that there is nothing left to do; that a member was
        killed stays known.
        """
        member = members.read_member(self.folder, number)
        if member is None or (member.status in members.DONE and member.overrides == tuple(overrides)):
            return
        members.delete_member(self.folder, number)
        if member.overrides == tuple(overrides) and (member.killed or member.status == members.RUNNING):
            members.write_member(self.folder, members.SweepMember(number, member.overrides, killed=True))

    def _bury(self, job_overrides: Sequence[Sequence[str]], first: int) -> None:
        """Members without a result have none to come."""
        for k, overrides in enumerate(job_overrides):
            known = members.read_member(self.folder, first + k) or members.SweepMember(first + k, tuple(overrides))
            if known.status in (members.WAITING, members.RUNNING):
                killed = known.killed or known.status == members.RUNNING
                members.write_member(self.folder, replace(known, status=members.FAILED, error=_DIED, killed=killed))


@contextmanager
def _gathering_all(launcher: Any) -> Iterator[None]:
    """Let submitit and ray wait for every member: they stop at the first dead one, while others still run."""
    owner: Any
    plugin = type(launcher).__module__
    if plugin.startswith("hydra_plugins.hydra_submitit_launcher"):
        from submitit.core.core import Job

        owner, name = Job, "results"
    elif plugin.startswith("hydra_plugins.hydra_ray_launcher"):
        import ray

        owner, name = ray, "get"
    else:
        yield
        return
    original = getattr(owner, name)

    def patient(*arguments: Any, **options: Any) -> Any:
        try:
            return original(*arguments, **options)
        except Exception as error:
            print(f"error: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            return [None]

    setattr(owner, name, patient)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _stretches(wanted: Sequence[bool]) -> list[tuple[int, int]]:
    """[start, stop) of each run of True."""
    edges = [k for k in range(len(wanted) + 1) if (k > 0 and wanted[k - 1]) != (k < len(wanted) and wanted[k])]
    return list(zip(edges[::2], edges[1::2], strict=True))
