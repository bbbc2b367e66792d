"""Score predictions: `python -m sartorius.evaluate detections=[runs/<run>/detections]`.

The source is a checkpoint (run over the validation images of its fold), folders of detections (those of all folds
make one out-of-fold score), or any csv in the submission format. Writes metrics.json and per_image.csv; beside it a
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

from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds, read_folds
from sartorius.data.out_of_fold import type_names
from sartorius.errors import InputError
from sartorius.files import write_csv, write_json
from sartorius.formats.submission import check_rows, read_rows
from sartorius.metrics import report
from sartorius.metrics.functional import ROW_LENGTH, Cells, image_row
from sartorius.running import loading, processes, wiring
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.predicting import build_predictor, run_prediction
from sartorius.running.progress import progress_bar
from sartorius.running.saved_cells import SavedCells
from sartorius.structures import rle
from sartorius.structures.detections import DetectionsFolder

if TYPE_CHECKING:
    from sartorius.metrics.box_ap import BoxAP

_LISTED = 5  # problems that a message names


@dataclass(frozen=True)
class Source:
    """What is scored: ids of images, the cells predicted for each, and box AP, which fills as cells are asked for."""

    images: Sequence[str]
    cells: Callable[[str], Cells]
    boxes: BoxAP | None = None


@dataclass(frozen=True)
class Scores:
    """Numbers of metrics.json, and the table of per_image.csv."""

    numbers: dict[str, Any]
    table: pd.DataFrame


def evaluate(truth: Competition, source: Source, bootstrap: Mapping[str, Any]) -> Scores:
    """Score the source's images against the labelled ones; `bootstrap` is samples, seed and level of the intervals.

    Raises InputError where predictions and image differ in size.
    """
    rows = np.zeros((len(source.images), ROW_LENGTH), dtype=np.int64)
    for index, image_id in enumerate(progress_bar(source.images, "scoring")):
        cells = source.cells(image_id)
        try:
            rows[index] = image_row(index, cells, truth.runs(image_id))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"image {image_id}: {error}; the predictions are of another image") from error
    types = [truth.record(image_id).cell_type for image_id in source.images]
    numbers = report.summary(rows, types, truth.cell_type_names, **bootstrap)
    if source.boxes is not None and len(rows):
        numbers |= source.boxes.compute()
    return Scores(numbers, report.per_image_table(rows, source.images, types))


def from_predictions(path: str | Path, truth: Competition, images: Sequence[str], only_predicted: bool) -> Source:
    """A csv in the submission format. Images that it does not name have no predictions, or are left out.

    Raises InputError for masks that break the format or overlap (naming the rows), and ids that are not labelled.
    """
    rows = read_rows(path)
    sizes = {record.id: (record.height, record.width) for record in truth.images.values()}
    problems = [problem for problem in check_rows(rows, sizes) if problem.rule != "missing id"]
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(f"{path}: {listed}{more}")
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row.image_id, []).extend([row.text] if row.text else [])
    scored = [image_id for image_id in images if not only_predicted or image_id in texts]
    return Source(scored, lambda image_id: rle.parse(texts.get(image_id, []), *sizes[image_id]))


def from_detections(
    folders: Sequence[str | Path], truth: Competition, images: Sequence[str], changes: Mapping[str, Any] | None,
    chosen_filter: str | None = None,
) -> Source:  # fmt: skip
    """Folders of detections as one: those of several folds make an out-of-fold score.

    Every folder's own post-processing turns its detections into cells, with `changes` on top; a filter may come behind
    it, `chosen_filter` as `which` of `filtered.finish_of`. Raises InputError for an image in two folders, one that is
    not labelled, and a folder that holds none of `images`.
    """
    from sartorius.metrics.box_ap import BoxAP

    saved = SavedCells(folders, changes, chosen_filter, truth)
    boxes = BoxAP(truth.cell_type_names)
    positions = {name: k for k, name in enumerate(truth.cell_type_names)}
    scored = [image_id for image_id in images if image_id in saved.folder_of]
    place = {image_id: k for k, image_id in enumerate(scored)}

    def cells(image_id: str) -> Cells:
        detections = saved.detections(image_id)
        # A type that the data lack counts as one without cells: its boxes are never right.
        types = np.array([positions.get(name, len(positions)) for name in detections.cell_type_names], dtype=np.int64)
        known = types[detections.cell_types] < len(positions)
        real = truth.instances(image_id)
        boxes.update(
            place[image_id], detections.boxes[known], detections.scores[known],
            types[detections.cell_types][known], real.boxes, real.cell_types,
        )  # fmt: skip
        return saved.cells(detections).instances

    return Source(scored, cells, boxes)


def from_baseline(baseline: Callable[[Any], Any], truth: Competition, images: Sequence[str]) -> Source:
    """A function from a grey image to a label map, as a source."""
    return Source(images, lambda image_id: baseline(truth.image(image_id)))


def predict_validation(cfg: DictConfig) -> tuple[Path, str]:
    """Run a checkpoint over its validation images: (folder of the detections, data root). `data.*` set here win.

    Raises InputError for a folder that holds detections, data of no SupervisedDataModule, and views that nothing joins.
    """
    import torch

    from sartorius.callbacks.prediction_writer import PredictionWriter
    from sartorius.data.competition.datamodule import validation_data

    folder = Path(str(cfg.output)) / "detections"
    if processes.rank() == 0:  # when the others look, it may have begun
        DetectionsFolder(folder).check_empty()
    module = loading.load_module(cfg.checkpoint, cfg.inference)
    if cfg.tta and loading.add_tta(module, cfg.tta, str(cfg.checkpoint)).fuse is None:
        raise InputError("tta.fuse=null joins no views, `predict` writes them one by one; evaluate takes joined ones")
    given = {key: cfg.data[key] for key in ("root", "fold", "fold_file") if cfg.data[key] is not None}
    given["num_workers"] = cfg.data.num_workers
    datamodule = validation_data(module.hparams["config"]["data"], str(cfg.checkpoint), **given)
    about = {"checkpoint": str(cfg.checkpoint), "tta": wiring.plain(cfg.tta) or None}
    callbacks: Any = [PredictionWriter(folder, about)]
    run_prediction(module, datamodule, build_predictor(cfg.trainer, callbacks))
    if torch.distributed.is_initialized():  # the first process scores alone: no metric may wait for the others
        torch.distributed.destroy_process_group()
    return folder, str(datamodule.root)


def chosen_images(cfg: DictConfig, truth: Competition) -> list[str]:
    """The labelled images that the config asks for: those of a fold, those listed, or all."""
    images = list(truth.ids)
    if cfg.data.fold is not None and cfg.checkpoint is None:
        file = cfg.data.fold_file
        folds = make_folds(truth, cfg.data.n_folds, cfg.data.fold_seed) if file is None else read_folds(file, truth)
        images = folds.split(cfg.data.fold)[1]
    if cfg.images is not None:
        listed = {truth.record(image_id).id for image_id in wiring.path_list(cfg.images)}
        images = [image_id for image_id in images if image_id in listed]
    return images


def check_options(cfg: DictConfig) -> None:
    """Raise InputError unless exactly one source, or only a baseline, is asked for, and views only of a network."""
    given = [name for name in ("checkpoint", "detections", "predictions") if cfg[name] is not None]
    if len(given) > 1 or not (given or cfg.get("baseline") is not None):
        came = " and ".join(given) or "none of them"
        raise InputError(f"give one of checkpoint=, detections=, predictions= (or baseline= alone), got {came}")
    if cfg.filter not in (None, "none", "saved") and not (cfg.checkpoint or cfg.detections):
        raise InputError("filter= drops cells of detections; it goes with checkpoint= or detections= only")
    if asked := [name for name in ("inference", "tta") if cfg[name] and cfg.checkpoint is None]:
        raise InputError(f"{asked[0]}= says how a network looks at images; it goes with checkpoint= only")


def sources(
    cfg: DictConfig, truth: Competition, images: Sequence[str], folders: Sequence[str] | None
) -> dict[str, Source]:
    """What is scored of `images`, by name: the predictions, and the baseline on the same images."""
    from sartorius.rescoring.saved import say_saved

    found: dict[str, Source] = {}
    if cfg.predictions is not None:
        found[str(cfg.predictions)] = from_predictions(str(cfg.predictions), truth, images, cfg.only_predicted)
    elif folders is not None:
        say_saved(folders, cfg.filter)
        found[", ".join(folders)] = from_detections(folders, truth, images, wiring.plain(cfg.postprocess), cfg.filter)
    images = next((source.images for source in found.values()), images)
    if not images:
        raise InputError("no image is left to score; check images=, data.fold= and the predictions' ids")
    if cfg.get("baseline") is not None:
        function = wiring.instantiate(cfg.baseline)
        found[function.func.__name__] = from_baseline(function, truth, images)
    return found


@command("evaluate")
@run_on_devices("evaluate")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Score what the config names, print a table, write the report. Returns the numbers of metrics.json."""
    check_options(cfg)
    folders = None if cfg.detections is None else wiring.path_list(cfg.detections)
    root = cfg.data.root
    if cfg.checkpoint is not None:
        folder, root = predict_validation(cfg)
        folders = [str(folder)]
    if processes.rank():  # the first process scores what all have written
        return {}
    truth = Competition(root or cfg.paths.data_dir, type_names(folders or (), cfg.cell_types))
    asked, bootstrap = chosen_images(cfg, truth), wiring.plain(cfg.bootstrap)
    found = sources(cfg, truth, asked, folders)
    scores = {name: evaluate(truth, source, bootstrap) for name, source in found.items()}
    for name, scored in scores.items():
        report.print_scores(name, scored.numbers, scored.table, truth.cell_type_names)
    (_, first), *others = scores.items()
    first.numbers["labelled_images"] = len(asked)
    print(f"scored {len(first.table)} of {len(asked)} labelled images")
    output = Path(str(cfg.output))
    for name, other in others:
        difference = report.print_difference(name, first.table, other.table, bootstrap)
        first.numbers["baseline"] = {"name": name, **other.numbers, "difference": difference}
        write_csv(output / f"per_image_{name}.csv", other.table)
    if cfg.against is not None:
        theirs = report.read_per_image(str(cfg.against))
        difference = report.print_difference(str(cfg.against), first.table, theirs, bootstrap)
        first.numbers["against"] = {"file": str(cfg.against), **difference}
    write_json(output / "metrics.json", first.numbers)
    write_csv(output / "per_image.csv", first.table)
    print(f"report in {output}")
    return first.numbers


if __name__ == "__main__":
    main()
