"""The gallery: each image once, and over it outlines of annotated and predicted cells in layers.

Annotated cells are drawn once however many runs there are: their groups are named by the views that miss them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from sartorius.errors import InputError
from sartorius.reports.explanation import Explanation
from sartorius.reports.image_cells import ImageCells
from sartorius.reports.outlines import outline
from sartorius.reports.views import RunView
from sartorius.structures.arrays import GreyImage, Scores
from sartorius.structures.instances import Instances
from sartorius.visualise.overlays import stretched


@dataclass(frozen=True)
class Style:
    """The appearance of the gallery's images.

    images: at most so many. best: share of them that are the best ones where there are more; the rest are the worst.
    width: pixels; wider images are shrunk to it. quality: of WebP, 1 to 100.
    """

    images: int
    best: float
    width: int
    quality: int

    def __post_init__(self) -> None:
        if self.images < 0 or not 0 <= self.best <= 1 or self.width < 16 or not 1 <= self.quality <= 100:
            raise InputError(
                f"images={self.images}, gallery.best={self.best}, gallery.width={self.width}, gallery.quality="
                f"{self.quality}: expected 0 or more, 0 to 1, 16 or more, 1 to 100"
            )


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
    post-processing leaves, "" where they are not known.
    """

    image_id: str
    cell_type: str
    run: str
    width: int
    height: int
    image: str
    cells: int
    scores: Sequence[float | None]
    counts: Sequence[tuple[int, int, int] | None]
    steps: Sequence[str]
    layers: Sequence[Layer]

    @property
    def mean(self) -> float:
        """The mean score of the views that have one; -1 without."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else -1.0


def chosen(views: Sequence[RunView], style: Style) -> list[str]:
    """Choose the images of the gallery, worst first by the mean of the views' scores; unscored ones by name."""
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
        encoded(image, style), 0 if truth is None else len(truth), [view.scores.get(image_id) for view in views],
        [view.counts(image_id) if image_id in view.scores else None for view in views],
        [explained[k].steps if k in explained else "" for k in range(len(views))], layers,
    )  # fmt: skip


def encoded(image: GreyImage, style: Style) -> str:
    """Return a data URI of the image, uint8 [H, W], its grey levels stretched as overlays stretch them."""
    shrunk = PIL.Image.fromarray(stretched(image))
    if shrunk.width > style.width:
        shrunk.thumbnail((style.width, shrunk.height))
    written = io.BytesIO()
    shrunk.save(written, "webp", quality=style.quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def _predicted(k: int, cells: Instances, scores: Scores | None, compared: ImageCells | None) -> list[Layer]:
    """Draw the predicted cells of view k: hits and false alarms, or all of them where there is no truth."""
    hit = np.ones(len(cells), bool) if compared is None else compared.hit
    layers = []
    for classes, mask in ((f"hit r{k}", hit), (f"false r{k}", ~hit)):
        chosen_cells = np.flatnonzero(mask & (cells.areas > 0)).tolist()
        texts = [
            ",".join((
                "" if scores is None else f"{100 * float(scores[c]):.0f}",
                "" if compared is None else f"{100 * compared.matches.iou[c]:.0f}",
                "" if compared is None or compared.types is None else compared.types[c],
            ))
            for c in chosen_cells
        ]  # fmt: skip
        if chosen_cells:
            layers.append(Layer(classes, "".join(outline(cells, c) for c in chosen_cells), ";".join(texts)))
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
