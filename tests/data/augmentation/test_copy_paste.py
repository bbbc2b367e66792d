"""Copy-paste: every visible pixel has its mask, nothing of others comes along, only training images give cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sartorius.data.augmentation.copy_paste import Canvas, CopyPaste, Pasted
from sartorius.data.augmentation.cut_cells import Backdrop, Donor
from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.cell_chunks import CellsDataModule
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.dataset import InstanceDataset, Target
from sartorius.errors import InputError
from sartorius.structures.arrays import GreyImage
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import MAX_CELLS, Instances

IDENTITY = np.eye(2, dtype=np.float32)
OPTIONS: dict[str, Any] = {
    "probability": 1.0, "until": 1.0, "epochs": None, "cells": [3, 8], "images": 2, "mirror": 0.5,
    "rotate": [-180, 180], "scale": [0.8, 1.25], "rim": 4, "max_shared": 0.1, "max_overlap": 0.3, "min_visible": 0.5,
    "tries": 10,
}  # fmt: skip
STILL = {"mirror": 0.0, "rotate": [0, 0], "scale": [1, 1]}
Image = tuple[GreyImage, Instances]


def mixer(**options: Any) -> CopyPaste:
    return CopyPaste(**{**OPTIONS, **options})


def make_image(
    boxes: Sequence[tuple[int, int, int, int]], grey: int = 120, value: int = 40, cell_type: int = 0
) -> Image:
    """80 x 100 pixels of one grey with rectangles (top, left, height, width) of another."""
    masks = np.zeros((len(boxes), 80, 100), bool)
    for mask, (top, left, height, width) in zip(masks, boxes, strict=True):
        mask[top : top + height, left : left + width] = True
    image = np.full((80, 100), grey, np.uint8)
    image[masks.any(axis=0)] = value
    return image, Instances.from_masks(masks, np.full(len(boxes), cell_type))


DONOR = make_image([(10, 10, 8, 12), (40, 50, 10, 10), (60, 20, 6, 20)], grey=150, value=70, cell_type=2)


def mixed(mix: CopyPaste, target: Image, *donors: Image, seed: int = 0, epoch: int = 0) -> Pasted:
    images = {str(k): donor for k, donor in enumerate(donors)}
    return mix(epoch, *target, list(images), images.__getitem__, np.random.default_rng(seed))


def masks_of(instances: Instances) -> np.ndarray:
    return (instances.layers[None] == np.arange(1, len(instances) + 1)[:, None, None, None]).any(axis=1)


def check(result: Pasted, target: Image) -> None:
    """What holds for any result: masks of given cells only shrink, and pasted ones lie below no cell."""
    masks, before = masks_of(result.instances), masks_of(target[1])
    assert result.image.shape == target[0].shape
    assert result.image.dtype == np.uint8
    assert result.kept.dtype == np.int64
    assert len(result.kept) == len(result.instances) == len(masks)
    assert masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(result.instances.areas, masks.sum(axis=(1, 2)))
    given = result.kept >= 0
    assert result.kept[given].tolist() == sorted(result.kept[given].tolist())
    over = np.zeros_like(masks[0]) if given.all() else masks[~given].any(axis=0)
    for k in np.flatnonzero(given):
        np.testing.assert_array_equal(masks[k], before[result.kept[k]] & ~over)
    assert masks[~given].sum() == over.sum()
    assert len(result.instances.layers) <= len(target[1].layers)


def test_pasted_cells_are_the_donors_on_the_background_of_the_image() -> None:
    target = make_image([(30, 30, 10, 10)], grey=120, value=60, cell_type=2)
    result = mixed(mixer(**STILL, cells=[3, 3], max_overlap=0.0), target, DONOR)
    check(result, target)
    assert result.kept.tolist() == [0, -1, -1, -1]
    assert sorted(result.instances.areas[1:].tolist()) == [8 * 12, 10 * 10, 6 * 20]
    assert result.instances.cell_types.tolist() == [2, 2, 2, 2]
    cells = masks_of(result.instances)[1:].any(axis=0)
    assert np.abs(result.image[cells].astype(int) - (70 - 150 + 120)).max() <= 1
    np.testing.assert_array_equal(result.image[~cells], target[0][~cells])  # flat backgrounds: no seam, no halo
    assert target[0].max() == 120
    assert target[1].areas.tolist() == [100]


@pytest.mark.parametrize("seed", range(8))
def test_every_visible_pixel_has_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = [(int(rng.integers(0, 60)), int(rng.integers(0, 80)), 14, 14) for _ in range(12)]
    target = make_image(boxes)
    result = mixed(mixer(cells=[10, 30], max_overlap=1.0), target, DONOR, DONOR, seed=seed)
    check(result, target)
    assert (result.kept < 0).any()
    given = result.kept >= 0
    assert given.sum() == 12
    assert (result.instances.areas[given] >= 0.5 * target[1].areas[result.kept[given]]).all()


def test_a_place_that_leaves_too_little_of_a_cell_is_not_taken() -> None:
    full = make_image([(top, left, 8, 10) for top in range(0, 80, 8) for left in range(0, 100, 10)])
    assert len(mixed(mixer(max_overlap=1.0, min_visible=1.0), full, DONOR).instances) == 100
    assert len(mixed(mixer(max_overlap=0.99, min_visible=0.0), full, DONOR).instances) == 100
    result = mixed(mixer(max_overlap=1.0, min_visible=0.4), full, DONOR)
    check(result, full)
    assert (result.instances.areas[result.kept >= 0] >= 0.4 * 80).all()


def test_a_cell_covered_whole_is_gone() -> None:
    specks = make_image([(top, left, 2, 2) for top in range(4, 76, 5) for left in range(4, 96, 5)])
    result = mixed(mixer(cells=[6, 6], max_overlap=1.0, min_visible=0.0), specks, DONOR, DONOR)
    check(result, specks)
    assert len(np.setdiff1d(np.arange(len(specks[1])), result.kept)) > 0
    assert (result.instances.areas > 0).all()


def test_doubtful_cells_may_be_covered_and_are_never_donors() -> None:
    image, cells = make_image([(0, 0, 80, 100)], grey=120, value=119)
    doubtful = (image, Instances(cells.layers, np.array([DOUBTFUL])))
    result = mixed(mixer(max_overlap=1.0, min_visible=1.0), doubtful, DONOR)
    check(result, doubtful)
    assert result.instances.cell_types[0] == DOUBTFUL
    assert (result.instances.cell_types[1:] == 2).all() and len(result.instances) > 1
    mixture = (DONOR[0], Instances(DONOR[1].layers, np.array([DOUBTFUL, 1, DOUBTFUL])))
    for seed in range(5):
        result = mixed(mixer(**STILL), make_image([]), mixture, seed=seed)
        assert result.instances.cell_types.tolist() == [1]
        assert result.instances.areas.tolist() == [10 * 10]


def test_cells_at_the_edge_or_below_others_are_no_donors() -> None:
    cut = make_image([(0, 10, 10, 10), (30, 0, 10, 10), (70, 40, 10, 10), (40, 90, 10, 10)])
    assert len(mixed(mixer(), make_image([]), cut).instances) == 0
    crossing = make_image([(20, 20, 10, 10), (20, 29, 10, 20)])  # 10 of 100 and of 200 pixels are shared
    assert len(mixed(mixer(max_shared=0.1), make_image([]), crossing).instances) == 2
    assert len(mixed(mixer(max_shared=0.09), make_image([]), crossing).instances) == 1
    assert len(mixed(mixer(max_shared=0.04), make_image([]), crossing).instances) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("still", [{}, STILL])
def test_nothing_of_other_donor_cells_comes_along(seed: int, still: dict[str, Any]) -> None:
    image, cells = make_image([(30, 30, 10, 10), (30, 40, 10, 10), (42, 30, 10, 10)], grey=120, value=100)
    image[30:40, 40:50], image[42:52, 30:40] = 250, 250  # neighbours of the first cell, touching and 2 px away
    cells = Instances(cells.layers, np.array([0, DOUBTFUL, DOUBTFUL]))
    result = mixed(mixer(**still), make_image([]), (image, cells), seed=seed)
    assert len(result.instances) == 1
    assert result.image.max() <= 126  # the cubic kernel overshoots a step of 20 grey levels by some
    assert result.image.min() >= 94


def test_the_halo_comes_along_but_not_onto_other_cells() -> None:
    image, cells = make_image([(30, 30, 10, 10)], grey=120, value=80)
    image[28:42, 28:42][~masks_of(cells)[0][28:42, 28:42]] = 160  # a bright ring of 2 px
    target = make_image([(20, 10, 40, 35), (20, 60, 40, 35)], grey=100, value=90)
    for seed in range(6):
        result = mixed(mixer(**STILL, cells=[1, 1], tries=50, max_overlap=0.5), target, (image, cells), seed=seed)
        masks = masks_of(result.instances)
        np.testing.assert_array_equal(result.image[masks[:2].any(axis=0)], 90)
        ring = cv2.dilate(masks[2].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~masks.any(axis=0)
        assert (np.abs(result.image[ring].astype(int) - 140) <= 5).all()  # less at its corners


def test_shading_of_both_images_stays_where_it_was() -> None:
    slope = np.linspace(0, 60, 100)[None].repeat(80, axis=0)
    cells = make_image([(30, 70, 10, 10)])[1]
    donor = (np.where(masks_of(cells)[0], slope + 60, slope + 90).astype(np.uint8), cells)
    target = ((160 - slope).astype(np.uint8), Instances.empty(80, 100))
    result = mixed(mixer(**STILL), target, donor)
    mask = masks_of(result.instances)[0]
    assert np.abs(result.image.astype(float) - (target[0] - 30.0 * mask))[:, 8:-8].max() <= 4


def test_canvas_against_masks_at_full_size() -> None:
    rng = np.random.default_rng(0)
    target = make_image([(int(rng.integers(0, 60)), int(rng.integers(0, 80)), 18, 18) for _ in range(9)])
    canvas, expected = Canvas(*target), list(masks_of(target[1]))
    donor = Donor(*DONOR)
    for _ in range(12):
        cell = int(rng.integers(3))
        cut = donor.cut(cell, IDENTITY, rim=4)
        assert cut is not None
        top, left = (int(rng.integers(0, whole - part)) for whole, part in zip((80, 100), cut.mask.shape, strict=True))
        patch = slice(top, top + cut.mask.shape[0]), slice(left, left + cut.mask.shape[1])
        canvas.paste(cut, patch, canvas.below(cut, patch))
        full = np.zeros((80, 100), bool)
        full[top : top + cut.mask.shape[0], left : left + cut.mask.shape[1]] = cut.mask
        expected = [*(mask & ~full for mask in expected), full]
    result = canvas.result()
    np.testing.assert_array_equal(masks_of(result.instances), [mask for mask in expected if mask.any()])


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("sign", [1, -1])
def test_right_angles_and_mirrors_are_exact(angle: int, sign: int) -> None:
    masks = np.zeros((1, 40, 50), bool)
    masks[0, 10:20, 10:15] = masks[0, 10:13, 15:30] = True  # an L
    image = np.where(masks[0], np.arange(50) + 100, 90).astype(np.uint8)
    a, b = round(np.cos(np.deg2rad(angle))), round(np.sin(np.deg2rad(angle)))
    turn = np.array([[sign * a, -b], [sign * b, a]], np.float32)
    cut = Donor(image, Instances.from_masks(masks, [1])).cut(0, turn, rim=4)
    assert cut is not None
    expected = masks[0, 10:20, 10:30][:, ::sign]
    expected = np.rot90(expected, -angle // 90)  # y points down: this angle is clockwise
    y, x = np.nonzero(cut.mask)
    np.testing.assert_array_equal(cut.mask[y.min() : y.max() + 1, x.min() : x.max() + 1], expected)
    assert cut.area == masks.sum() == expected.sum()
    assert sorted(np.rint(cut.light[cut.mask]).astype(int)) == sorted(image[masks[0]].astype(int) - 90)


@pytest.mark.parametrize(("scale", "angle"), [(0.5, 30), (1.0, 45), (2.0, 17)])
def test_area_follows_the_scale(scale: float, angle: float) -> None:
    a, b = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))
    cut = Donor(*DONOR).cut(1, np.array([[a, -b], [b, a]], np.float32), rim=4)
    assert cut is not None
    assert cut.area == pytest.approx(100 * scale**2, rel=0.12)
    assert cut.rest[cut.mask].max() < 0.1


def test_backdrop() -> None:
    rng = np.random.default_rng(0)
    image, cells = make_image([(30, 30, 20, 20), (30, 40, 20, 20)], value=250)
    backdrop = Backdrop.of((image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8), cells)
    assert backdrop.depth.max() == 2
    np.testing.assert_array_equal(backdrop.depth, masks_of(cells).sum(axis=0))
    assert np.abs(backdrop.level - 120).max() < 2
    black, all_covered = make_image([(0, 0, 80, 100)], value=77)
    np.testing.assert_allclose(Backdrop.of(black, all_covered).level, 77)


def test_no_place_no_donor_no_chance() -> None:
    target = make_image([(30, 30, 10, 10)])
    large = make_image([(5, 5, 70, 90)])
    small = (np.full((30, 30), 120, np.uint8), Instances.empty(30, 30))
    full = (target[0], Instances(target[1].layers, np.zeros(MAX_CELLS, np.int64)))
    for result in (
        mixed(mixer(), target),
        mixed(mixer(), target, make_image([])),
        mixed(mixer(probability=0.0), target, DONOR),
        mixed(mixer(cells=[0, 0]), target, DONOR),
        mixed(mixer(scale=[0.01, 0.01]), target, DONOR),
        mixed(mixer(**STILL, max_overlap=0.0), full, DONOR),
    ):
        assert (result.kept >= 0).all()
        np.testing.assert_array_equal(result.image, target[0])
        np.testing.assert_array_equal(result.instances.layers, target[1].layers)
    assert len(mixed(mixer(), small, large).instances) == 0


def test_epochs_that_paste() -> None:
    for until, epochs, last in ((0.7, 10, 7), (0.1, 30, 3), (0.29, 100, 29), (0.0, 5, 0), (0.5, 1, 0), (0.7, 1, 1)):
        assert [mixer(until=until, epochs=epochs).active(e) for e in range(epochs)] == [e < last for e in range(epochs)]
    assert mixer(until=1.0, epochs=-1).active(10**6)


@pytest.mark.parametrize(
    "bad",
    [
        {"probability": 1.5}, {"until": -0.1}, {"mirror": 2}, {"max_shared": -1}, {"max_overlap": 1.1},
        {"min_visible": -0.5}, {"images": 0}, {"rim": 0}, {"tries": 0}, {"cells": [5]}, {"cells": [5, 4]},
        {"cells": [-1, 4]}, {"rotate": [10, -10]}, {"scale": [0, 1]}, {"scale": [1.2, 0.8]},
        {"until": 0.5, "epochs": None}, {"until": 0.5, "epochs": -1},
    ],
)  # fmt: skip
def test_bad_settings_are_named(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"copy_paste\.{next(iter(bad))}\b"):
        mixer(**bad)


def samples(dataset: InstanceDataset, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(image, target.layers) for image, target in (dataset[(epoch, k)] for k in range(len(dataset)))]


def equal(a: list[tuple[torch.Tensor, torch.Tensor]], b: list[tuple[torch.Tensor, torch.Tensor]]) -> list[bool]:
    return [all(x.equal(y) for x, y in zip(*pair, strict=True)) for pair in zip(a, b, strict=True)]


def test_samples_are_a_function_of_the_epoch_and_plain_after_the_last_that_pastes(tiny_competition: Path) -> None:
    def dataset(**options: Any) -> InstanceDataset:
        datamodule = SupervisedDataModule(
            tiny_competition, n_folds=4, train_transform=LayerTransform((), CellCrop(32, 40, 0.5)), **options
        )
        datamodule.setup("fit")
        assert datamodule._train is not None
        return datamodule._train

    mix = mixer(until=0.5, epochs=4)
    pasted, again, plain = dataset(copy_paste=mix), dataset(copy_paste=mix, cache_mb=8), dataset()
    assert all(equal(samples(pasted, 1), list(samples(again, 1))))
    assert not all(equal(samples(pasted, 0), samples(pasted, 1)))
    assert not all(equal(samples(pasted, 1), samples(plain, 1)))
    for epoch in (2, 3):
        assert all(equal(samples(pasted, epoch), samples(plain, epoch)))


class Spy(CopyPaste):
    """Notes what is offered and loaded."""

    def __call__(self, epoch: int, image: Any, instances: Any, others: Any, load: Any, rng: Any) -> Pasted:
        def noted(name: str) -> Image:
            loaded.append(name)
            return load(name)  # type: ignore[no-any-return]

        offered.append(list(others))
        return super().__call__(epoch, image, instances, others, noted, rng)


offered: list[list[str]] = []
loaded: list[str] = []


@pytest.mark.parametrize("module", [SupervisedDataModule, CellsDataModule])
def test_donors_are_other_training_images_of_the_type(tiny_competition: Path, module: type) -> None:
    chunks = {"cells_per_sample": 2} if module is CellsDataModule else {}
    for fold in range(4):
        offered.clear()
        loaded.clear()
        datamodule = module(tiny_competition, fold=fold, n_folds=4, copy_paste=Spy(**OPTIONS), **chunks)
        datamodule.setup("fit")
        dataset, competition = datamodule._train, datamodule.competition
        for k in range(len(dataset)):
            before = len(loaded)
            _, target = dataset[(1, k)]
            assert target.image_id not in offered[-1]
            of_type = [p for p in datamodule.train_images if competition.cell_type(p) == target.cell_type]
            assert offered[-1] == [p for p in of_type if p != target.image_id]
            assert set(loaded[before:]) <= set(offered[-1])
            if target.chosen is not None and len(target.chosen):  # chunks are of the image's own cells
                assert target.chosen.max() < len(competition.record(target.image_id))
        assert loaded
        wells = competition.wells
        assert {wells[p] for p in loaded}.isdisjoint(wells[p] for p in datamodule.val_images)
        offered.clear()
        truth = [target for batch in datamodule.val_dataloader() for target in batch.targets]
        assert [len(target) for target in truth] == [len(competition.record(target.image_id)) for target in truth]
        assert not offered


def test_real_images(real_data: Path) -> None:
    from sartorius.data.competition.folder import Competition

    competition = Competition(real_data / "sartorius")
    mix = mixer(cells=[40, 40])
    dataset = InstanceDataset(competition, competition.ids, mix=mix, cache_bytes=10**8)
    for name in ("04928f0866b0", "1d2396667910", "5d066f4c3eef"):
        image, cells = dataset.load(name)
        result = mix(0, image, cells, dataset.others(name), dataset.load, np.random.default_rng(0))
        assert (result.kept < 0).sum() >= 3
        assert (result.kept >= 0).sum() == len(cells)
        over = result.instances.select(result.kept < 0).foreground()
        assert result.instances.areas.sum() == cells.areas.sum() - np.count_nonzero(cells.layers[:, over]) + over.sum()
        near = cv2.dilate(over.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        np.testing.assert_array_equal(result.image[~near], image[~near])


def unlabelled(image: Image, first_column: int) -> Image:
    """The image; nobody has labelled what lies right of a column."""
    region = np.zeros((80, 100), bool)
    region[:, first_column:] = True
    return image[0], image[1].with_region(region, DOUBTFUL)


def test_cells_lie_over_pixels_that_nobody_has_labelled_and_are_labelled() -> None:
    target = unlabelled(make_image([(30, 4, 10, 10)], cell_type=2), 20)
    result = mixed(mixer(cells=[8, 8], max_overlap=0.0, min_visible=1.0), target, *[DONOR] * 3, seed=1)
    masks, pasted = masks_of(result.instances), result.kept < 0
    assert pasted.sum() >= 5 and result.instances.cell_types[~pasted].tolist() == [2, DOUBTFUL]
    over = masks[pasted].any(axis=0)
    assert (over[:, 20:].sum() > 200) and not (over & masks[0]).any()
    sample = Target.from_instances("p", 0, result.instances)
    region = np.zeros((80, 100), bool)
    region[:, 20:] = True
    assert sample.ignored is not None and len(sample) == 1 + pasted.sum()
    np.testing.assert_array_equal(sample.ignored.numpy(), region & ~over)
    np.testing.assert_array_equal(result.instances.areas, masks.sum(axis=(1, 2)))


def test_a_region_that_is_covered_whole_is_gone() -> None:
    target, region = make_image([(30, 4, 10, 10)], cell_type=2), np.zeros((80, 100), bool)
    region[40, 50] = True
    small = target[0], target[1].with_region(region, DOUBTFUL)
    for seed in range(60):
        result = mixed(mixer(cells=[8, 8]), small, DONOR, DONOR, DONOR, seed=seed)
        masks = masks_of(result.instances)
        covered = masks[result.kept < 0].any(axis=0)[40, 50]
        assert (DOUBTFUL in result.instances.cell_types) == (not covered)
        if covered:
            break
    assert covered


def test_nothing_is_cut_from_what_nobody_has_labelled_nor_measured_there() -> None:
    """The background of the donor is that of its labelled part, whatever lies in the rest."""
    plain = make_image([(10, 10, 8, 12), (40, 20, 10, 10)], grey=150, value=70)
    bright = plain[0].copy()
    bright[:, 60:] = 250
    whole, part = Donor(*plain), Donor(*unlabelled((bright, plain[1]), 55))
    assert part.cells(0.1).tolist() == whole.cells(0.1).tolist() == [0, 1]
    for k in (0, 1):
        mine, other = part.cut(k, IDENTITY, 4), whole.cut(k, IDENTITY, 4)
        assert mine is not None and other is not None and mine.area == other.area
        np.testing.assert_allclose(mine.light, other.light, atol=1.5)
