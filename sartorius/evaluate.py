"""Score predictions: `python -m sartorius.evaluate detections=[runs/<run>/detections]`.

The source is a checkpoint (run over the validation images of its fold), folders of detections (those of all folds
make one out-of-fold score), or any csv in the submission format. Writes metrics.json and per_image.csv; beside it a
classical baseline (`baseline=otsu_watershed`) or another run (`against=`), with the interval of the paired difference.
Beside the competition's score stand the field's: F1, PQ, AJI and, of detections, COCO AP of boxes before and of masks
after post-processing (`postprocess.score=null` ranks all cells). `images=[ID] explain=true` prints the detections that
each step of post-processing drops, and why each cell is missed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.data import provenance
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import choose_folds
from sartorius.data.out_of_fold import type_names
from sartorius.errors import InputError
from sartorius.metrics import report
from sartorius.networks import bundles
from sartorius.running import loading, outputs, processes, scoring, wiring
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.predicting import build_predictor, run_prediction
from sartorius.running.saved_cells import SavedCells
from sartorius.running.views import describe_views
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from sartorius.data.competition.datamodule import SupervisedDataModule
    from sartorius.modules.base import SegmentationModule


def check_options(cfg: DictConfig) -> None:
    """Raise InputError unless exactly one source, or only a baseline, is asked for, and views only of a network."""
    given = [name for name in ("checkpoint", "detections", "predictions") if cfg[name] is not None]
    if len(given) > 1 or not (given or cfg.get("baseline") is not None):
        came = " and ".join(given) or "none of them"
        raise InputError(f"give one of checkpoint=, detections=, predictions= (or baseline= alone), got {came}")
    if cfg.filter not in (None, "none", "saved") and not (cfg.checkpoint or cfg.detections):
        raise InputError("filter= drops cells of detections; it goes with checkpoint= or detections= only")
    if asked := [name for name in ("inference", "tta") if cfg[name] and cfg.checkpoint is None]:
        raise InputError(f"{asked[0]}= is applied by a network; it goes with checkpoint= only")
    if cfg.explain and not (cfg.checkpoint or cfg.detections):
        raise InputError("explain= is of detections; it goes with checkpoint= or detections= only")


def _validation_data(cfg: DictConfig, module: SegmentationModule) -> SupervisedDataModule:
    """Build the data of a checkpoint, see `predict_validation`."""
    from sartorius.data.competition.datamodule import validation_data

    given = {key: cfg.data[key] for key in ("root", "fold", "fold_file") if cfg.data[key] is not None}
    given["num_workers"] = cfg.data.num_workers
    trained_on = {"root": cfg.paths.data_dir, **(module.hparams.get("config", {}).get("data") or {})}
    if trained_on.get("fold_file") and "fold_file" not in given and bundles.CARD_KEY in module.hparams:
        raise InputError(
            f"{cfg.checkpoint}: its validation images are those of a fold of {trained_on['fold_file']}, a file that a "
            "bundle does not hold; give it with data.fold_file="
        )
    return validation_data(trained_on, str(cfg.checkpoint), **given)


def predict_validation(cfg: DictConfig) -> tuple[Path, str]:
    """Run a checkpoint over its validation images: (folder of the detections, data root). `data.*` set here come first.

    Raises InputError for data of no SupervisedDataModule, views that nothing joins, a bundle without its file of folds,
    and images that the checkpoint was trained on.
    """
    import torch

    from sartorius.callbacks.prediction_writer import PredictionWriter
    from sartorius.callbacks.progress import Progress
    from sartorius.rescoring import saved as saved_filter

    folder = Path(str(cfg.output)) / "detections"
    module = loading.load_module(cfg.checkpoint, cfg.inference)
    views = loading.add_tta(module, cfg.tta, str(cfg.checkpoint)) if cfg.tta else None
    if views is not None and views.fuse is None:
        raise InputError("tta.fuse=null joins no views, `predict` writes them one by one; evaluate takes joined ones")
    datamodule: Any = _validation_data(cfg, module)
    datamodule.setup()
    if not datamodule.val_images:
        raise InputError(
            f"{cfg.checkpoint}: was trained on all labelled images (data.fold=all), none is left to score it on; score "
            "the checkpoints of the folds, or its predictions of other labelled images"
        )
    seen = module.hparams.get(provenance.KEY, {})
    remedy = "Leave out data.fold=, or give other images with data.root="
    provenance.check_unseen(seen, datamodule, f"checkpoint={cfg.checkpoint}", remedy)
    about = {"checkpoint": str(cfg.checkpoint), "tta": describe_views(module)}
    about[saved_filter.KEY] = saved_filter.entry_of(
        "saved", module.hparams, module.cell_type_names, str(cfg.checkpoint)
    )
    callbacks: Any = [PredictionWriter(folder, about), Progress()]
    run_prediction(module, datamodule, build_predictor(cfg.trainer, callbacks))
    if torch.distributed.is_initialized():  # the first process scores alone: no metric may wait for the others
        torch.distributed.destroy_process_group()
    return folder, str(datamodule.root)


def chosen_images(cfg: DictConfig, truth: Competition) -> list[str]:
    """List the labelled images that the config asks for: those of a fold, those listed, or all."""
    images = list(truth.ids)
    if cfg.data.fold is not None and cfg.checkpoint is None:
        folds = choose_folds(truth, cfg.data.n_folds, cfg.data.fold_seed, cfg.data.fold_file)
        images = folds.split(cfg.data.fold)[1]
    if cfg.images is not None:
        listed = {truth.record(image_id).id for image_id in wiring.path_list(cfg.images)}
        images = [image_id for image_id in images if image_id in listed]
    return images


def scored_runs(
    cfg: DictConfig, truth: Competition, images: Sequence[str], folders: Sequence[str]
) -> dict[str, scoring.ScoredRun]:
    """Open the runs to score, by name: the predictions of `images`, and the baseline on the same images."""
    from sartorius.rescoring.saved import print_saved_filters

    runs: dict[str, scoring.ScoredRun] = {}
    if cfg.predictions is not None:
        runs[str(cfg.predictions)] = scoring.from_predictions(str(cfg.predictions), truth, images, cfg.only_predicted)
    elif folders or cfg.get("baseline") is None:
        print_saved_filters(folders, cfg.filter)
        saved = SavedCells(folders, wiring.plain(cfg.postprocess), cfg.filter, truth)
        runs[", ".join(folders)] = scoring.from_detections(saved, truth, images)
    images = next((run.images for run in runs.values()), images)
    if not images:
        raise InputError("no image is left to score; check images=, data.fold= and the predictions' ids")
    if cfg.get("baseline") is not None:
        function = wiring.instantiate(cfg.baseline)
        runs[function.func.__name__] = scoring.from_baseline(function, truth, images)
    return runs


def check_folder(cfg: DictConfig) -> None:
    """Raise InputError where the output of a checkpoint holds detections of an earlier run."""
    if cfg.checkpoint is not None:
        DetectionsFolder(Path(str(cfg.output)) / "detections").check_empty()


@command("evaluate", outputs.Output(outputs.run_folder, check=check_folder))
@run_on_devices("evaluate")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Score what the config names, print a table, write the report. Returns the numbers of metrics.json."""
    check_options(cfg)
    folders, root = wiring.path_list(cfg.detections), cfg.data.root
    if cfg.checkpoint is not None:
        folder, root = predict_validation(cfg)
        folders = [str(folder)]
    if processes.rank():  # the first process scores what all have written
        return {}
    truth = Competition(root or cfg.paths.data_dir, type_names(folders, cfg.cell_types))
    images, bootstrap = chosen_images(cfg, truth), wiring.plain(cfg.bootstrap)
    runs = scored_runs(cfg, truth, images, folders)
    scores = {name: scoring.score(truth, run, bootstrap) for name, run in runs.items()}
    for name, scored in scores.items():
        report.print_scores(name, scored.numbers, scored.table, truth.cell_type_names)
        report.print_instance_scores(scored.numbers, truth.cell_type_names)
    first = next(iter(runs.values()))
    for sentence in [*truth.doubts(first.images), *first.hints()]:
        warnings.warn(sentence, stacklevel=2)
    if cfg.explain and first.explain is not None:
        for image_id in first.images:
            scoring.print_explanation(first.explain(image_id))
    against = None if cfg.against is None else str(cfg.against)
    numbers = scoring.write_scores(Path(str(cfg.output)), scores, len(images), against, bootstrap)
    print_next("report", {"run": cfg.output})
    return numbers


if __name__ == "__main__":
    main()
