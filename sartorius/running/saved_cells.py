"""Folders of detections opened for a command, and folds of their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.data.competition.folds import assign_image_folds
from sartorius.data.out_of_fold import folder_of
from sartorius.errors import InputError, collected, raise_all
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.data.competition.folder import Competition
    from sartorius.postprocess import Finalised
    from sartorius.postprocess.blocks import CellRuns
    from sartorius.postprocess.finalise import Keeping
    from sartorius.reports.explanation import Explanation
    from sartorius.structures.arrays import Ints
    from sartorius.structures.blocks import Blocks
    from sartorius.structures.rle import Runs


class SavedCells:
    """Several folders of detections as one: those of the folds of a model hold each image once.

    Each folder's own post-processing turns its detections into cells.

    folders: of detections. changes: of every folder's post-processing, on top of what it was saved with; None for none.
    chosen_filter: of false positives, behind it: `saved`, `none` or a file, see `postprocess_of`. truth: the labelled
    images that all detections must be of; None accepts any.

    Raises InputError for an image in two folders and, with `truth`, for one that is not labelled and an empty folder.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        changes: Mapping[str, Any] | None = None,
        chosen_filter: str | None = "saved",
        truth: Competition | None = None,
    ) -> None:
        from sartorius.rescoring.saved import postprocess_of  # not for --help

        opened = [DetectionsFolder(folder) for folder in folders]
        self.folder_of = folder_of(opened, truth)
        self._postprocess = {
            folder: postprocess_of(folder.meta, changes, chosen_filter, str(folder.folder)) for folder in opened
        }

    @property
    def skipped(self) -> dict[str, str]:
        """The images that predictions left out since they could not be read, with their problems."""
        metas = {folder.folder: folder.meta for folder in self.folder_of.values()}
        found = {key: problems for meta in metas.values() for key, problems in (meta.get("skipped") or {}).items()}
        return {
            image_id: problems if isinstance(problems, str) else "; ".join(problems)  # of several members
            for image_id, problems in found.items()
            if image_id not in self.folder_of
        }

    @property
    def image_ids(self) -> list[str]:
        """The images, in the order of the folders."""
        return list(self.folder_of)

    def detections(self, image_id: str) -> Detections:
        """Read the detections of an image."""
        return self.folder_of[image_id].load(image_id)

    def read_all(self, what: str) -> Iterator[Detections]:
        """Read all images in their order, under a progress bar called `what`.

        Raises InputError for all that cannot be read, after the last one.
        """
        problems: list[str] = []
        for image_id in progress_bar(self.image_ids, what):
            with collected(problems):
                yield self.detections(image_id)
        raise_all(problems)

    def cells(self, detections: Detections, overlaps: Keeping = "remove") -> Finalised:
        """Turn detections that were read here into cells, as their folder does; overlaps: see `Postprocess`."""
        return self._postprocess[self.folder_of[detections.image_id]](detections, overlaps)

    def large_cells(self, detections: Detections, large: Blocks, overlaps: Keeping) -> CellRuns:
        """Do the same block by block, for an image that is larger than memory."""
        from sartorius.postprocess.blocks import finalise_by_blocks

        return finalise_by_blocks(self._postprocess[self.folder_of[detections.image_id]], detections, large, overlaps)

    def explain(self, image_id: str, truth: Runs) -> Explanation:
        """Explain the cells of an image beside the annotated ones, see `reports.explanation.explain`."""
        from sartorius.reports.explanation import explain

        return explain(self._postprocess[self.folder_of[image_id]], self.detections(image_id), truth)


def well_folds(
    truth: Competition, images: Sequence[str], folds: int, seed: int, least: int = 2, otherwise: str = ""
) -> Ints:
    """Assign a fold to each image, int64 [N], the images of a plate well together.

    Raises InputError for fewer than `least` folds or more than wells; `otherwise` ends its sentence.
    """
    wells = len({truth.wells[image_id] for image_id in images})
    if not least <= folds <= wells:
        raise InputError(
            f"folds={folds}: the detections are of {wells} {truth.well_name}s, so {least} to {wells} folds{otherwise}"
        )
    return assign_image_folds(truth, images, folds, seed)
