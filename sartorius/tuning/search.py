"""The search: thresholds of one cell type after the other, by Optuna's TPE, kept on the disk trial by trial.

The score is a mean over pictures. Where thresholds are those of the picture's prevailing type
(`picture_type: majority`), a type's thresholds matter in its own pictures only, and the searches are independent. Where
they are those of each detection's own type, types meet within a picture: a type is searched on the pictures with
detections of it while the others keep their best values so far, the most frequent type first, for some rounds. Types
are the predicted ones in both cases: others are not known for new pictures.

Every trial draws from a generator of its own, from (seed, search, number of the trial): a search that goes on later
tries what it would have tried.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.metrics.functional import competition_map
from sartorius.tuning.scorer import Scorer, scorer_of
from sartorius.tuning.space import ByType, SearchSpace
from sartorius.tuning.tables import Tables

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import TPESampler
    from optuna.storages import BaseStorage

_STARTUP = 20  # trials at random before TPE models what was found; optuna's own 10 for one or two dimensions


@dataclass(frozen=True)
class Effort:
    """How hard to search: trials of each search, rounds over the types (1 where they are independent), and the seed.

    least_pictures: a type with detections in fewer pictures keeps its thresholds, since the best for a picture or two
    are rarely good for the next.
    """

    trials: int
    rounds: int
    least_pictures: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """A line of trials.csv: the thresholds tried for one type, and the mAP of the pictures that they matter in."""

    search: str
    round: int
    cell_type: str
    trial: int
    values: dict[str, float]
    score: float


class Searcher:
    """Searches over pictures of `tables`; what was tried is in the journal file `path` and is not tried again.

    note: gets a line about each search as it ends.
    """

    def __init__(
        self, tables: Tables, space: SearchSpace, effort: Effort, path: Path, note: Callable[[str], None]
    ) -> None:
        self.tables, self.space, self.effort, self.path, self.note = tables, space, effort, path, note
        self.trials: list[Trial] = []
        self._storage: BaseStorage | None = None

    def best(self, name: str, pictures: Sequence[str], start: ByType) -> ByType:
        """The thresholds that score best on these pictures, never worse there than `start`.

        A cell type with detections in fewer than `least_pictures` of them, or in none, keeps its thresholds.
        name: of the search, unique in the file.
        """
        best: ByType = {key: values.copy() for key, values in start.items()}
        kinds = {picture: self.tables.kinds(picture) for picture in pictures}
        mixed = any(len(found) > 1 for found in kinds.values())
        for number in range(self.effort.rounds if mixed else 1):
            for kind in self._order(pictures):
                concerned = [picture for picture in pictures if kind in kinds[picture]]
                if len(concerned) < self.effort.least_pictures:
                    self.note(f"{name}/{self.tables.cell_type_names[kind]}: {len(concerned)} pictures, left as it is")
                    continue
                best = self._search(name, number, kind, scorer_of(self.tables, concerned), best)
        return best

    def _order(self, pictures: Sequence[str]) -> list[int]:
        """The cell types that are there, most detections first."""
        found = [self.tables.candidates[picture].kind for picture in pictures]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *found]))
        return [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]

    def _search(self, name: str, number: int, kind: int, scorer: Scorer, start: ByType) -> ByType:
        """`start` with the best thresholds for one type."""
        cell_type, grids = self.tables.cell_type_names[kind], self.space.grids
        about = f"{name}/{cell_type}/{number}"
        # Trials are worth something only beside the same values of the other types.
        context = zlib.crc32(repr([(key, values.tolist()) for key, values in start.items()]).encode())
        stored, study = self._studies(f"{about}/{context:08x}")

        def score(positions: dict[str, int]) -> tuple[ByType, float]:
            tried = {key: values.copy() for key, values in start.items()}
            for key, position in positions.items():
                tried[key][kind] = grids[key].value(position)
            return tried, competition_map(scorer.rows(tried))

        first = {key: grid.nearest(float(start[key][kind])) for key, grid in grids.items()}
        self._run(about, stored, study, first, lambda positions: score(positions)[1])
        done = study.get_trials(deepcopy=False)[: self.effort.trials]
        for trial in done:
            values = {key: grids[key].value(position) for key, position in trial.params.items()}
            self.trials.append(Trial(name, number, cell_type, trial.number, values, float(trial.values[0])))
        best = max(done, key=lambda trial: trial.values[0])  # of equal ones the first
        before = competition_map(scorer.rows(start))
        self.note(f"{about}: mAP {before:.4f}, {max(best.values[0], before):.4f} after {len(done)} trials")
        if best.values[0] <= before:
            return start
        return score(best.params)[0]

    def _run(
        self, about: str, stored: Study, study: Study, first: dict[str, int], score: Callable[[dict[str, int]], float]
    ) -> None:
        """Add trials to both studies until there are enough, `first` before all others."""
        from optuna.distributions import IntDistribution
        from optuna.trial import create_trial

        grid: dict[str, Any] = {key: IntDistribution(0, grid.last) for key, grid in self.space.grids.items()}
        for n in range(len(study.get_trials(deepcopy=False)), self.effort.trials):
            if not n:
                study.enqueue_trial(first)
            own = np.random.SeedSequence([self.effort.seed, zlib.crc32(about.encode()), n]).generate_state(1)[0]
            study.sampler = _sampler(int(own))
            trial = study.ask(grid)
            value = score(trial.params)
            study.tell(trial, value)
            stored.add_trial(create_trial(params=trial.params, distributions=grid, value=value))

    def _studies(self, name: str) -> tuple[Study, Study]:
        """The search as it is on the disk, and a copy in memory: every step of an optuna trial costs a write."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self._storage is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._storage = JournalStorage(JournalFileBackend(str(self.path)))
        stored = optuna.create_study(study_name=name, storage=self._storage, direction="maximize", load_if_exists=True)
        study = optuna.create_study(direction="maximize")
        study.add_trials(stored.get_trials(deepcopy=False))
        return stored, study


def _sampler(seed: int) -> TPESampler:
    """TPE that models the thresholds together: score and mask thresholds depend on each other."""
    import optuna

    with warnings.catch_warnings():
        # optuna 4 calls `multivariate` experimental, optuna 5 has it by default
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP)
