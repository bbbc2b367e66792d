"""ImageJ's ROI zip, a file a cell, for the ROI Manager of ImageJ and Fiji.

A cell in one piece without holes is a traced polygon, any other a composite of its pieces and holes: nothing is lost.
Its name is its label and type, its group the place of its type from 1; score and type stand in its properties.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError, one_line, raise_all
from sartorius.files import atomic_path
from sartorius.formats.polygons import Polygon, Ring, fill
from sartorius.structures.arrays import Floats32, Points
from sartorius.structures.cell_types import UNTYPED
from sartorius.structures.instances import Instances
from sartorius.structures.rle import Runs

if TYPE_CHECKING:
    from roifile import ImagejRoi

    from sartorius.formats.cells import Cells

_LARGEST = 60_535  # coordinate that ImageJ holds as a whole number; beyond it takes fractions too
_MOST = 2**28  # bytes of all ROIs of a file
_CORNERS = 720  # of an oval
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # steps of a path in a composite ROI


def write(cells: Cells, path: Path, others: Mapping[str, list[Polygon]] | None = None) -> None:
    """Write the cells in their order; a zip without entries where there are none.

    others: further areas by their names, which follow without group and properties.
    """
    numbers = cells.instances.cell_types.tolist()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for k, polygons in enumerate(cells.polygons):
            roi = _area(polygons)
            kind = cells.cell_type_names[numbers[k]]
            roi.name, roi.group = f"{k + 1:05d}_{kind}", numbers[k] + 1
            roi.props = f"score: {round(float(cells.scores[k]), 6)}\ntype: {kind}\n"
            archive.writestr(zipfile.ZipInfo(f"{k + 1:05d}.roi"), roi.tobytes())  # without the time of writing
        for name, polygons in (others or {}).items():
            roi = _area(polygons)
            roi.name = name
            archive.writestr(zipfile.ZipInfo(f"{name}.roi"), roi.tobytes())
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())


@dataclass(frozen=True)
class AreaRoi:
    """A ROI that encloses pixels: rings, [P, 2] x, y in pixel edges, by the even-odd rule.

    group: 0 is none.  score: NaN where the file has none.  cell_type: "" where it has none.
    """

    name: str
    group: int
    score: float
    cell_type: str
    rings: list[Points]


def read(path: Path, height: int, width: int) -> dict[str, Any]:
    """Read the ROIs of an image of this size as arguments of Cells.

    ROIs that this program did not write have no score, and the type "cell". Raises as `read_rois` and `runs_of` do.
    """
    rois = read_rois(path)
    types = [roi.cell_type or UNTYPED for roi in rois]
    names = tuple(dict.fromkeys(types))
    return {
        "image_id": path.stem,
        "instances": Instances.from_runs(
            runs_of(path, rois, height, width), np.array([names.index(name) for name in types], np.int64)
        ),
        "scores": np.array([roi.score for roi in rois], np.float32),
        "cell_type_names": names,
    }


def read_rois(path: Path) -> list[AreaRoi]:
    """Read a ROI zip, or a file of one ROI: polygons, freehand and traced ones, rectangles, ovals and composites.

    Raises InputError for a file that is missing or no ROI zip, and names all ROIs without an area, such as lines.
    """
    import roifile

    try:
        rois = _rois(path)
        about = [dict(line.split(": ", 1) for line in roi.props.splitlines() if ": " in line) for roi in rois]
        scores = [float(entries.get("score", "nan")) for entries in about]
        rings = [_rings(roi) for roi in rois]
    except Exception as error:  # of roifile, which meets damaged bytes with whatever they lead to
        raise InputError(f"{path}: not a readable ROI zip ({one_line(str(error))}); save it again") from error
    kinds = roifile.ROI_TYPE
    areas = (kinds.POLYGON, kinds.RECT, kinds.OVAL, kinds.FREEHAND, kinds.TRACED)
    raise_all(
        [
            f"{path}: ROI '{one_line(roi.name)}' is of the kind {roi.roitype.name.lower()} and encloses no pixels; "
            "delete it, or draw the cell as a polygon"
            for roi in rois
            if roi.roitype not in areas
        ]
    )
    entries = zip(rois, scores, about, rings, strict=True)
    return [AreaRoi(roi.name, int(roi.group), score, d.get("type", ""), r) for roi, score, d, r in entries]


def _rois(path: Path) -> list[ImagejRoi]:
    """Read the ROIs of a zip in its order, or of a .roi file; raises ValueError where they would fill the memory."""
    import roifile

    if not zipfile.is_zipfile(path):
        return [roifile.ImagejRoi.frombytes(path.read_bytes())]
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if one.filename.lower().endswith(".roi")]
        members = [one for one in members if not Path(one.filename).name.startswith(".")]  # of macOS
        if sum(one.file_size for one in members) > _MOST:
            raise ValueError(f"it unpacks to more than {_MOST} bytes")
        return [roifile.ImagejRoi.frombytes(archive.read(one)) for one in members]


def _rings(roi: ImagejRoi) -> list[Points]:
    """Return the rings of a ROI; an oval, which roifile gives few corners, exactly enough for its pixels."""
    import roifile

    if roi.roitype != roifile.ROI_TYPE.OVAL or roi.multi_coordinates is not None:
        return [np.asarray(ring, np.float64) for ring in roi.coordinates(multi=True)]
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    corner, other = np.array([roi.left, roi.top], np.float64), np.array([roi.right, roi.bottom], np.float64)
    return [(corner + other + (other - corner) * np.column_stack((np.cos(angle), np.sin(angle)))) / 2]


def runs_of(path: Path, rois: Sequence[AreaRoi], height: int, width: int) -> Runs:
    """Find the pixels of each ROI in an image of this size; raises InputError naming those of `path` without any."""
    rings = [ring for roi in rois for ring in roi.rings]
    owner = [k for k, roi in enumerate(rois) for _ in roi.rings]
    runs = fill(rings, owner, len(rois), height, width)
    raise_all(
        [
            f"{path}: ROI '{one_line(rois[k].name)}' has no pixels within the image of {width}x{height}; delete it"
            for k in np.flatnonzero(runs.areas == 0).tolist()
        ]
    )
    return runs


def _area(polygons: list[Polygon]) -> ImagejRoi:
    return _simple(polygons[0][0]) if len(polygons) == len(polygons[0]) == 1 else _composite(polygons)


def _simple(ring: Ring) -> ImagejRoi:
    import roifile

    roi = _around(ring)
    roi.roitype, roi.n_coordinates = roifile.ROI_TYPE.TRACED, len(ring)
    roi.integer_coordinates = (ring - (roi.left, roi.top)).astype(np.int32)
    if max(roi.right, roi.bottom) > _LARGEST:
        roi.options |= roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.subpixel_coordinates = ring.astype(np.float32)
    return roi


def _composite(polygons: list[Polygon]) -> ImagejRoi:
    import roifile

    rings = [ring for polygon in polygons for ring in polygon]
    roi = _around(np.concatenate(rings))
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.multi_coordinates = np.concatenate([_path(ring.astype(np.float32)) for ring in rings])
    roi.shape_roi_size = len(roi.multi_coordinates)
    return roi


def _around(points: Ring) -> ImagejRoi:
    """Make a ROI with the rectangle around points."""
    import roifile

    roi = roifile.ImagejRoi()
    (roi.left, roi.top), (roi.right, roi.bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return roi


def _path(ring: Floats32) -> Floats32:
    steps = np.column_stack((np.full(len(ring), _LINE, np.float32), ring))
    steps[0, 0] = _MOVE
    return np.append(steps.ravel(), np.float32(_CLOSE))
