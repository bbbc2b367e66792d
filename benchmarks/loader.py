"""Training samples from the disk, one process: ours beside a dataset with one mask a cell, as public code has it.

Both read the image, decode its annotations, rotate, scale and crop, and make tensors; nothing is kept in memory from
one sample to the next. Then whole images for each kind of data: sixteen workers have to feed a GPU that takes 100
images of 520x704 a second.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import albumentations as A
import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks import images
from benchmarks.augmentation import CROP, affine
from benchmarks.copy_paste import from_config
from benchmarks.measure import Row, expect, side_by_side
from benchmarks.rle_text import decode
from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import InstanceDataset
from sartorius.data.pseudo_labels.settings import COLUMNS, PseudoLabels
from sartorius.data.pseudo_labels.source import PseudoLabelled

IMAGES = 8  # as many, spread evenly over the folder
AT_MOST = 1e3 * 16 / 100  # milliseconds a sample in one of 16 workers, for 100 a second


class MaskDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The peer: masks uint8 [N, H, W] and boxes float32 [N, 4] of an image's cells, augmented."""

    def __init__(self, competition: Competition, names: list[str], transform: A.Compose) -> None:
        self.records = [competition.record(name) for name in names]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        record = self.records[index]
        image = np.array(Image.open(record.path).convert("L"))
        done = self.transform(image=image, masks=[decode(text) for text in record.annotations])
        masks = np.stack([mask for mask in done["masks"] if mask.any()] or [np.zeros_like(done["image"])])
        spans = [np.flatnonzero(m.any(axis=axis)) for m in masks for axis in (0, 1)]
        edges = [(span[0], span[-1] + 1) if len(span) else (0, 0) for span in spans]
        boxes = np.array(edges, np.float32).reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1, 4)
        return {"image": torch.from_numpy(done["image"])[None], "boxes": torch.from_numpy(boxes),
                "masks": torch.from_numpy(masks)}  # fmt: skip


def check(competition: Competition, names: list[str]) -> str:
    """Without augmentation both must give the same boxes."""
    ours, peer = InstanceDataset(competition, names), MaskDataset(competition, names, A.Compose([]))
    equal = all(torch.equal(ours[k][1].boxes, peer[k]["boxes"]) for k in range(len(names)))
    return expect(equal, "the box of every cell without augmentation")


def rows() -> Iterator[Row]:
    """Milliseconds a sample, the mean over a pass of some images."""
    with tempfile.TemporaryDirectory() as scratch:
        competition = Competition(images.competition_folder(Path(scratch), IMAGES))
        names = list(competition.ids)[:: max(1, len(competition.ids) // IMAGES)][:IMAGES]
        same = check(competition, names)
        ours = InstanceDataset(competition, names, LayerTransform([affine()], CellCrop(CROP, CROP)))
        peer = MaskDataset(competition, names, A.Compose([affine(), A.RandomCrop(CROP, CROP)]))
        passes = side_by_side(
            lambda: [ours[k] for k in range(len(names))], lambda: [peer[k] for k in range(len(names))]
        )
    mine, theirs = passes[0] / len(names), passes[1] / len(names)
    cells = sum(len(competition.record(name)) for name in names)
    what = f"loader, {len(names)} images, {cells} cells: {1e3 / mine:.0f} and {1e3 / theirs:.1f} samples/s"
    yield Row(what, "ms", mine, theirs, "dataset with a mask a cell", same, at_least=1)
    yield from whole_images()


def kinds(competition: Competition, scratch: Path, transform: LayerTransform) -> dict[str, InstanceDataset]:
    """A dataset of whole images for each kind of data: the same images, pasting into each, and as pseudo-labelled.

    Every third pseudo-label is doubtful, as far as the folder's annotations can stand for some.
    """
    table = pd.read_csv(competition.csv, dtype=str)
    score = np.where(np.arange(len(table)) % 3 == 2, "0.5", "0.9")
    table[list(COLUMNS[:-1])].assign(score=score).to_csv(scratch / "pseudo.csv", index=False)
    settings = PseudoLabels(
        file=scratch / "pseudo.csv", folder=competition.root / "train", min_score=0.6, doubtful_score=0.3,
        min_agreement=0, ratio=1, weight=0.5, cache_mb=0,
    )  # fmt: skip
    pseudo = PseudoLabelled(settings, competition.cell_type_names)
    pasted = from_config(["copy_paste.probability=1", "copy_paste.until=1"])[1]
    return {
        "plain": InstanceDataset(competition, competition.ids, transform),
        "copy-paste": InstanceDataset(competition, competition.ids, transform, mix=pasted),
        "pseudo-labelled": InstanceDataset(pseudo, competition.ids, transform, weight=0.5),
        "pseudo-labelled, copy-paste": InstanceDataset(pseudo, competition.ids, transform, mix=pasted, weight=0.5),
    }


def whole_images() -> list[Row]:
    """Milliseconds a sample of whole images (transform=default without its crop), each kind beside the plain one."""
    transform = from_config(["transform.crop=null"])[0]
    with tempfile.TemporaryDirectory() as scratch:
        competition = Competition(images.competition_folder(Path(scratch), IMAGES))
        step = max(1, len(competition.ids) // IMAGES)
        chosen = range(0, len(competition.ids), step)[:IMAGES]
        epochs = itertools.count()

        def one_pass(dataset: InstanceDataset) -> Callable[[], object]:
            def samples() -> list[object]:
                epoch = next(epochs)
                return [dataset[(epoch, k)] for k in chosen]

            return samples

        datasets, result = kinds(competition, Path(scratch), transform), []
        for name, dataset in datasets.items():
            passes = side_by_side(one_pass(dataset), one_pass(datasets["plain"]))
            mine, plain = (value / len(chosen) for value in passes)
            what = f"whole images, {name}: {1e3 / mine:.0f} samples/s a worker"
            result.append(Row(what, "ms", mine, plain, "plain", "the same images", at_most=AT_MOST))
    return result
