"""Train a filter of false positives: `python -m sartorius.fit_filter detections=[RUN0/detections,...]`.

The detections are those of labelled pictures that their models did not see. Small boosted trees learn the IoU of a cell
from its shape, scores and surroundings. `predict` and `ensemble` take the file as `filter=` and save it with what they
write, where `evaluate` and `submit` find it; they take another one, too. Prints what it is worth: the cross-fitted
score beside the unfiltered one; the score on what it was trained on would say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius import wiring
from sartorius.errors import InputError
from sartorius.files import write_json
from sartorius.progress import watched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sartorius.data.competition import Competition
    from sartorius.detections import DetectionsFolder
    from sartorius.fusion.filter_training import Example


def examples_of(
    folders: Sequence[DetectionsFolder], truth: Competition, changes: Mapping[str, Any] | None
) -> list[Example]:
    """Every picture of the folders, by its folder's own post-processing with `changes` on top; no filter saved with it.

    Raises InputError for an empty folder, a picture twice or without labels, and detections of another size.
    """
    from sartorius.data.out_of_fold import homes
    from sartorius.fusion.filter_training import Example
    from sartorius.postprocess.saved import from_saved

    post = {folder: from_saved(folder.meta.get("postprocess"), changes, str(folder.folder)) for folder in folders}
    home = homes(folders, truth)
    found = []
    for picture in watched(list(home), "looking at cells"):
        folder = home[picture]
        detections = folder.load(picture)
        try:
            found.append(Example.of(detections, post[folder](detections), truth.runs(picture)))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"picture {picture}: {error}; the detections are of another picture") from error
    return found


def deal_folds(truth: Competition, examples: Sequence[Example], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each picture, those of a plate well together. Raises InputError for fewer than 3, or too many."""
    from sartorius.data.folds import deal_pictures

    pictures = [example.picture for example in examples]
    wells = len({truth.wells[picture] for picture in pictures})
    if not 3 <= folds <= wells:
        raise InputError(f"folds={folds}: expected 3 or more, and at most the {wells} plate wells of the detections")
    return deal_pictures(truth, pictures, folds, seed)


def worth(plain: NDArray[np.int64], filtered: NDArray[np.int64], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the report: unfiltered and cross_fitted mAP, and their paired difference with its interval."""
    from sartorius.metrics.bootstrap import paired_bootstrap
    from sartorius.metrics.functional import average_precision_per_picture, competition_map

    gain = paired_bootstrap(average_precision_per_picture(filtered), average_precision_per_picture(plain), **bootstrap)
    return {
        "pictures": len(plain),
        "unfiltered": {"competition_map": competition_map(plain), "predictions": int(plain[:, -2].sum())},
        "cross_fitted": {"competition_map": competition_map(filtered), "predictions": int(filtered[:, -2].sum())},
        "difference": {"mean": gain.mean, "interval": [gain.low, gain.high]},
    }


@wiring.verb("fit_filter")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Train the filter of what the config names, write it and what it is worth. Returns the numbers of the report."""
    from sartorius.cells import CELL_TYPES
    from sartorius.data.competition import Competition
    from sartorius.detections import DetectionsFolder
    from sartorius.fusion import filter_training as training

    listed = wiring.listed(cfg.detections)
    if not listed or Path(cfg.output).suffix != ".npz":
        raise InputError(f"detections={listed}, output={cfg.output}: expected folders of detections, a name in .npz")
    folders = [DetectionsFolder(folder) for folder in listed]
    names = {tuple(folder.meta.get("cell_types", CELL_TYPES)) for folder in folders}
    if len(names) > 1:
        raise InputError(f"{', '.join(listed)}: detections of different cell types, {sorted(names)}; give one model's")
    truth = Competition(cfg.data.root or cfg.paths.data_dir, names.pop())
    examples = examples_of(folders, truth, wiring.plain(cfg.postprocess))
    folds = deal_folds(truth, examples, cfg.folds, cfg.seed)
    grow, cut_offs = wiring.instantiate(cfg.model), list(cfg.cut_offs)
    filtered = training.cross_fitted(examples, folds, cut_offs, grow)
    second_level = training.fit(examples, folds, cut_offs, grow, truth.cell_type_names)
    numbers = worth(training.unfiltered(examples), filtered, wiring.plain(cfg.bootstrap))
    numbers["cut_off"] = second_level.cut_off
    second_level.save(cfg.output)
    write_json(Path(cfg.output).with_suffix(".json"), numbers)
    gain = numbers["difference"]
    print(
        f"{numbers['pictures']} pictures: mAP {numbers['unfiltered']['competition_map']:.4f} unfiltered, "
        f"{numbers['cross_fitted']['competition_map']:.4f} cross-fitted, {gain['mean']:+.4f} "
        f"({gain['interval'][0]:+.4f} to {gain['interval'][1]:+.4f}, {cfg.bootstrap.level:.0%} paired bootstrap)"
    )
    print(f"{cfg.output}: drops cells with an expected IoU below {second_level.cut_off:g}")
    return numbers


if __name__ == "__main__":
    main()
