"""A person's way through images: which is the next to be corrected, its cells, and the folder that gets the labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sartorius.data.annotation_rows import read_table
from sartorius.data.competition.about import About, cell_types_of, read_about
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import update_folds
from sartorius.data.competition.groups import check_pattern, groups_of, labelled_groups, pattern_of, unlabelled_groups
from sartorius.data.competition.labelled_writer import Labelled, has_other, is_written, write_labelled
from sartorius.data.competition.same_names import other_images
from sartorius.data.files.reading import common_size
from sartorius.data.files.source import FileImages
from sartorius.errors import InputError, raise_all
from sartorius.formats.cells import Cells
from sartorius.labelling.correction.checked import Part, checked_labels, region_of
from sartorius.labelling.correction.draft import Draft
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.shapes import EditedCell, cells_of
from sartorius.structures.arrays import GreyImage
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances

DRAFTS = "drafts"  # folder within that of the labels


class CorrectionSession:
    """Images to correct, and the folder in the competition's layout that their labels are written to.

    root: this folder; made by the first image that is saved. images: what to correct. predicted: finds the cells of a
    model in an image; None where it was not predicted. doubt: of each image, higher first in the queue; without one it
    is first. order: ids in the order of the queue, in place of doubt; others follow. cell_types: names to choose from;
    predicted cells of another type get the first of them.
    margin: see `checked_labels`. n_folds, fold_seed: of the folds that new images join, see `extend_folds`.
    group: pattern that tells what of an image must not lie in two folds; None: the folder's, see `groups.groups_of`.

    Raises InputError where the folder's train.csv cannot be read, for other images than those labelled by a name, and
    for groups that do not go with those of the folder.
    """

    def __init__(
        self,
        root: Path,
        images: FileImages,
        cell_types: Sequence[str],
        predicted: Callable[[str], Cells | None] = lambda image_id: None,
        doubt: Mapping[str, float] | None = None,
        order: Sequence[str] = (),
        margin: int = 30,
        n_folds: int = 5,
        fold_seed: int = 0,
        group: str | None = None,
    ) -> None:
        self.root, self.images, self.predicted, self.margin = root, images, predicted, margin
        self.folds = n_folds, fold_seed
        before = read_about(root)
        reading = before.reading if before else images.reading.plain()
        group = pattern_of(before, group)
        size = before.pixel_size if before else common_size(images.pixel_sizes)
        self.about = About(tuple(cell_types), size, reading, group)
        self._folder: Competition | None = None
        saved = labelled_groups(root)
        blank = self._labelled().blank if {*saved} & {*images.ids} else []
        self.checked = {*saved} - {*blank}
        place = {image_id: k for k, image_id in enumerate(dict.fromkeys(order))}
        doubts = doubt or {}
        self.queue = sorted(
            images.ids, key=lambda name: (place.get(name, len(place)), -doubts.get(name, float("inf")), name)
        )
        check_pattern(root, group)
        self._groups = groups_of([*images.named().values()], group, unlabelled_groups(root) | saved)
        if self.checked & {*images.ids}:
            raise_all(other_images(self._labelled(), images, images.ids))

    def draft(self, image_id: str) -> Draft:
        """Return the file of the edits of an image that are not saved."""
        return Draft(self.root / DRAFTS / f"{image_id}.jsonl", self.about.cell_types)

    def status(self, image_id: str) -> str:
        """Tell how far an image is: `started` where it has edits that are not saved, `checked`, or `open`.

        An image of the folder of which no pixel is labelled is open.
        """
        if self.draft(image_id).exists():
            return "started"
        return "checked" if image_id in self.checked else "open"

    def next_image(self, after: str | None = None) -> str | None:
        """Return an image that is not checked: one that was started, else the first of the queue; None without any.

        after: the next one behind this image in the queue, which begins anew at its end.
        """
        left = [image_id for image_id in self.queue if self.status(image_id) != "checked"]
        if after is None:
            return min(left, key=lambda image_id: self.status(image_id) != "started", default=None)
        place = {image_id: k for k, image_id in enumerate(self.queue)}
        return min(left, key=lambda image_id: (place[image_id] - place[after] - 1) % len(place), default=None)

    def image(self, image_id: str) -> GreyImage:
        """Read the pixels of an image, uint8 [H, W]: those of the folder where it has labels already.

        Raises InputError where the folder has another image of this name without labels, which a save would replace.
        """
        if image_id in self.checked:
            return self._labelled().image(image_id)
        image = self.images.image(image_id)
        if has_other(self.root, image_id, lambda _: image):
            raise InputError(
                f"{self.images.path(image_id)}: {self.root} has another image of the name '{image_id}', or read in "
                "another way; rename it, or give another folder of labels"
            )
        return image

    def open(self, image_id: str, size: tuple[int, int]) -> Correction:
        """Return the cells of an image of this height and width: as it was left, as it was saved, or as predicted.

        Raises InputError for cells of an image of another size.
        """
        draft = self.draft(image_id)
        if draft.exists():
            correction = draft.resume()
            found = correction.height, correction.width
        else:
            cells, region, found = self._first_cells(image_id, size)
            correction = draft.begin(*size, cells, region)
        if found != size:
            raise InputError(
                f"image {image_id}: cells of {found[1]}x{found[0]} pixels, the image has {size[1]}x{size[0]}; give the "
                "images that were predicted"
            )
        return correction

    def save(self, image_id: str, image: GreyImage, correction: Correction, part: Part = "marked") -> int:
        """Write the labels of an image, which is checked then; returns how many cells are labels. See `write_labelled`.

        The edits are forgotten once the labels are on the disk, and the image joins a fold.
        """
        labelled = self._labels(image_id, image, correction, part)
        write_labelled(self.root, self.about, [labelled])
        self._folder = None
        self.checked.add(image_id)
        self.draft(image_id).delete()
        correction.settle()
        with warnings.catch_warnings(action="ignore"):  # of images that are to be labelled still
            update_folds(self.root, *self.folds)
        return len(labelled.instances)

    def has_saved(self, image_id: str, image: GreyImage, correction: Correction) -> bool:
        """Whether the folder has the labels that `save` would write."""
        labelled = self._labels(image_id, image, correction, "marked")
        return is_written(self.root, self.about, labelled, read_table(self.root / "train.csv"))

    def _labels(self, image_id: str, image: GreyImage, correction: Correction, part: Part) -> Labelled:
        instances, ignored = checked_labels(correction, part, self.margin)
        return Labelled(image_id, image, instances, group=self.group(image_id), ignored=ignored)

    def group(self, image_id: str) -> str:
        """Return what must not lie in two folds: as it was saved, else as `groups.groups_of` names it."""
        return self._groups[image_id]

    def _first_cells(
        self, image_id: str, size: tuple[int, int]
    ) -> tuple[list[EditedCell], EditedCell | None, tuple[int, int]]:
        """Return the cells, the checked region and the size of the image that they are of."""
        if image_id in self.checked:
            folder = self._labelled()
            instances = folder.instances(image_id)
            cells = cells_of(instances, np.full(len(instances), np.nan), accepted=True)
            return cells, region_of(folder.ignored(image_id)), (instances.height, instances.width)
        found = self.predicted(image_id)
        if found is None:
            return [], None, size
        names = self.about.cell_types
        numbers = np.array([names.index(name) if name in names else 0 for name in found.cell_type_names], np.int64)
        instances = Instances(found.instances.layers, numbers[found.instances.cell_types])
        return cells_of(instances, found.scores), None, (found.height, found.width)

    def _labelled(self) -> Competition:
        if self._folder is None:
            with warnings.catch_warnings(action="ignore"):
                self._folder = Competition(self.root, self.about.cell_types, keep_going=True)
        return self._folder


def types_of(root: Path, given: Sequence[str] | None, predicted: Sequence[str]) -> list[str]:
    """Return the names of cell types to choose from: those given, else those of the folder, else those of the model.

    `cell` where nothing names any. Raises InputError where names are given and the folder has others.
    """
    known = cell_types_of(root)
    if given and (missing := [name for name in known if name not in given]):
        raise InputError(
            f"cell_types=[{','.join(given)}]: {root} has {', '.join(missing)} too; give these as well, or leave "
            "cell_types out"
        )
    return list(given or known or dict.fromkeys(predicted) or [UNTYPED])
