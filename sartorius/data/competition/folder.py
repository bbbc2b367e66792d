"""The competition's folder: train.csv, train/, test/, train_semi_supervised/, sample_submission.csv.

`sartorius.prepare source=folder` writes labelled images of any other kind in the same layout, see `about`.

A labelled image is the rows of one id in train.csv (a row is a cell; an image without cells is one row with an empty
annotation) and train/<id>.png. Rows and images that contradict each other raise InputError here, before any training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.annotated_images import (
    AnnotatedImages,
    LabelledImage,
    doubts,
    labelled_image,
    parse_ignored,
    parse_runs,
)
from sartorius.data.annotation_rows import read_table
from sartorius.data.competition.about import read_about
from sartorius.data.images import list_images
from sartorius.errors import InputError, collected, raise_all
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_json

MARKER = "synthetic.json"  # in a folder of generated images: the settings it was made with
_HOW_TO_GET = (
    "get the data with `kaggle competitions download -c sartorius-cell-instance-segmentation` and unzip it there, give "
    "another folder with data.root=..., or write a synthetic one with `python -m sartorius.prepare source=synthetic`"
)


def check_layout(root: Path) -> None:
    """Raise InputError where a folder, its train.csv or its train/ is not there."""
    for needed in (root, root / "train.csv", root / "train"):
        if not needed.exists():
            raise InputError(f"{needed}: not found; {_HOW_TO_GET}")


class Competition(AnnotatedImages):
    """The labelled images of a folder in the competition's layout.

    The constructor reads train.csv and the header of every image (0.2 s for 606 images) and raises InputError where
    they disagree, naming all that do; `check` decodes images and annotations. With `keep_going` bad images are left out
    and the reasons collected in `problems` (for the audit). Left out with a warning are PNGs without a row (`unused`)
    and images of which no pixel is labelled (`blank`), which would score 1 whatever is predicted.

    cell_type_names: the names that class indices count in. about: what the folder says about itself, see `About`; with
    it an image may hold cells of several types.
    """

    def __init__(self, root: str | Path, cell_type_names: Sequence[str] = CELL_TYPES, keep_going: bool = False) -> None:
        self.root, self.keep_going = Path(str(root)), keep_going
        super().__init__(self.root / "train.csv")
        self.cell_type_names = tuple(cell_type_names)
        self.problems: list[str] = []
        self.blank: list[str] = []
        check_layout(self.root)
        self.about = read_about(self.root)
        table = read_table(self.csv)
        self.has_wells = "sample_id" in table or "group" in table
        rows = {str(image_id): group for image_id, group in table.groupby("id", sort=True)}
        types = tuple(table["cell_type"].unique())
        self._collect(lambda image_id: self._add(image_id, rows[image_id], types), rows)
        named = set(table["id"])
        self.unused = [path for path in list_images(self.root / "train") if path.stem not in named]
        if self.unused:
            names = ", ".join(path.name for path in self.unused[:3])
            warnings.warn(
                f"{self.root / 'train'}: {len(self.unused)} images without a row in train.csv are left out ({names})",
                stacklevel=2,
            )
        if self.blank:
            names = ", ".join(self.blank[:3])
            warnings.warn(
                f"{self.csv}: {len(self.blank)} images of which no pixel is labelled are left out ({names})",
                stacklevel=2,
            )

    def record(self, image_id: str) -> LabelledImage:
        """Return the rows of an image; raises InputError for an id without any, and where no pixel is labelled."""
        if image_id in self.blank:
            raise InputError(
                f"{self.csv}: no pixel of image {image_id} is labelled: leave it out, or label a part of it"
            )
        return super().record(image_id)

    def _collect(self, action: Callable[[str], object], images: Iterable[str]) -> list[str]:
        """Run `action` for each image and raise all its InputErrors at once; with `keep_going` note them.

        Returns the images that raised one.
        """
        problems: list[str] = []
        bad = []
        for image_id in images:
            before = len(problems)
            with collected(problems):
                action(image_id)
            bad += [image_id] * (len(problems) > before)
        if not self.keep_going:
            raise_all(problems)
        self.problems += problems
        return bad

    def _add(self, image_id: str, rows: pd.DataFrame, types: Sequence[str]) -> None:
        path = self.root / "train" / f"{image_id}.png"
        record = labelled_image(image_id, rows, self.csv, path, self.cell_type_names, types, self.about is not None)
        ignored = None if record.annotations else parse_ignored(record, self.csv)
        if ignored is not None and ignored.all():
            self.blank.append(image_id)
        else:
            self.images[image_id] = record

    @cached_property
    def drawn_with(self) -> str:
        """Describe the seed that the images were generated with; "" for real ones."""
        marker = self.root / MARKER
        if not marker.is_file():
            return ""
        settings = read_json(marker, "write the images again with `python -m sartorius.prepare source=synthetic`")
        seed = settings.get("seed") if isinstance(settings, dict) else None
        return f"generated with seed {seed}: "

    @cached_property
    def wells(self) -> dict[str, str]:
        """Image -> plate well; an image whose well is not known is its own well."""
        return {image_id: record.well or image_id for image_id, record in self.images.items()}

    @property
    def well_name(self) -> str:
        """What must not lie in two folds, in words: `group` of own labels, else `plate well`."""
        return "plate well" if self.about is None else "group"

    def runs(self, image_id: str) -> rle.Runs:
        """Return the runs of the image's cells in the order of train.csv; raises InputError naming row and image."""
        return parse_runs(self.record(image_id), self.csv)

    def instances(self, image_id: str) -> Instances:
        """Get the image's cells as annotated, in the order of train.csv. Decoded at every call: datasets keep them."""
        record = self.record(image_id)
        types = np.array([self.cell_type_names.index(name) for name in record.types], np.int64)
        return Instances.from_runs(self.runs(image_id), types)

    def check(self, images: Iterable[str] | None = None) -> None:
        """Decode these images (default: all) and their annotations; raises InputError naming all that are bad.

        With `keep_going` bad images are dropped and noted in `problems` instead.
        """
        for image_id in self._collect(self._decode, list(self.ids if images is None else images)):
            del self.images[image_id]

    def doubts(self, images: Iterable[str] | None = None) -> list[str]:
        """Name what is hardly meant in the rows of these images (default: all), see `annotation_rows.doubts`."""
        return doubts(self.csv, [self.record(image_id) for image_id in (self.ids if images is None else images)])

    def _decode(self, image_id: str) -> None:
        self.image(image_id)
        self.runs(image_id)
        self.ignored(image_id)

    def test_images(self) -> list[Path]:
        """Return the PNGs of test/, sorted; empty when there is no such folder."""
        return self._folder("test")

    def unlabelled_images(self) -> list[Path]:
        """Return the PNGs of train_semi_supervised/, sorted, or none; `groups.places_of` tells their groups."""
        return self._folder("train_semi_supervised")

    def _folder(self, name: str) -> list[Path]:
        return list_images(self.root / name) if (self.root / name).is_dir() else []
