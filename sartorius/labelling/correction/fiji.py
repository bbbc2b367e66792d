"""Cells corrected in Fiji or ImageJ: an image and its ROI zip go out, and the zip that was saved over it comes back."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sartorius.errors import InputError, collected, one_line, raise_all
from sartorius.files import atomic_path, write_json
from sartorius.formats.cells import Cells
from sartorius.formats.rois import AreaRoi, read_rois, runs_of
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.labelling.correction.shapes import cells_of, instances_of, united
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_json

FOLDER = "to_correct"
MARKED = "checked"  # how the names of ROIs begin that enclose what is checked, and are no cells
_NAME = re.compile(r"\d+_(.+?)(-\d+)?")  # of a cell that `formats.rois` wrote; ImageJ adds -1 to names it has already
HELP = """In Fiji, for each of these images:
  1. open ID.png, and ID.zip with it: the ROI Manager lists the cells
  2. delete what is no cell; draw a cell anew and press Update; draw missing ones and press t (Add); a cell's group is
     its type ({types})
  3. is only a part of the image right, or is no cell in it? Draw that part, or all of it, as a rectangle, press t, and
     rename the rectangle to `checked`
  4. choose no ROI, and More > Save... over ID.zip, also where nothing was wrong
Then give the same command again: it takes the labels of the zips that were saved, and writes the next images."""


class FijiFolder:
    """The images that are out: <id>.png and <id>.zip in a folder of the session's, and sent.json with what was sent."""

    def __init__(self, session: CorrectionSession) -> None:
        self.session, self.folder = session, session.root / FOLDER
        self._list = self.folder / "sent.json"
        self.sent: dict[str, str] = {}
        if self._list.is_file():
            remedy = f"move {self.folder} away, and the images are written again"
            content = read_json(self._list, remedy)
            if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
                raise InputError(f"{self._list}: expected a sum for each image; {remedy}")
            self.sent = content

    def read_back(self) -> tuple[dict[str, int], list[str]]:
        """Take the labels of the zips that were saved anew; returns how many cells each has, and all problems.

        Images that are taken are checked, and their files removed; those of the others stay.
        """
        counts: dict[str, int] = {}
        problems: list[str] = []
        for image_id, sum_of in list(self.sent.items()):
            path = self.folder / f"{image_id}.zip"
            if not path.is_file():
                self._forget(image_id)
            elif _sum_of(path) != sum_of:
                with collected(problems):
                    counts[image_id] = self._take(image_id, path)
        return counts, problems

    def write_next(self, most: int, again: Sequence[str] = ()) -> list[str]:
        """Write images in the order of the queue until so many are out; returns all that are out.

        again: images that come first, though they may be checked. Raises InputError for one that is not in the queue.
        """
        if missing := [image_id for image_id in again if image_id not in self.session.queue]:
            raise InputError(
                f"again: image {missing[0]} is not among images=; ids are {self.session.queue[0]} and so on"
            )
        open_images = (image_id for image_id in self.session.queue if self.session.status(image_id) != "checked")
        for image_id in (name for name in (*again, *open_images) if name not in self.sent):
            if len(self.sent) >= most:
                break
            image = self.session.image(image_id)
            correction = self.session.open(image_id, image.shape)
            cells = [correction.cells[number] for number in sorted(correction.cells)]
            rois = Cells(
                image_id,
                instances_of(cells, *image.shape),
                np.array([cell.score for cell in cells], np.float32),
                self.session.about.cell_types,
            )
            with atomic_path(self.folder / f"{image_id}.png") as path:
                Image.fromarray(image).save(path)
            hidden = rois.save(self.folder / f".{image_id}.zip")
            self.sent[image_id] = _sum_of(hidden)
            write_json(self._list, self.sent)  # before the zip has its name: one that is not listed is nobody's
            os.replace(hidden, self.folder / f"{image_id}.zip")
        return list(self.sent)

    def help(self) -> str:
        """Tell what to do in Fiji."""
        types = ", ".join(f"{k} {name}" for k, name in enumerate(self.session.about.cell_types, start=1))
        return HELP.format(types=types)

    def _take(self, image_id: str, path: Path) -> int:
        if image_id not in self.session.images.ids:
            raise InputError(f"{path}: image {image_id} is not among images=; give the images that it was written from")
        image = self.session.image(image_id)
        correction = self._read(path, image.shape)
        count = self.session.save(image_id, image, correction)
        for file in (path, self.folder / f"{image_id}.png"):
            file.unlink(missing_ok=True)
        self._forget(image_id)
        return count

    def _forget(self, image_id: str) -> None:
        del self.sent[image_id]
        write_json(self._list, self.sent)

    def _read(self, path: Path, size: tuple[int, int]) -> Correction:
        rois = read_rois(path)
        marked = np.array([roi.name.lower().startswith(MARKED) for roi in rois], bool)
        types = np.zeros(len(rois), np.int64)
        types[~marked] = self._types(path, [roi for roi in rois if not roi.name.lower().startswith(MARKED)])
        instances = Instances.from_runs(runs_of(path, rois, *size), types)
        drawn = cells_of(instances, np.full(len(rois), np.nan), accepted=True)
        regions = [drawn[k] for k in np.flatnonzero(marked).tolist()]
        cells = [drawn[k] for k in np.flatnonzero(~marked).tolist()]
        return Correction(*size, cells, united(regions) if regions else None)

    def _types(self, path: Path, rois: Sequence[AreaRoi]) -> list[int]:
        names, problems = self.session.about.cell_types, []
        found: list[int | None] = []
        for roi in rois:
            match = _NAME.fullmatch(roi.name)
            kind = roi.cell_type or (match[1] if match else "")
            if roi.group > len(names):
                problems.append(
                    f"{path}: ROI '{one_line(roi.name)}' is of group {roi.group}, but there are {len(names)} cell "
                    f"types ({', '.join(names)}); give it a group from 1 to {len(names)}, or 0"
                )
            found.append(roi.group - 1 if roi.group else names.index(kind) if kind in names else None)
        raise_all(problems)
        known = [kind for kind in found if kind is not None]
        usual = max(range(len(names)), key=known.count)  # the first of equals
        return [usual if kind is None else kind for kind in found]


def _sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
