"""The search: thresholds of one cell type after the other, by Optuna's TPE, each trial kept on the disk.

The score is a mean over images. Where thresholds are those of the image's prevailing type
(`types.of: image`), a type's thresholds matter in its own images only, and the searches are independent. Where
they are those of each detection's own type, types meet within an image: a type is searched on the images with
detections of it while the others keep their best values so far, the most frequent type first, for some rounds. Types
are the predicted ones in both cases: others are not known for new images.

Trial n of a search draws from (seed, search, n): a search that is continued later tries the same values.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.metrics.functional import competition_map
from sartorius.structures import checks
from sartorius.sweeps.study import SeededStudy
from sartorius.tuning.scorer import scorer_of
from sartorius.tuning.space import ByType, ThresholdGrid
from sartorius.tuning.tables import Tables
from sartorius.tuning.trial_log import TrialLog, Tried

if TYPE_CHECKING:
    from optuna.distributions import IntDistribution

_STARTUP = 20  # trials at random before TPE models what was found; optuna's own 10 for one or two dimensions


@dataclass(frozen=True)
class Effort:
    """Effort of a search: trials of each search, rounds over the types (1 where they are independent), and the seed.

    least_images: a type with detections in fewer images keeps its thresholds, since the best for an image or two
    are rarely good for the next.
    """

    trials: int
    rounds: int
    least_images: int
    seed: int

    def __post_init__(self) -> None:
        checks.whole("", 1, trials=self.trials, rounds=self.rounds, least_images=self.least_images)
        checks.whole("", 0, seed=self.seed)


@dataclass(frozen=True)
class Trial:
    """A line of trials.csv: the thresholds tried for one type, and the mAP of the images that they concern."""

    search: str
    round: int
    cell_type: str
    trial: int
    values: dict[str, float]
    score: float


class Searcher:
    """Searches over images of `tables`; the file `path` keeps all trials, which are not made again.

    note: receives a line about each search as it ends.
    """

    def __init__(
        self,
        tables: Tables,
        grids: Mapping[str, ThresholdGrid],
        effort: Effort,
        path: Path,
        note: Callable[[str], None],
    ) -> None:
        self.tables, self.grids, self.effort, self.note = tables, grids, effort, note
        self.log = TrialLog(path)
        self.trials: list[Trial] = []

    def best(self, name: str, images: Sequence[str], start: ByType) -> ByType:
        """Find the thresholds that score best on these images, never worse there than `start`.

        A cell type with detections in fewer than `least_images` of them, or in none, keeps its thresholds.
        name: of the search, unique in the file.
        """
        best: ByType = {key: values.copy() for key, values in start.items()}
        kinds = {image_id: self.tables.kinds(image_id) for image_id in images}
        mixed = any(len(types) > 1 for types in kinds.values())
        for number in range(self.effort.rounds if mixed else 1):
            for kind in self._order(images):
                concerned = [image_id for image_id in images if kind in kinds[image_id]]
                if len(concerned) < self.effort.least_images:
                    self.note(f"{name}/{self.tables.cell_type_names[kind]}: {len(concerned)} images, left as it is")
                    continue
                best = self._search(name, number, kind, concerned, best)
        return best

    def _order(self, images: Sequence[str]) -> list[int]:
        """List the cell types of the images, most detections first."""
        kinds = [self.tables.candidates[image_id].kind for image_id in images]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *kinds]))
        return [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]

    def _search(self, name: str, number: int, kind: int, images: Sequence[str], start: ByType) -> ByType:
        """Replace, in `start`, the thresholds of one type by those that score best on these images."""
        cell_type, grids = self.tables.cell_type_names[kind], self.grids
        scorer = scorer_of(self.tables, images)

        def at(positions: dict[str, int]) -> ByType:
            changed = {key: values.copy() for key, values in start.items()}
            for key, position in positions.items():
                changed[key][kind] = grids[key].value(position)
            return changed

        about = f"{name}/{cell_type}/{number}"
        first = {key: grid.nearest(float(start[key][kind])) for key, grid in grids.items()}
        # Trials hold only for the same images and the same values of the other types.
        context = zlib.crc32(repr((tuple(images), [(key, start[key].tolist()) for key in start])).encode())
        logged = f"{about}/{context:08x}"
        tried = self._try(about, logged, first, lambda positions: competition_map(scorer.rows(at(positions))))
        for n, trial in enumerate(tried):
            values = {key: grids[key].value(position) for key, position in trial.positions.items()}
            self.trials.append(Trial(name, number, cell_type, n, values, trial.score))
        best = max(tried, key=lambda trial: trial.score)  # of equal ones the first
        before = competition_map(scorer.rows(start))
        self.note(f"{about}: mAP {before:.4f}, {max(best.score, before):.4f} after {len(tried)} trials")
        return at(best.positions) if best.score > before else start

    def _try(
        self, about: str, logged: str, first: dict[str, int], score: Callable[[dict[str, int]], float]
    ) -> list[Tried]:
        """Make the trials that the log lacks, `first` before all others; returns all trials of the search."""
        tried = self.log.of(logged)[: self.effort.trials]
        if len(tried) == self.effort.trials:
            return tried
        study = SeededStudy("max", (self.effort.seed, zlib.crc32(about.encode())), _STARTUP)
        grid = {key: _positions(grid) for key, grid in self.grids.items()}
        for trial in tried:
            study.add(trial.positions, grid, trial.score)
        for n in range(len(tried), self.effort.trials):
            if not n:
                study.optuna.enqueue_trial(first)
            asked = study.ask(grid, n)
            tried.append(Tried(asked.params, score(asked.params)))
            study.tell(asked.number, tried[-1].score)
            self.log.add(logged, tried[-1])
        return tried


def _positions(grid: ThresholdGrid) -> IntDistribution:
    from optuna.distributions import IntDistribution

    return IntDistribution(0, grid.last)
