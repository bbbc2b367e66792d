"""Tune the thresholds per cell type: `python -m sartorius.tune detections=[RUN0/detections,...] output=DIR`.

The detections are those of labelled images that their models did not see (each fold's run writes its validation
images). Writes `DIR/postprocess.yaml`, which `evaluate`, `predict`, `submit` take as `postprocess.file=`, and what it
is worth: metrics.json and per_image.csv (untuned, tuned, and cross-fitted: tuned without the image's fold),
parameters.csv, trials.csv. With `pseudo_labels.precision=` also from which score on cells are right that often, in
`DIR/pseudo_labels.yaml`, which `pseudo_label` takes as `pseudo_labels.thresholds=`. The search itself is kept in
`DIR/search.jsonl`, and goes on when called again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from omegaconf import DictConfig

from sartorius.data.competition.folder import Competition
from sartorius.data.out_of_fold import folder_of
from sartorius.errors import InputError
from sartorius.files import write_csv, write_json, write_text
from sartorius.postprocess.finalise import Postprocess
from sartorius.postprocess.saved import from_saved, to_file, to_saved
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.saved_cells import well_folds
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.tuning.search import Searcher, Trial

_FILE = "postprocess.yaml"
_CUT_OFFS = "pseudo_labels.yaml"


def chosen(home: Mapping[str, DetectionsFolder], asked: Sequence[str] | None) -> dict[str, DetectionsFolder]:
    """The folder of each image, sorted by id; `asked` leaves out all others. Raises InputError for one without."""
    for image_id in asked or ():
        if image_id not in home:
            folders = dict.fromkeys(str(folder.folder) for folder in home.values())
            raise InputError(f"images: no detections of '{image_id}' in {', '.join(folders)}")
    return {image_id: home[image_id] for image_id in sorted(home) if asked is None or image_id in asked}


def common_postprocess(folders: Sequence[DetectionsFolder], changes: Mapping[str, Any]) -> Postprocess:
    """The post-processing that the search starts from: what all folders were saved with, with `changes` on top.

    Raises InputError where folders differ.
    """
    first, *others = [from_saved(f.meta.get("postprocess"), changes, str(f.folder)) for f in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        if to_saved(other) != to_saved(first):
            raise InputError(
                f"{folder.folder} and {folders[0].folder} were saved with different post-processing; choose where to "
                "start with postprocess=default, or another of conf/postprocess"
            )
    return first


def check_same_search(output: Path, about: Mapping[str, Any]) -> None:
    """Note what is searched in `output`; raises InputError where another search was begun there."""
    path = output / "study.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not valid JSON ({error}); give another output=") from error
        known = before if isinstance(before, dict) else {}
        if other := [key for key, value in about.items() if known.get(key) != json.loads(json.dumps(value))]:
            raise InputError(
                f"{output}: holds a search with other {', '.join(other)}; give another output= or delete the folder"
            )
    write_json(path, about)


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """A line a trial: search, round, cell_type, trial, competition_map (of the type's images), the thresholds."""
    lines = [
        {key: value for key, value in asdict(trial).items() if key not in ("values", "score")}
        | {"competition_map": trial.score, **trial.values}
        for trial in trials
    ]
    return pd.DataFrame(lines)


def report(
    searcher: Searcher, output: Path, post: Postprocess, cell_types: Sequence[str],
    folds: NDArray[np.int64] | None, bootstrap: Mapping[str, Any],
) -> tuple[Postprocess, dict[str, Any]]:  # fmt: skip
    """Search, print and write everything; returns the tuned post-processing and the numbers of metrics.json."""
    from sartorius.tuning import crossfit
    from sartorius.tuning.scorer import scorer_of
    from sartorius.tuning.space import thresholds_of, with_thresholds

    tables, names = searcher.tables, searcher.tables.cell_type_names
    tuned = crossfit.tune(searcher, thresholds_of(post, names), folds)
    numbers = crossfit.summary(tuned, cell_types, bootstrap)
    crossfit.print_summary(numbers, names, bootstrap["level"])
    best = with_thresholds(post, names, tuned.thresholds)
    shown = numbers.get("cross_fitted", numbers["tuned"])
    to_file(
        output / _FILE, best,
        f"Written by sartorius.tune: {numbers['images']} images, mAP {numbers['untuned']['competition_map']:.4f} "
        f"untuned, {shown['competition_map']:.4f} {'cross-fitted' if folds is not None else 'in sample'}.",
    )  # fmt: skip
    everything = scorer_of(tables, tables.images)
    write_csv(output / "parameters.csv", crossfit.parameter_table(tuned, everything, names))
    write_csv(output / "per_image.csv", crossfit.image_table(tuned, cell_types))
    write_csv(output / "trials.csv", trial_table(searcher.trials))
    write_json(output / "metrics.json", numbers)
    return best, numbers


def asked_precision(given: Any, names: Sequence[str]) -> dict[str, float]:
    """The precision asked for of each cell type named, from a number for all or a mapping; {} for None."""
    asked = dict.fromkeys(names, given) if not isinstance(given, Mapping) else dict(given)
    for name, value in asked.items() if given is not None else ():
        if name not in names:
            raise InputError(f"pseudo_labels.precision: no cell type {name}; there are {', '.join(names)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise InputError(f"pseudo_labels.precision.{name}: expected a share above 0, up to 1, got {value!r}")
    return asked if given is not None else {}


def write_cut_offs(
    path: Path, home: Mapping[str, DetectionsFolder], truth: Competition, post: Postprocess,
    folds: NDArray[np.int64] | None, precision: Mapping[str, float], least_cells: int,
) -> dict[str, Any]:  # fmt: skip
    """Find, print and write from which score on cells may be pseudo-labels; returns what `cut_offs` does."""
    from sartorius.tuning import precision as finding

    judged = [
        finding.judge(home[image_id].load(image_id), truth.runs(image_id), post)
        for image_id in progress_bar(list(home), "judging")
    ]
    measured = finding.cut_offs(judged, folds, precision, least_cells)
    for name, own in measured.items():
        rates = [own[key] for key in ("precision", "cross_fitted_precision") if own.get(key) is not None]
        shown = " and, cross-fitted, ".join(f"{rate:.3f}" for rate in rates) or "not known"
        print(f"{name}: sure from score {own['min_score']:g} on: {own['cells']} cells, precision {shown}")
    comment = f"# Written by sartorius.tune from {len(judged)} images under {_FILE}; for pseudo_labels.thresholds=\n"
    values = {"min_score": {name: own["min_score"] for name, own in measured.items()}, "measured": measured}
    write_text(path, comment + yaml.safe_dump(values, sort_keys=False))
    return measured


@command("tune")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Tune on what the config names, write the report and the thresholds. Returns the numbers of metrics.json."""
    from sartorius.networks.checkpoints import read_checkpoint
    from sartorius.tuning.search import Effort, Searcher
    from sartorius.tuning.space import floor, thresholds_of
    from sartorius.tuning.tables import Tables

    folders = [DetectionsFolder(folder) for folder in wiring.path_list(cfg.detections)]
    if not folders:
        raise InputError("give detections=[RUN0/detections,...]: folders that `train`, `evaluate` or `predict` wrote")
    checkpoints = wiring.path_list(cfg.checkpoint)
    for checkpoint in checkpoints:
        read_checkpoint(checkpoint)  # a wrong name is said before the search, not after it
    for key, least in (("trials", 1), ("rounds", 1), ("least_images", 1), ("folds", 0), ("seed", 0)):
        if cfg[key] < least:
            raise InputError(f"{key}={cfg[key]}: expected {least} or more")
    post = common_postprocess(folders, wiring.plain(cfg.postprocess))
    grids = wiring.instantiate(cfg.search).grids(post)
    names = folders[0].meta.get("cell_types", CELL_TYPES)
    asked = asked_precision(wiring.plain(cfg.pseudo_labels.precision), names)
    truth = Competition(cfg.data.root or cfg.paths.data_dir, names)
    home = chosen(folder_of(folders, truth), None if cfg.images is None else wiring.path_list(cfg.images))
    otherwise = ", or folds=0 to leave out cross-fitting"
    folds = None if cfg.folds == 0 else well_folds(truth, list(home), cfg.folds, cfg.seed, otherwise=otherwise)
    least = floor(grids, thresholds_of(post, truth.cell_type_names))
    tables = Tables(
        list(home), lambda image_id: home[image_id].load(image_id), truth.runs, post, least, cfg.cache_megabytes,
        progress_bar,
    )  # fmt: skip
    output = Path(str(cfg.output))
    searched = {name: asdict(grid) for name, grid in grids.items()}
    about = {"detections": tables.digest, "postprocess": to_saved(post), "search": searched}
    check_same_search(output, {**about, "seed": cfg.seed, "folds": cfg.folds})
    effort = Effort(cfg.trials, cfg.rounds, cfg.least_images, cfg.seed)
    searcher = Searcher(tables, grids, effort, output / "search.jsonl", print)
    cell_types = [truth.record(image_id).cell_type for image_id in home]
    best, numbers = report(searcher, output, post, cell_types, folds, wiring.plain(cfg.bootstrap))
    if asked:
        write_cut_offs(output / _CUT_OFFS, home, truth, best, folds, asked, cfg.pseudo_labels.least_cells)
    if checkpoints:
        from sartorius.tuning.checkpoint import store

        for checkpoint in checkpoints:
            store(checkpoint, best)
            print(f"{checkpoint}: now has these thresholds")
    print(f"report in {output}; elsewhere: postprocess.file={output / _FILE}")
    return numbers


if __name__ == "__main__":
    main()
