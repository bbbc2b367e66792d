"""Pseudo-labels: sort an image's cells into sure, doubtful and dropped ones, and compare them with known cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sartorius.data.annotation_rows import read_table, well_of
from sartorius.data.image_files import read_header
from sartorius.data.pseudo_labels.settings import PseudoLabels
from sartorius.errors import InputError
from sartorius.formats.pseudo_labels import ImageLabels, PseudoLabelFile
from sartorius.metrics.pseudo_labels import Report, matched
from sartorius.postprocess import Postprocess, Score
from sartorius.structures import checks
from sartorius.structures.cell_types import UNLABELLED
from sartorius.structures.detections import Detections, DetectionsFolder

_DIGITS = 6  # of score and agreement in the file; compared as they are written, so that every reader decides alike
Texts = Mapping[str, tuple[list[str], list[str]]]  # run-length texts of cells and of unlabelled regions, by image


def label(detections: Detections, postprocess: Postprocess, settings: PseudoLabels) -> ImageLabels:
    """Make the pseudo-labels of an image, best score first.

    Its cell type is the one with the largest sum of scores, and the thresholds are that type's, score from
    `doubtful_score` on. A cell is sure from `min_score` and `min_agreement` on (agreement counts where it is known).
    """
    kind = detections.prevailing_type
    name = detections.cell_type_names[kind]
    least, sure = settings.threshold("doubtful_score", name), settings.threshold("min_score", name)
    of_one_type = replace(detections, cell_types=np.full(len(detections), kind))
    cells = postprocess.with_step(Score(min(least, sure)))(of_one_type)
    scores = np.round(cells.scores.astype(np.float64), _DIGITS)
    ignore, agreement = scores < sure, None
    if detections.agreement is not None:
        agreement = np.round(detections.agreement[cells.source].astype(np.float64), _DIGITS)
        ignore |= agreement < settings.threshold("min_agreement", name)
    return ImageLabels(
        detections.image_id,
        detections.height,
        detections.width,
        name,
        detections.image_id if well_of(detections.image_id) != detections.image_id else "",
        cells.instances.to_rles(),
        scores.tolist(),
        None if agreement is None else agreement.tolist(),
        ignore.tolist(),
        len(detections) - len(cells),
    )


def check_order(settings: PseudoLabels) -> None:
    """Raise InputError where cells would be sure below the score from which on they are doubtful.

    A measured `min_score` (`thresholds`) may be lower than the doubtful one; nothing is doubtful then.
    """
    least, sure = settings.doubtful_score, settings.min_score
    names = [*(least if isinstance(least, Mapping) else ()), *(sure if isinstance(sure, Mapping) else ())]
    for name in dict.fromkeys(names or [""]) if settings.thresholds is None else ():
        low = least.get(name) if isinstance(least, Mapping) else least
        high = sure.get(name) if isinstance(sure, Mapping) else sure
        fine = low is None or high is None or low <= high
        expected = f"a number up to that of pseudo_labels.min_score, {high}"
        checks.expect(fine, "pseudo_labels", f"doubtful_score.{name}".rstrip("."), low, expected)


@dataclass(frozen=True)
class PseudoLabeller:
    """Labels the images of a folder of detections, each into its part of the file; picklable.

    images: files by id, that must hold the images, at the size of their detections; None accepts any.
    """

    folder: DetectionsFolder
    postprocess: Postprocess
    settings: PseudoLabels
    file: PseudoLabelFile
    images: Mapping[str, Path] | None

    def __post_init__(self) -> None:
        check_order(self.settings)

    def is_done(self, image_id: str) -> bool:
        """Tell whether an earlier run labelled the image, as its detections are now."""
        return self.file.has(image_id, self.folder.file(image_id))

    def __call__(self, image_id: str) -> str | None:
        """Label an image; returns the problem where its detections cannot be read or do not fit, else None."""
        try:
            detections = self.folder.load(image_id)
            self._check_size(detections)
        except InputError as error:
            return str(error)
        self._check_agreement(detections)
        self.file.add(label(detections, self.postprocess, self.settings))
        return None

    def _check_size(self, detections: Detections) -> None:
        """Raise InputError unless the image is there, at the size of its detections."""
        if self.images is None:
            return
        if (path := self.images.get(detections.image_id)) is None:
            raise InputError(
                f"image {detections.image_id}, of which there are detections, is not in images=; give their folder"
            )
        height, width = read_header(path)[:2]
        if (height, width) != (detections.height, detections.width):
            raise InputError(
                f"{path}: {width}x{height} pixels, its detections are of {detections.width}x{detections.height}; "
                "predict it again"
            )

    def _check_agreement(self, detections: Detections) -> None:
        asked = self.settings.min_agreement
        if detections.agreement is None and any(asked.values() if isinstance(asked, Mapping) else [asked]):
            raise InputError(
                f"{self.folder.folder}: image {detections.image_id} has no agreement, which "
                f"pseudo_labels.min_agreement={asked} asks for; set it to 0, or give the detections of an ensemble"
            )


def count(report: Report, parts: Iterable[ImageLabels], truth: Texts | None) -> set[bool]:
    """Count the images' rows into the report; returns whether agreement is known, both values where images differ."""
    known = set()
    for labels in parts:
        counts = report.counts[labels.cell_type]
        counts.dropped += labels.dropped
        if truth is not None:
            texts, regions = truth[labels.image_id]
            size = labels.height, labels.width
            try:
                certain, either, judged = matched(labels.annotations, labels.ignore, texts, *size, regions)
            except InputError as error:
                raise InputError(f"truth=: image {labels.image_id}: {error}") from error
            counts.cells += len(texts)
            counts.judged += judged
            counts.matched += certain
            counts.matched_or_doubtful += either
        if not labels.annotations:
            report.empty.append(labels.image_id)
            continue
        known.add(labels.agreement is not None)
        counts.images += 1
        counts.kept += labels.kept
        counts.doubtful += labels.doubtful
    return known


def read_truth(path: str | Path, image_ids: Iterable[str]) -> Texts:
    """Read the run-length texts of each image's cells in a file with the columns id and annotation.

    Rows whose column cell_type, where there is one, is `unlabelled` are regions that nobody has labelled.
    Raises InputError for images without a row.
    """
    table, images = read_table(Path(path), ("id", "annotation")), list(image_ids)
    regions = table["cell_type"] == UNLABELLED if "cell_type" in table else table["id"] != table["id"]
    texts: dict[str, tuple[list[str], list[str]]] = {}
    for image_id, text, region in zip(table["id"], table["annotation"], regions, strict=True):
        of_image = texts.setdefault(str(image_id), ([], []))
        of_image[int(region)].extend([text] if text.strip() else [])
    if unknown := [image_id for image_id in images if image_id not in texts]:
        raise InputError(
            f"truth=: no row for {len(unknown)} of {len(images)} images ({', '.join(unknown[:3])}); it is of other "
            "images: leave it out"
        )
    return texts
