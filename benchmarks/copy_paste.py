"""Paste 100 cells into an image: the layered map beside one full-size mask a cell, and beside the plain transform.

The peer works as copy-paste is usually written: each cell is warped at the size of the image, with its mask, and laid
over it; what was pasted later is then taken from each mask. Its masks are made before, and it blends no rim.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray

from benchmarks import images
from benchmarks.augmentation import masks_of
from benchmarks.measure import Row, expect, side_by_side
from sartorius.data.augmentation.copy_paste import Canvas, CopyPaste
from sartorius.data.augmentation.cut_cells import Donor
from sartorius.data.augmentation.layers import LayerTransform
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import InstanceDataset
from sartorius.running import wiring
from sartorius.structures.instances import Instances

CELLS = 100
Image = NDArray[np.uint8]
Masks = list[NDArray[np.uint8]]
Pasted = list[tuple[Image, NDArray[np.uint8], NDArray[np.float64]]]  # image, mask of a cell, matrix


# All of CELLS cells find a place, in an image that is full of others
ALWAYS = [
    "probability=1", "until=1", f"cells=[{CELLS},{CELLS}]", "max_shared=1", "max_overlap=1", "min_visible=0.01",
    "tries=30",
]  # fmt: skip


def from_config(overrides: Sequence[str]) -> tuple[LayerTransform, CopyPaste]:
    """transform=default and copy_paste=default with `overrides`."""
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", ["copy_paste=default", *overrides])
    return wiring.instantiate(cfg.transform), wiring.instantiate(cfg.copy_paste)


def peer(image: Image, masks: Masks, cells: Pasted) -> tuple[Image, Masks]:
    """The image with the cells on top, and the masks uint8 [H, W] of all that can still be seen."""
    image, (height, width), pasted = image.copy(), image.shape, []
    for sample, mask, matrix in cells:
        warped = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST)
        image = np.where(warped > 0, cv2.warpAffine(sample, matrix, (width, height)), image)
        pasted.append(warped)
    above, seen = np.zeros(image.shape, np.uint8), []
    for mask in reversed([*masks, *pasted]):
        seen.append(mask & ~above)
        if len(seen) <= len(pasted):
            above |= mask
    return image, [mask for mask in reversed(seen) if mask.any()]


def check(image: Image, instances: Instances, donor: tuple[Image, Instances]) -> str:
    """Cells pasted without being turned, anywhere: the same masks must be left."""
    rng, canvas, cells, masks = np.random.default_rng(0), Canvas(image, instances), [], masks_of(donor[1])
    of, still = Donor(*donor), np.eye(2, dtype=np.float32)
    for k in rng.permutation(of.cells(1.0))[:CELLS].tolist():
        if (cut := of.cut(k, still, rim=4)) is None:
            continue
        height, width = cut.mask.shape
        top, left = rng.integers(0, np.array(image.shape) - cut.mask.shape).tolist()
        patch = slice(top, top + height), slice(left, left + width)
        canvas.paste(cut, patch, canvas.below(cut, patch))
        rows, columns = np.nonzero(masks[k])
        y, x = np.nonzero(cut.mask)
        move = (left + x.min() - columns.min(), top + y.min() - rows.min())
        cells.append((donor[0], masks[k], np.array([[1.0, 0.0, move[0]], [0.0, 1.0, move[1]]])))
    ours = masks_of(canvas.result().instances)
    theirs = peer(image, masks_of(instances), cells)[1]
    agrees = len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=False))
    return expect(agrees, f"the masks of the {len(theirs)} cells left by pasting {len(cells)} without turning")


def turned(donors: list[tuple[Image, Masks]], shape: tuple[int, ...], rng: np.random.Generator) -> Pasted:
    """CELLS cells, each turned about its image's centre by any angle and moved."""
    cells: Pasted = []
    for _ in range(CELLS):
        image, masks = donors[rng.integers(len(donors))]
        matrix = cv2.getRotationMatrix2D((shape[1] / 2, shape[0] / 2), rng.uniform(-180, 180), rng.uniform(0.8, 1.25))
        move = np.array([[0.0, 0.0, rng.uniform(-100, 100)], [0.0, 0.0, rng.uniform(-100, 100)]])
        cells.append((image, masks[rng.integers(len(masks))], matrix + move))
    return cells


def rows() -> Iterator[Row]:
    """Milliseconds for the pasting, and how many times a plain sample one with it costs."""
    turning = "transform.transforms.affine.p=1"  # rotate and scale every sample, not every second
    transform, mix = from_config([turning, *(f"copy_paste.{value}" for value in ALWAYS)])
    with tempfile.TemporaryDirectory() as scratch:
        competition = Competition(images.competition_folder(Path(scratch)))
        densest = max(competition.ids, key=lambda sample: len(competition.record(sample)))
        dataset = InstanceDataset(competition, competition.ids, cache_bytes=2**30, mix=mix)
        (image, instances), others = dataset.load(densest), dataset.others(densest)
        donors = [dataset.load(other) for other in others]
    same = check(image, instances, donors[0])
    placed = mix(0, image, instances, others, dataset.load, np.random.default_rng(0)).kept
    expect(np.count_nonzero(placed < 0) == CELLS, f"{CELLS} cells pasted")
    masks, of_donors = masks_of(instances), [(donor, masks_of(cells)) for donor, cells in donors]
    rng, seeds = np.random.default_rng(0), (itertools.count(), itertools.count())

    def both() -> object:
        generator = np.random.default_rng(next(seeds[0]))
        pasted = mix(0, image, instances, others, dataset.load, generator)
        return transform(pasted.image, pasted.instances, generator)

    ours, theirs = side_by_side(
        lambda: mix(0, image, instances, others, dataset.load, rng),
        lambda: peer(image, masks, turned(of_donors, image.shape, rng)),
    )
    into = f"into {len(instances)} {'real' if images.real_data() else 'generated'} ones"
    yield Row(f"paste {CELLS} cells {into}", "ms", ours, theirs, "full-size mask a cell", same, at_least=5)
    with_it, without = side_by_side(both, lambda: transform(image, instances, np.random.default_rng(next(seeds[1]))))
    yield Row(
        f"paste {CELLS} cells {into} + transform", "x plain", with_it / without, 1.0, "rotate + scale + crop alone",
        f"{with_it:.1f} and {without:.1f} ms", at_most=5,
    )  # fmt: skip
