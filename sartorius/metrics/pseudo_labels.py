"""What became of the images when pseudo-labels were made, and how many true cells the labels match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sartorius.metrics.functional import image_row
from sartorius.structures import rle


@dataclass
class Counts:
    """Of the images of one cell type. found, found_or_doubtful: cells of the truth that sure, or all, rows match."""

    images: int = 0
    kept: int = 0
    doubtful: int = 0
    dropped: int = 0
    cells: int = 0
    found: int = 0
    found_or_doubtful: int = 0


@dataclass
class Report:
    """What became of the images: counts by cell type, and those without a row, those that were unreadable (and why),
    and those without detections."""

    counts: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    empty: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    unpredicted: list[str] = field(default_factory=list)

    def lines(self, compared: bool) -> list[str]:
        """The report as text, a line for each cell type and for each kind of image that is not in the file."""
        text = []
        for name, own in self.counts.items():
            said = f"{own.images} images, {own.kept} cells, {own.doubtful} doubtful, {own.dropped} detections dropped"
            if compared:
                said += (
                    f"; {own.found} of the cells are right (precision {_share(own.found, own.kept)}), of {own.cells} "
                    f"true ones (recall {_share(own.found, own.cells)}, "
                    f"with the doubtful {_share(own.found_or_doubtful, own.cells)})"
                )
            text.append(f"{name}: {said}")
        for what, images in (
            ("have no cell that passes, and no row", self.empty),
            ("of the folder have no detections", self.unpredicted),
            ("cannot be read and are left out", list(self.bad)),
        ):
            if images:
                more = ", ..." if len(images) > 3 else ""
                text.append(f"{len(images)} images {what}: {', '.join(images[:3])}{more}")
        return text + [f"  {problem}" for problem in self.bad.values()]


def matched(
    annotations: Sequence[str], ignore: Sequence[bool], truth: Sequence[str], height: int, width: int
) -> tuple[int, int]:
    """True cells that a sure annotation, and that any annotation, matches one to one with an IoU above 0.5.

    annotations, truth: run-length texts of an image of height x width pixels; ignore: which annotations are doubtful.
    Raises RleError for a text that is no mask of such an image.
    """
    cells = rle.parse(truth, height, width)
    sure = [text for text, doubtful in zip(annotations, ignore, strict=True) if not doubtful]
    found, either = (int(image_row(0, rle.parse(own, height, width), cells)[1]) for own in (sure, list(annotations)))
    return found, either


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"
