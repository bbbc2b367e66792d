"""Predictions of unlabelled and of labelled images, opened and described for `review`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sartorius.errors import InputError
from sartorius.labelling.review.quality import Quality, joined, quality_of
from sartorius.running import scoring
from sartorius.running.saved_cells import SavedCells
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.data.competition.folder import Competition
    from sartorius.data.files.source import FileImages
    from sartorius.labelling.review.prediction import Calibration
    from sartorius.structures.arrays import Floats


class ModelPredictions:
    """The detections of one or several models on the same images.

    members: folders by the name of a model. option: names them in errors. truth: labelled images that all must be of.

    images: sorted ids. Raises InputError as `SavedCells` does, where there are none, where a model lacks an image that
    another has, and where two have one folder.
    """

    def __init__(self, members: Mapping[str, Sequence[str]], option: str, truth: Competition | None = None) -> None:
        self.members: dict[str, SavedCells] = {}
        of_folder: dict[Path, str] = {}
        for name, folders in members.items():
            for folder in (DetectionsFolder(folder).folder for folder in folders):
                if (other := of_folder.setdefault(folder.resolve(), name)) != name:
                    raise InputError(
                        f"{option}: {folder} is of '{other}' and of '{name}', which would agree; give each model's own"
                    )
            try:
                self.members[name] = SavedCells(folders, truth=truth)
            except InputError as error:
                raise InputError(f"{option}: {error}") from error
        self.images = sorted({image_id for one in self.members.values() for image_id in one.image_ids})
        for name, one in self.members.items():
            if missing := sorted({*self.images} - {*one.image_ids}):
                raise InputError(
                    f"{option}: '{name}' lacks {len(missing)} of the {len(self.images)} images "
                    f"({', '.join(missing[:3])}); predict the same images with every model"
                )
        if not self.images:
            folders = ", ".join(str(folder) for one in members.values() for folder in one)
            raise InputError(f"{option}: no detections in {folders}; `predict` and `train` write them")

    @property
    def first(self) -> DetectionsFolder:
        """The first image's folder, of the first model."""
        return next(iter(self.members.values())).folder_of[self.images[0]]

    def qualities(self, images: Sequence[str], what: str) -> dict[str, Quality]:
        """Describe the cells that the models found in each image, under a progress bar called `what`."""
        found = {}
        for image_id in progress_bar(images, what):
            members, cells = [], []
            for one in self.members.values():
                detections = one.detections(image_id)
                final = one.cells(detections)
                cells.append(final.instances.to_runs())
                members.append(quality_of(detections, final, cells[-1]))
            found[image_id] = joined(members, cells)
        return found

    def scores(self, truth: Competition) -> dict[str, float]:
        """Score each image as `evaluate` does, mean over the models."""
        once = {"samples": 2, "seed": 0, "level": 0.5}
        runs = [scoring.from_detections(one, truth, self.images) for one in self.members.values()]
        tables = [scoring.score(truth, replace(run, average_precision=None), once).table for run in runs]
        means = np.mean([table.average_precision for table in tables], axis=0)
        return dict(zip(self.images, means.tolist(), strict=True))


def calibrate(
    oof: ModelPredictions, truth: Competition, *, agreement: bool, least: int, alpha: float, folds: int
) -> Calibration | None:
    """Fit the prediction of scores to out-of-fold detections, and print how well it does on images not seen.

    agreement: whether the images to predict have one. None, with a printed line, for fewer than `least` images with
    cells, or where all are of one plate well. alpha, folds: see `ScorePredictor.fit`.
    """
    from sartorius.labelling.review.prediction import Calibration

    qualities = oof.qualities(oof.images, "out-of-fold cells")
    kept = {image_id: quality for image_id, quality in qualities.items() if quality.features is not None}
    wells = [truth.wells[image_id] for image_id in kept]
    if len(kept) < least or len({*wells}) < 2:
        print(
            f"oof: cells in {len(kept)} images of {len({*wells})} {truth.well_name}s; predicting scores takes "
            f"{least} images of 2 {truth.well_name}s, so there is only an order"
        )
        return None
    every = oof.scores(truth)
    scores = np.array([every[image_id] for image_id in kept])
    found = Calibration.fit([*kept.values()], scores, wells, agreement=agreement, alpha=alpha, folds=folds)
    rank = "unknown, since all are alike" if found.rank_correlation is None else f"{found.rank_correlation:.2f}"
    print(
        f"scores of {len(kept)} out-of-fold images, each predicted without it: rank correlation with the true ones "
        f"{rank}, mean error {found.mean_error:.3f}"
    )
    return found


def looks_of(source: FileImages, images: Sequence[str], truth: Competition | None) -> tuple[Floats, Floats]:
    """Describe how images and the labelled ones look, standardised together: float64 [N, F] and [M, F]."""
    from sartorius.labelling.review.appearance import appearance, standardised

    looks = [appearance(source.image(image_id)) for image_id in progress_bar(images, "images")]
    if truth is not None:
        looks += [appearance(truth.image(image_id)) for image_id in progress_bar(truth.ids, "labelled images")]
    every = standardised(np.array(looks))
    return every[: len(images)], every[len(images) :]


def open_images(
    given: str | Sequence[str] | None, predictions: ModelPredictions, images: Sequence[str], truth: Competition | None
) -> FileImages:
    """Open images as they were predicted, from where they were then unless `given`.

    Raises InputError where they are not known, or one is missing. Warns of predicted images that only have the names of
    labelled ones, and so do not count as new.
    """
    from sartorius.data.competition.same_names import other_images
    from sartorius.data.files.source import predicted_images

    place = predictions.first.meta.get("images") if given is None else given
    if place is None:
        folder = predictions.first.folder
        raise InputError(f"{folder}: does not tell where its images are; give their folder with images=")
    source = predicted_images(place, predictions.first.meta)
    if missing := [image_id for image_id in images if image_id not in source.entries]:
        raise InputError(
            f"{place}: {len(missing)} predicted images are not there ({', '.join(missing[:3])}); give their folder "
            "with images="
        )
    if truth is not None:
        for line in other_images(truth, source, predictions.images):
            warnings.warn(line, stacklevel=2)
    return source


def open_labelled(root: str | None, folders: Sequence[str], cell_types: Sequence[str]) -> Competition | None:
    """Open the labelled images of a folder, of the types that it, the detections in `folders` or else the config name.

    None where there is no folder.
    """
    from sartorius.data.competition.about import read_about
    from sartorius.data.competition.folder import Competition
    from sartorius.data.out_of_fold import type_names

    if root is None:
        return None
    about = read_about(Path(root))
    names = [*type_names(folders, cell_types), *(about.cell_types if about else ())]
    return Competition(root, tuple(dict.fromkeys(names)))
