"""Counts of the images and cells of pseudo-labels, and how many true cells the labels match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sartorius.metrics.functional import image_row
from sartorius.structures import rle


@dataclass
class Counts:
    """Counts of one cell type.

    judged: kept rows that do not lie mostly where nobody has labelled. matched, matched_or_doubtful: cells of the truth
    that sure, or all, rows match.
    """

    images: int = 0
    kept: int = 0
    doubtful: int = 0
    dropped: int = 0
    cells: int = 0
    judged: int = 0
    matched: int = 0
    matched_or_doubtful: int = 0


@dataclass
class Report:
    """Counts by cell type, and the images without a row, those that were unreadable (and why), and those without
    detections."""

    counts: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    empty: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    unpredicted: list[str] = field(default_factory=list)

    def lines(self, compared: bool) -> list[str]:
        """Format the report, a line for each cell type and for each kind of image that is not in the file."""
        text = []
        for name, n in self.counts.items():
            line = f"{name}: {n.images} images, {n.kept} cells, {n.doubtful} doubtful, {n.dropped} detections dropped"
            if compared:
                line += (
                    f"; {n.matched} of the cells are right (precision {_share(n.matched, n.judged)}), of {n.cells} "
                    f"true ones (recall {_share(n.matched, n.cells)}, "
                    f"with the doubtful {_share(n.matched_or_doubtful, n.cells)})"
                )
            text.append(line)
        for problem, images in (
            ("have no cell that passes, and no row", self.empty),
            ("of the folder have no detections", self.unpredicted),
            ("cannot be read and are left out", list(self.bad)),
        ):
            if images:
                more = ", ..." if len(images) > 3 else ""
                text.append(f"{len(images)} images {problem}: {', '.join(images[:3])}{more}")
        return text + [f"  {problem}" for problem in self.bad.values()]


def matched(
    annotations: Sequence[str],
    ignore: Sequence[bool],
    truth: Sequence[str],
    height: int,
    width: int,
    unlabelled: Sequence[str] = (),
) -> tuple[int, int, int]:
    """Count true cells that a sure annotation, and that any annotation, matches one to one with an IoU above 0.5.

    annotations, truth: run-length texts of an image of height x width pixels; ignore: which annotations are doubtful.
    unlabelled: texts of regions that nobody has labelled. Also counts the sure ones that do not lie mostly there.
    Raises RleError for a text that is no mask of such an image.
    """
    cells, ignored = rle.parse(truth, height, width), None
    if unlabelled:
        ignored = rle.parse(unlabelled, height, width).foreground() & ~cells.foreground()
    sure = [text for text, doubtful in zip(annotations, ignore, strict=True) if not doubtful]
    certain, either = (image_row(0, rle.parse(t, height, width), cells, ignored) for t in (sure, list(annotations)))
    return int(certain[1]), int(either[1]), int(certain[-2])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"
