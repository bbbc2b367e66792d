"""Augmentation of an image and its cells: albumentations over the layered label map, a crop, then grey levels.

A geometric transform warps the L planes of the map with nearest interpolation instead of N masks; areas
before and after, from the map, decide which cells are still visible. All randomness comes from the generator that is
passed in.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.geometric.distortion import BaseDistortion

from sartorius.data.augmentation.crops import NONE, Cropped, check_crop, pixel_of_a_cell
from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage, Ints, Layers
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances, areas_of

# One call warps this many planes: what was checked to keep uint16 ids exact with albumentations 2.0.8 and OpenCV 5.
PLANES = 9
TRIES = 8  # of a crop that shall hold a pixel that teaches
# Corners of a right angle; where they end up gives the area that the transform makes of one pixel.
_PROBE = 100.0 * np.array([[1, 1], [2, 1], [1, 2]])


class Crop(Protocol):
    """Cuts an image [H, W] and its layers [L, H, W]; `on_cell` above 0: it reads the layers.

    doubtful: ids in the layers that are no cells to be placed on, int64.
    """

    @property
    def on_cell(self) -> float:
        """Probability of a crop that is placed on a cell, 0 to 1."""

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut both to one size."""


@dataclass(frozen=True)
class CellCrop:
    """A crop of fixed size in pixels; where the image is smaller it is padded with `fill` (grey 0 to 255).

    With probability `on_cell` the crop holds a pixel of a cell drawn evenly among the cells; else it lies anywhere.
    """

    height: int
    width: int
    on_cell: float = 0.0
    fill: int = 128

    def __post_init__(self) -> None:
        check_crop(self.height, self.width, self.on_cell, self.fill)

    def __call__(self, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints = NONE) -> Cropped:
        """Cut image [H, W] and layers [L, H, W]: [height, width] and [L, height, width]."""
        height, width = image.shape
        room = (max(height - self.height, 0), max(width - self.width, 0))
        top, left = (int(rng.integers(0, space + 1)) for space in room)
        if rng.random() < self.on_cell and (pixel := pixel_of_a_cell(layers, rng, doubtful)) is not None:
            top, left = (_around(*args, rng) for args in zip(pixel, (self.height, self.width), room, strict=True))
        rows, columns = slice(top, top + self.height), slice(left, left + self.width)
        image, layers = image[rows, columns], layers[:, rows, columns]
        below, right = self.height - image.shape[0], self.width - image.shape[1]
        if below or right:
            image = np.pad(image, ((0, below), (0, right)), constant_values=self.fill)
            layers = np.pad(layers, ((0, 0), (0, below), (0, right)))
        return Cropped(image, layers)


def _around(pixel: int, size: int, room: int, rng: np.random.Generator) -> int:
    """Draw a start in 0..room of a span of `size` that holds `pixel`."""
    low, high = max(pixel - size + 1, 0), min(pixel, room)
    return int(rng.integers(min(low, high), high + 1))


@dataclass(frozen=True)
class Transformed:
    """image uint8 [h, w]; instances of the same size; kept int64 [n]: their indices before the transform."""

    image: GreyImage
    instances: Instances
    kept: Ints


class LayerTransform:
    """albumentations transforms in their order, then a crop, over an image and its cells; then grey levels of that.

    transforms: albumentations objects, a sequence or a mapping by name (entries that are None are skipped). Geometric
    ones must leave nothing but background where the image does not reach: no reflecting border, or a cell would
    appear twice.  crop: None keeps the transformed size.  after: as `transforms`, over the crop, which is cheaper; only
    such that move no pixel.
    min_visible: share (0 to 1) of its transformed area that must lie in the result, or the cell is dropped (its pixels
    become background).  min_area: pixels that must be left of it.
    """

    def __init__(
        self,
        transforms: Sequence[A.BasicTransform] | Mapping[str, A.BasicTransform | None] = (),
        crop: Crop | None = None,
        min_visible: float = 0.0,
        min_area: int = 1,
        after: Sequence[A.BasicTransform] | Mapping[str, A.BasicTransform | None] = (),
    ) -> None:
        checks.fractions("transform", min_visible=min_visible)
        checks.numbers("transform", 1, min_area=min_area)
        if isinstance(crop, Mapping):
            raise InputError(
                f"transform.crop={dict(crop)}: a size without a kind of crop; give transform.crop=null too"
            )
        self.transforms, self.after = _listed(transforms), _listed(after)
        if moving := [type(step).__name__ for step in self.after if not isinstance(step, A.ImageOnlyTransform)]:
            raise InputError(
                f"transform.after: {moving[0]} moves pixels and would leave the cells where they are; put it into "
                "transform.transforms"
            )
        # A distortion keeps areas on the whole, and has no determinant: those in a row are a step of their own.
        groups = [(local, list(group)) for local, group in groupby(self.transforms, _is_local)]
        self.steps = [(_composed(group), local) for local, group in groups]
        self.finish = A.Compose(self.after)
        self.crop, self.min_visible, self.min_area = crop, min_visible, min_area

    def __call__(self, image: GreyImage, instances: Instances, rng: np.random.Generator) -> Transformed:
        """Transform an image uint8 [H, W] and its cells; the same for the same state of `rng`."""
        layers, scale = instances.layers, 1.0
        doubtful = np.flatnonzero(instances.cell_types == DOUBTFUL) + 1
        for compose, local in self.steps:
            image, layers, factor = _warp(_seeded(compose, rng), image, layers, local)
            scale *= factor
        if self.crop is not None:
            if self.crop.on_cell > 0:  # it reads all pixels
                layers = _separate(layers)
            image, layers, factor = _teaching(self.crop, image, layers, rng, doubtful)
            scale *= factor
        if self.after:
            image = _seeded(self.finish, rng)(image=np.ascontiguousarray(image))["image"]
        layers = _separate(layers)
        areas = areas_of(layers, len(instances))
        needed = np.maximum(self.min_visible * scale * instances.areas, self.min_area)
        needed[doubtful - 1] = 1  # its visible rest is no background
        kept = np.flatnonzero(areas >= needed)
        result = Instances(layers, instances.cell_types).select(kept)
        return Transformed(np.ascontiguousarray(image), result, kept)


def _teaching(crop: Crop, image: GreyImage, layers: Layers, rng: np.random.Generator, doubtful: Ints) -> Cropped:
    """Cut a crop; one that holds nothing but doubtful pixels teaches nothing and is drawn again, a few times."""
    cropped = crop(image, layers, rng, doubtful)
    for _ in range(TRIES if len(doubtful) else 0):
        if not np.isin(cropped.layers, doubtful).any(axis=0).all():
            break
        cropped = crop(image, layers, rng, doubtful)
    return cropped


def _listed(transforms: Sequence[A.BasicTransform] | Mapping[str, A.BasicTransform | None]) -> list[A.BasicTransform]:
    named = transforms.values() if isinstance(transforms, Mapping) else transforms
    return [transform for transform in named if transform is not None]


def _is_local(transform: A.BasicTransform) -> bool:
    """Whether it moves neighbouring pixels in different ways: elastic, grid and optical distortions."""
    return isinstance(transform, BaseDistortion)


def _composed(transforms: list[A.BasicTransform]) -> A.Compose:
    """Compose transforms with keypoints (which NoOp takes where no transform is geometric)."""
    points = A.KeypointParams(format="xy", remove_invisible=False)
    return A.Compose([*transforms, A.NoOp()], keypoint_params=points)


def _seeded(compose: A.Compose, rng: np.random.Generator) -> A.Compose:
    """Make `compose` draw from `rng` alone; returns it.

    One generator for all transforms: seeding the Compose would give each the same numbers, and flips in both
    directions would then always coincide.
    """
    compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    return compose


def _warp(compose: A.Compose, image: GreyImage, layers: Layers, local: bool) -> Cropped:
    """Warp image and layers; `area` is the determinant of the transform, 1 for a local one."""
    planes = len(layers)
    data: dict[str, Any] = {"image": image, "keypoints": _PROBE[: 0 if local else 3]}
    # OpenCV interleaves and separates planes several times faster than NumPy's strided copies.
    if planes <= PLANES:
        warped = compose(**data, mask=cv2.merge(list(layers)))
        result = _planes_first(warped["mask"])
    else:
        padded = np.pad(layers, ((0, -planes % PLANES), (0, 0), (0, 0)))
        chunks = padded.reshape(-1, PLANES, *layers.shape[1:])
        warped = compose(**data, masks=np.stack([cv2.merge(list(chunk)) for chunk in chunks]))
        result = np.concatenate([_planes_first(chunk) for chunk in warped["masks"]])[:planes]
    if local:
        return Cropped(warped["image"], result)
    origin, right, below = np.asarray(warped["keypoints"], float)[:, :2]
    (a, b), (c, d) = right - origin, below - origin
    return Cropped(warped["image"], result, abs(a * d - b * c) / 100.0**2)


def _planes_first(interleaved: Layers) -> Layers:
    """Return [H, W, L], or [H, W] of a single plane, as a view [L, H, W]."""
    return np.moveaxis(np.atleast_3d(interleaved), -1, 0)


def _separate(layers: Layers) -> Layers:
    """Make layers [L, H, W] contiguous in memory; cheapest after the crop."""
    if layers.flags.c_contiguous or layers.strides[-1] == layers.itemsize:  # whole, or rows of planes
        return np.ascontiguousarray(layers)
    separated = np.empty(layers.shape, layers.dtype)
    for k, plane in enumerate(separated):
        cv2.extractChannel(np.moveaxis(layers, 0, -1), k, plane)
    return separated
