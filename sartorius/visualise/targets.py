"""Panels of training targets: drawings of the outputs that a model shall give for a sample, each with a line of text.

Everything comes as arrays, which the modules make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import cv2
import numpy as np
from torch import Tensor

from sartorius.data.dataset import Target
from sartorius.structures.arrays import AnyFloats, Boxes, ColourImage, Floats32, GreyImage, Ints
from sartorius.visualise.overlays import cell_colours, draw_boxes, draw_map, outlines

Panel = tuple[str, ColourImage]


class DrawsTargets(Protocol):
    """A model that can draw its training targets, as `modules.base.SegmentationModule` does."""

    def target_panels(self, image: Tensor, target: Target, canvas: ColourImage, scale: int) -> list[Panel]:
        """Draw each training target of a sample as (text, image); [] for a model without drawings.

        image: uint8 [1, H, W]. canvas: RGB [scale*H, scale*W, 3], the sample, which is copied before it is drawn over.
        """


CROPS = 36  # of a sample that are drawn at most
ACROSS = 6  # crops in a row


def map_panels(maps: Mapping[str, AnyFloats], types: int, offset_scale: float, scale: int) -> list[Panel]:
    """Draw a panel for each map, [H, W] by name; two for `offset` [2, H, W], in units of `offset_scale` pixels.

    types: the number of cell types in the map of that name, -1 in it is none.
    """
    panels = []
    for name, values in maps.items():
        if name == "offset":
            reach = max(float(np.abs(values).max()), 1e-6)
            text = f"-{reach:.2f} to {reach:.2f} of {offset_scale:g} px"
            for axis, plane in zip("yx", values, strict=True):
                panels.append((f"offset {axis}, {text}", draw_map(plane, -reach, reach, scale)))
        elif name == "types":
            panels.append(("types, -1 is none", draw_map(values, -1, max(types - 1, 0), scale)))
        else:
            panels.append((name, draw_map(values, 0, 1, scale)))
    return panels


def anchor_panel(anchors: Boxes, match: Ints, between: int, boxes: Boxes, canvas: ColourImage, scale: int) -> Panel:
    """Draw the anchors that are trained as cells, in the colours of those.

    anchors: [A, 4] in image pixels. match: [A], the cell of each, negative for none; `between` counts as neither cell
    nor background. boxes: [N, 4] of the cells. canvas: [scale*H, scale*W, 3], left as it is.
    """
    chosen = np.flatnonzero(match >= 0)
    drawn = canvas.copy()
    draw_boxes(drawn, anchors[chosen], cell_colours(boxes)[1:][match[chosen]], scale)
    without = len(boxes) - len(np.unique(match[chosen]))
    text = f"{len(chosen)} anchors for cells, {int((match == between).sum())} in between, of {len(anchors)}"
    return text + (f"; {without} cells without" if without else ""), drawn


def mask_panel(masks: Floats32, boxes: Boxes, canvas: ColourImage, scale: int) -> Panel:
    """Draw mask targets [N, M, M], each enlarged into its box [N, 4], on black of the shape of `canvas`."""
    drawn = np.zeros_like(canvas)
    colours = cell_colours(boxes)[1:]
    for mask, box, colour in zip(masks, (boxes * scale).astype(np.int64).tolist(), colours, strict=True):
        x1, y1, x2, y2 = box
        large = cv2.resize(mask, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)
        part = drawn[y1:y2, x1:x2]
        np.maximum(part, (large[..., None] * colour).astype(np.uint8), out=part)
    size = masks.shape[-1]
    return f"{len(masks)} masks of {size} x {size} in their boxes", drawn


def crop_panel(crops: Floats32, truth: Floats32) -> Panel:
    """Draw crops in rows, with the cell's outline in yellow, its neighbours' in blue and the box in green.

    crops: [N, 1, S, S] normalised, or [N, 2, S, S] with the box. truth: [N, 2, S, S], coverage of the cell and of
    other cells.
    """
    size = crops.shape[-1]
    step = size + 4
    sheet = np.zeros((max(-(-len(crops) // ACROSS), 1) * step, ACROSS * step, 3), np.uint8)
    for k, (crop, (cell, others)) in enumerate(zip(crops, truth, strict=True)):
        drawn = np.repeat(_grey(crop[0])[..., None], 3, axis=2)
        if len(crop) > 1:
            drawn[outlines((crop[1] > 0.5).astype(np.uint8))] = (0, 170, 0)
        drawn[outlines((others > 0.5).astype(np.uint8))] = (80, 140, 255)
        drawn[outlines((cell > 0.5).astype(np.uint8))] = (255, 230, 0)
        top, left = (place * step for place in divmod(k, ACROSS))
        sheet[top : top + size, left : left + size] = drawn
    return f"{len(crops)} crops of {size} px: cell yellow, neighbours blue, box green", sheet


def _grey(normalised: Floats32) -> GreyImage:
    """Convert a normalised crop to grey levels, four standard deviations either way."""
    return ((normalised / 8 + 0.5).clip(0, 1) * 255).astype(np.uint8)
