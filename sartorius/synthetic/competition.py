"""A synthetic competition: drawn images and their exact truth in the layout of the competition's own files.

For tests, the demo and users without the real images. Counts, areas and overlaps of the cells agree with the real
annotations (`cells`), the imaging imitates the real images (`optics`). The folder holds

    train.csv, train/<id>.png, test/<id>.png, sample_submission.csv, train_semi_supervised/<name>.png
    truth.csv        the columns of train.csv for test/ and train_semi_supervised/ (there the id is the file's stem)
    synthetic.json   the settings it was made with

Every image is a function of (seed, split, cell type, number in it): a larger number changes none of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sartorius.errors import InputError
from sartorius.files import atomic_path, write_csv
from sartorius.structures import checks, rle
from sartorius.structures.progress import progress_bar
from sartorius.synthetic.generated import write_whole
from sartorius.synthetic.image import Appearance, SyntheticImage, draw_image

VERSION = 2  # of the drawing; another one gives other images for the same seed
COLUMNS = (
    "id", "annotation", "width", "height", "cell_type", "plate_time", "sample_date", "sample_id", "elapsed_timedelta",
)  # fmt: skip
PREFIXES = {"cort": "cort[density]", "shsy5y": "shsy5y[diff]", "astro": "astros[cereb]"}  # of real sample ids
SPLITS = {"train": 0, "test": 1, "train_semi_supervised": 2}
WELLS = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]  # of a 96-well plate
PER_WELL = 2  # images of each split in a well
# Steps of the levels (count, size) from image to image, modulo 1: golden ratio and square root of 2, so that
# already a dozen images spread evenly over both (a Kronecker sequence).
STRIDES = (0.6180339887498949, 0.4142135623730951)
CONTENTS = {*SPLITS, "train.csv", "truth.csv", "sample_submission.csv"}


@dataclass(frozen=True)
class _WellImage:
    """An image to draw: its number among those of its split and type, its well and its time."""

    split: str
    cell_type: str
    number: int
    well: int
    sample_id: str
    stem: str
    time: str
    date: str
    elapsed: str


def write_synthetic_competition(
    folder: str | Path, seed: int, images: Mapping[str, int], test: int = 3, unlabelled: int = 0, **appearance: Any
) -> Path:
    """Write a synthetic competition and return its folder.

    The same arguments give byte-identical files; a folder that was written with them already is left as it is, one
    written with others is replaced as a whole (see `write_whole`).

    folder: where to; it may not hold anything else. seed: of everything, at least 0. images: labelled images of each
    cell type (cort, shsy5y, astro). test, unlabelled: images without labels; their types take turns among those of
    `images`. appearance: see `Appearance`.

    Raises:
        InputError: an argument out of its range, or a folder that holds something else.
    """
    drawing = Appearance(**appearance)
    for name in images:
        checks.one_of("source", tuple(PREFIXES), images=name)
    checks.whole("source", 0, seed=seed, images=images, test=test, unlabelled=unlabelled)
    counts = {name: int(images[name]) for name in PREFIXES if images.get(name)}
    if not counts:
        raise InputError("source.images: no labelled image asked for; give for instance source.images.cort=6")
    made_with = {"generator": "sartorius.synthetic.competition", "version": VERSION, "seed": seed, "images": counts}
    made_with |= {"test": test, "unlabelled": unlabelled, **asdict(drawing)}
    planned = _plan(seed, counts, test, unlabelled)
    write = partial(_write, seed=seed, planned=planned, drawing=drawing)
    return write_whole(Path(folder), "a synthetic competition", made_with, CONTENTS, "truth.csv", write)


def _write(folder: Path, seed: int, planned: Iterable[_WellImage], drawing: Appearance) -> None:
    tables: dict[str, list[tuple[object, ...]]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
    for image in progress_bar(list(planned), "drawing"):
        drawn = _draw(seed, image, drawing)
        with atomic_path(folder / image.split / f"{image.stem}.png") as path:
            Image.fromarray(drawn.image).save(path)
        tables[image.split] += _rows(image, drawn)
    write_csv(folder / "train.csv", pd.DataFrame(tables["train"], columns=list(COLUMNS)))
    truth = tables["test"] + tables["train_semi_supervised"]
    write_csv(folder / "truth.csv", pd.DataFrame(truth, columns=list(COLUMNS)))
    ids = list(dict.fromkeys(row[0] for row in tables["test"]))
    write_csv(folder / "sample_submission.csv", pd.DataFrame({"id": ids, "predicted": [""] * len(ids)}))


def _rows(image: _WellImage, drawn: SyntheticImage) -> list[tuple[object, ...]]:
    about = image.cell_type, image.time, image.date, image.sample_id, image.elapsed
    size = drawn.runs.width, drawn.runs.height
    return [(image.stem, text, *size, *about) for text in rle.format(drawn.runs)]


def _draw(seed: int, image: _WellImage, drawing: Appearance) -> SyntheticImage:
    key = [seed, SPLITS[image.split], list(PREFIXES).index(image.cell_type)]
    start = np.random.default_rng([*key, 0]).random(2)
    count_level, size_level = (start + np.multiply(STRIDES, image.number)) % 1
    rng, well_rng = np.random.default_rng([*key, 1, image.number]), np.random.default_rng([seed, 3, key[2], image.well])
    return draw_image(rng, well_rng, image.cell_type, (float(count_level), float(size_level)), drawing)


def _plan(seed: int, counts: dict[str, int], test: int, unlabelled: int) -> Iterator[_WellImage]:
    """List every image to draw: the labelled ones type by type, then the others, whose types take turns."""
    names = list(counts)
    for name in names:
        for number in range(counts[name]):
            yield _well_image(seed, "train", name, number, number // PER_WELL)
    for k in range(test):
        yield _well_image(seed, "test", names[k % len(names)], k // len(names), -2 - k // len(names) // PER_WELL)
    for k in range(unlabelled):
        # one in the wells of the labelled images, the next in a well of its own, and so on
        number = k // len(names)
        share = number // 2 // PER_WELL
        well = share if number % 2 == 0 else len(WELLS) // 2 + share
        yield _well_image(seed, "train_semi_supervised", names[k % len(names)], number, well)


def _well_image(seed: int, split: str, cell_type: str, number: int, slot: int) -> _WellImage:
    slot %= len(WELLS)
    kind = list(PREFIXES).index(cell_type)
    plate = np.random.default_rng([seed, 4, kind])
    well = WELLS[int(plate.permutation(len(WELLS))[slot])]
    vessel, hours = int(plate.integers(300, 800)), int(plate.integers(0, 10))
    elapsed = timedelta(hours=hours, minutes=30 * number)
    moment = datetime(2020, 1 + 3 * kind, 6) + elapsed
    field, focus = 1 + 2 * (split != "train") + number % PER_WELL, 1 + number % 4
    where = f"{PREFIXES[cell_type]}_{well}-{field}_Vessel-{vessel}"
    time, date = f"{moment:%Hh%Mm%Ss}", f"{moment:%Y-%m-%d}"
    stem = hashlib.blake2b(f"{seed}/{split}/{cell_type}/{number}".encode(), digest_size=6).hexdigest()
    if split == "train_semi_supervised":
        stem = f"{where}_{date}_{time}_Ph_{focus}"
    span = f"{elapsed.days} days {moment:%H:%M:%S}"
    return _WellImage(split, cell_type, number, slot, f"{where}_Ph_{focus}", stem, time, date, span)
