"""Train a filter of false positives: `python -m sartorius.fit_filter detections=[RUN0/detections,...]`.

The detections are those of labelled images that their models did not see. Small boosted trees learn the IoU of a cell
from its shape, scores and surroundings. `predict` and `ensemble` take the file as `filter=` and save it with what they
write, where `evaluate` and `submit` find it; they take another one, too. Prints what it is worth: the cross-fitted
score beside the unfiltered one; the score on what it was trained on would say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.files import write_json
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sartorius.data.competition import Competition
    from sartorius.rescoring.training import Example
    from sartorius.structures.detections import DetectionsFolder


def examples_of(
    folders: Sequence[DetectionsFolder], truth: Competition, changes: Mapping[str, Any] | None
) -> list[Example]:
    """Every image of the folders, by its folder's own post-processing with `changes` on top; no filter saved with it.

    Raises InputError for an empty folder, an image twice or without labels, and detections of another size.
    """
    from sartorius.data.out_of_fold import folder_of
    from sartorius.postprocess.saved import from_saved
    from sartorius.rescoring.training import Example

    post = {folder: from_saved(folder.meta.get("postprocess"), changes, str(folder.folder)) for folder in folders}
    home = folder_of(folders, truth)
    found = []
    for image_id in progress_bar(list(home), "looking at cells"):
        folder = home[image_id]
        detections = folder.load(image_id)
        try:
            found.append(Example.of(detections, post[folder](detections), truth.runs(image_id)))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"image {image_id}: {error}; the detections are of another image") from error
    return found


def worth(plain: NDArray[np.int64], filtered: NDArray[np.int64], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the report: unfiltered and cross_fitted mAP, and their paired difference with its interval."""
    from sartorius.metrics.bootstrap import paired_bootstrap
    from sartorius.metrics.functional import average_precision_per_image, competition_map

    gain = paired_bootstrap(average_precision_per_image(filtered), average_precision_per_image(plain), **bootstrap)
    return {
        "images": len(plain),
        "unfiltered": {"competition_map": competition_map(plain), "predictions": int(plain[:, -2].sum())},
        "cross_fitted": {"competition_map": competition_map(filtered), "predictions": int(filtered[:, -2].sum())},
        "difference": {"mean": gain.mean, "interval": [gain.low, gain.high]},
    }


@command("fit_filter")
def main(cfg: DictConfig) -> dict[str, Any]:
    """Train the filter of what the config names, write it and what it is worth. Returns the numbers of the report."""
    from sartorius.data.competition import Competition
    from sartorius.rescoring import training as training
    from sartorius.running.saved_cells import well_folds
    from sartorius.structures.cell_types import CELL_TYPES
    from sartorius.structures.detections import DetectionsFolder

    listed = wiring.path_list(cfg.detections)
    if not listed or Path(cfg.output).suffix != ".npz":
        raise InputError(f"detections={listed}, output={cfg.output}: expected folders of detections, a name in .npz")
    folders = [DetectionsFolder(folder) for folder in listed]
    names = {tuple(folder.meta.get("cell_types", CELL_TYPES)) for folder in folders}
    if len(names) > 1:
        raise InputError(f"{', '.join(listed)}: detections of different cell types, {sorted(names)}; give one model's")
    truth = Competition(cfg.data.root or cfg.paths.data_dir, names.pop())
    examples = examples_of(folders, truth, wiring.plain(cfg.postprocess))
    folds = well_folds(truth, [example.image_id for example in examples], cfg.folds, cfg.seed, least=3)
    grow, cut_offs = wiring.instantiate(cfg.model), list(cfg.cut_offs)
    filtered = training.cross_fitted(examples, folds, cut_offs, grow)
    second_level = training.fit(examples, folds, cut_offs, grow, truth.cell_type_names)
    numbers = worth(training.unfiltered(examples), filtered, wiring.plain(cfg.bootstrap))
    numbers["cut_off"] = second_level.cut_off
    second_level.save(cfg.output)
    write_json(Path(cfg.output).with_suffix(".json"), numbers)
    gain = numbers["difference"]
    print(
        f"{numbers['images']} images: mAP {numbers['unfiltered']['competition_map']:.4f} unfiltered, "
        f"{numbers['cross_fitted']['competition_map']:.4f} cross-fitted, {gain['mean']:+.4f} "
        f"({gain['interval'][0]:+.4f} to {gain['interval'][1]:+.4f}, {cfg.bootstrap.level:.0%} paired bootstrap)"
    )
    print(f"{cfg.output}: drops cells with an expected IoU below {second_level.cut_off:g}")
    return numbers


if __name__ == "__main__":
    main()
