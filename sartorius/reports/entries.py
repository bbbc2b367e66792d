"""The cells and images of a run's folder, opened for a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sartorius.data.competition.folder import Competition
from sartorius.data.files.source import FileImages, predicted_images
from sartorius.data.livecell.folder import LiveCell
from sartorius.data.out_of_fold import type_names
from sartorius.errors import InputError
from sartorius.formats.submission import read_submission
from sartorius.reports.image_cells import Images, Predicted
from sartorius.reports.runs import Run
from sartorius.reports.views import Entry
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.instances import Instances


def from_submission(run: Run, truth: Images) -> Predicted:
    """Read the cells of the csv that a folder of `evaluate` scored; they have neither score nor type."""
    texts = read_submission(run.predictions)
    images = list(texts) if run.table is None else run.table.image_id.tolist()

    def cells(image_id: str) -> tuple[Instances, None]:
        runs = rle.parse(texts.get(image_id, []), *truth.image(image_id).shape)
        return Instances.from_runs(runs, np.zeros(runs.count, np.int64)), None

    return Predicted(images, cells)


def images_of(
    run: Run, root: str | None, fallback: str, images: str | Sequence[str] | None = None
) -> tuple[Images, bool]:
    """Open the run's images; the second value tells whether they come with annotated cells.

    root, images: given by the person, in place of the run's own. fallback: where none is known. Raises InputError where
    the images cannot be read.
    """
    meta = DetectionsFolder(run.detections[0]).meta if run.detections else {}
    if images is None and root is None:
        images = meta.get("images")  # of `predict`
    if run.unscored and images is None:
        raise InputError(f"{run.detections[0]}: does not tell its images; give their folder with images=")
    if images is not None:
        return predicted_images(images, meta), False
    place = root or run.get("data", "root") or fallback
    if str(run.get("data", "_target_")).endswith(".LiveCellDataModule"):
        files, names, repeated = (run.get("data", key) for key in ("annotation_files", "cell_type_names", "repeated"))
        return LiveCell(place, files, names, repeated or "error").split("val"), True
    known = run.get("cell_types") or ()
    # an image that was not predicted may be of a type that the detections do not know
    return Competition(place, tuple(dict.fromkeys([*type_names(run.detections, known or CELL_TYPES), *known]))), True


def entry_of(
    run: Run, root: str | None, fallback: str, from_detections: Callable[[Run], Predicted],
    given: str | Sequence[str] | None = None,
) -> Entry:  # fmt: skip
    """Open the cells and images of a run, with a note for each missing part.

    given: images without truth; bad ones, a bad `root`, and unscored predictions without images raise InputError.
    from_detections: opens the cells of a run with folders of detections.
    """
    if not run.detections and not run.predictions:
        return Entry(run, None, None, False)
    try:
        images, labelled = images_of(run, root, fallback, given)
    except (InputError, OSError) as error:
        if root is not None or given is not None or run.unscored:
            raise
        note = f"no gallery and no cells, the images cannot be read: {error} (give their folder with data.root=)"
        return Entry(run, None, None, False, (note,))
    predicted = from_detections(run) if run.detections else from_submission(run, images)
    if run.unscored and not set(predicted.images) & set(images.ids):
        raise InputError(
            f"{run.detections[0]}: detections of {len(predicted.images)} images ({predicted.images[0]}, ...), none of "
            f"which is among {len(images.ids)} images ({images.ids[0]}, ...); give the predicted ones with images="
        )
    note = "the images have no annotated cells: no scores (give a folder that has them with data.root=)"
    bad = dict(images.problems) if isinstance(images, FileImages) else {}
    for folder_of_run in () if labelled else run.detections:
        bad |= DetectionsFolder(folder_of_run).meta.get("skipped", {})
    return Entry(run, predicted, images, labelled, () if labelled or run.unscored else (note,), bad)
