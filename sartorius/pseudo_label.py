"""Turn detections into pseudo-labels: `python -m sartorius.pseudo_label detections=DIR/detections output=FILE.csv`.

Best of an ensemble's detections of unlabelled pictures. Each picture's cells, free of overlaps and of the cell type
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

from sartorius import wiring
from sartorius.errors import InputError
from sartorius.export.pseudo_labels import PictureLabels, PseudoLabelFile
from sartorius.progress import watched
from sartorius.workers import worker_map

if TYPE_CHECKING:
    from sartorius.data.pseudo_labels import PseudoLabels
    from sartorius.detections import Detections, DetectionsFolder
    from sartorius.metrics.pseudo_labels import Counts, Report
    from sartorius.postprocess import Postprocess

_DIGITS = 6  # of score and agreement in the file; decided by as they are written, so that whoever reads decides alike
Texts = Mapping[str, list[str]]


def label(found: Detections, postprocess: Postprocess, settings: PseudoLabels) -> PictureLabels:
    """The pseudo-labels of a picture, best score first.

    Its cell type is the one with the largest sum of scores, and the thresholds are that type's, score from
    `doubtful_score` on. A cell is sure from `min_score` and `min_agreement` on (agreement counts where it is known).
    """
    from sartorius.data.annotation_rows import well_of

    kind = found.prevailing_type
    name = found.cell_type_names[kind]
    least, sure = settings.cut_off("doubtful_score", name), settings.cut_off("min_score", name)
    cells = replace(postprocess, score=min(least, sure))(replace(found, cell_types=np.full(len(found), kind)))
    scores = np.round(cells.scores.astype(np.float64), _DIGITS)
    ignore, agreement = scores < sure, None
    if found.agreement is not None:
        agreement = np.round(found.agreement[cells.source].astype(np.float64), _DIGITS)
        ignore |= agreement < settings.cut_off("min_agreement", name)
    return PictureLabels(
        found.picture,
        found.height,
        found.width,
        name,
        found.picture if well_of(found.picture) != found.picture else "",
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
    """Write the file, one picture in memory at a time; pictures that a stopped run finished are not done again.

    images: folder that must hold the pictures, at the size of their detections; None asks for none. truth: run-length
    texts of the true cells by picture. skip_bad: go on after a picture that cannot be read. workers: processes that
    share the pictures; the file is the same with any number.

    Raises InputError for fewer than one worker, a folder without detections, a bad picture (without skip_bad), a
    picture that is missing or of another size, a `min_agreement` where agreement is not known, truth that lacks a
    picture, and where nothing is left to write (the parts are deleted then).
    """
    from sartorius.metrics.pseudo_labels import Report

    if workers < 1:
        raise InputError(f"workers={workers}: expected the number of processes, 1 or more")
    pictures, sizes, report = folder.pictures(), _sizes(images), Report()
    if not pictures:
        raise InputError(f"{folder.folder}: no detections in it; `ensemble` and `predict` write them")
    if unknown := [picture for picture in pictures if truth is not None and picture not in truth]:
        raise InputError(
            f"truth=: no row for {len(unknown)} of {len(pictures)} pictures ({', '.join(unknown[:3])}); it is of other "
            "pictures: leave it out"
        )
    report.unpredicted = sorted(set(sizes or ()) - set(pictures))
    cut_offs = {key: getattr(settings, key) for key in ("min_score", "doubtful_score", "min_agreement")}
    made_with = {"detections": str(folder.folder.resolve()), **cut_offs, "postprocess": repr(postprocess)}
    file = PseudoLabelFile(output, made_with)
    part = _Part(folder, postprocess, settings, file, images, sizes, skip_bad)
    with worker_map(workers) as each:
        for picture, problem in zip(watched(pictures, "labelling"), each(part, pictures), strict=True):
            if problem is not None:
                report.bad[picture] = problem
    done = [picture for picture in pictures if picture not in report.bad]
    known = _count(report, (file.read(picture) for picture in done), truth)
    if len(report.empty) == len(done):
        file.discard()
        raise InputError(
            f"{output} was not written: of {len(pictures)} pictures none has a cell from pseudo_labels.doubtful_score="
            f"{settings.doubtful_score} on ({len(report.bad)} cannot be read); lower it"
        )
    if len(known) > 1:
        raise InputError(
            f"{folder.folder}: some pictures have an agreement and some have none; let one ensemble write them all"
        )
    file.finish(done, agreement=True in known)
    return report


@dataclass(frozen=True)
class _Part:
    """Makes the part of a picture; returns what is wrong with a bad one where those are skipped."""

    folder: DetectionsFolder
    postprocess: Postprocess
    settings: PseudoLabels
    file: PseudoLabelFile
    images: str | Path | None
    sizes: Mapping[str, Path] | None
    skip_bad: bool

    def __call__(self, picture: str) -> str | None:
        if self.file.has(picture, self.folder.folder / f"{picture}.npz"):
            return None
        try:
            found = self.folder.load(picture)
            _check_size(found, self.images, self.sizes)
        except InputError as error:
            if not self.skip_bad:
                raise
            return str(error)
        _check_agreement(found, self.settings, self.folder)
        self.file.add(label(found, self.postprocess, self.settings))
        return None


def _count(report: Report, parts: Iterable[PictureLabels], truth: Texts | None) -> set[bool]:
    """Count the pictures' rows into the report; returns whether agreement is known, both where pictures differ."""
    known = set()
    for labels in parts:
        own = report.counts[labels.cell_type]
        own.dropped += labels.dropped
        if truth is not None:
            _compare(own, labels, truth[labels.picture])
        if not labels.annotations:
            report.empty.append(labels.picture)
            continue
        known.add(labels.agreement is not None)
        own.pictures += 1
        own.kept += labels.kept
        own.doubtful += labels.doubtful
    return known


def _compare(counts: Counts, labels: PictureLabels, truth: list[str]) -> None:
    from sartorius.metrics.pseudo_labels import matched

    try:
        found, either = matched(labels.annotations, labels.ignore, truth, labels.height, labels.width)
    except InputError as error:
        raise InputError(f"truth=: picture {labels.picture}: {error}") from error
    counts.cells += len(truth)
    counts.found += found
    counts.found_or_doubtful += either


def _check_size(found: Detections, images: str | Path | None, sizes: Mapping[str, Path] | None) -> None:
    """Raise InputError unless the picture is there, at the size of its detections."""
    if sizes is None:
        return
    from sartorius.data.pictures import read_header

    if found.picture not in sizes:
        raise InputError(f"{images}: no picture {found.picture}, of which there are detections; give their folder")
    height, width, _ = read_header(sizes[found.picture])
    if (height, width) != (found.height, found.width):
        raise InputError(
            f"{sizes[found.picture]}: {width}x{height} pixels, its detections are of {found.width}x{found.height}; "
            "predict it again"
        )


def _check_agreement(found: Detections, settings: PseudoLabels, folder: DetectionsFolder) -> None:
    asked = settings.min_agreement
    if found.agreement is None and any(asked.values() if isinstance(asked, Mapping) else [asked]):
        raise InputError(
            f"{folder.folder}: picture {found.picture} has no agreement, which pseudo_labels.min_agreement={asked} "
            "asks for; set it to 0, or give the detections of an ensemble"
        )


def _sizes(images: str | Path | None) -> dict[str, Path] | None:
    """The picture files of the folder by id."""
    from sartorius.data.pictures import list_pictures

    return None if images is None else {path.stem: path for path in list_pictures(images)}


def read_truth(path: str | Path) -> Texts:
    """The run-length texts of each picture's cells in a file with the columns id and annotation."""
    from sartorius.data.annotation_rows import read_table

    table = read_table(Path(path), ("id", "annotation"))
    return {str(picture): [text for text in own if text.strip()] for picture, own in table.groupby("id")["annotation"]}


@wiring.verb("pseudo_label")
def main(cfg: DictConfig) -> Report:
    """Write the pseudo-labels of a folder of detections, and say what was kept."""
    from sartorius.detections import DetectionsFolder
    from sartorius.postprocess.saved import from_saved

    folder = DetectionsFolder(cfg.detections)
    settings: PseudoLabels = wiring.instantiate(cfg.pseudo_labels)
    postprocess = from_saved(folder.meta.get("postprocess"), wiring.plain(cfg.postprocess), str(cfg.detections))
    truth = None if cfg.truth is None else read_truth(cfg.truth)
    options = (cfg.output, cfg.images, truth, cfg.skip_bad, cfg.workers)
    report = pseudo_label(folder, postprocess, settings, *options)
    print("\n".join([*report.lines(truth is not None), f"written: {cfg.output}"]))
    return report


if __name__ == "__main__":
    main()
