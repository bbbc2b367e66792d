"""Audit of a competition folder: a page of text, and a table with a row per labelled image.

Broken annotations are counted, not repaired (that is `cleaning`). Everything about a cell is measured on its crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sartorius.data.cleaning import Cleaning, CleaningReport
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import Folds
from sartorius.data.competition.groups import places_of
from sartorius.data.competition.mask_faults import NEAR, SIDES, border_gaps, faults_of, shifted
from sartorius.data.images import read_grey
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances
from sartorius.structures.progress import progress_bar

DUPLICATE_IOU = 0.9  # two cells of an image that overlap more are one cell annotated twice
_BACKGROUND = 0.5  # share of an image
_NO_TYPE = "no cells"  # where the type of an image without cells is not known


@dataclass(frozen=True)
class Audit:
    """Result of `audit`.

    images: a row per readable labelled image (columns of `measure`, and `duplicate_of`).
    problems: reasons why images cannot be used, a sentence each.  notes: doubtful images and rows, a sentence each.
    """

    competition: Competition
    images: pd.DataFrame
    problems: list[str]
    notes: list[str]
    cleaning: CleaningReport | None

    def text(self, folds: Folds | None = None) -> str:
        """Format the page: totals by cell type, broken masks, cleaning, folds, problems and notes."""
        c = self.competition
        head = (
            f"{c.root}: {len(c.ids)} labelled images, {int(self.images['cells'].sum())} cells, "
            f"{len(c.unlabelled_images())} unlabelled, {len(c.test_images())} test images, "
            f"{len(c.unused)} without a row"
        )
        parts = [head]
        if len(self.images):
            parts.append(_section("By cell type (areas in pixels)", _by_type(self.images)))
            parts.append(_section("Annotations: cells that ... (counted, not repaired)", _broken(self.images)))
        if self.cleaning is not None:
            parts.append(_section("What the configured cleaning changes in training truth", self.cleaning.frame()))
        if folds is not None:
            table = pd.crosstab(folds.table["fold"], folds.table["cell_type"].replace("", _NO_TYPE))
            parts.append(_section("Folds: images of each type", table))
        parts.append(listing("Problems (their images are not used)", self.problems))
        parts.append(listing("Notes", self.notes))
        return "\n\n".join(parts) + "\n"


def audit(competition: Competition, cleaning: Cleaning | None = None) -> Audit:
    """Audit a folder, reading each file once; about 40 ms a labelled image.

    A competition read with `keep_going` gives its unreadable images as problems; otherwise the first one raises
    InputError.
    """
    competition.check()
    report = CleaningReport(competition.cell_type_names) if cleaning is not None else None
    rows, hashes, gaps = [], {}, np.zeros((len(SIDES), NEAR), np.int64)
    for image_id in progress_bar(competition.ids, "auditing"):
        image, instances = competition.image(image_id), competition.instances(image_id)
        rows.append(measure(competition, image_id, image, instances))
        hashes[image_id] = _hash(image)
        gaps += border_gaps(instances)
        if cleaning is not None and image_id not in cleaning.drop_images:
            cleaning(instances, report)
    table = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["id", "cells"])
    original = _duplicates(hashes)
    table["duplicate_of"] = [original.get(image_id, "") for image_id in table["id"]]
    unlabelled = [*competition.test_images(), *competition.unlabelled_images()]
    others, unreadable = _hash_files(unlabelled, competition.root)
    notes = [
        *competition.doubts(),
        *_notes(competition, table),
        *shifted(gaps),
        *_leaks(hashes, others),
        *_unknown_drops(competition, cleaning),
    ]
    return Audit(competition, table, [*competition.problems, *unreadable], notes, report)


def measure(competition: Competition, image_id: str, image: GreyImage, instances: Instances) -> dict[str, object]:
    """Measure the row of one image: counts of cells, areas in pixels, grey levels 0 to 255."""
    record, areas, ignored = competition.images[image_id], instances.areas, competition.ignored(image_id)
    first, second, shared = rle.overlaps(competition.runs(image_id))
    iou = shared / np.maximum(areas[first] + areas[second] - shared, 1)
    shapes = np.array([faults_of(instances.crop_mask(k)[2]) for k in range(len(instances))], bool).reshape(-1, 4)
    return {
        "id": image_id, "cell_type": record.cell_type or _NO_TYPE, "well": record.well or "",
        "width": record.width, "height": record.height, "grey_mean": round(float(image.mean()), 2),
        "grey_std": round(float(image.std()), 2), "cells": len(record), "layers": len(instances.layers),
        "covered": round(float(instances.foreground().mean()), 4),
        "unlabelled": 0.0 if ignored is None else round(float(ignored.mean()), 4),
        "area_min": int(areas.min()) if len(areas) else 0,
        "area_median": float(np.median(areas)) if len(areas) else 0.0, "area_max": int(areas.max(initial=0)),
        "area_sum": int(areas.sum()), "empty": int((areas == 0).sum()),
        "with_holes": int(shapes[:, 0].sum()), "in_pieces": int(shapes[:, 1].sum()),
        "with_spikes": int(shapes[:, 2].sum()), "far_apart": int(shapes[:, 3].sum()),
        "overlapping_pairs": len(first), "overlapping": len(np.union1d(first, second)),
        "shared_pixels": int(shared.sum()),
        "annotated_twice": int((iou > DUPLICATE_IOU).sum()),
    }  # fmt: skip


def _hash(image: GreyImage) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _hash_files(paths: Iterable[Path], root: Path) -> tuple[dict[str, str], list[str]]:
    """Hash the pixels of each file, by path below the root; also return the errors."""
    hashes, problems = {}, []
    for path in paths:
        try:
            hashes[str(path.relative_to(root))] = _hash(read_grey(path))
        except InputError as error:
            problems.append(str(error))
    return hashes, problems


def _duplicates(hashes: dict[str, str]) -> dict[str, str]:
    """Map each copy to the first image with the same pixels."""
    first: dict[str, str] = {}
    return {name: first[h] for name, h in hashes.items() if first.setdefault(h, name) != name}


def _leaks(labelled: dict[str, str], others: dict[str, str]) -> list[str]:
    """List test and unlabelled images that have the pixels of a labelled one."""
    by_hash = {h: name for name, h in reversed(labelled.items())}  # the first of several stays
    shared = {name: by_hash[h] for name, h in others.items() if h in by_hash}
    return [f"{name} has the same pixels as labelled image {image_id}" for name, image_id in shared.items()]


def _unknown_drops(competition: Competition, cleaning: Cleaning | None) -> list[str]:
    named_ids = cleaning.drop_images if cleaning and competition.about is None else ()  # of the competition
    absent = [p for p in named_ids if p not in competition.images]
    return [f"cleaning.drop_images names images that are not labelled here: {', '.join(absent)}"] if absent else []


def _notes(competition: Competition, table: pd.DataFrame) -> list[str]:
    copies = table[table["duplicate_of"] != ""]
    pairs = zip(copies["id"], copies["duplicate_of"], strict=True)
    notes = [f"image {image_id} has the same pixels as {original}" for image_id, original in pairs]
    notes += named("images without cells", table["id"][table["cells"] == 0])
    if len(table):
        pixels = table["width"] * table["height"]
        share = float((table["unlabelled"] * pixels).sum() / pixels.sum())
        parts = named("images labelled in parts", table["id"][table["unlabelled"] > 0])
        notes += [f"{part}: {share:.1%} of the area of all is in no loss and no score" for part in parts]
        twice = table["id"][table["annotated_twice"] > 0]
        notes += named(f"images with cells annotated twice (IoU > {DUPLICATE_IOU})", twice)
        notes += named(
            "images with cells whose pieces lie far apart, as of a label given twice",
            table["id"][table["far_apart"] > 0],
        )
        large = table["id"][table["area_max"] > _BACKGROUND * table["width"] * table["height"]]
        notes += named("images with a cell that covers most of them, as a background with a label would", large)
    notes += named("images of which no pixel is labelled, in no training and no score", competition.blank)
    notes += named("images in train/ without a row in train.csv", [path.name for path in competition.unused])
    if not competition.has_wells:
        return [
            *notes,
            "train.csv has no column sample_id: wells are not known, folds are stratified by cell type only",
        ]
    paths = {path.stem: path for path in competition.unlabelled_images()}
    places = places_of(competition.root, competition.about, paths).values()
    shared = {place for found in places for place in found} & set(competition.wells.values())
    return notes + named(
        f"{competition.well_name}s that labelled and unlabelled images share (a leak to guard)", sorted(shared)
    )


def named(what: str, names: Sequence[str] | pd.Series, limit: int = 5) -> list[str]:
    """Return a line with the count and the first names; none without names."""
    return [f"{what}: {len(names)}{first_of(names, limit)}"] if len(names) else []


def first_of(names: Sequence[str] | pd.Series, limit: int) -> str:
    """Format the first names in brackets; "" without names."""
    return f" ({', '.join(list(names)[:limit])}{', ...' if len(names) > limit else ''})" if len(names) else ""


def _by_type(table: pd.DataFrame) -> pd.DataFrame:
    groups = table.groupby("cell_type")
    result = groups.agg(
        images=("id", "size"), wells=("well", lambda wells: wells[wells != ""].nunique()),
        cells=("cells", "sum"), fewest=("cells", "min"),
        most=("cells", "max"), layers=("layers", "max"), area_min=("area_min", "min"), area_max=("area_max", "max"),
    )  # fmt: skip
    result.insert(6, "area_mean", (groups["area_sum"].sum() / groups["cells"].sum().clip(lower=1)).round(1))
    return result.assign(covered=groups["covered"].mean().round(3), grey=groups["grey_mean"].mean().round(1))


def _broken(table: pd.DataFrame) -> pd.DataFrame:
    columns = ["empty", "with_holes", "in_pieces", "with_spikes", "overlapping", "annotated_twice", "shared_pixels"]
    return table.groupby("cell_type")[columns].sum()


def _section(title: str, table: pd.DataFrame) -> str:
    return f"{title}\n{table.to_string()}"


def listing(title: str, lines: Sequence[str]) -> str:
    """Format a title with the number of lines, and the lines."""
    return "\n".join([f"{title}: {len(lines) or 'none'}", *(f"  - {line}" for line in lines)])
