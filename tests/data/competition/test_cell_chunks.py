"""Every cell once an epoch, in chunks that are a function of (seed, epoch, image)."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.cleaning import CleanedSource, Cleaning
from sartorius.data.competition.cell_chunks import CellChunks, CellsDataModule
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import Batch, Target
from sartorius.errors import InputError

TURN = LayerTransform([A.D4(p=1.0)])
PICTURES = ["astro00", "astro03", "cort03", "shsy5y02"]  # 2, 4, 0 and 3 cells


def chunks(root: Path, cells: int = 2, **options: Any) -> CellChunks:
    competition = Competition(root)
    counts = [len(competition.record(image_id)) for image_id in PICTURES]
    return CellChunks(competition, PICTURES, counts, cells, **options)


def areas(target: Target) -> list[int]:
    """Pixels of the chosen cells: what turning does not change."""
    assert target.chosen is not None
    return [int((target.layers == k).sum()) for k in target.ids[target.chosen].tolist()]


@pytest.mark.parametrize("cells", [1, 2, 3, 100])
def test_an_epoch_passes_every_cell_once(tiny_competition: Path, cells: int) -> None:
    dataset, competition = chunks(tiny_competition, cells, transform=TURN), Competition(tiny_competition)
    assert len(dataset) == sum(-(-count // cells) for count in (2, 4, 0, 3))
    for epoch in (0, 1):
        seen: Counter[tuple[str, int]] = Counter()
        for index in range(len(dataset)):
            _, target = dataset[(epoch, index)]
            assert 1 <= len(areas(target)) <= cells
            seen.update((target.image_id, area) for area in areas(target))
        truth = Counter((p, int(a)) for p in PICTURES for a in competition.instances(p).areas)
        assert seen == truth


def test_passes_and_epochs_deal_anew(tiny_competition: Path) -> None:
    dataset = chunks(tiny_competition, 1, passes=2)
    assert len(dataset) == 2 * 9
    order = [[dataset[(epoch, k)][1].chosen.tolist() for k in range(18)] for epoch in range(6)]  # type: ignore[union-attr]
    halves = [half for epoch in order for half in (epoch[:9], epoch[9:])]
    assert all(sorted(itertools.chain(*half[2:6])) == [0, 1, 2, 3] for half in halves)
    assert len({str(half) for half in halves}) > 6


def same(a: tuple[torch.Tensor, Target], b: tuple[torch.Tensor, Target]) -> bool:
    assert a[1].chosen is not None and b[1].chosen is not None
    return torch.equal(a[0], b[0]) and torch.equal(a[1].layers, b[1].layers) and torch.equal(a[1].chosen, b[1].chosen)


def test_a_sample_is_a_function_of_seed_epoch_image_and_chunk(tiny_competition: Path) -> None:
    first, cached = (
        chunks(tiny_competition, transform=TURN),
        chunks(tiny_competition, transform=TURN, cache_bytes=10**6),
    )
    other = chunks(tiny_competition, transform=TURN, seed=5)
    assert all(same(first[(3, k)], cached[(3, k)]) for k in range(5))
    assert not all(same(first[(3, k)], first[(4, k)]) for k in range(5))
    assert not all(same(first[(3, k)], other[(3, k)]) for k in range(5))
    assert torch.equal(first[1][1].layers, first[(0, 1)][1].layers)


def test_cells_that_were_dropped_are_in_no_chunk(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    none_left = CleanedSource(competition, Cleaning(min_area=10**6))
    _, target = CellChunks(none_left, ["astro03"], [4], 2)[0]
    assert target.chosen is not None
    assert (len(target), len(target.chosen), target.chosen.dtype) == (0, 0, torch.int64)
    cropped = chunks(tiny_competition, 1, transform=LayerTransform(crop=CellCrop(12, 64), min_area=50))
    found = [cropped[(epoch, k)][1] for epoch in range(4) for k in range(len(cropped))]
    sizes = [len(target.chosen) for target in found]  # type: ignore[arg-type]
    assert set(sizes) == {0, 1}
    assert all(area >= 50 for target in found for area in areas(target))


def test_bad_numbers(tiny_competition: Path) -> None:
    with pytest.raises(InputError, match="cells_per_sample: expected a whole number of at least 1, got 0"):
        chunks(tiny_competition, 0)
    with pytest.raises(IndexError):
        chunks(tiny_competition)[5]


def test_the_data_module_of_a_fold(tiny_competition: Path) -> None:
    options: dict[str, Any] = {"n_folds": 4, "train_transform": TURN, "batch_size": 3, "cells_per_sample": 2}
    datamodule = CellsDataModule(tiny_competition, train_repeats=2, **options)
    datamodule.setup("fit")
    batches: list[Batch] = list(datamodule.train_dataloader())
    targets = [target for batch in batches for target in batch.targets]
    record = datamodule.competition.record
    assert sum(len(areas(target)) for target in targets) == 2 * sum(len(record(p)) for p in datamodule.train_images)
    assert {target.image_id for target in targets} <= set(datamodule.train_images)
    val = [target for batch in datamodule.val_dataloader() for target in batch.targets]
    assert [target.image_id for target in val] == datamodule.val_images
    assert all(target.chosen is None for target in val)
    moved = batches[0].to("meta").targets[0]
    assert moved.chosen is not None
    assert moved.chosen.device.type == "meta"


@pytest.mark.filterwarnings("ignore:data.images without data.val_images")
def test_training_images_without_cells(tiny_competition: Path) -> None:
    datamodule = CellsDataModule(tiny_competition, n_folds=4, cells_per_sample=2, images=["cort03"])
    with pytest.raises(InputError, match="1 training images have no cells"):
        datamodule.setup("fit")


def test_workers_change_nothing(tiny_competition: Path) -> None:
    def seen(workers: int) -> list[list[int]]:
        datamodule = CellsDataModule(
            tiny_competition, n_folds=4, cells_per_sample=1, num_workers=workers, train_transform=TURN
        )
        datamodule.setup("fit")
        loader = datamodule.train_dataloader()
        return [areas(target) + target.chosen.tolist() for batch in loader for target in batch.targets]  # type: ignore[union-attr]

    assert seen(1) == seen(0)
    assert np.size(seen(0)) > 0
