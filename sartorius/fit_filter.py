"""Train a filter of false positives: `python -m sartorius.fit_filter detections=[RUN0/detections,...]`.

The detections are those of labelled images that their models were not trained on. Small boosted trees learn the IoU of
a cell from its shape, scores and surroundings. `predict` and `ensemble` take the file as `filter=` and save it with
their detections, where `evaluate` and `submit` find it; they take another one, too. Prints the cross-fitted score
beside the unfiltered one; the score on the training images would be meaningless. A filter that loses is not written
without `accept_loss=true`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.files import write_json
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import model_of, print_next

if TYPE_CHECKING:
    from sartorius.data.competition.folder import Competition
    from sartorius.rescoring.filter import FalsePositiveFilter
    from sartorius.rescoring.training import NewRegressor
    from sartorius.running.saved_cells import SavedCells


def fit_filter(
    saved: SavedCells,
    truth: Competition,
    regressor: NewRegressor,
    thresholds: Sequence[float],
    folds: int,
    seed: int,
    bootstrap: Mapping[str, Any],
) -> tuple[FalsePositiveFilter, dict[str, Any]]:
    """Train the filter on all images, and cross-fitted, by plate wells; returns it and the numbers of its gain.

    thresholds: of the expected IoU, to choose from. bootstrap: see `training.gain`. Raises InputError for fewer than 3
    folds, or more than wells, and for detections of another size than their image.
    """
    from sartorius.rescoring import training
    from sartorius.rescoring.examples import Example
    from sartorius.running.saved_cells import well_folds

    loaded = saved.read_all("comparing cells")
    examples = [Example.of(d, saved.cells(d), truth.runs(d.image_id), truth.ignored(d.image_id)) for d in loaded]
    fold = well_folds(truth, saved.image_ids, folds, seed, least=3)
    filtered = training.cross_fitted(examples, fold, thresholds, regressor)
    fitted = training.fit(examples, fold, thresholds, regressor, truth.cell_type_names)
    numbers = training.gain(training.unfiltered(examples), filtered, bootstrap)
    return fitted, {**numbers, "threshold": fitted.threshold}


@command("fit_filter", outputs.FILE)
def main(cfg: DictConfig) -> dict[str, Any]:
    """Train the filter that the config describes, write it and its gain. Returns the numbers of the report."""
    from sartorius.data.competition.folder import Competition
    from sartorius.metrics.report import check_gain
    from sartorius.running.saved_cells import SavedCells
    from sartorius.structures.cell_types import CELL_TYPES
    from sartorius.structures.detections import DetectionsFolder

    folders = wiring.path_list(cfg.detections)
    if not folders or Path(str(cfg.output)).suffix != ".npz":
        raise InputError(f"detections={folders}, output={cfg.output}: expected folders of detections, a name in .npz")
    names = {tuple(DetectionsFolder(folder).meta.get("cell_types", CELL_TYPES)) for folder in folders}
    if len(names) > 1:
        raise InputError(f"{', '.join(folders)}: detections of different cell types, {sorted(names)}; give one model's")
    truth = Competition(cfg.data.root or cfg.paths.data_dir, names.pop())
    saved = SavedCells(folders, wiring.plain(cfg.postprocess), None, truth)
    options = (list(cfg.thresholds), cfg.folds, cfg.seed, wiring.plain(cfg.bootstrap))
    fitted, numbers = fit_filter(saved, truth, wiring.instantiate(cfg.model), *options)
    gain = numbers["difference"]
    print(
        f"{numbers['images']} images: mAP {numbers['unfiltered']['competition_map']:.4f} unfiltered, "
        f"{numbers['cross_fitted']['competition_map']:.4f} cross-fitted, {gain['mean']:+.4f} "
        f"({gain['interval'][0]:+.4f} to {gain['interval'][1]:+.4f}, {cfg.bootstrap.level:.0%} paired bootstrap)"
    )
    check_gain(gain["mean"], cfg.accept_loss, str(cfg.output))
    fitted.save(str(cfg.output))
    write_json(Path(str(cfg.output)).with_suffix(".json"), numbers)
    print(f"{cfg.output}: drops cells with an expected IoU below {fitted.threshold:g}")
    print_next("predict", {**model_of(folders[0]), "filter": cfg.output})
    return numbers


if __name__ == "__main__":
    main()
