"""Draw cells over the microscope image.

Cells come as a label map or as layers, and everything is drawn from those planes at once: a colour is a table
look-up, an outline is where a plane changes. The only loop over cells writes their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import ArrayLike, NDArray

from sartorius.files import atomic_path
from sartorius.structures.arrays import AnyInts, Bools, ColourImage, Floats32
from sartorius.structures.instances import Instances

_CROWDED = 80  # cells above which labels are short
_GOLDEN = (5**0.5 - 1) / 2  # steps of it around the hue circle keep consecutive colours far apart


def draw_overlay(
    image: NDArray[np.uint8],
    cells: Instances,
    scores: ArrayLike | None = None,
    names: Sequence[str] = (),
    *,
    scale: int = 2,
    opacity: float = 0.2,
    labels: bool = True,
    limits: tuple[float, float] | None = None,
) -> ColourImage:
    """Draw each cell with a colour and an outline, and its type and confidence beside it.

    image: uint8 [H, W] grey. cells: N cells of that size, N may be 0. scores: [N] in 0..1, or None to write none.
    names: of the cell types; () to write none. Returns uint8 RGB [scale*H, scale*W, 3]: enlarged, so that a label fits
    beside a cell of 15 pixels. Above 80 cells labels shrink to an initial and two digits ("c 87"), explained
    in a corner. limits: the grey levels that become black and white; None for those of this image, see
    `grey_limits`. Raises ValueError when sizes or counts disagree.
    """
    if image.shape != (cells.height, cells.width):
        raise ValueError(f"image {image.shape} and cells ({cells.height}, {cells.width}) must have one size")
    if scores is not None and len(np.asarray(scores)) != len(cells):
        raise ValueError(f"{len(np.asarray(scores))} scores for {len(cells)} cells")
    size = (cells.width * scale, cells.height * scale)
    grey = cv2.resize(stretched(image, limits), size, interpolation=cv2.INTER_CUBIC)
    canvas: ColourImage = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    colours = cell_colours(cells.boxes)
    for layer in cells.layers:
        _paint(canvas, layer, colours, opacity)
    if labels and len(cells):
        short = len(cells) > _CROWDED
        canvas = _write_labels(canvas, cells, _texts(cells, scores, names, short), scale, short)
        if names and short:
            present = ", ".join(f"{names[k][:1]} = {names[k]}" for k in np.unique(cells.cell_types))
            canvas[-30:] //= 3
            key = present if scores is None else f"{present}; confidence in %"
            canvas = _write(canvas, [key], [(0, canvas.shape[0] - 10)], size=18)
    return canvas


def write_png(path: Path, image: ColourImage) -> None:
    """Write an RGB image atomically; raises OSError when it cannot be written."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path}: OpenCV could not encode an image of shape {image.shape}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def draw_comparison(
    image: NDArray[np.uint8],
    truth: Instances,
    prediction: Instances,
    scores: ArrayLike | None = None,
    names: Sequence[str] = (),
    *,
    title: str = "",
    scale: int = 2,
    ignored: Bools | None = None,
) -> ColourImage:
    """Draw the truth on the left and the prediction on the right, each under a line of text.

    Returns uint8 RGB [scale*H + 40, 2*scale*W + 8, 3]. Arguments as in `draw_overlay`; `title`
    (image name, score) stands in front of the left line. ignored: bool [H, W], pixels that nobody has labelled, striped
    on the left.
    """
    left = draw_overlay(image, truth, None, names, scale=scale, labels=False)
    if ignored is not None:
        hatch(left, ignored, scale)
    right = draw_overlay(image, prediction, scores, names, scale=scale)
    gap = np.full((left.shape[0], 8, 3), 255, np.uint8)
    body = np.concatenate((left, gap, right), axis=1)
    canvas = np.concatenate((np.zeros((40, body.shape[1], 3), np.uint8), body))
    lines = [f"{title}  truth: {len(truth)} cells".strip(), f"prediction: {len(prediction)} cells"]
    return _write(canvas, lines, [(left.shape[1] / 2, 27), (left.shape[1] * 1.5 + 8, 27)], size=20)


def cell_colours(boxes: Floats32) -> ColourImage:
    """Choose colours uint8 [N + 1, 3], the first for background; neighbouring cells get distant hues.

    boxes: float32 [N, 4]. Cells are numbered along the image and step around the hue circle by the golden ratio.
    """
    colours = np.zeros((len(boxes) + 1, 3), np.uint8)
    if len(boxes):
        rank = np.empty(len(boxes), np.int64)
        rank[np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")] = np.arange(len(boxes))
        hue = (rank * _GOLDEN) % 1 * 179  # OpenCV counts hues in half degrees
        saturation, value = np.array([200, 255, 150])[rank % 3], np.full(len(boxes), 255)
        hsv = np.stack((hue, saturation, value), axis=1).astype(np.uint8)
        colours[1:] = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return colours


def outlines(label_map: AnyInts) -> Bools:
    """Find the pixels of a cell, bool [H, W], that touch another value or the image's edge (4-neighbours)."""
    padded = np.pad(label_map, 1)
    centre = padded[1:-1, 1:-1]
    same = np.ones(label_map.shape, bool)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        same &= neighbour == centre
    return (centre > 0) & ~same


def _paint(canvas: ColourImage, layer: NDArray[np.uint16], colours: ColourImage, opacity: float) -> None:
    """Fill the cells of one layer translucently and draw their outlines, in place; the canvas may be larger."""
    colour, enlarged = (
        cv2.resize(of, canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST) for of in (colours[layer], layer)
    )
    cv2.copyTo(cv2.addWeighted(canvas, 1 - opacity, colour, opacity, 0), (enlarged > 0).view(np.uint8), canvas)
    cv2.copyTo(colour, outlines(enlarged.astype(layer.dtype, copy=False)).view(np.uint8), canvas)


def grey_limits(*images: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the 0.5th and 99.5th percentile of the grey levels of all images: phase contrast is mostly mid-grey."""
    counts = sum((np.bincount(image.reshape(-1), minlength=256) for image in images), np.zeros(256, np.int64))
    if not counts.any():
        return 0.0, 255.0
    share = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(share, 0.005)), float(np.searchsorted(share, 0.995))


def stretched(image: NDArray[np.uint8], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Stretch the image uint8 [H, W] from black to white: `limits` become 0 and 255, None for its own `grey_limits`."""
    low, high = grey_limits(image) if limits is None else limits
    return (np.clip((image - low) / max(high - low, 1.0), 0, 1) * 255).astype(np.uint8)


def draw_boxes(canvas: ColourImage, boxes: Floats32, colours: ColourImage, scale: int) -> None:
    """Draw the edges of boxes [N, 4] (pixels before the enlargement by `scale`) in colours [N, 3], in place."""
    for box, colour in zip(np.rint(boxes * scale).astype(int).tolist(), colours.tolist(), strict=True):
        cv2.rectangle(canvas, (box[0], box[1]), (box[2] - 1, box[3] - 1), colour, 1)


def hatch(canvas: ColourImage, region: Bools, scale: int) -> None:
    """Draw diagonal stripes over bool [H, W] (before the enlargement by `scale`) and its outline, in place."""
    large = region.repeat(scale, axis=0).repeat(scale, axis=1)
    diagonal = np.arange(large.shape[0])[:, None] + np.arange(large.shape[1])
    canvas[(large & (diagonal % 8 < 2)) | outlines(large.astype(np.uint8))] = (255, 60, 60)


def draw_map(values: Floats32, low: float, high: float, scale: int) -> ColourImage:
    """Colour values [H, W] from `low` (dark blue) to `high` (yellow): uint8 RGB [scale*H, scale*W, 3]."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    coloured: ColourImage = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return coloured.repeat(scale, axis=0).repeat(scale, axis=1)


def captioned(image: ColourImage, lines: Sequence[str]) -> ColourImage:
    """Set the image under lines of text: RGB [h + 18 * lines + 6, w, 3], as wide as the text where that is wider."""
    font = PIL.ImageFont.load_default(14)
    width = max([image.shape[1], *(int(font.getlength(line)) + 8 for line in lines)])
    canvas = np.zeros((image.shape[0] + 18 * len(lines) + 6, width, 3), np.uint8)
    canvas[18 * len(lines) + 6 :, : image.shape[1]] = image
    return _write(canvas, lines, [(width / 2, 18 * (k + 1) - 2) for k in range(len(lines))], size=14)


def draw_sheet(tiles: Sequence[ColourImage], columns: int) -> ColourImage:
    """Set images of any sizes side by side in rows of `columns`, 8 white pixels between them; there is at least one.

    A row is as high as its highest image, a column as wide as its widest.
    """
    rows = [tiles[k : k + columns] for k in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in row) + 8 for row in rows]
    widths = [max(tile.shape[1] for tile in tiles[k::columns]) + 8 for k in range(min(columns, len(tiles)))]
    sheet = np.full((sum(heights) + 8, sum(widths) + 8, 3), 255, np.uint8)
    for k, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = sum(heights[:k]) + 8, sum(widths[:j]) + 8
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _texts(cells: Instances, scores: ArrayLike | None, names: Sequence[str], short: bool) -> list[str]:
    kinds = [(names[k][:1] if short else names[k]) if names else "" for k in cells.cell_types.tolist()]
    if scores is None:
        return kinds
    values = np.asarray(scores, np.float64).tolist()
    numbers = [f"{min(round(100 * value), 99):02d}" if short else f"{value:.2f}" for value in values]
    return [f"{kind} {number}".strip() for kind, number in zip(kinds, numbers, strict=True)]


def _write_labels(canvas: ColourImage, cells: Instances, texts: list[str], scale: int, crowded: bool) -> ColourImage:
    """Write each text above the topmost pixels of its cell, or on the cell in a crowded image."""
    places = []
    for k, (x1, y1, x2, y2) in enumerate((cells.boxes * scale).tolist()):
        if crowded:
            places.append(((x1 + x2) / 2, (y1 + y2) / 2 + 5))
        else:
            places.append((x1 + scale * float(np.flatnonzero(cells.crop_mask(k)[2][0]).mean()), y1 - 5))
    return _write(canvas, texts, places, size=11 if crowded else 15)


def _write(canvas: ColourImage, texts: Sequence[str], places: Sequence[tuple[float, float]], size: int) -> ColourImage:
    """Write white text with a dark rim, legible on any grey, centred over each place (x, y of the base line), pixels.

    Moved into the image where it would stick out. OpenCV's own text is spaced by its weight, so that a rim drawn
    with it does not fit.
    """
    image = PIL.Image.fromarray(canvas)
    pen, font = PIL.ImageDraw.Draw(image), PIL.ImageFont.load_default(size)
    for text, (x, y) in zip(texts, places, strict=True):
        half = pen.textlength(text, font) / 2 + 2
        x = min(max(x, half), max(canvas.shape[1] - half, half))
        y = min(max(y, size), canvas.shape[0] - 3)
        pen.text((x, y), text, (255, 255, 255), font, anchor="ms", stroke_width=1, stroke_fill=(0, 0, 0))
    return np.array(image)
