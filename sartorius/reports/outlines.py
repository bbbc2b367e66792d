"""Images for a page, and outlines of cells as SVG paths: sharp at any enlargement, a hundred bytes a cell."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import PIL.Image

from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances
from sartorius.visualise.overlays import stretched

TOLERANCE = 0.6  # pixels by which an outline may leave the middle of the cell's edge pixels


def encoded(image: GreyImage, width: int, quality: int) -> str:
    """Return a data URI of an image uint8 [H, W], its grey levels stretched as overlays stretch them.

    width: pixels, to which a wider one is shrunk. quality: of WebP, 1 to 100.
    """
    shrunk = PIL.Image.fromarray(stretched(image))
    if shrunk.width > width:
        shrunk.thumbnail((width, shrunk.height))
    written = io.BytesIO()
    shrunk.save(written, "webp", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def outline(cells: Instances, k: int, tolerance: float = TOLERANCE) -> str:
    """Return path data of cell k through the centres of its edge pixels (at +0.5); "" for a cell without pixels.

    tolerance: pixels by which it may leave them. It starts with `M`, further pieces and holes with `m`: split at `M`,
    the joined paths of cells are cells again.
    """
    top, left, mask = cells.crop_mask(k)
    corner = np.array((left, top))
    if not mask.any():
        return ""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts, start = [], None
    for contour in contours:
        points = cv2.approxPolyDP(contour, tolerance, closed=True).reshape(-1, 2).astype(int) + corner
        x, y = points[0].tolist()
        # a relative move starts where the path before it was closed
        head = f"M{x}.5 {y}.5" if start is None else f"m{_pair(x - start[0], y - start[1])}"
        start = (x, y)
        steps = [_pair(dx, dy) for dx, dy in np.diff(points, axis=0).tolist()]
        parts.append(f"{head}l{_joined(steps)}z" if steps else f"{head}h0z")
    return "".join(parts)


def _pair(dx: int, dy: int) -> str:
    return f"{dx}{dy}" if dy < 0 else f"{dx} {dy}"


def _joined(steps: list[str]) -> str:
    """Join pairs with a space only where no minus sign parts them."""
    return "".join(step if k == 0 or step.startswith("-") else f" {step}" for k, step in enumerate(steps))
