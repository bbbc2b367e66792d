"""The images that the benchmarks work on.

Real ones where a copy of the competition is at hand: the folder that `SARTORIUS_REAL_DATA` names, else `../shared/data`
beside the checkout, holding `sartorius/` (the competition's layout) and optionally `annotations/` and
`peer_predictions/`. Otherwise generated ones with as many cells.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES, HEIGHT, WIDTH
from sartorius.structures.instances import Instances

DENSEST, DENSEST_CELLS = "5d066f4c3eef", 547  # of the images that are usually at hand


@dataclass(frozen=True)
class Annotated:
    """An image, uint8 [H, W], with its cells as run-length texts, and whether it is a real one."""

    image: NDArray[np.uint8]
    texts: list[str]
    real: bool

    @property
    def source(self) -> str:
        """For the table: where the image comes from."""
        return "real" if self.real else "generated"

    def instances(self) -> Instances:
        """The cells, all of the first cell type."""
        return Instances.from_rles(self.texts, np.zeros(len(self.texts)), HEIGHT, WIDTH)


def real_data() -> Path | None:
    """The folder with the real data, None where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SARTORIUS_REAL_DATA", beside))
    return folder if (folder / "sartorius" / "train.csv").is_file() else None


@cache
def densest() -> Annotated:
    """The image with 547 cells."""
    folder = real_data()
    if folder is None:
        return generated(DENSEST_CELLS)
    table = pd.read_csv(folder / "sartorius" / "train.csv", dtype=str)
    texts = table.annotation[table.id == DENSEST].tolist()
    image = np.asarray(Image.open(folder / "sartorius" / "train" / f"{DENSEST}.png").convert("L"))
    return Annotated(image, texts, real=True)


@cache
def crowded(cells: int = 600) -> Annotated:
    """The first `cells` cells of the most crowded annotated image (its image is left black)."""
    folder = real_data()
    path = folder / "annotations" / "train_annotations.csv.gz" if folder is not None else None
    if path is None or not path.is_file():
        return generated(cells)
    table = pd.read_csv(path, dtype=str)
    texts = table.annotation[table.id == table.id.value_counts().idxmax()].tolist()
    return Annotated(np.zeros((HEIGHT, WIDTH), np.uint8), texts[:cells], real=True)


def scored() -> tuple[list[tuple[list[str], list[str]]], str]:
    """Pairs (predicted texts, true texts), one per image, and where they come from.

    Real: another team's predictions on 28 images. Generated: 28 images of 20 to 290 cells, each moved by 2 px.
    """
    folder = real_data()
    if folder is None or not (folder / "peer_predictions" / "maskrcnn.csv").is_file():
        truths = [generated(20 + 10 * k, seed=k).texts for k in range(28)]
        return [(rle.format(_moved(rle.parse(texts, HEIGHT, WIDTH), 2)), texts) for texts in truths], "generated"
    predicted = pd.read_csv(folder / "peer_predictions" / "maskrcnn.csv", dtype=str).dropna().groupby("id").predicted
    true = pd.read_csv(folder / "sartorius" / "train.csv", dtype=str).groupby("id").annotation
    return [(texts.tolist(), true.get_group(name).tolist()) for name, texts in predicted], "real"


def competition_folder(scratch: Path, images: int = 8) -> Path:
    """A folder in the competition's layout: the real one, else one generated in `scratch`."""
    folder = real_data()
    if folder is not None:
        return folder / "sartorius"
    (scratch / "train").mkdir(parents=True, exist_ok=True)
    rows = []
    for k in range(images):
        sample = generated(40 + 70 * k, seed=k)
        Image.fromarray(sample.image).save(scratch / "train" / f"image{k}.png")
        rows += [(f"image{k}", text, WIDTH, HEIGHT, CELL_TYPES[k % 3]) for text in sample.texts]
    pd.DataFrame(rows, columns=["id", "annotation", "width", "height", "cell_type"]).to_csv(
        scratch / "train.csv", index=False
    )
    return scratch


@cache
def generated(cells: int, seed: int = 0) -> Annotated:
    """An image of `cells` ellipses of some 200 px on a shaken grid; some overlap, as real ones do."""
    random = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(cells * WIDTH / HEIGHT)))
    rows = int(np.ceil(cells / columns))
    index, pixel = [], []
    for k in range(cells):
        y, x = (k // columns + 0.5) * HEIGHT / rows, (k % columns + 0.5) * WIDTH / columns
        at = _ellipse(y + random.normal(0, 3), x + random.normal(0, 3), random.uniform(0, np.pi))
        pixel.append(at)
        index.append(np.full(len(at), k))
    at, cell = np.concatenate(pixel), np.concatenate(index)
    image = random.normal(128, 8, HEIGHT * WIDTH)
    image[at] += 40
    runs = _runs(at, cell, cells)
    return Annotated(image.clip(0, 255).astype(np.uint8).reshape(HEIGHT, WIDTH), rle.format(runs), real=False)


def _ellipse(y: float, x: float, angle: float) -> NDArray[np.int64]:
    """Flat indices, ascending, of an ellipse with half axes of 12 and 5.5 px, cut at the edge of the image."""
    rows, columns = np.mgrid[max(0, int(y) - 13) : int(y) + 14, max(0, int(x) - 13) : int(x) + 14]
    dy, dx = rows - y, columns - x
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    inside = ((u / 12) ** 2 + (v / 5.5) ** 2 <= 1) & (rows < HEIGHT) & (columns < WIDTH)
    return (rows[inside] * WIDTH + columns[inside]).astype(np.int64)


def _runs(pixel: NDArray[np.int64], cell: NDArray[np.int64], count: int) -> rle.Runs:
    """Runs of cells whose pixels come cell by cell in ascending order."""
    first = np.flatnonzero(np.diff(pixel, prepend=-2) * (1 + HEIGHT * WIDTH * (np.diff(cell, prepend=-1) != 0)) != 1)
    length = np.diff(first, append=len(pixel))
    return rle.Runs(pixel[first], length, cell[first], count, HEIGHT, WIDTH)


def _moved(runs: rle.Runs, columns: int) -> rle.Runs:
    """The cells moved to the right, those that would leave their row excepted."""
    stays = runs.start % WIDTH + runs.length + columns > WIDTH
    return rle.Runs(
        np.where(stays, runs.start, runs.start + columns), runs.length, runs.cell, runs.count, HEIGHT, WIDTH
    )
