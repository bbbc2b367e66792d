"""Score predictions: `python -m sartorius.evaluate detections=[runs/<run>/detections]`.

The source is a checkpoint (run over the validation pictures of its fold), folders of detections (those of all folds
make one out-of-fold score), or any csv in the submission format. Writes metrics.json and per_picture.csv; beside it a
classical baseline (`baseline=otsu_watershed`) or another run (`against=`), with the interval of the paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from sartorius import ranks, rle, wiring
from sartorius.data.competition import Competition
from sartorius.data.folds import make_folds, read_folds
from sartorius.data.out_of_fold import homes, type_names
from sartorius.detections import DetectionsFolder
from sartorius.distributed import spread
from sartorius.errors import InputError
from sartorius.export.submission import check_rows, read_rows
from sartorius.files import write_csv, write_json
from sartorius.metrics import report
from sartorius.metrics.functional import ROW_LENGTH, Cells, picture_row
from sartorius.progress import watched

if TYPE_CHECKING:
    from sartorius.metrics.box_ap import BoxAP

_LISTED = 5  # problems that a message names


@dataclass(frozen=True)
class Source:
    """What is scored: ids of pictures, the cells predicted for each, and box AP, which fills as cells are asked for."""

    pictures: Sequence[str]
    cells: Callable[[str], Cells]
    boxes: BoxAP | None = None


@dataclass(frozen=True)
class Scores:
    """Numbers of metrics.json, and the table of per_picture.csv."""

    numbers: dict[str, Any]
    table: pd.DataFrame


def evaluate(truth: Competition, source: Source, bootstrap: Mapping[str, Any]) -> Scores:
    """Score the source's pictures against the labelled ones; `bootstrap` is samples, seed and level of the intervals.

    Raises InputError where predictions and picture differ in size.
    """
    rows = np.zeros((len(source.pictures), ROW_LENGTH), dtype=np.int64)
    for index, picture in enumerate(watched(source.pictures, "scoring")):
        cells = source.cells(picture)
        try:
            rows[index] = picture_row(index, cells, truth.runs(picture))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"picture {picture}: {error}; the predictions are of another picture") from error
    types = [truth.record(picture).cell_type for picture in source.pictures]
    numbers = report.summary(rows, types, truth.cell_type_names, **bootstrap)
    if source.boxes is not None and len(rows):
        numbers |= source.boxes.compute()
    return Scores(numbers, report.per_picture_table(rows, source.pictures, types))


def from_predictions(path: str | Path, truth: Competition, pictures: Sequence[str], only_predicted: bool) -> Source:
    """A csv in the submission format. Pictures that it does not name have no predictions, or are left out.

    Raises InputError for masks that break the format or overlap (naming the rows), and ids that are not labelled.
    """
    rows = read_rows(path)
    sizes = {record.id: (record.height, record.width) for record in truth.pictures.values()}
    problems = [problem for problem in check_rows(rows, sizes) if problem.rule != "missing id"]
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(f"{path}: {listed}{more}")
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row.picture, []).extend([row.text] if row.text else [])
    scored = [picture for picture in pictures if not only_predicted or picture in texts]
    return Source(scored, lambda picture: rle.parse(texts.get(picture, []), *sizes[picture]))


def from_detections(
    folders: Sequence[str | Path], truth: Competition, pictures: Sequence[str], changes: Mapping[str, Any] | None,
    chosen_filter: str | None = None,
) -> Source:  # fmt: skip
    """Folders of detections as one: those of several folds make an out-of-fold score.

    Every folder's own post-processing turns its detections into cells, with `changes` on top; a filter may come behind
    it, `chosen_filter` as `which` of `filtered.finish_of`. Raises InputError for a picture in two folders, one that is
    not labelled, and a folder that holds none of `pictures`.
    """
    from sartorius.fusion.filtered import finish_of
    from sartorius.metrics.box_ap import BoxAP

    opened = [DetectionsFolder(folder) for folder in folders]
    finish = {folder: finish_of(folder.meta, changes, chosen_filter, str(folder.folder)) for folder in opened}
    home = homes(opened, truth)
    boxes = BoxAP(truth.cell_type_names)
    positions = {name: k for k, name in enumerate(truth.cell_type_names)}
    scored = [picture for picture in pictures if picture in home]
    place = {picture: k for k, picture in enumerate(scored)}

    def cells(picture: str) -> Cells:
        detections = home[picture].load(picture)
        # A type that the data lack takes part as one without cells: its boxes are never right.
        types = np.array([positions.get(name, len(positions)) for name in detections.cell_type_names], dtype=np.int64)
        known = types[detections.cell_types] < len(positions)
        real = truth.instances(picture)
        boxes.update(
            place[picture], detections.boxes[known], detections.scores[known],
            types[detections.cell_types][known], real.boxes, real.cell_types,
        )  # fmt: skip
        return finish[home[picture]](detections).instances

    return Source(scored, cells, boxes)


def from_baseline(baseline: Callable[[Any], Any], truth: Competition, pictures: Sequence[str]) -> Source:
    """A function from a grey picture to a label map, as a source."""
    return Source(pictures, lambda picture: baseline(truth.image(picture)))


def predict_validation(cfg: DictConfig) -> tuple[Path, str]:
    """Run a checkpoint over its validation pictures: (folder of the detections, data root). `data.*` set here win.

    Raises InputError for a folder that holds detections, data of no SupervisedDataModule, and views that nothing joins.
    """
    import torch

    from sartorius.callbacks.prediction_writer import PredictionWriter
    from sartorius.data.datamodules import validation_data

    folder = Path(cfg.output) / "detections"
    if ranks.rank() == 0:  # when the others look, it may have begun
        DetectionsFolder(folder).check_empty()
    module, recipe = wiring.load_module(cfg.checkpoint, cfg.inference)
    if cfg.tta and wiring.add_tta(module, cfg.tta, str(cfg.checkpoint)).fuse is None:
        raise InputError("tta.fuse=null joins no views, `predict` writes them one by one; evaluate takes joined ones")
    given = {key: cfg.data[key] for key in ("root", "fold", "fold_file") if cfg.data[key] is not None}
    given["num_workers"] = cfg.data.num_workers
    datamodule = validation_data(recipe["config"]["data"], str(cfg.checkpoint), **given)
    about = {"checkpoint": str(cfg.checkpoint), "tta": wiring.plain(cfg.tta) or None}
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    trainer = wiring.instantiate(cfg.trainer, callbacks=[PredictionWriter(folder, about)], **options)
    trainer.predict(module, datamodule, return_predictions=False)
    trainer.strategy.barrier("predicted")
    if torch.distributed.is_initialized():  # the first process scores alone: no metric may wait for the others
        torch.distributed.destroy_process_group()
    return folder, str(datamodule.root)


def chosen_pictures(cfg: DictConfig, truth: Competition) -> list[str]:
    """The labelled pictures that the config asks for: those of a fold, those listed, or all."""
    pictures = list(truth.ids)
    if cfg.data.fold is not None and cfg.checkpoint is None:
        file = cfg.data.fold_file
        folds = make_folds(truth, cfg.data.n_folds, cfg.data.fold_seed) if file is None else read_folds(file, truth)
        pictures = folds.split(cfg.data.fold)[1]
    if cfg.pictures is not None:
        listed = {truth.record(picture).id for picture in wiring.listed(cfg.pictures)}
        pictures = [picture for picture in pictures if picture in listed]
    return pictures


def check_options(cfg: DictConfig) -> None:
    """Raise InputError unless exactly one source, or only a baseline, is asked for, and views only of a network."""
    given = [name for name in ("checkpoint", "detections", "predictions") if cfg[name] is not None]
    if len(given) > 1 or not (given or cfg.get("baseline") is not None):
        came = " and ".join(given) or "none of them"
        raise InputError(f"give one of checkpoint=, detections=, predictions= (or baseline= alone), got {came}")
    if cfg.filter not in (None, "none", "saved") and not (cfg.checkpoint or cfg.detections):
        raise InputError("filter= drops cells of detections; it goes with checkpoint= or detections= only")
    if asked := [name for name in ("inference", "tta") if cfg[name] and cfg.checkpoint is None]:
        raise InputError(f"{asked[0]}= says how a network looks at pictures; it goes with checkpoint= only")


def sources(
    cfg: DictConfig, truth: Competition, pictures: Sequence[str], folders: Sequence[str] | None
) -> dict[str, Source]:
    """What is scored of `pictures`, by name: the predictions, and the baseline on the same pictures."""
    from sartorius.fusion.filtered import say_saved

    found: dict[str, Source] = {}
    if cfg.predictions is not None:
        found[str(cfg.predictions)] = from_predictions(cfg.predictions, truth, pictures, cfg.only_predicted)
    elif folders is not None:
        say_saved(folders, cfg.filter)
        found[", ".join(folders)] = from_detections(folders, truth, pictures, wiring.plain(cfg.postprocess), cfg.filter)
    pictures = next((source.pictures for source in found.values()), pictures)
    if not pictures:
        raise InputError("no picture is left to score; check pictures=, data.fold= and the predictions' ids")
    if cfg.get("baseline") is not None:
        function = wiring.instantiate(cfg.baseline)
        found[function.func.__name__] = from_baseline(function, truth, pictures)
    return found


@wiring.verb("evaluate")
@spread("evaluate")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Score what the config names, print a table, write the report. Returns the numbers of metrics.json."""
    check_options(cfg)
    folders = None if cfg.detections is None else wiring.listed(cfg.detections)
    root = cfg.data.root
    if cfg.checkpoint is not None:
        folder, root = predict_validation(cfg)
        folders = [str(folder)]
    if ranks.rank():  # the first process scores what all have written
        return {}
    truth = Competition(root or cfg.paths.data_dir, type_names(folders or (), cfg.cell_types))
    asked, bootstrap = chosen_pictures(cfg, truth), wiring.plain(cfg.bootstrap)
    found = sources(cfg, truth, asked, folders)
    scores = {name: evaluate(truth, source, bootstrap) for name, source in found.items()}
    for name, scored in scores.items():
        report.print_scores(name, scored.numbers, scored.table, truth.cell_type_names)
    (_, first), *others = scores.items()
    first.numbers["labelled_pictures"] = len(asked)
    print(f"scored {len(first.table)} of {len(asked)} labelled pictures")
    output = Path(cfg.output)
    for name, other in others:
        difference = report.print_difference(name, first.table, other.table, bootstrap)
        first.numbers["baseline"] = {"name": name, **other.numbers, "difference": difference}
        write_csv(output / f"per_picture_{name}.csv", other.table)
    if cfg.against is not None:
        theirs = report.read_per_picture(cfg.against)
        difference = report.print_difference(str(cfg.against), first.table, theirs, bootstrap)
        first.numbers["against"] = {"file": str(cfg.against), **difference}
    write_json(output / "metrics.json", first.numbers)
    write_csv(output / "per_picture.csv", first.table)
    print(f"report in {output}")
    return first.numbers


if __name__ == "__main__":
    main()
