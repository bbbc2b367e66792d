"""LightningDataModule of the competition: training and validation images of one fold, or all images to train on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sartorius.data.annotation_rows import well_of
from sartorius.data.cleaning import CleanedSource, Cleaning
from sartorius.data.competition.about import read_about
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import check_leak, choose_folds
from sartorius.data.competition.groups import places_of
from sartorius.data.competition.leaks import admitted
from sartorius.data.loading.labelled import LabelledDataModule, subset
from sartorius.data.provenance import ALL, SPLIT
from sartorius.data.pseudo_labels.source import PseudoLabelled
from sartorius.errors import InputError
from sartorius.structures.cell_types import CELL_TYPES


class SupervisedDataModule(LabelledDataModule):
    """Training and validation images of one fold of a competition folder.

    Training truth is cleaned, validation truth is not. No pseudo-label is of a validation image or its plate well.

    root: folder in the competition's layout.  fold: the one that is validated on; `all`: every labelled image is
    trained on (but for those that the cleaning drops) and none is validated; the folds are not made.
    fold_file: a csv of `sartorius.prepare`; None is the file that a folder with a dataset.json keeps, else assigns
    `n_folds` folds by `fold_seed` (apart from `seed`: another training seed must not change the validation images).
    pixel_size: None takes that of the folder's dataset.json.
    images: train on these ids only, or on the first so many of the fold that have cells; without `val_images` they
    are also validated on (overfitting on purpose).  val_images: validate on these ids instead of the fold's.
    loading: the arguments of `LabelledDataModule`.

    After `setup`: train_images, val_images and pseudo_images (sorted ids), competition.

    Raises InputError for chosen images beside fold=all.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        name: str = "sartorius",
        fold: int | str = 0,
        n_folds: int = 5,
        fold_seed: int = 0,
        fold_file: str | Path | None = None,
        images: Sequence[str] | int | None = None,
        val_images: Sequence[str] | None = None,
        cleaning: Cleaning | None = None,
        cell_type_names: Sequence[str] = CELL_TYPES,
        **loading: Any,
    ) -> None:
        super().__init__(name=name, cell_type_names=cell_type_names, **loading)
        self.root, self.cleaning = Path(str(root)), cleaning
        if (about := read_about(self.root)) is not None:
            self.reading = about.reading
            self.pixel_size = about.pixel_size if self.pixel_size is None else self.pixel_size
        self.fold, self.n_folds, self.fold_seed, self.fold_file = fold, n_folds, fold_seed, fold_file
        self.images, self.chosen_val_images = images, val_images
        self._pseudo_places: dict[str, str] = {}  # plate well or group
        for key, chosen in (("images", images), ("val_images", val_images)):
            if fold == ALL and chosen is not None:
                raise InputError(
                    f"data.{key}={chosen}: data.fold=all trains on all labelled images and validates none; leave out "
                    "one of the two"
                )

    def setup(self, stage: str | None = None) -> None:
        """Read and check the folder, choose images, build the datasets; a second call does nothing new.

        Raises InputError for anything wrong with the folder, the folds or the images asked for; warns of `doubts`.
        """
        if self._val is not None:
            return
        self.competition = Competition(self.root, self.cell_type_names)
        self.train_images, self.val_images = self._choose()
        chosen = sorted({*self.train_images, *self.val_images})
        self.competition.check(chosen)
        for doubt in self.competition.doubts(chosen):
            warnings.warn(doubt, stacklevel=2)
        self._build_datasets()

    def place_of(self, image_id: str) -> str:
        """Get the plate well or group, which training and validation must not share; the image where it is not known.

        Generated images have the names of real wells, so that their seed tells them apart.
        """
        place = self.competition.wells.get(image_id) or self._pseudo_places.get(image_id, well_of(image_id))
        return self.competition.drawn_with + place

    def _choose(self) -> tuple[list[str], list[str]]:
        """Choose training and validation images; no validation well is trained on, unless overfitting is asked for."""
        dropped = set(self.cleaning.drop_images) if self.cleaning is not None else set()
        if self.fold == ALL:
            if everything := sorted({*self.competition.ids} - dropped):
                return everything, []
            raise InputError(f"{self.root}: no labelled image is left to train on")
        folds = choose_folds(self.competition, self.n_folds, self.fold_seed, self.fold_file)
        train, val = folds.split(self.fold)
        train = [image_id for image_id in train if image_id not in dropped]
        if self.images is not None:
            train = subset(self.images, train, self.competition, f"fold {self.fold}")
        if self.chosen_val_images is not None:
            val = sorted(self.competition.record(image_id).id for image_id in self.chosen_val_images)
        elif self.images is not None:
            warnings.warn(
                "data.images without data.val_images: validation is on the training images, scores mean memory",
                stacklevel=2,
            )
            return train, train
        if not train or not val:
            raise InputError(
                f"fold {self.fold} of {self.root}: {len(train)} training and {len(val)} validation images are left; "
                "need one of each"
            )
        if self.competition.has_wells or self.chosen_val_images is not None:
            check_leak(train, val, self.competition.wells, self.competition.well_name)
        return train, val

    def _build_datasets(self) -> None:
        source = self.competition if self.cleaning is None else CleanedSource(self.competition, self.cleaning)
        pseudo = None
        if self.pseudo_labels is not None:
            pseudo = PseudoLabelled(self.pseudo_labels, self.cell_type_names)
            self.pseudo_images = admitted(pseudo, self.competition, self.train_images, self.val_images)
            paths = {image_id: pseudo.record(image_id).path for image_id in self.pseudo_images}
            places = places_of(self.competition.root, self.competition.about, paths)
            self._pseudo_places = {image_id: found[0] for image_id, found in places.items() if found}
            pseudo.check(self.pseudo_images)
        self._build(source, self.competition, pseudo)


def validation_data(saved: Mapping[str, Any], source: str, **changes: Any) -> SupervisedDataModule:
    """Build the data module of a saved data config, with `changes`, as far as it decides on the validation images.

    The config is of a file from elsewhere (`source`): no class that it names is built. Raises InputError where it
    is of another class.
    """
    if (target := saved.get("_target_")) != f"{SupervisedDataModule.__module__}.{SupervisedDataModule.__name__}":
        raise InputError(f"{source}: was trained on {target}, which evaluate does not build; predict its images")
    kept = {key: saved[key] for key in ("root", *SPLIT, "cell_type_names", "val_batch_size") if key in saved}
    # With data.images=N training and validation images are the same, and dropped ones in neither.
    cleaning = Cleaning(drop_images=(saved.get("cleaning") or {}).get("drop_images", ()))
    return SupervisedDataModule(**{**kept, **changes}, cleaning=cleaning)
