"""The kit of a notebook: members, how they are joined and the hours, in one file beside the members and wheels."""

from __future__ import annotations

import hashlib
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import sartorius
from sartorius.errors import InputError
from sartorius.exports.kaggle.notebook import KIT
from sartorius.files import write_json
from sartorius.networks.builtin import located
from sartorius.running.budget.deadline import SystemClock, keep_deadline
from sartorius.running.budget.inputs import expected_ids, find_test
from sartorius.running.budget.jobs import start_process
from sartorius.running.budget.options import BudgetSettings, Finishing
from sartorius.running.budget.passes import TimedMember
from sartorius.running.budget.rows import SubmissionRows
from sartorius.running.budget.session import Session
from sartorius.running.continued import fingerprint
from sartorius.running.wiring import plain
from sartorius.structures.reading import read_json

FORMAT_VERSION = 1
_FILTER = "filter.npz"


def write_kit(cfg: DictConfig, folder: Path) -> list[str]:
    """Check and copy the members and the filter of a config into a folder, and describe them; returns their names.

    Warns where a join will leave out the members' own filters. Raises InputError for a file that `predict checkpoint=`
    does not take, one that is no filter, and for weights of another number.
    """
    paths = [located(str(path)) for path in plain(cfg.members)]
    names = [_name(number, path) for number, path in enumerate(paths, start=1)]
    weights = _weights(plain(cfg.weights), names)
    members, filtered = [], []
    for name, path in zip(names, paths, strict=True):
        views, has_filter = _examine(path, plain(cfg.tta))
        filtered += [str(path)] * has_filter
        # not .zip, which Kaggle would unpack
        file = f"{name}{'.bundle' if path.suffix.lower() == '.zip' else path.suffix}"
        shutil.copyfile(path, folder / file)
        members.append({"name": name, "file": file, "views": views, "content": fingerprint(path)})
    about = {
        "format_version": FORMAT_VERSION,
        "sartorius": sartorius.__version__,
        "hours": cfg.hours,
        "members": members,
        "tta": plain(cfg.tta) or None,
        "fusion": plain(cfg.fusion),
        "weights": weights,
        "postprocess": _changes(plain(cfg.postprocess)),
        "filter": _copy_filter(str(cfg.filter), folder, filtered if len(names) > 1 else []),
        "budget": plain(cfg.budget),
    }
    write_json(folder / KIT, about)
    return names


def _copy_filter(chosen_filter: str, folder: Path, filtered: Sequence[str]) -> str:
    """Check and copy a filter's file; returns the filter for the kit. filtered: joined members that have their own."""
    from sartorius.rescoring.filter import FalsePositiveFilter

    if chosen_filter not in ("saved", "none"):
        if not Path(chosen_filter).is_file():
            raise InputError(f"filter={chosen_filter}: no such file; `python -m sartorius.fit_filter` writes one")
        FalsePositiveFilter.load(chosen_filter)
        shutil.copyfile(chosen_filter, folder / _FILTER)
        chosen_filter = _FILTER
    elif chosen_filter == "saved" and filtered:
        warnings.warn(
            f"filter=saved: the join of several members is not filtered, though {', '.join(filtered)} came with a "
            "filter of false positives; give filter=FILE of one that fit_filter trained on the ensemble",
            stacklevel=2,
        )
    return chosen_filter


def _name(number: int, path: Path) -> str:
    """Name a member in letters that keys of Hydra's command line may have; one out of another kit loses its number."""
    stem = re.sub(r"^member\d+_", "", path.stem)
    return f"member{number}_{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)}"


def _examine(path: Path, tta: Any) -> tuple[int, bool]:
    """Load a member as `predict` does; returns the views of each image that it joins, and whether it has a filter."""
    from sartorius.rescoring import saved as saved_filter
    from sartorius.running import loading
    from sartorius.running.views import count_views

    module = loading.load_module(path)
    if tta:
        loading.add_tta(module, tta, str(path))
    return count_views(module), bool(module.hparams.get(saved_filter.KEY))


def _weights(given: Sequence[Any] | None, names: Sequence[str]) -> dict[str, Any]:
    if given is not None and len(given) != len(names):
        raise InputError(f"weights: {len(given)} for {len(names)} members")
    return dict(zip(names, given or (), strict=False))


def _changes(postprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes of the option `postprocess`, with the content of a file in place of its name."""
    from sartorius.postprocess.saved import changed

    if postprocess.get("file") is not None:
        return changed(None, postprocess, "postprocess")[0]
    return {key: value for key, value in postprocess.items() if key != "file"}


def open_session(kit: Path, inputs: Path, output: Path, started: float | None) -> Session:
    """Open the session of a kit on the competition's images below `inputs`, or the one in `output` that was stopped.

    started: of the notebook, seconds since 1970; None: now. Raises InputError for a folder that is no kit, and where
    the images are not found.
    """
    about, clock, problems = read_kit(kit), SystemClock(), list[str]()
    test = find_test(inputs)
    ids = expected_ids(test, problems)
    for problem in problems:
        print(problem, flush=True)
    key = hashlib.sha256(repr((about, ids)).encode()).hexdigest()[:12]  # others may have worked in the folder
    begun = clock.now() if started is None else started
    return Session(
        members=[TimedMember(member["name"], kit / member["file"], member["views"]) for member in about["members"]],
        images=test,
        work=output / "passes" / key,
        rows=SubmissionRows(output / "submission.csv", ids, clock),
        deadline=keep_deadline(output / "passes" / "started.json", begun, about["hours"], clock),
        start=start_process,
        settings=BudgetSettings(**about["budget"]),
        finishing=Finishing(
            tta=about["tta"],
            ensemble={"fusion": about["fusion"]},
            weights=about["weights"],
            postprocess=about["postprocess"],
            filter=str(kit / _FILTER) if about["filter"] == _FILTER else about["filter"],
        ),
    )


def read_kit(folder: Path) -> dict[str, Any]:
    """Read the description of a kit; raises InputError for another folder, and a kit of another version."""
    if not (folder / KIT).is_file():
        raise InputError(f"run={folder}: no {KIT} in it; `python -m sartorius.kaggle members=[...]` writes a kit")
    about: dict[str, Any] = read_json(folder / KIT, "write the kit again")
    if about.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{folder / KIT}: not of format version {FORMAT_VERSION}; write the kit again")
    return about
