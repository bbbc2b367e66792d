"""Images and labels of any kind, written as a folder in the competition's layout that trainings and `correct` read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sartorius.data.annotation_rows import read_table
from sartorius.data.competition import groups
from sartorius.data.competition.about import About, read_about
from sartorius.data.competition.audit import first_of, named
from sartorius.data.competition.labelled_writer import Labelled, has_other, is_written, write_labelled
from sartorius.data.files.named_image import NamedImage
from sartorius.data.files.reading import common_size, note_of_sizes
from sartorius.data.files.source import FileImages
from sartorius.data.levels import Levels
from sartorius.errors import InputError, collected, raise_all
from sartorius.files import atomic_path
from sartorius.labelling.sources.cell_folders import joined
from sartorius.labelling.sources.entries import FoundLabels, ImageShape
from sartorius.labelling.sources.marked import EVERYTHING, MarkedRegions, RegionOptions
from sartorius.labelling.sources.masks import BINARY
from sartorius.labelling.sources.matching import (
    Matched,
    image_files,
    label_files,
    match,
    open_files,
    open_images,
    outside,
)
from sartorius.labelling.sources.types import Types, types_by
from sartorius.structures import checks
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances
from sartorius.structures.progress import progress_bar

EXISTING = ("refuse", "replace", "keep")
_WHITE = 0.001  # share of an image's pixels


@dataclass(frozen=True)
class ImportedFolder:
    """A folder that was written, what it says about itself, and notes for the audit, a sentence each."""

    root: Path
    about: About
    notes: tuple[str, ...]


def import_folder(
    root: str | Path | None,
    images: str | Sequence[str],
    labels: str | Sequence[str],
    *,
    cell_type: str | None = None,
    cell_types: Sequence[str] | None = None,
    group: str | None = None,
    binary: str = "refuse",
    existing: str = "refuse",
    marked: RegionOptions = EVERYTHING,
    levels: str = "auto",
    **reading: Any,
) -> ImportedFolder:
    """Write images, converted to 8 bits, with their labels into the folder `root`; those without labels apart.

    images, and channel, pages, pixel_size in `reading`: see `files.source.FileImages`. levels: see `levels.Levels`.
    labels: a glob, a folder, a file or a list of these, which files among `images` are. cell_type: see
    `types.types_by`; cell_types: the order of their names, None for the alphabet. group: a pattern with
    `(?P<group>...)`, searched in the path of an image within the folder of all; what it finds lies in one fold. None
    takes the pattern that the folder was written with or, without one, the groups of a csv, then those of
    `groups.groups_of`. binary: of label images with one value, see `masks`. existing: of images that the folder has
    with other labels, pixels or groups: `refuse` them, `replace` or `keep` what is there. marked: what is labelled.

    Everything is read and checked before anything is written. Raises InputError, which names all files that are wrong.
    """
    root = _checked(root, binary, existing)
    group = groups.pattern_of(read_about(root), group)
    files = label_files(labels)
    files = {path: files[path] for path in outside(root, files)} or files
    source, others = open_images(root, images, [*files, *marked.files], levels=Levels(levels=levels), **reading)
    named_files = list(image_files({image_id: source.path(image_id) for image_id in source.ids}, images))
    names = source.named()
    matched = match(named_files, joined(open_files(files, binary), named_files))
    work = _Import(root, source, names, matched, marked.of(named_files, list(names.values())), existing)
    work.read(types_by(cell_type, names.values()), group)
    about = work.describe(cell_types, group)
    notes = named("files among the images that are called as labels, left out", [path.name for path in others])
    return ImportedFolder(work.root, about, (*notes, *work.write(about)))


def _checked(root: str | Path | None, binary: str, existing: str) -> Path:
    checks.one_of("", BINARY, binary=binary)
    checks.one_of("", EXISTING, existing=existing)
    if root is None:
        raise InputError("output: give the folder to write, such as output=mine")
    return Path(root)


@dataclass
class _Import:
    """The images of one call, read before they are written.

    labels: of each labelled image; types: of its cells, and of it where it has none; groups: not to be parted. marked:
    what is labelled of each; None for all of it.
    """

    root: Path
    source: FileImages
    names: Mapping[str, NamedImage]
    matched: Matched
    marked: MarkedRegions | None
    existing: str
    labels: dict[str, FoundLabels] = field(default_factory=dict)
    types: dict[str, Types] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)
    saturated: list[str] = field(default_factory=list)

    def read(self, types: Callable[[NamedImage, FoundLabels], Types], group: str | None) -> None:
        """Read all labels and decode all images once; raises InputError that names all bad ones."""
        problems: list[str] = []
        for image_id in progress_bar(self.source.ids, "reading"):
            with collected(problems):
                pixels, reason = self.source.load_and_reason(image_id)
                self.changed.update([reason] if reason else [])
                if reason and np.isin(np.asarray(pixels), (0, 255)).mean() > _WHITE:
                    self.saturated.append(image_id)
                if image_id in self.matched.labels:
                    image = self.names[image_id]
                    self.labels[image_id] = labels = self._read_labels(image)
                    self.types[image_id] = types(image, labels)
        told = {name: labels.group for name, labels in self.labels.items() if labels.group and group is None}
        anew = ((), ()) if self.existing == "keep" else (self.labels, self.names)
        with collected(problems):
            self.groups = groups.groups_of(
                [*self.names.values()], group, told | groups.kept_groups(self.root, *anew), self.matched.unlabelled
            )
        raise_all(problems)

    def _read_labels(self, image: NamedImage) -> FoundLabels:
        entry, plane, planes = self.matched.labels[image.image_id]
        shape = ImageShape(*self.source.size(image.image_id), plane, planes)
        try:
            labels = entry.read(shape)
        except InputError as error:
            if str(entry.file) in str(error):
                raise
            raise InputError(f"{entry}: {error}") from error
        return labels if self.marked is None else self.marked.apply(image, shape, labels)

    def describe(self, cell_types: Sequence[str] | None, group: str | None) -> About:
        """Describe the folder with these images and those in it; raises InputError where they do not go together."""
        before = read_about(self.root)
        if before is None and (self.root / "train.csv").exists():
            raise InputError(f"{self.root}: holds other data; give another output=")
        found = {name for types, own in self.types.values() for name in (types or ([own] if own else []))}
        names = list(cell_types or (before.cell_types if before else ()))
        if cell_types and (unknown := sorted((found | {*(before.cell_types if before else ())}) - {*names})):
            raise InputError(f"cell_types=[{','.join(names)}]: the labels have {', '.join(unknown)} too; name them all")
        names += sorted(found - {*names})
        size = common_size(self._sizes())
        if before is not None:
            before.check_same(self.root, self.source.reading, self._sizes())
            size = before.pixel_size
        return About(tuple(names or [UNTYPED]), size, self.source.reading.plain(), group)

    def _sizes(self) -> list[float | None]:
        return [self.source.entries[image_id].pixel_size for image_id in self.labels]

    def write(self, about: About) -> tuple[str, ...]:
        """Write all images; returns the notes. Raises InputError, before that, for images that are there otherwise."""
        csv = self.root / "train.csv"
        there = {str(name): rows for name, rows in read_table(csv).groupby("id")} if csv.exists() else {}
        known = sorted({*there} & {*self.labels})
        unlabelled = [image_id for image_id in self.matched.unlabelled if image_id not in there]
        here = sorted({*self.labels, *unlabelled})
        pixels = [image_id for image_id in here if has_other(self.root, image_id, self.source.image)]
        same = {one for one in known if is_written(self.root, about, self._one(about, one), there[one])} - {*pixels}
        labels = [image_id for image_id in known if image_id not in same and image_id not in pixels]
        kinds = {"of these images with other labels": labels, "other images of these names": pixels}
        other = [f"{len(ids)} {kind}{first_of(ids, 3)}" for kind, ids in kinds.items() if ids]
        if other and self.existing == "refuse":
            raise InputError(
                f"{self.root}: has {' and '.join(other)}; existing=keep leaves those as they are, existing=replace "
                "takes these"
            )
        left = same | ({*labels, *pixels} if self.existing == "keep" else set())
        groups.check_pattern(self.root, about.group, same | ({*here} - left))
        changed = progress_bar([image_id for image_id in self.labels if image_id not in left], "writing")
        write_labelled(self.root, about, (self._one(about, image_id) for image_id in changed))
        about.write(self.root)
        self._write_unlabelled([image_id for image_id in unlabelled if image_id not in left])
        notes = named("images that were there already and stay as they are", sorted(left))
        gone = [image_id for image_id in self.matched.unlabelled if image_id in there]
        notes += named("images without labels now, those that the folder has of them stay", gone)
        return (*notes, *self._notes(about, unlabelled))

    def _write_unlabelled(self, image_ids: Sequence[str]) -> None:
        groups.save_groups(self.root, {name: self.groups[name] for name in image_ids if name in self.groups})
        for image_id in progress_bar(image_ids, "unlabelled"):
            with atomic_path(self.root / "train_semi_supervised" / f"{image_id}.png") as path:
                Image.fromarray(self.source.image(image_id)).save(path)

    def _one(self, about: About, image_id: str) -> Labelled:
        labels, (types, own) = self.labels[image_id], self.types[image_id]
        instances = Instances.from_runs(labels.runs, np.array([about.cell_types.index(name) for name in types], int))
        image, group = self.source.image(image_id), self.groups[image_id]
        return Labelled(image_id, image, instances, own, group, labels.ignored)

    def _notes(self, about: About, unlabelled: Sequence[str]) -> Iterator[str]:
        yield from groups.group_notes(self.groups, about.group)
        unknown = [image_id for image_id in unlabelled if image_id not in self.groups]
        yield from named("images without labels in whose paths group= finds nothing, as correct needs", unknown)
        yield from named("images without labels, in train_semi_supervised/", unlabelled)
        if self.matched.by_count:
            yield "the only image and the only labels belong together, though they have no name in common"
        yield from named("labels without images", [str(entry) for entry in self.matched.unused])
        if self.marked is not None:
            yield from self.marked.notes()
        elif regions := [image_id for image_id, labels in self.labels.items() if labels.labelled is not None]:
            yield from named("images with regions of the class Region*, which only unlabelled=ignore heeds", regions)
        if self.changed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.changed.most_common())
            yield f"grey levels of {self.changed.total()} images were brought to those of the training: {reasons}"
        if self.source.reading.levels.levels != "range":
            white = f"images with more than {_WHITE:.1%} of their pixels turned white or black"
            yield from named(f"{white}; levels=range keeps them apart", self.saturated)
        yield from note_of_sizes(self._sizes())
        for note in sorted({note for labels in self.labels.values() for note in labels.notes}):
            yield from named(note, [image_id for image_id, labels in self.labels.items() if note in labels.notes])
