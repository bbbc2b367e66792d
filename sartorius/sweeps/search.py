"""Optuna's search over trainings, kept in a file: who asks for values, who reports scores, and what goes on later.

A search is one study in an Optuna journal file (several processes may write it, on a network's file system too). The
number of a trial is the number of the sweep's member that ran it. Every trial draws from a generator of its own, from
(seed, number): a search that goes on later tries what it would have tried.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import drop_cut_line
from sartorius.sweeps.members import DONE, FAILED, FINISHED, PRUNED, Member

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STUDY = "sweep"
_ABOUT, _KILLED = "about", "killed"


def open_storage(path: str | Path) -> BaseStorage:
    """The storage of a journal file, made where there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


class Search:
    """A search that may be gone on with.

    Args:
        path: of the journal file.
        space: the distribution of each parameter.
        mode: "max" or "min".
        seed: of the sampler.
        startup: trials at random before TPE models what was found.
        about: what a search that goes on must have in common with the one in the file; plain values by name.
            Raises InputError, naming the first difference, where they differ.
    """

    def __init__(
        self, path: str | Path, space: Mapping[str, BaseDistribution], mode: str, seed: int, startup: int,
        about: Mapping[str, Any],
    ) -> None:  # fmt: skip
        import optuna

        self.path, self.space, self.seed, self.startup = Path(path), dict(space), seed, startup
        drop_cut_line(self.path)  # Optuna would write behind it, and could read neither then
        direction = optuna.study.StudyDirection.MAXIMIZE if mode == "max" else optuna.study.StudyDirection.MINIMIZE
        self.study: Study = optuna.create_study(
            study_name=STUDY, storage=open_storage(path), direction=direction, load_if_exists=True
        )
        before = self.study.user_attrs.get(_ABOUT)
        for key, value in about.items():
            if before is not None and before.get(key) != value:
                raise InputError(
                    f"{path}: holds a search with {key} {before.get(key)!r}, and this one has {value!r}; "
                    "give the same, or another hydra.sweep.dir"
                )
        if before is None:
            self.study.set_user_attr(_ABOUT, dict(about))

    def trials(self) -> list[FrozenTrial]:
        """All trials in the file, by number."""
        return self.study.get_trials(deepcopy=False)

    def done(self) -> list[FrozenTrial]:
        """Trials that ended by themselves: with a score, pruned, or in an error."""
        return [trial for trial in self.trials() if trial.state.is_finished() and _KILLED not in trial.user_attrs]

    def killed(self) -> set[int]:
        """Numbers of the trials whose process was killed; their values were tried again."""
        return {trial.number for trial in self.trials() if _KILLED in trial.user_attrs}

    def _running(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def settle(self, found: Mapping[int, Member]) -> list[int]:
        """End the trials that an earlier call began: by their member's record, where it has a result; otherwise they
        count as killed and their values are tried again. Returns the numbers of those.
        """
        from optuna.trial import TrialState

        killed = []
        for trial in self._running():
            member = found.get(trial.number)
            if member is not None and member.status in (*DONE, FAILED):
                self.tell(member)
                continue
            self.study._storage.set_trial_user_attr(trial._trial_id, _KILLED, True)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
            killed.append(trial.number)
        return killed

    def ask(self, count: int) -> list[tuple[int, dict[str, Any]]]:
        """(number, value of each parameter) of the next trials, numbers consecutive."""
        asked = []
        for _ in range(count):
            self.study.sampler = self._sampler(len(self.done()) + len(self._running()))
            trial = self.study.ask(self.space)
            asked.append((trial.number, {key: trial.params[key] for key in self.space}))
        return asked

    def tell(self, member: Member) -> None:
        """End a trial by its member: pruned, failed (no score is a failure too), or with its score."""
        from optuna.trial import TrialState

        if member.status == PRUNED:
            self.study.tell(member.number, state=TrialState.PRUNED)
        elif member.status == FINISHED and member.score is not None:
            self.study.tell(member.number, member.score)
        else:
            self.study.tell(member.number, state=TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """The share of the score's variance that each parameter explains; {} while too few trials tell."""
        import optuna

        finished = [trial for trial in self.trials() if trial.value is not None]
        varying = [key for key in self.space if len({trial.params.get(key) for trial in finished}) > 1]
        if len(varying) < 2 or len({trial.value for trial in finished}) < 3:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator, params=varying)
        return {key: float(share) for key, share in shares.items()}

    def _sampler(self, number: int) -> Any:
        """TPE that models parameters together and keeps trials that still run apart (constant liar)."""
        import optuna

        own = np.random.SeedSequence([self.seed, number]).generate_state(1)[0]
        with warnings.catch_warnings():
            # optuna 4 calls these experimental, optuna 5 has them by default
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=int(own), multivariate=True, constant_liar=True, n_startup_trials=self.startup
            )


class TrialReport:
    """What the process of one trial says to the search: scores on the way; and hears: whether to stop.

    Args:
        path: of the journal file.
        number: of the trial.
        pruner: optuna's.
    """

    def __init__(self, path: str | Path, number: int, pruner: Any) -> None:
        import optuna

        if not Path(path).is_file():
            raise InputError(f"{path}: no such search; sweep=optuna goes with -m")
        self.storage = open_storage(path)
        self.study = optuna.load_study(study_name=STUDY, storage=self.storage, pruner=pruner)
        study = self.storage.get_study_id_from_name(STUDY)
        self.trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def report(self, score: float, step: int) -> bool:
        """Keep the score after `step`; returns whether the pruner wants the trial to end."""
        self.storage.set_trial_intermediate_value(self.trial, step, score)
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(self.trial)))


def values_text(params: Mapping[str, Any], order: Sequence[str]) -> tuple[str, ...]:
    """`key=value` of each parameter; numbers with all their digits."""
    return tuple(
        f"{key}={params[key]!r}" if isinstance(params[key], float) else f"{key}={params[key]}" for key in order
    )
