"""Find cells in microscope images with the network beside this file: NumPy, SciPy and onnxruntime, no torch.

    python run.py IMAGES... --output FOLDER    # label images, and cells.csv with the run-length text of each cell
    python run.py --check                      # find the cells of the example, and compare

or in Python: `from run import Model; cells = Model()(image)`, with `cells.labels`, `.scores`, `.types` and `.rles`.
Written by `python -m sartorius.export format=onnx`, from the sources of that program.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sartorius.errors import InputError
from sartorius.exports.onnx.standalone.files import SUFFIXES, read_image, write_labels
from sartorius.exports.onnx.standalone.model import FoundCells, OnnxModel
from sartorius.files import write_text
from sartorius.structures import rle
from sartorius.structures.instances import Instances

COLUMNS = ("id", "annotation", "score", "type")
EXAMPLE, EXPECTED = "example/image.png", "example/cells.csv"
# Other processors round otherwise, which moves single pixels of an edge, and rarely a cell over a threshold.
LEAST_IOU, MOST_APART = 0.9, 1e-4  # of a cell of the example, and of its score

Model = OnnxModel


def rows_of(image_id: str, cells: FoundCells) -> list[tuple[str, ...]]:
    """Make the rows of cells.csv of an image; one without annotation where there are no cells."""
    scores = [f"{score:.6f}" for score in cells.scores]
    found = zip([image_id] * len(cells), cells.rles, scores, cells.types, strict=True)
    return list(found) or [(image_id, "", "", "")]


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Format rows as csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
    return buffer.getvalue()


def list_images(given: Sequence[str], output: Path, suffix: str) -> dict[str, Path]:
    """List the files, and those in folders, by id; raises InputError for missing ones, and ids that are not unique."""
    found: dict[str, Path] = {}
    for path in map(Path, given):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: no images in it, of {', '.join(SUFFIXES)}")
        for file in inside:
            if file.stem in found:
                raise InputError(f"{file}: has the id of {found[file.stem]}; rename one")
            if (output / f"{file.stem}{suffix}").resolve() == file.resolve():
                raise InputError(f"{file}: its label image would replace it; give another --output")
            found[file.stem] = file
    return found


def predict(model: OnnxModel, images: dict[str, Path], output: Path, suffix: str, pixel_size: float | None) -> int:
    """Write the label image of each image, then cells.csv; returns how many images could not be read."""
    rows, problems = [], 0
    output.mkdir(parents=True, exist_ok=True)
    for image_id, path in images.items():
        try:
            grey = model.levels(read_image(path, model.channel), str(path))
            cells = model.find_cells(grey, pixel_size, str(path))
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
            problems += 1
            continue
        write_labels(output / f"{image_id}{suffix}", cells.labels)
        rows += rows_of(image_id, cells)
        print(f"{image_id}: {len(cells)} cells")
    write_text(output / "cells.csv", table(rows))
    return problems


def compare_example(model: OnnxModel, folder: Path, least_iou: float = LEAST_IOU) -> str:
    """Compare the cells of the example with those that the model found when it was exported; describes them.

    Raises InputError where they are others, or one has an IoU with the expected one below `least_iou`.
    """
    image = read_image(folder / EXAMPLE)
    if image.dtype != np.uint8 or image.ndim != 2:
        raise InputError(f"{EXAMPLE}: not a readable example, {image.dtype} {image.shape}; fetch it again")
    cells = model.find_cells(image, name=EXAMPLE)  # it is at the grey levels of the training
    with open(folder / EXPECTED, newline="", encoding="utf-8") as file:
        expected = [row for row in csv.DictReader(file) if row["annotation"]]
    texts, types = [row["annotation"] for row in expected], [row["type"] for row in expected]
    wanted = rle.parse(texts, *image.shape)
    found = Instances.from_label_map(cells.labels, np.zeros(len(cells), np.int64)).to_runs()
    i, j, shared = rle.intersections(found, wanted)
    iou = np.zeros(len(expected))
    apart = np.ones(len(expected))
    values = shared / (found.areas[i] + wanted.areas[j] - shared)
    np.maximum.at(iou, j, values)
    scores = np.array([float(row["score"]) for row in expected])
    best = values == iou[j]
    apart[j[best]] = np.abs(cells.scores[i] - scores[j])[best]
    same = [types[b] == cells.types[a] for a, b in zip(i[best], j[best], strict=True)]
    told = f"{len(cells)} cells of {len(expected)} expected"
    if len(expected):
        told += f", IoU {iou.min():.4f} at least and {iou.mean():.4f} on average, scores within {apart.max():.1e}"
    fine = len(cells) == len(expected) and (iou >= least_iou).all() and (apart <= MOST_APART).all() and all(same)
    if not fine:
        raise InputError(f"the cells of the example are others here: {told}")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser("run.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("images", nargs="*", help="files of 8 or 16-bit grey or colour, or folders of them")
    parser.add_argument("--output", type=Path, default=Path("cells"), help="folder of the results")
    parser.add_argument("--format", choices=("png", "npy", "tif"), default="png", help="of label images")
    parser.add_argument("--pixel-size", type=float, help="of the images, micrometres")
    parser.add_argument("--channel", type=int, help="of several, from 0; in place of that of the training")
    parser.add_argument("--threads", type=int, help="of onnxruntime")
    parser.add_argument("--check", action="store_true", help="compare the cells of the example")
    parser.add_argument("--least-iou", type=float, default=LEAST_IOU, help="of each of them with the expected cell")
    given = parser.parse_args(arguments)
    try:
        if given.check:
            model = Model(threads=given.threads)
            told = compare_example(model, Path(__file__).resolve().parent, given.least_iou)
            print(f"example: {told}")
            return 0
        if not given.images:
            raise InputError("no images; python run.py IMAGES... --output FOLDER, or --check")
        if given.channel is not None and given.channel < 0:
            raise InputError(f"--channel {given.channel}: expected a number from 0")
        suffix = f".{given.format}"
        images = list_images(given.images, given.output, suffix)
        model = Model(threads=given.threads, channel=given.channel)
        problems = predict(model, images, given.output, suffix, given.pixel_size)
    except InputError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
