"""Rotate, scale and crop an image with 547 cells: its layered map beside one mask a cell, both through albumentations.

Ours also counts what is left of each cell, drops those that vanished and numbers the others anew; the peer only warps
and crops, and the making of its masks is not counted. Then a crop warped in one step beside our own two steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from benchmarks import images
from benchmarks.measure import Row, expect, side_by_side
from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.augmentation.rotation import RotatedCrop, turned, warp
from sartorius.structures.instances import Instances

CROP = 448  # pixels, both ways


def affine(angle: tuple[float, float] = (-180, 180), scale: tuple[float, float] = (0.8, 1.25)) -> A.Affine:
    """Rotation in degrees and scale, always applied."""
    return A.Affine(rotate=angle, scale=scale, p=1.0)


def masks_of(instances: Instances) -> list[NDArray[np.uint8]]:
    """One mask a cell, uint8 [H, W]."""
    masks = np.zeros((len(instances), instances.height, instances.width), np.uint8)
    for layer in instances.layers:
        y, x = np.nonzero(layer)
        masks[layer[y, x].astype(int) - 1, y, x] = 1
    return list(masks)


def check(image: NDArray[np.uint8], instances: Instances, masks: list[NDArray[np.uint8]]) -> str:
    """Warp by one fixed angle and scale: the same cells must be left, in the same places.

    OpenCV breaks ties of nearest interpolation in another way for two planes than for one, so that a pixel of some
    ten thousand may differ.
    """
    fixed = affine((30, 30), (1.2, 1.2))
    ours = LayerTransform([fixed])(image, instances, np.random.default_rng(0))
    theirs = A.Compose([fixed])(image=image, masks=masks)
    left = np.flatnonzero([mask.any() for mask in theirs["masks"]])
    same_cells = np.array_equal(ours.image, theirs["image"]) and np.array_equal(ours.kept, left)
    apart = sum(
        np.count_nonzero((ours.instances.layers == k + 1).any(axis=0) != theirs["masks"][cell])
        for k, cell in enumerate(ours.kept.tolist())
    )
    pixels = int(ours.instances.areas.sum())
    agrees = same_cells and apart <= pixels / 1000
    return expect(bool(agrees), f"the {len(left)} cells left by a fixed warp, {apart} of {pixels} pixels apart")


def rows() -> Iterator[Row]:
    """Milliseconds a sample."""
    sample = images.densest()
    instances = sample.instances()
    masks = masks_of(instances)
    same = check(sample.image, instances, masks)
    ours = LayerTransform([affine()], CellCrop(CROP, CROP))
    peer = A.Compose([affine(), A.RandomCrop(CROP, CROP)])
    rng = np.random.default_rng(0)
    milliseconds = side_by_side(
        lambda: ours(sample.image, instances, rng), lambda: peer(image=sample.image, masks=masks)
    )
    what = f"rotate + scale + crop, {len(masks)} {sample.source} cells"
    yield Row(what, "ms", milliseconds[0], milliseconds[1], "albumentations, mask a cell", same, at_least=50)
    for size in (128, 384):
        yield turned_crop(sample.image, instances, size)


def turned_crop(image: NDArray[np.uint8], instances: Instances, size: int) -> Row:
    """A crop warped straight from the image beside warping the whole image and cropping that."""
    same = check_turned(image, instances)
    angle, scale = (-180.0, 180.0), (0.8, 1.25)
    crop = RotatedCrop(height=size, width=size, angle=angle, scale=scale, mirror=0.5, on_cell=0.8, fill=128)
    ours = LayerTransform((), crop)
    peer = LayerTransform([A.D4(p=1.0), affine(angle, scale)], CellCrop(size, size, 0.8, 128))
    rng = np.random.default_rng(0)
    milliseconds = side_by_side(lambda: ours(image, instances, rng), lambda: peer(image, instances, rng))
    what = f"turned, mirrored crop of {size} px, {len(instances)} cells"
    return Row(what, "ms", milliseconds[0], milliseconds[1], "ours, whole image first", same, at_least=1)


def check_turned(image: NDArray[np.uint8], instances: Instances) -> str:
    """The middle of the image, turned by 30 degrees and enlarged by 1.2 in both ways."""
    whole = LayerTransform([affine((30, 30), (1.2, 1.2))])(image, instances, np.random.default_rng(0))
    middle = slice((image.shape[0] - 128) // 2, (image.shape[0] + 128) // 2)
    columns = slice((image.shape[1] - 128) // 2, (image.shape[1] + 128) // 2)
    apart = []
    for angle in (-30, 30):  # both count angles in their own direction
        matrix = turned(angle, False) / 1.2
        start = (np.array(image.shape[::-1]) - 1) / 2 - matrix @ (63.5, 63.5)
        cut = warp(image, instances.layers, np.column_stack([matrix, start]), (128, 128), 128)
        apart.append(float(np.abs(cut.image - whole.image[middle, columns].astype(float)).mean()))
    return expect(min(apart) < 0.5, f"grey levels of the middle, {min(apart):.2g} apart on the mean")
