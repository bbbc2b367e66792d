"""Cells corrected in Fiji or ImageJ: an image and its ROI zip go out, and the zip that was saved over it comes back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sartorius.data.competition.about import read_about
from sartorius.errors import InputError, collected
from sartorius.files import atomic_path, write_json
from sartorius.formats import rois
from sartorius.formats.cells import Cells
from sartorius.formats.polygons import trace
from sartorius.labelling.correction.edits import Correction
from sartorius.labelling.correction.returned import (
    MARKED,
    Returned,
    pixels_of,
    read_returned,
    refuse_others,
    sum_of,
)
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.labelling.correction.shapes import EditedCell, instances_of
from sartorius.structures.reading import read_json

FOLDER = "to_correct"
_SUFFIXES = (".zip", ".roi", ".zip.roi")  # Fiji saves a single ROI as .roi
HELP = """In Fiji, for each of these images:
  1. empty the ROI Manager (Deselect, Delete): it keeps the ROIs of the image before
  2. open ID.png, and ID.zip with it: the ROI Manager lists the cells
  3. delete what is no cell; draw a cell anew and press Update; draw missing ones and press t (Add); a cell's group is
     its type ({types})
  4. is only a part of the image right, or is no cell in it? Draw that part, or all of it, as a rectangle, press t, and
     rename the rectangle to `checked`; a ROI of this name in the zip is the part that was checked before; beyond it
     the cells that you draw or change are labels, and those that you leave as they are teach nothing
  5. choose no ROI, and More > Save... over ID.zip, also where nothing was wrong; Fiji saves a single ROI as ID.roi or
     ID.zip.roi, which is read too
Then give the same command again: it takes the labels of the files that were saved, and writes the next images."""


@dataclass(frozen=True)
class Sent:
    """What went out of an image.

    zip: sum of the file.  cell_types: names of the groups, from 1.  state: sum of the cells, their types and the
    region.  cells: sum of the pixels of each cell.  predicted: sum and type of those that nobody had accepted.
    """

    zip: str
    cell_types: list[str]
    state: str
    cells: list[str]
    predicted: list[str]


class FijiFolder:
    """The images that are out: <id>.png and <id>.zip in a folder of the session's, and sent.json with what was sent.

    taken: sums of the cells of images that came back, which other images cannot have.
    """

    def __init__(self, session: CorrectionSession) -> None:
        self.session, self.folder = session, session.root / FOLDER
        self._list = self.folder / "sent.json"
        self.sent: dict[str, Sent] = {}
        self.taken: dict[str, list[str]] = {}
        if self._list.is_file():
            remedy = f"move {self.folder} away, and the images are written again"
            content = read_json(self._list, remedy)
            try:
                self.sent = {image_id: Sent(**entry) for image_id, entry in content["sent"].items()}
                self.taken = {image_id: list(sums) for image_id, sums in content["taken"].items()}
            except (KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{self._list}: expected what was sent of each image; {remedy}") from error

    def read_back(self) -> tuple[dict[str, int], list[str], list[str]]:
        """Take the labels of the files that were saved anew; returns cells by image, what to tell, and all problems.

        Images that are taken are checked, and their files removed; those of the others stay. Images without a zip are
        no longer out.
        """
        counts: dict[str, int] = {}
        told: list[str] = []
        known = {path for image_id in self.sent for path in self._of(image_id)}
        problems = [
            f"{path}: no image of this name is out, so it is not read; rename it to the zip of its image, or move it "
            "away"
            for path in sorted(self.folder.glob("[!.]*"))
            if path.suffix.lower() in (".zip", ".roi") and path not in known
        ]
        returned: dict[str, Returned] = {}
        for image_id in list(self.sent):
            files = [path for path in self._of(image_id) if path.is_file()]
            if not files:
                if image_id not in self.taken:  # else it was read, and the program ended before it was forgotten
                    told.append(f"{image_id}: {image_id}.zip is gone, so that nothing of it is read")
                self._forget(image_id)
            with collected(problems):
                if saved := [path for path in files if sum_of(path.read_bytes()) != self.sent[image_id].zip]:
                    returned[image_id] = self._read(image_id, saved)
        owned = {**self.taken, **{image_id: entry.cells for image_id, entry in self.sent.items()}}
        for image_id in returned:
            with collected(problems):
                refuse_others(image_id, returned, owned)
                counts[image_id] = self._take(image_id, returned[image_id])
                if left := len(returned[image_id].correction.cells) - counts[image_id]:
                    told.append(f"{image_id}: {left} cells beyond the checked part that nobody changed are no labels")
        return counts, told, problems

    def write_next(self, most: int, again: Sequence[str] = ()) -> list[str]:
        """Write images in the order of the queue until so many are out; returns all that are out.

        again: images that go out in any case, though they may be checked. An image with a file of its name that is not
        read, see `read_back`, does not go out. Raises InputError for one that is not in the queue.
        """
        if missing := [image_id for image_id in again if image_id not in self.session.queue]:
            raise InputError(
                f"again: image {missing[0]} is not among images=; ids are {self.session.queue[0]} and so on"
            )
        for image_id in (*again, *self.session.queue):
            wanted = image_id in again or (len(self.sent) < most and self.session.status(image_id) != "checked")
            if wanted and image_id not in self.sent and not any(path.exists() for path in self._of(image_id)):
                self._send(image_id)
        return list(self.sent)

    def help(self) -> str:
        """Tell what to do in Fiji."""
        ids_of: dict[str, list[str]] = {}
        for image_id in self.sent:
            types = ", ".join(f"{k} {name}" for k, name in enumerate(self._groups(image_id), start=1))
            ids_of.setdefault(types, []).append(image_id)
        several = (f"{types} in {', '.join(ids)}" for types, ids in ids_of.items())
        return HELP.format(types="; ".join(ids_of if len(ids_of) == 1 else several))

    def _groups(self, image_id: str) -> Sequence[str]:
        """Return the types of groups from 1: those that went out, and what has been added behind them since."""
        sent, names = self.sent[image_id].cell_types, self.session.about.cell_types
        return names if [*names[: len(sent)]] == sent else sent

    def _of(self, image_id: str) -> list[Path]:
        return [self.folder / f"{image_id}{suffix}" for suffix in _SUFFIXES]

    def _send(self, image_id: str) -> None:
        session, image = self.session, self.session.image(image_id)
        correction = session.open(image_id, image.shape)
        cells = [correction.cells[number] for number in sorted(correction.cells)]
        scores, names = np.array([cell.score for cell in cells], np.float32), session.about.cell_types
        known = Cells(image_id, instances_of(cells, *image.shape), scores, names)
        region = correction.region
        others = {} if region is None else {MARKED: trace(instances_of([region], *image.shape))[0]}
        if read_about(session.root) != session.about:
            session.about.write(session.root)  # what comes back is of these types, and of images that were read so
        with atomic_path(self.folder / f"{image_id}.png") as path:
            Image.fromarray(image).save(path)
        hidden = self.folder / f".{image_id}.zip"
        rois.write(known, hidden, others)
        sums = [pixels_of(cell) for cell in cells]
        predicted = [_described(cell, names) for cell in cells if not cell.accepted]
        self.sent[image_id] = Sent(sum_of(hidden.read_bytes()), [*names], _state(correction, names), sums, predicted)
        self.taken.pop(image_id, None)
        self._keep()  # before the zip has its name: one that is not listed is nobody's
        os.replace(hidden, self.folder / f"{image_id}.zip")

    def _take(self, image_id: str, returned: Returned) -> int:
        session, path, image, correction = self.session, returned.path, returned.image, returned.correction
        status, names = session.status(image_id), session.about.cell_types
        now = session.open(image_id, image.shape) if status != "open" else None
        draft = session.draft(image_id)
        other = now is not None and _state(now, names) != self.sent[image_id].state
        if other and (draft.exists() or not session.has_saved(image_id, image, correction)):  # else a run ended then
            raise InputError(
                f"{path}: the image has edits in napari too; save these and delete this file, or delete {draft.path}"
                if draft.exists()
                else f"{path}: since the image went out it was saved with other labels than this file has; delete the "
                f"file, and give again=[{image_id}] to correct what was saved"
            )
        count = session.save(image_id, image, correction)
        self.taken[image_id] = returned.sums
        self._keep()  # before the files are gone, which it explains
        for file in (self.folder / f"{image_id}.png", *self._of(image_id)):
            file.unlink(missing_ok=True)
        self._forget(image_id)
        return count

    def _forget(self, image_id: str) -> None:
        del self.sent[image_id]
        self._keep()

    def _keep(self) -> None:
        sent = {image_id: asdict(entry) for image_id, entry in self.sent.items()}
        write_json(self._list, {"sent": sent, "taken": self.taken})

    def _read(self, image_id: str, saved: Sequence[Path]) -> Returned:
        path = saved[0]
        if len(saved) > 1:
            raise InputError(f"{path}: {saved[1].name} was saved too; delete the one that is not right")
        if image_id not in self.session.images.ids:
            raise InputError(f"{path}: image {image_id} is not among images=; give the images that it was written from")
        names = self.session.about.cell_types
        returned = read_returned(path, self.session.image(image_id), self._groups(image_id), names)
        cells, predicted = returned.correction.cells, {*self.sent[image_id].predicted}
        untouched = {n: cell for n, cell in cells.items() if _described(cell, names) in predicted}
        cells.update({number: replace(cell, accepted=False) for number, cell in untouched.items()})
        return returned


def _described(cell: EditedCell, names: Sequence[str]) -> str:
    return f"{pixels_of(cell)} {names[cell.cell_type]}"


def _state(correction: Correction, names: Sequence[str]) -> str:
    cells = [_described(cell, names) for _, cell in sorted(correction.cells.items())]
    region = "" if correction.region is None else pixels_of(correction.region)
    return sum_of("\n".join([region, *cells]).encode())
