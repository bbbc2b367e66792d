"""Samples and targets: shapes, exactness, determinism, the cache."""

from __future__ import annotations

import pickle
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import Batch, InstanceDataset, SampleCache, Target, collate
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances

RANDOM = LayerTransform([A.D4(p=1.0), A.Affine(rotate=(-45, 45), p=1.0)], CellCrop(24, 24, 0.5))


class Counting(Competition):
    """Counts how often images are decoded."""

    decoded = 0

    def image(self, image_id: str) -> GreyImage:
        self.decoded += 1
        return super().image(image_id)


def same(a: tuple[torch.Tensor, Target], b: tuple[torch.Tensor, Target]) -> bool:
    return torch.equal(a[0], b[0]) and a[0].shape == b[0].shape and torch.equal(a[1].layers, b[1].layers)


def test_sample_is_the_image_and_its_exact_cells(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    dataset = InstanceDataset(competition, ["astro00", "cort01"])
    image, target = dataset[0]
    assert image.dtype == torch.uint8
    assert image.shape == (1, 48, 64)
    np.testing.assert_array_equal(image[0].numpy(), competition.image("astro00"))
    assert (target.image_id, target.index, target.cell_type, len(target)) == ("astro00", 0, "astro", 2)
    assert dataset[1][1].index == list(competition.ids).index("cort01") == 5
    assert target.layers.dtype == torch.int32
    assert target.boxes.tolist() == [[6, 4, 21, 10], [10, 7, 26, 13]]
    assert target.boxes.dtype == torch.float32
    assert target.cell_types.tolist() == [1, 1]
    assert target.ids.tolist() == [1, 2]
    assert [int((target.layers[target.layer_of[k]] == target.ids[k]).sum()) for k in range(2)] == [90, 96]


def test_image_without_cells(tiny_competition: Path) -> None:
    _, target = InstanceDataset(Competition(tiny_competition), ["cort03"])[0]
    assert len(target) == 0
    assert target.cell_type == "cort"
    assert target.layers.shape == (1, 48, 64)
    assert target.boxes.shape == (0, 4)
    assert target.layer_of.shape == target.cell_types.shape == target.ids.shape == (0,)


def test_sample_is_a_function_of_seed_epoch_image_and_repeat(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    one = InstanceDataset(competition, ["astro00", "astro01"], RANDOM, seed=1, samples_per_image=3)
    other = InstanceDataset(competition, ["cort00", "astro01"], RANDOM, seed=1, samples_per_image=3, cache_bytes=10**6)
    assert len(one) == 6
    assert same(one[(4, 5)], other[(4, 5)])  # the same image at the same place in another subset
    assert same(one[(4, 5)], one[(4, 5)])
    assert not same(one[(4, 5)], one[(5, 5)])
    assert not same(one[(4, 5)], one[(4, 4)])
    assert not same(one[(4, 5)], InstanceDataset(competition, ["astro00", "astro01"], RANDOM, 2, 3)[(4, 5)])
    assert same(one[0], one[(0, 0)])


def test_unknown_image_and_index_past_the_end(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    with pytest.raises(InputError, match="no image 'ghost'"):
        InstanceDataset(competition, ["ghost"])
    with pytest.raises(IndexError):
        InstanceDataset(competition, ["astro00"])[1]
    assert len(InstanceDataset(competition, [])) == 0


def test_cache_decodes_once_and_changes_nothing(tiny_competition: Path) -> None:
    competition = Counting(tiny_competition)
    dataset = InstanceDataset(competition, ["astro00", "astro01"], RANDOM, cache_bytes=10**6)
    dataset.preload()
    assert competition.decoded == 2
    first = dataset[(0, 0)]
    first[0].zero_()
    first[1].layers.zero_()
    assert same(dataset[(0, 0)], InstanceDataset(competition, ["astro00", "astro01"], RANDOM)[(0, 0)])
    assert competition.decoded == 3
    assert len(pickle.loads(pickle.dumps(dataset)).cache) == 0


def test_cache_drops_the_least_recently_used() -> None:
    cache, loads = SampleCache(2 * (100 + 200)), []

    def load(image_id: str) -> tuple[GreyImage, Instances]:
        loads.append(image_id)
        return np.zeros((10, 10), np.uint8), Instances.empty(10, 10)

    for image_id in "abacab":
        cache.get(image_id, load)
    assert loads == ["a", "b", "c", "b"]
    assert cache.bytes == 600
    nothing = SampleCache(0)
    nothing.get("a", load)
    assert len(nothing) == nothing.bytes == 0


def test_batches_keep_sizes_and_move(tiny_competition: Path) -> None:
    dataset = InstanceDataset(Competition(tiny_competition), ["astro00", "cort03"])
    batch = collate([dataset[0], dataset[1]])
    assert len(batch) == 2
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert moved.images[0].device.type == moved.targets[1].layers.device.type == "meta"
    assert (moved.targets[0].image_id, moved.targets[0].cell_type) == ("astro00", "astro")
    assert batch.images[0].device.type == "cpu"
