"""Turn detections into pseudo-labels: `python -m sartorius.pseudo_label detections=DIR/detections output=FILE.csv`.

Best of an ensemble's detections of unlabelled images. Each image's cells, free of overlaps and of the cell type
that prevails in it, become rows in the columns of train.csv with score, agreement and ignore: sure cells, doubtful ones
(`ignore`), and below the lower cut-off nothing. `data=pseudo_labelled pseudo_labels.file=FILE.csv` trains on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.formats.pseudo_labels import ImageLabels, PseudoLabelFile
from sartorius.running import wiring
from sartorius.running.commands import command
from sartorius.running.workers import worker_map
from sartorius.structures.progress import progress_bar

if TYPE_CHECKING:
    from sartorius.data.pseudo_labels.settings import PseudoLabels
    from sartorius.metrics.pseudo_labels import Counts, Report
    from sartorius.postprocess import Postprocess
    from sartorius.structures.detections import Detections, DetectionsFolder

_DIGITS = 6  # of score and agreement in the file; decided by as they are written, so that whoever reads decides alike
Texts = Mapping[str, list[str]]


def label(found: Detections, postprocess: Postprocess, settings: PseudoLabels) -> ImageLabels:
    """The pseudo-labels of an image, best score first.

    Its cell type is the one with the largest sum of scores, and the thresholds are that type's, score from
    `doubtful_score` on. A cell is sure from `min_score` and `min_agreement` on (agreement counts where it is known).
    """
    from sartorius.data.annotation_rows import well_of
    from sartorius.postprocess import Score

    kind = found.prevailing_type
    name = found.cell_type_names[kind]
    least, sure = settings.threshold("doubtful_score", name), settings.threshold("min_score", name)
    cells = postprocess.with_step(Score(min(least, sure)))(replace(found, cell_types=np.full(len(found), kind)))
    scores = np.round(cells.scores.astype(np.float64), _DIGITS)
    ignore, agreement = scores < sure, None
    if found.agreement is not None:
        agreement = np.round(found.agreement[cells.source].astype(np.float64), _DIGITS)
        ignore |= agreement < settings.threshold("min_agreement", name)
    return ImageLabels(
        found.image_id,
        found.height,
        found.width,
        name,
        found.image_id if well_of(found.image_id) != found.image_id else "",
        cells.instances.to_rles(),
        scores.tolist(),
        None if agreement is None else agreement.tolist(),
        ignore.tolist(),
        len(found) - len(cells),
    )


def pseudo_label(
    folder: DetectionsFolder,
    postprocess: Postprocess,
    settings: PseudoLabels,
    output: str | Path,
    images: str | Path | None,
    truth: Texts | None,
    skip_bad: bool,
    workers: int = 1,
) -> Report:
    """Write the file, one image in memory at a time; images that a stopped run finished are not done again.

    images: folder that must hold the images, at the size of their detections; None asks for none. truth: run-length
    texts of the true cells by image. skip_bad: go on after an image that cannot be read. workers: processes that
    share the images; the file is the same with any number.

    Raises InputError for fewer than one worker, a folder without detections, a bad image (without skip_bad), an
    image that is missing or of another size, a `min_agreement` where agreement is not known, truth that lacks an
    image, and where nothing is left to write (the parts are deleted then).
    """
    from sartorius.metrics.pseudo_labels import Report

    if workers < 1:
        raise InputError(f"workers={workers}: expected the number of processes, 1 or more")
    image_ids, sizes, report = folder.image_ids(), _sizes(images), Report()
    if not image_ids:
        raise InputError(f"{folder.folder}: no detections in it; `ensemble` and `predict` write them")
    if unknown := [image_id for image_id in image_ids if truth is not None and image_id not in truth]:
        raise InputError(
            f"truth=: no row for {len(unknown)} of {len(image_ids)} images ({', '.join(unknown[:3])}); it is of other "
            "images: leave it out"
        )
    report.unpredicted = sorted(set(sizes or ()) - set(image_ids))
    made_with = {"detections": str(folder.folder.resolve()), **settings.limits, "postprocess": repr(postprocess)}
    file = PseudoLabelFile(output, made_with)
    part = _Part(folder, postprocess, settings, file, images, sizes, skip_bad)
    with worker_map(workers) as each:
        for image_id, problem in zip(progress_bar(image_ids, "labelling"), each(part, image_ids), strict=True):
            if problem is not None:
                report.bad[image_id] = problem
    done = [image_id for image_id in image_ids if image_id not in report.bad]
    known = _count(report, (file.read(image_id) for image_id in done), truth)
    if len(report.empty) == len(done):
        file.discard()
        raise InputError(
            f"{output} was not written: of {len(image_ids)} images none has a cell from pseudo_labels.doubtful_score="
            f"{settings.doubtful_score} on ({len(report.bad)} cannot be read); lower it"
        )
    if len(known) > 1:
        raise InputError(
            f"{folder.folder}: some images have an agreement and some have none; let one ensemble write them all"
        )
    file.finish(done, agreement=True in known)
    return report


@dataclass(frozen=True)
class _Part:
    """Makes the part of an image; returns what is wrong with a bad one where those are skipped."""

    folder: DetectionsFolder
    postprocess: Postprocess
    settings: PseudoLabels
    file: PseudoLabelFile
    images: str | Path | None
    sizes: Mapping[str, Path] | None
    skip_bad: bool

    def __call__(self, image_id: str) -> str | None:
        if self.file.has(image_id, self.folder.folder / f"{image_id}.npz"):
            return None
        try:
            found = self.folder.load(image_id)
            _check_size(found, self.images, self.sizes)
        except InputError as error:
            if not self.skip_bad:
                raise
            return str(error)
        _check_agreement(found, self.settings, self.folder)
        self.file.add(label(found, self.postprocess, self.settings))
        return None


def _count(report: Report, parts: Iterable[ImageLabels], truth: Texts | None) -> set[bool]:
    """Count the images' rows into the report; returns whether agreement is known, both where images differ."""
    known = set()
    for labels in parts:
        own = report.counts[labels.cell_type]
        own.dropped += labels.dropped
        if truth is not None:
            _compare(own, labels, truth[labels.image_id])
        if not labels.annotations:
            report.empty.append(labels.image_id)
            continue
        known.add(labels.agreement is not None)
        own.images += 1
        own.kept += labels.kept
        own.doubtful += labels.doubtful
    return known


def _compare(counts: Counts, labels: ImageLabels, truth: list[str]) -> None:
    from sartorius.metrics.pseudo_labels import matched

    try:
        found, either = matched(labels.annotations, labels.ignore, truth, labels.height, labels.width)
    except InputError as error:
        raise InputError(f"truth=: image {labels.image_id}: {error}") from error
    counts.cells += len(truth)
    counts.found += found
    counts.found_or_doubtful += either


def _check_size(found: Detections, images: str | Path | None, sizes: Mapping[str, Path] | None) -> None:
    """Raise InputError unless the image is there, at the size of its detections."""
    if sizes is None:
        return
    from sartorius.data.images import read_header

    if found.image_id not in sizes:
        raise InputError(f"{images}: no image {found.image_id}, of which there are detections; give their folder")
    height, width, _ = read_header(sizes[found.image_id])
    if (height, width) != (found.height, found.width):
        raise InputError(
            f"{sizes[found.image_id]}: {width}x{height} pixels, its detections are of {found.width}x{found.height}; "
            "predict it again"
        )


def _check_agreement(found: Detections, settings: PseudoLabels, folder: DetectionsFolder) -> None:
    asked = settings.min_agreement
    if found.agreement is None and any(asked.values() if isinstance(asked, Mapping) else [asked]):
        raise InputError(
            f"{folder.folder}: image {found.image_id} has no agreement, which pseudo_labels.min_agreement={asked} "
            "asks for; set it to 0, or give the detections of an ensemble"
        )


def _sizes(images: str | Path | None) -> dict[str, Path] | None:
    """The image files of the folder by id."""
    from sartorius.data.images import list_images

    return None if images is None else {path.stem: path for path in list_images(images)}


def read_truth(path: str | Path) -> Texts:
    """The run-length texts of each image's cells in a file with the columns id and annotation."""
    from sartorius.data.annotation_rows import read_table

    table = read_table(Path(path), ("id", "annotation"))
    return {
        str(image_id): [text for text in own if text.strip()] for image_id, own in table.groupby("id")["annotation"]
    }


@command("pseudo_label")
def main(cfg: DictConfig) -> Report:
    """Write the pseudo-labels of a folder of detections, and say what was kept."""
    from sartorius.postprocess.saved import from_saved
    from sartorius.structures.detections import DetectionsFolder

    folder = DetectionsFolder(cfg.detections)
    settings: PseudoLabels = wiring.instantiate(cfg.pseudo_labels)
    postprocess = from_saved(folder.meta.get("postprocess"), wiring.plain(cfg.postprocess), str(cfg.detections))
    truth = None if cfg.truth is None else read_truth(str(cfg.truth))
    options = (str(cfg.output), cfg.images and str(cfg.images), truth, cfg.skip_bad, cfg.workers)
    report = pseudo_label(folder, postprocess, settings, *options)
    print("\n".join([*report.lines(truth is not None), f"written: {cfg.output}"]))
    return report


if __name__ == "__main__":
    main()
