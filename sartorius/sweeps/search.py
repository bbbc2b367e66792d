"""Optuna's search over the members of a sweep, in a journal file; the number of a trial is that of its member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError
from sartorius.files import drop_cut_line
from sartorius.sweeps.members import DONE, FAILED, FINISHED, PRUNED, SweepMember
from sartorius.sweeps.study import SeededStudy

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_ABOUT, _KILLED = "about", "killed"  # user attributes of the study and of a trial


class Search:
    """A search that a later call with the same file continues.

    path: of the journal file. space: the distribution of each parameter. mode: "max" or "min". seed: of the sampler.
    startup: trials at random before TPE models the scores. about: plain values by name, the same in every call. Raises
    InputError, naming the first difference, where the file holds a search with others.
    """

    def __init__(
        self, path: str | Path, space: Mapping[str, BaseDistribution], mode: str, seed: int, startup: int,
        about: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.space = dict(space)
        drop_cut_line(Path(path))  # Optuna would append to it, and then read neither line
        self.study = SeededStudy(mode, (seed,), startup, Path(path))
        before = self.study.optuna.user_attrs.get(_ABOUT)
        for key, value in about.items():
            if before is not None and before.get(key) != value:
                raise InputError(
                    f"{path}: holds a search with {key} {before.get(key)!r}, and this one has {value!r}; "
                    "give the same, or another hydra.sweep.dir"
                )
        if before is None:
            self.study.optuna.set_user_attr(_ABOUT, dict(about))

    def done(self) -> list[FrozenTrial]:
        """List the trials that ended by themselves: with a score, pruned, or in an error."""
        return [trial for trial in self.study.trials() if trial.state.is_finished() and _KILLED not in trial.user_attrs]

    def killed(self) -> set[int]:
        """Numbers of the trials whose process was killed; their values were enqueued again."""
        return {trial.number for trial in self.study.trials() if _KILLED in trial.user_attrs}

    def settle(self, records: Mapping[int, SweepMember]) -> list[int]:
        """End the trials that an earlier call left running, by their member's record where it has a result.

        The others count as killed, and their values are tried again; returns their numbers.
        """
        killed = []
        for trial in self.study.running():
            member = records.get(trial.number)
            if member is not None and member.status in (*DONE, FAILED):
                self.tell(member)
            else:
                self.study.repeat(trial.number, _KILLED)
                killed.append(trial.number)
        return killed

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """Begin `count` trials; returns (number, value of each parameter), numbers consecutive."""
        asked = []
        for _ in range(count):
            trial = self.study.ask(self.space, len(self.done()) + len(self.study.running()))
            asked.append((trial.number, {key: trial.params[key] for key in self.space}))
        return asked

    def tell(self, member: SweepMember) -> None:
        """End a trial by its member: pruned, failed (no score is a failure too), or with its score."""
        score = member.score if member.status == FINISHED else None
        self.study.tell(member.number, score, pruned=member.status == PRUNED)


def values_text(params: Mapping[str, Any], order: Sequence[str]) -> tuple[str, ...]:
    """Write each parameter as `key=value`, numbers with all their digits."""
    return tuple(f"{key}={params[key]}" for key in order)
