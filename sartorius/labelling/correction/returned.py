"""What was saved in Fiji: the ROIs of an image as cells and a region, and whose they are."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartorius.errors import one_line, raise_all
from sartorius.formats.rois import AreaRoi, read_rois, runs_of
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.shapes import EditedCell, cells_of, united
from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances

MARKED = "checked"  # how the names of ROIs begin that enclose what is checked, and are no cells
_NAME = re.compile(r"\d+_(.+?)(-\d+)?")  # of a cell that `formats.rois` wrote; ImageJ adds -1 to names it has already


@dataclass(frozen=True)
class Returned:
    """A file that was saved in Fiji; names and sums are of the cells of the correction, in their order."""

    path: Path
    image: GreyImage
    correction: Correction
    names: list[str]
    sums: list[str]


def read_returned(path: Path, image: GreyImage, groups: Sequence[str], names: Sequence[str]) -> Returned:
    """Read the ROIs of an image; groups: names of types by group, from 1; names: those to choose from, by class index.

    All cells are accepted. Raises InputError for a file that is not readable, ROIs without pixels, and groups that are
    no type of `names`.
    """
    rois = read_rois(path)
    marked = np.array([roi.name.lower().startswith(MARKED) for roi in rois], bool)
    own = [roi for roi, is_region in zip(rois, marked, strict=True) if not is_region]
    types = np.zeros(len(rois), np.int64)
    types[~marked] = _types(path, own, groups, names)
    instances = Instances.from_runs(runs_of(path, rois, *image.shape), types)
    drawn = cells_of(instances, np.full(len(rois), np.nan), accepted=True)
    regions = [drawn[k] for k in np.flatnonzero(marked).tolist()]
    cells = [drawn[k] for k in np.flatnonzero(~marked).tolist()]
    height, width = image.shape
    correction = Correction(height, width, cells, united(regions) if regions else None)
    return Returned(path, image, correction, [one_line(roi.name) for roi in own], [pixels_of(cell) for cell in cells])


def _types(path: Path, rois: Sequence[AreaRoi], groups: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the class index of each ROI by its group, else its name; the usual one where neither tells."""
    problems: list[str] = []
    found: list[int | None] = []
    for roi in rois:
        match = _NAME.fullmatch(roi.name)
        kind = roi.cell_type or (match[1] if match else "")
        if roi.group > len(groups):
            problems.append(
                f"{path}: ROI '{one_line(roi.name)}' is of group {roi.group}, but there are {len(groups)} cell "
                f"types ({', '.join(groups)}); give it a group from 1 to {len(groups)}, or 0"
            )
        elif roi.group and groups[roi.group - 1] not in names:
            problems.append(
                f"{path}: ROI '{one_line(roi.name)}' is of group {roi.group}, which was {groups[roi.group - 1]} when "
                "the image went out; give cell_types= with this name"
            )
        else:
            kind = groups[roi.group - 1] if roi.group else kind
        found.append(names.index(kind) if kind in names else None)
    raise_all(problems)
    known = [kind for kind in found if kind is not None]
    usual = max(range(len(names)), key=known.count)  # the first of equals
    return [usual if kind is None else kind for kind in found]


def refuse_others(image_id: str, returned: Mapping[str, Returned], owned: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError for cells that are there twice or are those of other images, by sums of their pixels.

    owned: the sums that each image may have, of cells that went out, or came back before.
    """
    here, sent = returned[image_id], Counter(owned[image_id])
    times = Counter(here.sums)
    pairs = list(zip(here.names, here.sums, strict=True))
    problems = []
    if twice := [name for name, pixels in pairs if times[pixels] > max(1, sent[pixels])]:
        problems.append(f"{here.path}: {_listed(twice)} cover the same pixels; delete all but one of them")
    for other in sorted({*owned} - {image_id}):
        theirs = {*owned[other], *(returned[other].sums if other in returned else ())} - {*sent}
        if strange := [name for name, pixels in pairs if pixels in theirs]:
            problems.append(
                f"{here.path}: {_listed(strange)} are in image {other} too, as the ROI Manager keeps what it has; "
                "delete them in the image that they are not of"
            )
    raise_all(problems)


def _listed(names: Sequence[str]) -> str:
    return f"ROIs {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


def pixels_of(cell: EditedCell) -> str:
    """Return a sum of the pixels that a cell covers."""
    return sum_of(f"{cell.top} {cell.left} {cell.mask.shape}".encode() + np.packbits(cell.mask).tobytes())[:12]


def sum_of(content: bytes) -> str:
    """Return the SHA-256 sum."""
    return hashlib.sha256(content).hexdigest()
