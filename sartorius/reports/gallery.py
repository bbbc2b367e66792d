"""The gallery: each image once, and over it outlines of annotated and predicted cells in layers.

Annotated cells are drawn once however many runs there are: their groups are named by the views that miss them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sartorius.errors import InputError
from sartorius.reports.explanation import Explanation
from sartorius.reports.image_cells import ImageCells
from sartorius.reports.outlines import TOLERANCE, encoded, outline
from sartorius.reports.unscored import facts_of
from sartorius.reports.views import Entry, RunView
from sartorius.structures.arrays import Scores
from sartorius.structures.instances import Instances

_BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="  # a transparent pixel
_NO_SIZE = (520, 704)  # of an image that is not known
_NUMBERS = {"cells": "cells", "confluence": "confluence", "mean_score": "mean"}  # of a row, and of page.js


@dataclass(frozen=True)
class Style:
    """The appearance of the gallery's images.

    images: at most so many. best: share of them that are the best ones where there are more; the rest are the worst.
    unscored: at most so many without truth. width: pixels; wider images are shrunk to it, and more than `images` to
    fewer pixels. quality: of WebP, 1 to 100.
    """

    images: int
    unscored: int
    best: float
    width: int
    quality: int

    def __post_init__(self) -> None:
        counts = min(self.images, self.unscored)
        if counts < 0 or not 0 <= self.best <= 1 or self.width < 16 or not 1 <= self.quality <= 100:
            raise InputError(
                f"gallery.images={self.images}, gallery.unscored={self.unscored}, gallery.best={self.best}, "
                f"gallery.width={self.width}, gallery.quality={self.quality}: expected 0 or more (both), 0 to 1, "
                "16 or more, 1 to 100"
            )

    def for_images(self, count: int) -> Style:
        """Return the style of a gallery of so many images: together they have the pixels that `images` have."""
        share = (max(self.images, 1) / count) ** 0.5 if count > self.images else 1.0
        return replace(self, width=max(16, round(share * self.width)))


@dataclass(frozen=True)
class Layer:
    """Outlines of one colour: CSS classes, path data, and a text a cell, `;` between them (see page.js)."""

    classes: str
    path: str
    cells: str


@dataclass(frozen=True)
class Card:
    """One image of the gallery.

    By view: scores, None where it has none; counts, (found, missed, false); steps, the detections that each step of
    post-processing leaves, "" where they are not known; facts, what a view without truth counts, "" where it has none.
    numbers: to sort by; `cells` are the annotated ones where there is truth. mark: bad, empty or unreadable, and
    problem, why.
    """

    image_id: str
    cell_type: str
    run: str
    width: int
    height: int
    image: str
    scores: Sequence[float | None]
    counts: Sequence[tuple[int, int, int] | None]
    steps: Sequence[str]
    layers: Sequence[Layer]
    facts: Sequence[str] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    mark: str = ""
    problem: str = ""

    @property
    def mean(self) -> float:
        """The mean score of the views that have one; -1 without."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else -1.0


def chosen(views: Sequence[RunView], style: Style) -> list[str]:
    """Choose the images of the gallery, worst first by the mean of the views' scores; those without truth by name."""
    if not any(view.scores for view in views) and any(view.counted for view in views):
        return sorted({image_id for view in views for image_id in view.sources})[: style.unscored]
    scores = [view.scores for view in views]

    def place(image_id: str) -> tuple[float, str]:
        known = [of[image_id] for of in scores if image_id in of]
        return (sum(known) / len(known) if known else 0.0, image_id)

    ordered = sorted({image_id for view in views for image_id in view.sources}, key=place)
    if len(ordered) <= style.images:
        return ordered
    best = round(style.best * style.images)
    return ordered[: style.images - best] + ordered[len(ordered) - best :]


def card(image_id: str, views: Sequence[RunView], style: Style) -> Card:
    """Make the card of an image that at least one view can show."""
    having = {k: view for k, view in enumerate(views) if image_id in view.sources}
    entries = [view.sources[image_id] for view in having.values()]
    entry = next((e for e in entries if e.labelled), entries[0])
    assert entry.images is not None
    if not entry.labelled:
        return _card_without_truth(image_id, entry, views, style)
    image = entry.images.image(image_id)
    compared = {k: view.compared[image_id] for k, view in having.items() if image_id in view.compared}
    truth = entry.images.instances(image_id) if compared else None
    layers: list[Layer] = []
    explained: dict[int, Explanation] = {}
    for k, view in having.items():
        predicted = view.sources[image_id].predicted
        assert predicted is not None
        layers += _predicted(k, *predicted.cells(image_id), compared.get(k))
        if k in compared and truth is not None and predicted.explain is not None:
            explained[k] = predicted.explain(image_id, truth.to_runs())
    if truth is not None:
        layers = _annotated(truth, [compared.get(k) for k in range(len(views))], explained) + layers
    return Card(
        image_id, entry.images.cell_type(image_id), entry.run.name, image.shape[1], image.shape[0],
        encoded(image, style.width, style.quality), [view.scores.get(image_id) for view in views],
        [view.counts(image_id) if image_id in view.scores else None for view in views],
        [explained[k].steps if k in explained else "" for k in range(len(views))], layers,
        numbers={"cells": 0 if truth is None else len(truth)},
    )  # fmt: skip


def _card_without_truth(image_id: str, entry: Entry, views: Sequence[RunView], style: Style) -> Card:
    """Make the card of an image that no view has truth for; of a bad one without the image, with the problem.

    Raises InputError where cells are of another size than the image.
    """
    assert entry.images is not None
    rows = [view.counted.get(image_id) for view in views]
    marks = [str(row["status"]) for row in rows if row and row["status"] != "ok"]
    image, mark = None, max(marks, default="", key=("empty", "bad").index)
    problem = next((str(row["problem"]) for row in rows if row and row["status"] == "bad"), "")
    try:
        if image_id not in entry.images.ids:
            raise InputError(entry.bad.get(image_id, "not among the images"))
        image = entry.images.image(image_id)
    except InputError as error:
        mark, problem = mark or "unreadable", problem or str(error)
    size, layers = None if image is None else image.shape, list[Layer]()
    for k, (view, row) in enumerate(zip(views, rows, strict=True)):
        predicted = view.sources[image_id].predicted if row and row["status"] != "bad" else None
        if predicted is None:
            continue
        cells, scores = predicted.cells(image_id)
        if size not in (None, (cells.height, cells.width)):
            raise InputError(
                f"image {image_id}: {size[1]}x{size[0]} pixels, its cells are of {cells.width}x{cells.height}; the "
                "predictions are of another image"
            )
        size = cells.height, cells.width
        tolerance = TOLERANCE * max(1.0, cells.width / style.width)
        layers += _predicted(k, cells, scores, None, predicted.type_names, tolerance)
    height, width = size or _NO_SIZE
    counts = [row for row in rows if row and row["status"] != "bad"]
    numbers = {to: float(np.mean([row[key] or 0.0 for row in counts])) for key, to in _NUMBERS.items() if counts}
    numbers["marked"] = ["", "empty", "unreadable", "bad"].index(mark)
    facts = ["" if row is None else facts_of(row, view.types) for row, view in zip(rows, views, strict=True)]
    source = _BLANK if image is None else encoded(image, style.width, style.quality)
    nothing = [None] * len(views)
    return Card(image_id, "", entry.run.name, width, height, source, nothing, nothing, [""] * len(views), layers,
                facts, numbers, mark, problem)  # fmt: skip


def _predicted(
    k: int, cells: Instances, scores: Scores | None, compared: ImageCells | None, names: Sequence[str] = (),
    tolerance: float = TOLERANCE,
) -> list[Layer]:  # fmt: skip
    """Draw the predicted cells of view k: hits and false alarms, or all of them where there is no truth.

    Those where nobody has labelled are `open`. names: of the cell types, for cells without truth. tolerance: of
    outlines, pixels.
    """
    layers: list[Layer] = []
    if compared is not None and not compared.counted.all():
        (cells, scores), others = compared.split(cells, scores)
        layers = [replace(one, classes=f"open r{k}") for one in _predicted(k, *others, None, names, tolerance)]
    hit = np.ones(len(cells), bool) if compared is None else compared.hit
    for classes, mask in ((f"hit r{k}", hit), (f"false r{k}", ~hit)):
        chosen_cells = np.flatnonzero(mask & (cells.areas > 0)).tolist()
        texts = [
            ",".join((
                "" if scores is None else f"{100 * float(scores[c]):.0f}",
                "" if compared is None else f"{100 * compared.matches.iou[c]:.0f}",
                compared.types[c] if compared is not None and compared.types is not None
                else names[cells.cell_types[c]] if names else "",
            ))
            for c in chosen_cells
        ]  # fmt: skip
        if chosen_cells:
            layers.append(Layer(classes, "".join(outline(cells, c, tolerance) for c in chosen_cells), ";".join(texts)))
    return layers


def _annotated(
    cells: Instances, compared: Sequence[ImageCells | None], explained: Mapping[int, Explanation]
) -> list[Layer]:
    """Group the annotated cells: `truth`, and `m<k>` for each view k that misses those of the group.

    compared: by every view; None where one has not predicted the image. explained: by view. The text of a cell is its
    best IoU in percent for each view, with the reason behind a `|` where the view misses it.
    """
    reasons = {k: {missed.cell: f"|{missed.reason}" for missed in why.missed} for k, why in explained.items()}
    groups: dict[str, list[int]] = {}
    for c in range(len(cells)):
        if cells.areas[c]:
            missed = [f"m{k}" for k, image in enumerate(compared) if image is not None and not image.matched[c]]
            groups.setdefault(" ".join(["truth", *missed]), []).append(c)
    layers = []
    for classes, members in groups.items():
        texts = [
            "/".join(
                "" if image is None else f"{100 * image.matches.cell_iou[c]:.0f}{reasons.get(k, {}).get(c, '')}"
                for k, image in enumerate(compared)
            )
            for c in members
        ]
        layers.append(Layer(classes, "".join(outline(cells, c) for c in members), ";".join(texts)))
    return layers
