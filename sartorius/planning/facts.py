"""Measurements of a folder of labelled images that settings follow from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartorius.data.competition.about import cell_types_of
from sartorius.data.competition.folder import Competition, check_layout
from sartorius.data.competition.folds import FILE, read_folds
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.structures.arrays import Floats, Ints
from sartorius.structures.progress import progress_bar


@dataclass(frozen=True)
class FolderFacts:
    """Measurements of a folder of labelled images. Lengths are in pixels, areas in pixels.

    groups: of images that must not lie in two folds.  folds: number of folds of a folder that keeps them; None for one
    that does not.  cell_types: names, in the order of class indices.  areas: float [n] of each cell, by type.
    pixel_size: micrometres; None where it is not known.  sizes: int64 [images, 2], height and width.  counts: int64
    [read images], cells.  densest: cells of the densest image, a pixel of it.  diameters: float [images with cells],
    median over the cells of an image of the diameter of a disc of the cell's area.  boxes: float [cells, 2], width and
    height.  shared: share of a cell's pixels that other cells cover too, float [cells].  foreground: share of labelled
    pixels that are of cells.  grey_mean, grey_std: of the pixels of all images.
    """

    root: Path
    groups: int
    folds: int | None
    cell_types: tuple[str, ...]
    areas: Mapping[str, Floats]
    pixel_size: float | None
    sizes: Ints
    counts: Ints
    densest: float
    diameters: Floats
    boxes: Floats
    shared: Floats
    foreground: float
    grey_mean: float
    grey_std: float

    @property
    def images(self) -> int:
        """The number of labelled images."""
        return len(self.sizes)

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return int(self.sizes.prod(axis=1).sum())

    @property
    def largest(self) -> int:
        """Pixels of the largest image."""
        return int(self.sizes.prod(axis=1).max())

    @property
    def cells(self) -> int:
        """The number of cells that were measured."""
        return len(self.boxes)

    @property
    def diameter(self) -> float:
        """Geometric mean of `diameters`: each image counts once, however many cells it has."""
        return float(np.exp(np.log(self.diameters).mean()))

    def length(self, quantile: float) -> float:
        """Return a quantile of the longer side of the cells' boxes."""
        return float(np.quantile(self.boxes.max(axis=1), quantile))


def read_facts(root: str | Path, most_images: int) -> FolderFacts:
    """Measure a folder in the competition's layout, of more images than `most_images` so many evenly chosen ones.

    Raises InputError as `Competition` does, for images or annotations that cannot be decoded, and for a folder without
    any cell.
    """
    root = Path(root).resolve()
    check_layout(root)
    names = cell_types_of(root)
    competition = Competition(root, names)
    chosen = np.unique(np.linspace(0, len(competition.ids) - 1, min(most_images, len(competition.ids))).round())
    ids = [competition.ids[int(k)] for k in chosen]
    read = [_measure(competition, image_id) for image_id in progress_bar(ids, "measuring")]
    if not sum(len(image.areas) for image in read):
        raise InputError(f"{root / 'train.csv'}: no image has a cell; settings follow from labelled cells: label some")
    groups = len(set(competition.wells.values()))
    keeps = competition.about is not None and (root / FILE).is_file()
    types, areas = np.concatenate([image.types for image in read]), np.concatenate([image.areas for image in read])
    mean = float(np.mean([image.grey[0] for image in read]))
    square = float(np.mean([image.grey[0] ** 2 + image.grey[1] ** 2 for image in read]))
    return FolderFacts(
        root=root,
        groups=groups,
        folds=read_folds(root / FILE, competition).n_folds if keeps else None,
        cell_types=names,
        areas={name: areas[types == k] for k, name in enumerate(names)},
        pixel_size=competition.about.pixel_size if competition.about is not None else None,
        sizes=np.array([(image.height, image.width) for image in competition.images.values()], np.int64),
        counts=np.array([len(image.areas) for image in read], np.int64),
        densest=max(len(image.areas) / image.labelled for image in read),
        diameters=np.array([np.sqrt(4 * np.median(image.areas) / np.pi) for image in read if len(image.areas)]),
        boxes=np.concatenate([image.boxes for image in read]),
        shared=np.concatenate([image.shared for image in read]),
        foreground=float(sum(image.covered for image in read) / sum(image.labelled for image in read)),
        grey_mean=mean,
        grey_std=float(np.sqrt(max(square - mean**2, 0.0))),
    )


@dataclass(frozen=True)
class _Image:
    """Cells of an image: types int64 [n], areas float [n], boxes float [n, 2], shared float [n]; labelled and covered
    pixels; mean and standard deviation of the grey levels."""

    types: Ints
    areas: Floats
    boxes: Floats
    shared: Floats
    labelled: int
    covered: int
    grey: tuple[float, float]


def _measure(competition: Competition, image_id: str) -> _Image:
    pixels, cells = competition.image(image_id), competition.instances(image_id)
    ignored = competition.ignored(image_id)
    first, second, common = rle.overlaps(competition.runs(image_id))
    shared = np.zeros(len(cells))
    for cell in (first, second):
        np.add.at(shared, cell, common)
    left, top, right, bottom = cells.boxes.T.astype(np.float64)
    return _Image(
        types=cells.cell_types,
        areas=cells.areas.astype(np.float64),
        boxes=np.stack([right - left, bottom - top], axis=1),
        shared=shared / np.maximum(cells.areas, 1),
        labelled=max(pixels.size - (0 if ignored is None else int(ignored.sum())), 1),
        covered=int(cells.foreground().sum()),
        grey=(float(pixels.mean()), float(pixels.std())),
    )


def sizes_text(sizes: Sequence[Sequence[int]] | Ints) -> str:
    """Describe sizes (height, width): "704x520", or the smallest to the largest by area."""
    ordered = sorted({(int(height), int(width)) for height, width in sizes}, key=lambda size: size[0] * size[1])
    first, *_, last = [*ordered, ordered[-1]]
    texts = [f"{width}x{height}" for height, width in (first, last)]
    return texts[0] if first == last else f"{texts[0]} to {texts[1]}"
