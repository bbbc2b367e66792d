"""The two sweepers: every combination of a grid, and Optuna's search. Both end in a table and a plot, and can be gone
on with: the same command with the same `hydra.sweep.dir` runs what has no result yet.

They do not derive from Hydra's own: it loads its plugins' modules a second time, which makes their classes others.
"""

from __future__ import annotations

import itertools
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sartorius.errors import InputError
from sartorius.sweeps import members
from sartorius.sweeps.members import SweepMember
from sartorius.sweeps.patience import Patience
from sartorius.sweeps.search import Search, values_text
from sartorius.sweeps.space import distribution
from sartorius.sweeps.task import PLUGINS, MembersFailed, sweep_folder


class Reported(Sweeper):
    """A sweeper that ends in a table and a plot, also after Ctrl-C.

    Args:
        params: values by key, in Hydra's words as on the command line, which wins.
    """

    config: DictConfig
    hydra_context: HydraContext

    def __init__(self, params: Mapping[str, Any] | None) -> None:
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Build the launcher, with patience for members that die."""
        self.config, self.hydra_context = config, hydra_context
        self.folder = sweep_folder(config.hydra)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.patience = Patience(launcher, self.folder)

    def sweep(self, arguments: list[str]) -> None:
        """Run all members. Raises MembersFailed after the table where some failed, InputError where nothing can run."""
        texts = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(texts)
        options = {override.get_key_element(): override for override in parsed}  # later ones win
        self._name_folders([key for key, option in options.items() if not option.is_sweep_override()])
        self.prepare(options)
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        try:
            self.run()
        finally:
            found = self._conclude()
        if any(member.status == members.FAILED for member in found):
            raise MembersFailed

    def _name_folders(self, fixed: Sequence[str]) -> None:
        """Give all members this sweep's folder (their own choices may be part of its name), in it a folder named after
        what they differ in.
        """
        config = self.config.hydra
        left_out = [*config.job.config.override_dirname.exclude_keys, *fixed]
        with read_write(config), open_dict(config):
            config.overrides.hydra += [
                f"hydra.sweep.dir={_quoted(str(self.folder))}",
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(_quoted, left_out))}]",
            ]

    def _conclude(self) -> list[SweepMember]:
        from sartorius.sweeps.table import print_tables, write_tables  # pandas, and only at the end

        stopped = {members.RUNNING: members.STOPPED}
        found = [replace(member, status=stopped.get(member.status, member.status)) for member in self.found()]
        if found:
            write_tables(self.folder, found)
            print_tables(found, os.path.relpath(self.folder))
            drawn = self.draw(found, self.folder / "plots" / "sweep.png")
            print(f"table{' and plot' if drawn else ''} in {os.path.relpath(self.folder)}")
        return found

    @abstractmethod
    def prepare(self, options: Mapping[str, Override]) -> None:
        """Look at what is to be run before anything is."""

    @abstractmethod
    def run(self) -> None:
        """Launch the members."""

    @abstractmethod
    def found(self) -> list[SweepMember]:
        """The members, with what became of them so far."""

    @abstractmethod
    def draw(self, found: Sequence[SweepMember], path: Path) -> bool:
        """Draw them; returns whether there was anything to draw."""


class Grid(Reported):
    """Every combination of the values.

    Args:
        params: values by key, such as "1,2" or "range(0,5)".
        max_batch_size: members that the launcher gets at a time; None for all.
    """

    def __init__(self, params: Mapping[str, Any] | None, max_batch_size: int | None) -> None:
        super().__init__(params)
        self.max_batch_size = max_batch_size
        self.plan: list[list[str]] = []

    def prepare(self, options: Mapping[str, Override]) -> None:
        """Compose every member once, so that a mistyped option ends the sweep before it begins."""
        self.plan = [list(member) for member in itertools.product(*(_values(key, o) for key, o in options.items()))]
        self.validate_batch_is_legal(self.plan)

    def run(self) -> None:
        """Launch all combinations, the last key's values fastest."""
        size = self.max_batch_size or len(self.plan)
        for start in range(0, len(self.plan), size):
            self.patience.launch(self.plan[start : start + size], start)

    def found(self) -> list[SweepMember]:
        """By number."""
        return members.read_members(self.folder, [(n, _task(overrides)) for n, overrides in enumerate(self.plan)])

    def draw(self, found: Sequence[SweepMember], path: Path) -> bool:
        """The score over a parameter, or bars."""
        from sartorius.sweeps.plot import draw_sweep

        return draw_sweep(found, path)


class Optuna(Reported):
    """Optuna's TPE: `n_trials` in total, the later ones where the earlier ones scored well.

    Args:
        params: what to search by key: `interval(1, 2)`, `tag(log, interval(1e-5, 1e-2))`, `range(1, 9, 2)`,
            `choice(a, b)`.
        n_trials: that end by themselves, those of earlier calls with the same folder included.
        seed: of the sampler.
        startup: trials at random before the model.
        parallel: trials that are launched together; -1 for as many as there are cores.
        elsewhere: keys that may differ when the search goes on, such as data.root.
    """

    search: Search

    def __init__(
        self, params: Mapping[str, Any] | None, n_trials: int, seed: int, startup: int, parallel: int,
        elsewhere: list[str],
    ) -> None:  # fmt: skip
        super().__init__(params)
        self.n_trials, self.seed, self.startup, self.elsewhere = n_trials, seed, startup, elsewhere
        self.parallel = (os.cpu_count() or 1) if parallel == -1 else parallel
        self.fixed: list[str] = []
        for key, value in (("n_trials", n_trials), ("startup", startup), ("parallel", self.parallel)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"hydra.sweeper.{key}={value}: expected an integer of 1 or more")

    def prepare(self, options: Mapping[str, Override]) -> None:
        """Open the search; raises InputError where there is nothing to search, or another search in the folder."""
        space = {key: distribution(option) for key, option in options.items() if option.is_sweep_override()}
        if not space:
            raise InputError("nothing to search: give an option values, such as 'optimizer.lr=interval(0.001,0.01)'")
        self.fixed = [_text(key, option) for key, option in options.items() if key not in space]
        self.validate_batch_is_legal([self.fixed])
        mode = OmegaConf.select(self.config, "mode") or "max"
        same = [text for text in self.fixed if text.split("=")[0] not in self.elsewhere]
        about = {
            "space": {key: str(value) for key, value in space.items()}, "fixed options": sorted(_task(same)),
            "monitor": OmegaConf.select(self.config, "monitor"), "mode": mode,
            "seed": self.seed, "startup": self.startup,
        }  # fmt: skip
        self.search = Search(self.folder / "study.journal", space, mode, self.seed, self.startup, about)

    def run(self) -> None:
        """Ask for trials, run and tell them, until there are `n_trials`."""
        killed = self.search.settle(self._records())
        again = f"; {len(killed)} that were killed are repeated" if killed else ""
        print(f"{len(self.search.done())} of {self.n_trials} trials are there{again}")
        while (left := self.n_trials - len(self.search.done())) > 0:
            asked = self.search.ask(min(self.parallel, left))
            texts = [[*self.fixed, *values_text(values, list(self.search.space))] for _, values in asked]
            self.patience.launch(texts, asked[0][0])
            records = self._records()
            for number, _ in asked:
                self.search.tell(records[number])

    def _records(self) -> dict[int, SweepMember]:
        known = {trial.number: members.read_member(self.folder, trial.number) for trial in self.search.trials()}
        return {number: member for number, member in known.items() if member is not None}

    def found(self) -> list[SweepMember]:
        """By number; trials that were killed and repeated are left out."""
        return [member for number, member in self._records().items() if number not in self.search.killed()]

    def draw(self, found: Sequence[SweepMember], path: Path) -> bool:
        """The history, the importance of the parameters, and the score over each."""
        from sartorius.sweeps.plot import draw_search

        return draw_search(found, list(self.search.space), self.search.importances(), path)


def register() -> None:
    """Let Hydra find our sweepers.

    It takes plugins from the package `hydra_plugins` only: they get a name there, but no module, which would need a
    folder of that name beside this package in the wheel.
    """
    for sweeper in (Grid, Optuna):
        Plugins.instance().class_name_to_class[f"{PLUGINS}{sweeper.__name__}"] = sweeper


def _values(key: str, option: Override) -> list[str]:
    if not option.is_sweep_override():
        return [_text(key, option)]
    if not option.is_discrete_sweep():
        raise InputError(f"{option.input_line}: a grid takes single values; an interval goes with sweep=optuna")
    return [f"{key}={value}" for value in option.sweep_string_iterator()]


def _text(key: str, option: Override) -> str:
    return f"{key}={option.get_value_element_as_str()}"


def _quoted(text: str) -> str:
    """Text as a value of the command line."""
    return QuotedString(text, Quote.single).with_quotes()


def _task(overrides: Sequence[str]) -> list[str]:
    """The overrides that Hydra counts as the job's own."""
    return [text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/"))]
