"""A synthetic LIVECell: drawn images and their exact truth in LIVECell's published layout.

Each of the 8 cell lines is drawn as one of the three populations of `cells`, with counts of its own (`LINES`): the
lines differ in number, size and shape of cells, but do not resemble the real ones. The folder holds

    images/livecell_{train_val,test}_images/<line>/<image>.tif
    annotations/LIVECell/livecell_coco_{train,val,test}.json     polygons; RLEs for masks with holes or several pieces
    synthetic.json                                               the settings it was made with

Every image is a function of (seed, split, line, number in it): a larger number changes none of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.measure import find_contours

from sartorius.data.livecell.coco_cells import uncompressed
from sartorius.data.livecell.folder import FOLDERS, SPLITS, LiveCell
from sartorius.errors import InputError
from sartorius.files import atomic_path, write_text
from sartorius.structures import checks, coco_rle, rle
from sartorius.structures.instances import Instances
from sartorius.structures.progress import progress_bar
from sartorius.structures.rle import Runs
from sartorius.synthetic.generated import write_whole
from sartorius.synthetic.image import Appearance, SyntheticImage, draw_image

VERSION = 2  # of the drawing; another one gives other images for the same seed
# Line -> population that it is drawn as, and between which cumulative shares of that population's cells an image its
# counts lie: few and large, or many and small cells. BV2 is the densest line of the real set, SKOV3 among the sparsest.
LINES: dict[str, tuple[str, float, float]] = {
    "A172": ("astro", 0.5, 0.9),  # 74 to 135 cells
    "BT474": ("shsy5y", 0.05, 0.5),  # 85 to 306
    "BV2": ("shsy5y", 0.75, 1.0),  # 419 to 790
    "Huh7": ("astro", 0.1, 0.5),  # 28 to 74
    "MCF7": ("shsy5y", 0.25, 0.75),  # 198 to 419
    "SHSY5Y": ("shsy5y", 0.0, 0.25),  # 49 to 198
    "SkBr3": ("cort", 0.5, 1.0),  # 30 to 108
    "SKOV3": ("astro", 0.0, 0.25),  # 5 to 50
}
ROWS = {"train": "ABCD", "val": "EF", "test": "GH"}  # of a 96-well plate: no well lies in two splits
CROPS = 4  # images of one field of view
HOURS = 4  # between two images of a well


@dataclass(frozen=True)
class _FieldImage:
    """An image to draw: its number among those of its split and line; its name holds well, time and crop."""

    split: str
    line: str
    number: int
    name: str


def write_synthetic_livecell(
    folder: str | Path, seed: int, images: Mapping[str, int], shared: int = 0, **appearance: Any
) -> LiveCell:
    """Write a synthetic LIVECell folder and return it.

    The same arguments give byte-identical files; a folder that was written with them already is left as it is, one
    written with others is replaced as a whole (see `write_whole`).

    folder: where to; it may not hold anything else. seed: of everything, at least 0. images: number of each split
    (train, val, test), spread evenly over the lines; at least one each. shared: training images that are listed under
    the same name in the validation file too, beside its own: a leak on purpose, to test its detection. appearance: see
    `Appearance`.

    Raises:
        InputError: an argument out of its range, or a folder that holds something else.
    """
    drawing = Appearance(**appearance)
    for name in images:
        checks.one_of("source", SPLITS, images=name)
    counts = {split: int(images.get(split, 0)) for split in SPLITS}
    checks.whole("source", 1, images=counts)
    checks.whole("source", 0, seed=seed, shared=shared)
    if shared > counts["train"]:
        raise InputError(f"source.shared: {shared} images, but there are {counts['train']} training images")
    made_with = {"generator": "sartorius.synthetic.livecell", "version": VERSION, "seed": seed, "images": counts}
    made_with |= {"shared": shared, **asdict(drawing)}
    write = partial(_write, seed=seed, counts=counts, shared=shared, drawing=drawing)
    proof = "annotations/LIVECell/livecell_coco_test.json"
    contents = {"images", "annotations"}
    return LiveCell(write_whole(Path(folder), "a synthetic LIVECell", made_with, contents, proof, write))


def _write(folder: Path, seed: int, counts: Mapping[str, int], shared: int, drawing: Appearance) -> None:
    files = {split: CocoFile(drawing.height, drawing.width) for split in SPLITS}
    for split in SPLITS:
        for k, image in enumerate(progress_bar(list(_plan(split, counts[split])), f"drawing {split}")):
            drawn = _draw(seed, image, drawing)
            path = folder / "images" / FOLDERS[split] / image.line / image.name
            with atomic_path(path) as temporary:
                Image.fromarray(drawn.image).save(temporary)
            files[split].add(image.name, drawn.runs)
            if split == "train" and k < shared:
                files["val"].add(image.name, drawn.runs)
    for split, file in files.items():
        file.write(folder / "annotations" / "LIVECell" / f"livecell_coco_{split}.json")


def _plan(split: str, count: int) -> Iterator[_FieldImage]:
    """List the images of a split, lines in turn; four crops of one field, then the next well, then the next time."""
    wells = [f"{row}{column}" for row in ROWS[split] for column in range(1, 13)]
    for k in range(count):
        number, line = k // len(LINES), list(LINES)[k % len(LINES)]
        field, crop = divmod(number, CROPS)
        time, well = divmod(field, len(wells))
        days, hours = divmod(time * HOURS, 24)
        name = f"{line}_Phase_{wells[well]}_1_{days:02d}d{hours:02d}h00m_{crop + 1}.tif"
        yield _FieldImage(split, line, number, name)


def _draw(seed: int, image: _FieldImage, drawing: Appearance) -> SyntheticImage:
    key = [seed, SPLITS.index(image.split), list(LINES).index(image.line)]
    population, low, high = LINES[image.line]
    rng = np.random.default_rng([*key, 0, image.number])
    field_rng = np.random.default_rng([*key, 1, image.number // CROPS])
    count, area = rng.random(2)
    return draw_image(rng, field_rng, population, (low + (high - low) * count, area), drawing)


class CocoFile:
    """Builder of a COCO file: images of one size and their cells, with ids in the order of adding."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, name: str, runs: Runs) -> None:
        """Add an image and its cells, none of them without pixels."""
        drawn = len(self.images) + 1
        about = {"file_name": name, "original_filename": name, "height": self.height, "width": self.width}
        self.images.append({"id": drawn, **about})
        cells = Instances.from_runs(runs, np.zeros(runs.count))
        upright = rle.transposed(runs)
        compressed = coco_rle.encode(upright)
        for k, (x1, y1, x2, y2) in enumerate(cells.boxes.tolist()):
            shape: Any = _outline(cells, k)
            number = len(self.annotations) + 1
            if shape is None and number % 2:  # both of COCO's ways to write an RLE
                shape = {"size": [self.height, self.width], "counts": uncompressed(upright, k)}
            elif shape is None:
                shape = {"size": [self.height, self.width], "counts": compressed[k]["counts"].decode()}  # type: ignore[attr-defined]
            box, area = [x1, y1, x2 - x1, y2 - y1], int(cells.areas[k])
            self.annotations.append(
                {"id": number, "image_id": drawn, "category_id": 1, "iscrowd": 0, "area": area, "bbox": box}
                | {"segmentation": shape}
            )

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        content = {
            "info": {"description": "drawn by sartorius.synthetic.livecell"},
            "categories": [{"id": 1, "name": "cell", "supercategory": "cell"}],
            "images": self.images,
            "annotations": self.annotations,
        }
        write_text(path, json.dumps(content) + "\n")


def _outline(cells: Instances, k: int) -> list[list[float]] | None:
    """Trace the polygon [x, y, x, y, ...] of a mask through the middles of pixel edges; None for holes and pieces.

    COCO's rasteriser gives the mask back exactly.
    """
    top, left, mask = cells.crop_mask(k)
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    if len(contours) != 1:
        return None
    points = contours[0][:-1]
    ahead = np.diff(points, axis=0, append=points[:1])
    behind = np.roll(ahead, 1, axis=0)
    corners = points[ahead[:, 0] * behind[:, 1] != ahead[:, 1] * behind[:, 0]]
    return [(corners[:, ::-1] + (left - 0.5, top - 0.5)).ravel().tolist()]  # the crop is padded by 1, centres are + 0.5
