"""Audit of a LIVECell folder: a page of text, and a table with a row per image and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from sartorius.data.annotation_rows import well_of
from sartorius.data.competition.audit import DUPLICATE_IOU, first_of, listing, named
from sartorius.data.livecell.coco_cells import cell_runs, count_clipped
from sartorius.data.livecell.folder import SPLITS, LiveCell, LiveCellSplit, field_of
from sartorius.errors import collected
from sartorius.structures import rle
from sartorius.structures.progress import progress_bar

COLUMNS = (
    "split", "id", "line", "well", "field", "height", "width", "cells", "area_sum", "area_mean", "without_pixels",
    "clipped", "annotated_twice", "crowds",
)  # fmt: skip
KNOWN = (
    "Known of the published files: train and val share images, which flatters validation scores "
    "(https://github.com/sartorius-research/LIVECell/issues/26); test is apart. data.drop_shared=true leaves fields of "
    "view of val and test out of training."
)
SHOWN = 3  # names of a note


@dataclass(frozen=True)
class LiveCellAudit:
    """Result of `audit_livecell`.

    images: a row (COLUMNS) per readable image of each split.  shared: for each pair of splits.
    problems: reasons why images cannot be used, a sentence each.  notes: doubtful images, a sentence each.
    """

    folder: LiveCell
    images: pd.DataFrame
    shared: list[Shared]
    problems: list[str]
    notes: list[str]

    def text(self) -> str:
        """Format the page: images and cells by split and line, what splits share, problems and notes."""
        counts = [f"{n} {split}" for split, n in self.images["split"].value_counts(sort=False).items()]
        head = f"{self.folder.root}: {', '.join(counts)} images, {int(self.images['cells'].sum())} cells"
        parts = [head, f"By split and cell line (areas in pixels)\n{_by_line(self.images).to_string()}"]
        parts.append("\n".join(["Shared between splits", *(_sentence(pair) for pair in self.shared), KNOWN]))
        parts += [listing("Problems (their images cannot be used)", self.problems), listing("Notes", self.notes)]
        return "\n\n".join(parts) + "\n"


def audit_livecell(folder: LiveCell) -> LiveCellAudit:
    """Audit a folder, reading and rasterising it once, about 10 ms an image; a split without a file is noted.

    Raises InputError for an annotation file that cannot be read as a whole, and where there is none.
    """
    names = [name for name in SPLITS if folder.file(name) is not None]
    splits = {name: folder.split(name) for name in names or SPLITS}
    rows: list[tuple[object, ...]] = []
    problems: list[str] = []
    for name, split in splits.items():
        for image_id in progress_bar(split.ids, f"auditing {name}"):
            with collected(problems):
                split.check([image_id])
                rows.append(_measure(name, split, image_id))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    shared = shared_images({name: split.ids for name, split in splits.items()})
    notes = [f"no annotation file of {name}" for name in SPLITS if name not in splits]
    for name, split in splits.items():
        notes += named(f"{name}: images listed twice, read with the most cells", split.repeated_names, SHOWN)
    return LiveCellAudit(folder, table, shared, problems, notes + _notes(table))


def _measure(name: str, split: LiveCellSplit, image_id: str) -> tuple[object, ...]:
    """Measure an image: one row of the table."""
    record = split.record(image_id)
    runs = cell_runs(split.file, record.coco)
    first, second, common = rle.overlaps(runs)
    iou = common / (runs.areas[first] + runs.areas[second] - common)
    cells, area = runs.count, int(runs.areas.sum())
    return (
        name, image_id, record.line, well_of(image_id), field_of(image_id), record.coco.height, record.coco.width,
        cells, area, round(area / max(cells, 1), 1), int((runs.areas == 0).sum()), count_clipped(record.coco),
        int((iou > DUPLICATE_IOU).sum()), len(record.coco.crowds),
    )  # fmt: skip


def _by_line(table: pd.DataFrame) -> pd.DataFrame:
    groups = table.groupby(["split", "line"], sort=False)
    result = groups.agg(
        images=("id", "size"), fields=("field", "nunique"), wells=("well", "nunique"), cells=("cells", "sum"),
        fewest=("cells", "min"), most=("cells", "max"),
    )  # fmt: skip
    return result.assign(area_mean=(groups["area_sum"].sum() / result["cells"].clip(lower=1)).round(1))


def _sentence(pair: Shared) -> str:
    return (
        f"{pair.first} and {pair.second}: {len(pair.images)} images of one name, {len(pair.fields)} fields of view "
        f"and {len(pair.wells)} wells{first_of(pair.images or pair.fields or pair.wells, SHOWN)}"
    )


def _notes(table: pd.DataFrame) -> list[str]:
    notes = named("images without cells", table["id"][table["cells"] == 0], SHOWN)
    for column, what in (
        ("without_pixels", "annotations without a pixel (left out)"),
        ("clipped", "polygons that leave the image by up to a pixel (clipped)"),
        ("annotated_twice", f"cells annotated twice (IoU > {DUPLICATE_IOU})"),
        ("crowds", "regions of crowds (iscrowd=1, left out)"),
    ):
        images = table["id"][table[column] > 0].tolist()
        if images:
            notes.append(f"{what}: {int(table[column].sum())} in {len(images)} images{first_of(images, SHOWN)}")
    return notes


@dataclass(frozen=True)
class Shared:
    """Overlap of two splits: images of one name, fields of view, wells; sorted names."""

    first: str
    second: str
    images: tuple[str, ...]
    fields: tuple[str, ...]
    wells: tuple[str, ...]


def shared_images(splits: Mapping[str, Sequence[str]]) -> list[Shared]:
    """Return the overlap of every pair of `splits` (name -> image ids), in their order."""
    shared = []
    for first, second in combinations(splits, 2):
        both = (
            tuple(sorted({of(p) for p in splits[first]} & {of(p) for p in splits[second]}))
            for of in (str, field_of, well_of)
        )
        shared.append(Shared(first, second, *both))
    return shared
