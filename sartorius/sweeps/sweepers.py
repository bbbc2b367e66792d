"""The work of the two sweepers, a grid and Optuna's search; Hydra finds them in `plugin/hydra_plugins`.

Both end in a table and a plot. Hydra's `on_multirun_end` would not do: it is called after a sweep that ended well only,
neither after Ctrl-C nor when a launcher gives up, and errors of callbacks become warnings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sartorius import files
from sartorius.errors import InputError
from sartorius.structures import checks, rules
from sartorius.structures.next_step import print_next
from sartorius.sweeps import members
from sartorius.sweeps.members import SweepMember
from sartorius.sweeps.search import Search, values_text
from sartorius.sweeps.space import distribution
from sartorius.sweeps.task import MembersFailed, sweep_folder

_LOST = "its process ended without a result: killed, out of memory or out of time"


class Sweep:
    """The options of a multirun, by key, and its folder, which every member gets.

    A member's own choices may be part of the folder's name. In it a member's folder is named after the keys that vary.

    sweeper: Hydra's, set up. params: values by key, in Hydra's words as on the command line. arguments: of the command
    line, which win.
    """

    def __init__(self, sweeper: Sweeper, params: Mapping[str, Any], arguments: Sequence[str]) -> None:
        assert sweeper.config is not None and sweeper.hydra_context is not None
        self.sweeper, self.config = sweeper, sweeper.config
        texts = [*(f"{key}={value}" for key, value in params.items()), *arguments]
        parser = OverridesParser.create(config_loader=sweeper.hydra_context.config_loader)
        self.options = {option.get_key_element(): option for option in parser.parse_overrides(texts)}
        fixed = [key for key, option in self.options.items() if not option.is_sweep_override()]
        self.folder = _name_folders(self.config.hydra, fixed)

    def launch(self, job_overrides: list[list[str]], first: int) -> None:
        """Run members, numbered from `first` on."""
        assert self.sweeper.launcher is not None
        for job in self.sweeper.launcher.launch(job_overrides, first):
            _ = job.return_value  # raises what the job did outside of `run_member`


@contextmanager
def open_sweep(sweeper: Sweeper, params: Mapping[str, Any], arguments: Sequence[str]) -> Iterator[Sweep]:
    """Open a sweep whose folder no other process uses; raises BlockingIOError where one does."""
    sweep = Sweep(sweeper, params, arguments)
    with files.locked(sweep.folder, inside=True):
        yield sweep


def _name_folders(config: DictConfig, fixed: Sequence[str]) -> Path:
    """Name the folders of the sweep and its members; returns the first, which is made anew if the clock names it."""
    folder = sweep_folder(config)
    raw = str(OmegaConf.to_container(config.sweep, resolve=False)["dir"])  # type: ignore[call-overload, index]
    if "${stamp:" in raw or "${now:" in raw:
        folder = files.make_new_folder(folder)
    left_out = [*config.job.config.override_dirname.exclude_keys, *fixed]
    with read_write(config), open_dict(config):
        config.sweep.dir = str(folder)
        config.overrides.hydra += [
            f"hydra.sweep.dir={_quoted(str(folder))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(_quoted, left_out))}]",
        ]
    return folder


def check_params(params: Any) -> None:
    """Raise InputError unless the values to sweep over are a mapping by key, or None."""
    expected = "a mapping of keys to values, such as {seed: '1,2'}"
    checks.expect(params is None or isinstance(params, Mapping), "hydra.sweeper", "params", params, expected)


def check_discrete(options: Mapping[str, Override]) -> None:
    """Raise InputError for an interval."""
    for option in options.values():
        if option.is_sweep_override() and not option.is_discrete_sweep():
            raise InputError(f"{option.input_line}: a grid takes single values; an interval goes with sweep=optuna")


@contextmanager
def reported(folder: Path, read: Callable[[], list[SweepMember]], search: Search | None = None) -> Iterator[None]:
    """Launch members in the block; then write, print and draw their results, also after Ctrl-C.

    Raises MembersFailed where some have none. An error of the launcher is printed in a line if a member was running,
    whose process died then; otherwise it is raised.

    folder: of the sweep. read: returns the members with their records so far. search: whose history is drawn; None
    draws a grid.
    """
    try:
        yield
    except Exception as error:
        ended = _conclude(folder, read(), search, members.FAILED)
        if all(member.error != _LOST for member in ended):
            raise
        print(f"error: {' '.join(f'{type(error).__name__}: {error}'.split())}", file=sys.stderr)
    except BaseException:
        _conclude(folder, read(), search, members.STOPPED)
        raise
    else:
        ended = _conclude(folder, read(), search, members.FAILED)
    if any(member.status not in members.DONE for member in ended):
        raise MembersFailed


def _conclude(folder: Path, records: list[SweepMember], search: Search | None, end: str) -> list[SweepMember]:
    """Tabulate and draw members, unless none has begun; returns them, those that were running with the status `end`."""
    from sartorius.sweeps import plot, table  # pandas, and only at the end

    error = _LOST if end == members.FAILED else None
    ended = [replace(m, status=end, error=error) if m.status == members.RUNNING else m for m in records]
    if any(member.status != members.WAITING for member in ended):
        table.write_tables(folder, ended)
        table.print_tables(ended, os.path.relpath(folder))
        path = folder / "plots" / "sweep.png"
        if search is None:
            drawn = plot.draw_sweep(ended, path)
        else:
            keys = list(search.space)
            drawn = plot.draw_search(ended, keys, search.study.importances(keys), path)
        print(f"table{' and plot' if drawn else ''} in {os.path.relpath(folder)}")
        best = min(ended, key=table.rank)
        if best.score is not None and best.folder is not None:
            print_next("report", {"run": os.path.relpath(best.folder)})
    return ended


def grid_members(folder: Path, plan: Sequence[Sequence[str]]) -> list[SweepMember]:
    """Return the members of a grid, numbered in the order of the plan."""
    return members.read_members(folder, [(number, _task(overrides)) for number, overrides in enumerate(plan)])


@dataclass(frozen=True)
class TrialSettings:
    """The settings of a search; raises InputError for values that are none.

    n_trials: that end by themselves, those of earlier calls with the same folder included. seed: of the sampler.
    startup: trials at random before TPE models the scores. parallel: trials that are launched together; -1 for as many
    as there are cores. elsewhere: keys that may differ when the search is continued, such as data.root.
    """

    n_trials: int
    seed: int
    startup: int
    parallel: int
    elsewhere: Sequence[str]

    def __post_init__(self) -> None:
        if self.parallel == -1:
            object.__setattr__(self, "parallel", os.cpu_count() or 1)
        checks.whole("hydra.sweeper", 1, n_trials=self.n_trials, startup=self.startup, parallel=self.parallel)
        checks.check("hydra.sweeper", rules.whole(0, 2**32 - 1), seed=self.seed)
        checks.check("hydra.sweeper", rules.list_of(rules.text, least=0), elsewhere=self.elsewhere)


def run_search(sweep: Sweep, settings: TrialSettings) -> None:
    """Ask for trials, run and tell them, until there are `n_trials`.

    Raises InputError where there is nothing to search, or another search in the folder.
    """
    space = {key: distribution(option) for key, option in sweep.options.items() if option.is_sweep_override()}
    if not space:
        raise InputError("nothing to search: give an option values, such as 'optimizer.lr=interval(0.001,0.01)'")
    fixed = [f"{key}={option.get_value_element_as_str()}" for key, option in sweep.options.items() if key not in space]
    sweep.sweeper.validate_batch_is_legal([fixed])
    mode = OmegaConf.select(sweep.config, "mode") or "max"
    same = [text for text in fixed if text.split("=")[0] not in settings.elsewhere]
    about = {
        "space": {key: str(value) for key, value in space.items()}, "fixed options": sorted(_task(same)),
        "monitor": OmegaConf.select(sweep.config, "monitor"), "mode": mode,
        "seed": settings.seed, "startup": settings.startup,
    }  # fmt: skip
    search = Search(sweep.folder / "study.journal", space, mode, settings.seed, settings.startup, about)
    OmegaConf.save(sweep.config, sweep.folder / "multirun.yaml")

    def read() -> list[SweepMember]:  # without the trials that were killed and repeated
        return [member for number, member in _records(sweep.folder, search).items() if number not in search.killed()]

    with reported(sweep.folder, read, search):
        _run_trials(sweep, settings, search, fixed)


def _run_trials(sweep: Sweep, settings: TrialSettings, search: Search, fixed: Sequence[str]) -> None:
    killed = search.settle(_records(sweep.folder, search))
    again = f"; {len(killed)} that were killed are repeated" if killed else ""
    print(f"{len(search.done())} of {settings.n_trials} trials are there{again}")
    while (left := settings.n_trials - len(search.done())) > 0:
        asked = search.ask(min(settings.parallel, left))
        sweep.launch([[*fixed, *values_text(values, list(search.space))] for _, values in asked], asked[0][0])
        records = _records(sweep.folder, search)
        for number, _ in asked:
            search.tell(records[number])


def _records(folder: Path, search: Search) -> dict[int, SweepMember]:
    known = {trial.number: members.read_member(folder, trial.number) for trial in search.study.trials()}
    return {number: member for number, member in known.items() if member is not None}


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _task(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the job, without those of Hydra."""
    return [text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/"))]
