"""Optuna studies that can be continued: trial n draws from a generator of its own, seeded by (seed, n)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import TPESampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

NAME = "sweep"  # of the study in a journal file


def open_storage(path: str | Path | None) -> BaseStorage:
    """Open a journal file, which several processes may write, or make it; None: a storage in memory."""
    from optuna.logging import WARNING, set_verbosity
    from optuna.storages import InMemoryStorage, JournalStorage
    from optuna.storages.journal import JournalFileBackend

    set_verbosity(WARNING)
    if path is None:
        return InMemoryStorage()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


class SeededStudy:
    """A study searched by TPE.

    mode: "max" or "min". seed: integers, to which the number of a trial is appended. startup: trials at random before
    TPE models the scores. journal: file of the study; None keeps it in memory.
    """

    def __init__(self, mode: str, seed: Sequence[int], startup: int, journal: Path | None = None) -> None:
        import optuna

        self.seed, self.startup, self.storage = tuple(seed), startup, open_storage(journal)
        self.optuna: Study = optuna.create_study(
            study_name=NAME, storage=self.storage, direction="maximize" if mode == "max" else "minimize",
            load_if_exists=True,
        )  # fmt: skip

    def add(self, params: Mapping[str, Any], space: Mapping[str, BaseDistribution], score: float) -> None:
        """Add a trial that was scored elsewhere."""
        import optuna

        self.optuna.add_trial(optuna.create_trial(params=dict(params), distributions=dict(space), value=score))

    def ask(self, space: Mapping[str, BaseDistribution], number: int) -> Trial:
        """Begin a trial, drawn as number `number`; enqueued values (`optuna.enqueue_trial`) come first."""
        self.optuna.sampler = self._sampler(number)
        return self.optuna.ask(dict(space))

    def tell(self, number: int, score: float | None, pruned: bool = False) -> None:
        """End a trial; None: it failed. A pruned trial counts with the last score that it reported."""
        from optuna.trial import TrialState

        if pruned or score is None:
            self.optuna.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        else:
            self.optuna.tell(number, score)

    def trials(self) -> list[FrozenTrial]:
        """List all trials by number."""
        return self.optuna.get_trials(deepcopy=False)

    def running(self) -> list[FrozenTrial]:
        """List the trials that have begun and not ended."""
        from optuna.trial import TrialState

        return self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def repeat(self, number: int, mark: str) -> None:
        """End a running trial as failed, with the user attribute `mark`, and enqueue its values once more."""
        study = self.storage.get_study_id_from_name(NAME)
        trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
        self.storage.set_trial_user_attr(trial, mark, True)
        self.tell(number, None)
        self.optuna.enqueue_trial(self.storage.get_trial(trial).params)

    def importances(self, keys: Sequence[str]) -> dict[str, float]:
        """Return the share of the score's variance that each parameter explains; {} of too few trials or parameters."""
        import optuna

        finished = [trial for trial in self.trials() if trial.value is not None]
        varying = [key for key in keys if len({trial.params.get(key) for trial in finished}) > 1]
        if len(varying) < 2 or len({trial.value for trial in finished}) < 3:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed[0])
        shares = optuna.importance.get_param_importances(self.optuna, evaluator=evaluator, params=varying)
        return {key: float(share) for key, share in shares.items()}

    def _sampler(self, number: int) -> TPESampler:
        """Make a TPE that models parameters jointly and keeps simultaneous trials apart (constant liar)."""
        import optuna

        seed = int(np.random.SeedSequence([*self.seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            # optuna 4 calls these experimental, optuna 5 has them by default
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self.startup
            )


class TrialReport:
    """The link of a trial's process to its study: it reports scores and asks whether to stop.

    path: of the journal file. number: of the trial. pruner: decides by the scores of all trials.
    """

    def __init__(self, path: str | Path, number: int, pruner: BasePruner) -> None:
        import optuna

        if not Path(path).is_file():
            raise InputError(f"{path}: no such search; sweep=optuna goes with -m")
        self.storage = open_storage(path)
        self.study = optuna.load_study(study_name=NAME, storage=self.storage, pruner=pruner)
        study = self.storage.get_study_id_from_name(NAME)
        self.trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def report(self, score: float, step: int) -> bool:
        """Store the score after `step`; returns whether the pruner ends the trial."""
        self.storage.set_trial_intermediate_value(self.trial, step, score)
        return bool(self.study.pruner.prune(self.study, self.storage.get_trial(self.trial)))
