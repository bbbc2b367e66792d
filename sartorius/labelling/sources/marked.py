"""Partial labels: the options that tell which part of each image somebody has labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sartorius.data.annotation_rows import read_header
from sartorius.data.files.named_image import NamedImage
from sartorius.errors import InputError
from sartorius.labelling.regions import Rectangle, Rectangles, near_labels, partly_labelled, read_rectangles
from sartorius.labelling.sources.entries import FoundLabels, ImageShape
from sartorius.labelling.sources.matching import ImageFile, Matched, label_files, match, open_files
from sartorius.labelling.sources.types import ImageNames
from sartorius.structures import checks
from sartorius.structures.arrays import Bools
from sartorius.structures.instances import Instances

UNLABELLED = ("background", "ignore")


@dataclass(frozen=True)
class RegionOptions:
    """What is labelled of each image; the rest is background, or unknown where `unlabelled` is `ignore`.

    regions: a csv of rectangles (see `regions.read_rectangles`), or files of masks or shapes as labels are given, whose
    pixels are labelled. near: pixels around each label that are labelled too. Objects of the class Region* in the
    labels tell it as well. Several of these add up.

    Raises InputError for regions or near without unlabelled=ignore, and a distance that is none.
    """

    unlabelled: str = "background"
    regions: str | Sequence[str] | None = None
    near: float | None = None

    def __post_init__(self) -> None:
        checks.one_of("", UNLABELLED, unlabelled=self.unlabelled)
        for name, value in (("regions", self.regions), ("near", self.near)):
            if value is not None and self.unlabelled != "ignore":
                raise InputError(
                    f"{name}={value}: tells which part of an image is labelled, but unlabelled={self.unlabelled} takes "
                    "the rest for background; give unlabelled=ignore"
                )
        if self.near is not None:
            checks.numbers("", 1, 10_000, near=self.near)

    @cached_property
    def rectangles(self) -> Path | None:
        """The csv of rectangles; None where `regions` is of another kind."""
        path = self.regions if isinstance(self.regions, str) else (self.regions or [""])[0]
        is_csv = path.lower().endswith(".csv") and Path(path).is_file()
        return Path(path) if is_csv and "annotation" not in read_header(Path(path)) else None

    @cached_property
    def files(self) -> Mapping[Path, tuple[str, str]]:
        """The files of masks and shapes, as `matching.label_files` lists them."""
        return label_files(self.regions) if self.regions and not self.rectangles else {}

    def of(self, files: Sequence[ImageFile], images: Sequence[NamedImage]) -> MarkedRegions | None:
        """Match the regions with images; None where the rest is background."""
        if self.unlabelled != "ignore":
            return None
        matched = match(files, open_files(self.files, "cell")) if self.files else None
        rectangles = None if self.rectangles is None else _by_id(read_rectangles(self.rectangles), images)
        return MarkedRegions(matched, rectangles, self.near)


EVERYTHING = RegionOptions()


def _by_id(rectangles: Rectangles, images: Sequence[NamedImage]) -> Rectangles:
    """Name the rectangles by image id; raises InputError where a name is that of no image, or of several."""
    names = ImageNames(images)
    by_id: dict[str, list[tuple[int, Rectangle]]] = defaultdict(list)
    for name, rows in rectangles.rows.items():
        if len(found := names.find(name)) != 1:
            what = "several images have this name" if found else "no image has this name"
            known = ", ".join(image.image_id for image in images[:3])
            raise InputError(f"{rectangles.path} row {rows[0][0]}: '{name}': {what}; ids look like {known}")
        by_id[found[0].image_id] += rows
    return replace(rectangles, rows=dict(by_id))


@dataclass
class MarkedRegions:
    """The regions of the images of one import, and counts of what they left out.

    outside, cut: cells left out, see `regions.PartlyLabelled`. blank: images of which nothing is labelled.
    """

    matched: Matched | None
    rectangles: Rectangles | None
    near: float | None
    outside: int = 0
    cut: int = 0
    blank: list[str] = field(default_factory=list)

    def apply(self, image: NamedImage, shape: ImageShape, labels: FoundLabels) -> FoundLabels:
        """Leave out cells of an image where nobody has labelled, and mark its unknown pixels as ignored.

        Raises InputError where nothing tells what is labelled of the image, and for regions of another size.
        """
        labelled = self._labelled(image, shape, labels)
        if not labelled.any():
            self.blank.append(image.image_id)
        part = partly_labelled(labels.runs, labelled)
        self.outside, self.cut = self.outside + part.outside, self.cut + part.cut
        chosen = np.flatnonzero(part.kept).tolist()
        ignored = part.ignored if labels.ignored is None else part.ignored | labels.ignored
        return replace(
            labels,
            runs=Instances.from_runs(labels.runs, np.zeros(labels.runs.count)).select(part.kept).to_runs(),
            types=tuple(labels.types[k] for k in chosen),
            numbers=tuple(labels.numbers[k] for k in chosen),
            ignored=ignored,
        )

    def _labelled(self, image: NamedImage, shape: ImageShape, labels: FoundLabels) -> Bools:
        size = shape.height, shape.width
        parts = [] if labels.labelled is None else [labels.labelled]
        if self.rectangles is not None and image.image_id in self.rectangles.rows:
            parts.append(self.rectangles.fill(image.image_id, *size))
        if self.matched is not None and image.image_id in self.matched.labels:
            entry, plane, planes = self.matched.labels[image.image_id]
            found = entry.read(ImageShape(*size, plane, planes))
            parts += [found.runs.foreground(), *([] if found.labelled is None else [found.labelled])]
        if self.near is not None:
            parts.append(near_labels(labels.runs.foreground(), self.near))
        if not parts:
            raise InputError(
                f"image {image.image_id}: unlabelled=ignore, but nothing tells which part of it is labelled; give it "
                "regions= (a rectangle over all of it where it is labelled all over), near=30, or an object of the "
                "class Region* in its labels"
            )
        marked: Bools = np.logical_or.reduce(parts)
        return marked

    def notes(self) -> list[str]:
        """Say what was left out, a sentence each."""
        notes = []
        if self.outside or self.cut:
            notes.append(
                f"{self.outside} cells lie mostly where nobody has labelled and {self.cut} end at the edge of what is "
                "labelled, as if cut off: they are left out, and their pixels are unknown"
            )
        if self.blank:
            notes.append(f"images of which nothing is labelled, they teach nothing: {', '.join(self.blank[:5])}")
        unused = () if self.matched is None else self.matched.unused
        return notes + [f"regions of no image: {entry}" for entry in unused]
