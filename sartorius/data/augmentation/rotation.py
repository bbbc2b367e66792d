"""Crops turned by any angle, without corners from outside the image.

Angle, scale and place of a crop are drawn first, then the image and its layers are warped once, straight to the size
of the crop: nothing outside it is computed. Positions are those of pixel centres. A crop fits where all of its pixels
are read from between the image's first and last row and column; then none of them is `fill`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sartorius.data.augmentation.crops import NONE, Cropped, check_crop, pixel_of_a_cell
from sartorius.structures import checks
from sartorius.structures.arrays import Floats, GreyImage, Ints, Layers

# Places tried for a crop that shall hold a pixel; the corners of an image are out of reach of a crop turned by 45
# degrees, and no number of places is enough there.
TRIES = 32
_ROUNDING = 1e-6  # pixels


@dataclass(frozen=True, kw_only=True)
class RotatedCrop:
    """A crop of fixed size in pixels, turned, enlarged and mirrored.

    angle: degrees, lowest and highest, drawn evenly, counter-clockwise. scale: enlargement, lowest and highest, drawn
    evenly among those with which the crop fits into the image at that angle: one of 384 x 384 px turned by 45 degrees
    spans 541 px, more than an image of 520, and is enlarged by 1.04 at least. Where even the highest is not enough,
    all of them are drawn and what lies outside the image is `fill` (grey 0 to 255). mirror: probability of a mirror
    image. on_cell: probability that the crop is placed so that it holds a pixel of a cell drawn evenly among the cells,
    or as near to it as the crop gets.

    Raises InputError for a size, a range or a probability that cannot be.
    """

    height: int
    width: int
    angle: tuple[float, float]
    scale: tuple[float, float]
    mirror: float
    on_cell: float
    fill: int

    def __post_init__(self) -> None:
        check_crop(self.height, self.width, self.on_cell, self.fill)
        checks.spans("transform.crop", scale=self.scale, angle=self.angle)
        checks.expect(self.scale[0] > 0, "transform.crop", "scale", self.scale, "factors above 0")
        checks.fractions("transform.crop", mirror=self.mirror)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut image [H, W] and layers [L, H, W]: [height, width], [L, height, width], and scale squared."""
        angle, mirrored = rng.uniform(*self.angle), rng.random() < self.mirror
        turn = turned(angle, mirrored)
        room = np.array(image.shape[::-1], float) - 1
        span = np.abs(turn) @ (self.width - 1, self.height - 1)
        low, high = self.scale
        needed = float((span / np.maximum(room, _ROUNDING)).max())
        scale = rng.uniform(max(low, needed) if needed <= high else low, high)
        return cut_warped(
            image, layers, rng, turn / scale, (self.height, self.width),
            on_cell=self.on_cell, fill=self.fill, doubtful=doubtful,
        )  # fmt: skip


def turned(angle: float, mirrored: bool) -> Floats:
    """Return the matrix [2, 2] from (x, y) in a crop to (x, y) in the image which it shows turned counter-clockwise.

    angle: degrees; multiples of 90 are exact. mirrored: left and right are exchanged after that.
    """
    cosine, sine = np.round((np.cos(np.radians(angle)), np.sin(np.radians(angle))), 12)
    return np.array([[cosine, -sine], [sine, cosine]]) * ((-1, 1) if mirrored else (1, 1))


def cut_warped(
    image: GreyImage,
    layers: Layers,
    rng: np.random.Generator,
    matrix: Floats,
    size: tuple[int, int],
    *,
    on_cell: float,
    fill: int,
    doubtful: Ints = NONE,
) -> Cropped:
    """Cut a crop of `size` (height, width) whose steps are those of `matrix` in the image, at a place that is drawn.

    image: uint8 [H, W]. layers: uint16 [L, H, W]. matrix: [2, 2], image (x, y) of one pixel to the right and one down
    in the crop. Along an axis on which it fits, the crop lies inside the image; along another, the image inside the
    smallest upright rectangle around the crop. `on_cell` and `fill` as in `RotatedCrop`. doubtful: ids that are no
    cells.
    """
    height, width = size
    last = np.array([width - 1, height - 1], float)
    first = np.minimum(matrix * last, 0).sum(axis=1)  # the crop's leftmost and topmost pixel, from its first one
    space = np.array(image.shape[::-1]) - 1 - np.abs(matrix) @ last
    low, high = np.minimum(space, 0) - _ROUNDING, np.maximum(space, 0) + _ROUNDING
    # whole pixels, so that right angles at scale 1 move pixels and mix none
    start = rng.integers(np.ceil(low).astype(int), np.floor(high).astype(int) + 1).astype(float)
    if rng.random() < on_cell and (pixel := pixel_of_a_cell(layers, rng, doubtful)) is not None:
        inside = rng.integers((0, 0), (width, height), (TRIES, 2))  # where in the crop that pixel may come to lie
        wanted = np.array(pixel[::-1]) + first - inside @ matrix.T
        possible = wanted.clip(low, high)
        start = possible[np.abs(possible - wanted).sum(axis=1).argmin()]
    return warp(image, layers, np.column_stack([matrix, start - first]), size, fill)


def warp(image: GreyImage, layers: Layers, matrix: Floats, size: tuple[int, int], fill: int) -> Cropped:
    """Warp image and layers by the affine `matrix` [2, 3], from crop (x, y) to image (x, y) of pixel centres.

    The image is interpolated between four pixels; ids are those of the nearest pixel, exactly. Outside the image
    there is `fill` and no cell.
    """
    height, width = size
    corners = matrix[:, :2] @ ((0, width - 1, 0, width - 1), (0, 0, height - 1, height - 1)) + matrix[:, 2:]
    # what is read and a pixel around it: OpenCV takes no more than 32767, and needs the planes in one piece
    (left, top), limit = np.floor(corners.min(axis=1)).astype(int) - 1, np.ceil(corners.max(axis=1)).astype(int) + 2
    left, top = max(left, 0), max(top, 0)
    rows, columns = slice(top, max(limit[1], top + 1)), slice(left, max(limit[0], left + 1))
    moved = matrix - np.array([[0, 0, left], [0, 0, top]])

    def read(plane: NDArray, how: int, outside: int) -> NDArray:
        source = np.ascontiguousarray(plane[rows, columns])
        flags = how | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(source, moved, (width, height), flags=flags, borderValue=outside)

    grey = read(image, cv2.INTER_LINEAR, fill)
    planes = np.stack([read(plane, cv2.INTER_NEAREST, 0) for plane in layers])
    return Cropped(grey, planes, 1 / abs(float(np.linalg.det(matrix[:, :2]))))
