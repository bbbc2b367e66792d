"""The competition's folder for programs that do not know this package: a fold's images in, a submission out.

Needs NumPy and Pillow only, so that each peer lives in an environment of its own. Format as in `structures.rle`:
`start length start length ...`, starts counted from 1, the image scanned row by row.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # IoU thresholds of the competition's score


@dataclass(frozen=True)
class Sample:
    """A labelled image: grey levels uint8 [H, W] and its cells as a label map int32 [H, W], 0 is background."""

    id: str
    image: np.ndarray
    labels: np.ndarray


class Budget:
    """CPU time for training, counted over all threads of this process from the moment this is made."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.begin = time.process_time()

    @property
    def spent(self) -> float:
        """The share of the budget that is used up, 0 to 1 and beyond."""
        return (time.process_time() - self.begin) / self.seconds


def arguments(description: str | None) -> argparse.Namespace:
    """The command line that both peers share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="the competition's folder: train.csv and train/")
    parser.add_argument("--folds", type=Path, required=True, help="folds.csv of sartorius.prepare: columns id, fold")
    parser.add_argument("--fold", type=int, required=True, help="its images are left out and predicted")
    parser.add_argument("--minutes", type=float, required=True, help="of CPU time for training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="csv in the submission format")
    return parser.parse_args()


def read_fold(root: Path, folds: Path, fold: int) -> tuple[list[Sample], list[Sample]]:
    """Images to train on, and those left out, both sorted by id. The latter's labels are for nobody to look at."""
    cells: dict[str, list[str]] = defaultdict(list)
    with open(root / "train.csv", newline="") as file:
        for row in csv.DictReader(file):
            cells[row["id"]].append(row["annotation"])
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    with open(folds, newline="") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: row["id"]):
            image = np.asarray(Image.open(root / "train" / f"{row['id']}.png").convert("L"))
            parts[int(row["fold"]) == fold].append(Sample(row["id"], image, label_map(cells[row["id"]], image.shape)))
    return parts


def label_map(texts: list[str], shape: tuple[int, ...]) -> np.ndarray:
    """Run-length texts as a label map int32 [H, W]; where cells overlap, the smaller one keeps the pixels."""
    cells = []
    for text in texts:
        runs = np.array(text.split(), dtype=np.int64).reshape(-1, 2)
        cells.append(np.concatenate([np.arange(start - 1, start - 1 + length) for start, length in runs]))
    labels = np.zeros(shape[0] * shape[1], dtype=np.int32)
    for number, pixels in enumerate(sorted(cells, key=len, reverse=True), start=1):
        labels[pixels] = number
    return labels.reshape(shape)


def run_lengths(labels: np.ndarray) -> list[str]:
    """The text of every cell of a label map [H, W], in the order of their numbers; numbers may be missing."""
    flat = labels.ravel()
    first = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    length, number = np.diff(first, append=len(flat)), flat[first]
    texts: dict[int, list[str]] = {int(k): [] for k in np.unique(number) if k}
    for start, pixels, k in zip(first, length, number, strict=True):
        if k:
            texts[int(k)] += [str(start + 1), str(pixels)]
    return [" ".join(text) for text in texts.values()]


def write_submission(path: Path, predicted: dict[str, np.ndarray]) -> None:
    """Label maps by image id as `id,predicted`; an image without cells has one empty row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "predicted"))
        for image_id, labels in predicted.items():
            writer.writerows((image_id, text) for text in run_lengths(labels) or [""])
