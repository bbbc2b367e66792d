"""Tune the thresholds per cell type: `python -m sartorius.tune detections=[RUN0/detections,...] output=DIR`.

The detections are those of labelled images that their models were not trained on (each fold's run writes its validation
images). Writes `DIR/postprocess.yaml`, which `evaluate`, `predict`, `submit` take as `postprocess.file=`, and its gain:
metrics.json and per_image.csv (untuned, tuned, and cross-fitted: tuned without the image's fold), parameters.csv,
trials.csv. Thresholds that lose on images left out are not written without `accept_loss=true`. With
`pseudo_labels.precision=` it also writes the scores from which on cells are right that often to
`DIR/pseudo_labels.yaml`, which `pseudo_label` takes as `pseudo_labels.thresholds=`. The same command continues a search
from `DIR/search.jsonl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.data.competition.folder import Competition
from sartorius.data.out_of_fold import folder_of
from sartorius.errors import InputError
from sartorius.postprocess.saved import to_saved
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.saved_cells import well_folds
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.next_step import model_of, print_next
from sartorius.structures.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.tuning.search import Searcher


@command("tune")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Tune on what the config names, write the report and the thresholds. Returns the numbers of metrics.json."""
    from sartorius.tuning import precision
    from sartorius.tuning.checkpoint import check_store, store
    from sartorius.tuning.inputs import chosen_folders
    from sartorius.tuning.results import FILE, write_results

    folders = [DetectionsFolder(folder) for folder in wiring.path_list(cfg.detections)]
    if not folders:
        raise InputError("give detections=[RUN0/detections,...]: folders that `train`, `evaluate` or `predict` wrote")
    checkpoints = wiring.path_list(cfg.checkpoint)
    for checkpoint in checkpoints:
        check_store(checkpoint)  # a wrong name is an error before the search, not after it
    names = folders[0].meta.get("cell_types", CELL_TYPES)
    asked = precision.asked_precision(wiring.plain(cfg.pseudo_labels.precision), names)
    truth = Competition(cfg.data.root or cfg.paths.data_dir, names)
    folder = chosen_folders(folder_of(folders, truth), None if cfg.images is None else wiring.path_list(cfg.images))
    otherwise = ", or folds=0 to leave out cross-fitting"
    folds = None if cfg.folds == 0 else well_folds(truth, list(folder), cfg.folds, cfg.seed, otherwise=otherwise)
    searcher, output = build_searcher(cfg, folders, folder, truth), Path(str(cfg.output))
    cell_types = [truth.record(image_id).cell_type for image_id in folder]
    best, numbers = write_results(searcher, output, cell_types, folds, wiring.plain(cfg.bootstrap), cfg.accept_loss)
    if asked:
        rated = [
            precision.rate_cells(folder[image_id].load(image_id), truth.runs(image_id), best, truth.ignored(image_id))
            for image_id in progress_bar(list(folder), "rating")
        ]
        least_cells = cfg.pseudo_labels.least_cells
        precision.write_score_thresholds(output / "pseudo_labels.yaml", rated, folds, asked, least_cells)
    for checkpoint in checkpoints:
        store(checkpoint, best)
        print(f"{checkpoint}: now has these thresholds")
    print(f"report in {output}; elsewhere: postprocess.file={output / FILE}")
    model = {**model_of(folders[0].folder), **({"checkpoint": checkpoints[0]} if checkpoints else {})}
    print_next("predict", {**model, "postprocess.file": output / FILE})
    return numbers


def build_searcher(
    cfg: DictConfig, folders: Sequence[DetectionsFolder], folder: Mapping[str, DetectionsFolder], truth: Competition
) -> Searcher:
    """Build the search over the images of `folder`, the detections of each; raises InputError for bad settings."""
    from sartorius.tuning.inputs import common_postprocess
    from sartorius.tuning.search import Effort, Searcher
    from sartorius.tuning.space import floor, thresholds_of
    from sartorius.tuning.tables import Tables
    from sartorius.tuning.trial_log import check_same_search

    effort = Effort(cfg.trials, cfg.rounds, cfg.least_images, cfg.seed)
    post = common_postprocess(folders, wiring.plain(cfg.postprocess))
    grids = wiring.instantiate(cfg.search).grids(post)
    lowest = floor(grids, thresholds_of(post, truth.cell_type_names))
    tables = Tables(
        list(folder), lambda image_id: folder[image_id].load(image_id), truth.runs, post, lowest, cfg.cache_megabytes,
        truth.ignored,
    )  # fmt: skip
    searched = {name: asdict(grid) for name, grid in grids.items()}
    about = {"detections": tables.digest, "postprocess": to_saved(post), "search": searched}
    check_same_search(Path(str(cfg.output)), {**about, "seed": cfg.seed, "folds": cfg.folds})
    return Searcher(tables, grids, effort, Path(str(cfg.output)) / "search.jsonl", print)


if __name__ == "__main__":
    main()
