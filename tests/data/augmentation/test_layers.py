"""Transforms of layers: as albumentations over single masks; visibility; randomness from outside."""

from __future__ import annotations

import random
from pathlib import Path

import albumentations as A
import numpy as np
import pytest

from sartorius.data.augmentation.crops import FiveCrop, TileCrop
from sartorius.data.augmentation.layers import CellCrop, Crop, LayerTransform
from sartorius.data.augmentation.rotation import RotatedCrop
from sartorius.data.augmentation.scales import ShortEdgeCrop
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import Target
from sartorius.errors import InputError
from sartorius.structures.cell_types import DOUBTFUL
from sartorius.structures.instances import Instances

AFFINE = {"scale": (0.8, 1.25), "rotate": (-45, 45), "fill": 128, "p": 1.0}
GEOMETRIC = {
    "affine": lambda: [A.Affine(**AFFINE)],
    "turns": lambda: [A.D4(p=1.0)],
    "flips": lambda: [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=0.5)],
    "all": lambda: [A.D4(p=1.0), A.Affine(**AFFINE), A.RandomBrightnessContrast(p=1.0)],
}


def cells(count: int = 12, seed: int = 0, height: int = 90, width: int = 120) -> tuple[np.ndarray, Instances]:
    """A noise image and rectangles, many of which overlap."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height - 30), rng.integers(0, width - 30)
        mask[y : y + rng.integers(8, 30), x : x + rng.integers(8, 30)] = True
    image = rng.integers(0, 256, (height, width)).astype(np.uint8)
    return image, Instances.from_masks(masks, rng.integers(0, 3, count))


def masks_of(instances: Instances) -> np.ndarray:
    return np.stack([(instances.layers == k + 1).any(axis=0) for k in range(len(instances))])


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("seed", range(3))
def test_layers_are_warped_as_single_masks_are(name: str, seed: int) -> None:
    image, instances = cells(seed=seed)
    assert len(instances.layers) > 1
    result = LayerTransform(GEOMETRIC[name]())(image, instances, np.random.default_rng(seed))
    reference, rng = A.Compose(GEOMETRIC[name]()), np.random.default_rng(seed)
    reference.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    expected = reference(image=image, masks=list(masks_of(instances).astype(np.uint8)))
    np.testing.assert_array_equal(result.image, expected["image"])
    np.testing.assert_array_equal(masks_of(result.instances), np.array(expected["masks"], bool)[result.kept])
    assert result.instances.cell_types.tolist() == instances.cell_types[result.kept].tolist()
    assert not np.array(expected["masks"])[np.setdiff1d(np.arange(12), result.kept)].any()


@pytest.mark.parametrize("planes", [1, 9, 10, 23])
def test_any_number_of_layers(planes: int) -> None:
    image = np.zeros((40, 50), np.uint8)
    masks = np.zeros((planes, 40, 50), bool)
    for k, mask in enumerate(masks):
        mask[5 : 25 + k % 7, 5 + k % 5 : 30] = True  # all overlap: a layer each
    instances = Instances.from_masks(masks, np.zeros(planes))
    assert len(instances.layers) == planes
    result = LayerTransform([A.Affine(**AFFINE)])(image, instances, np.random.default_rng(1))
    for k in range(planes):
        alone = LayerTransform([A.Affine(**AFFINE)])(image, instances.select([k]), np.random.default_rng(1))
        np.testing.assert_array_equal(masks_of(result.instances)[k], masks_of(alone.instances)[0])


def test_large_ids_stay_exact() -> None:
    layers = np.zeros((1, 40, 40), np.uint16)
    layers[0, 10:30, 10:30] = 65535
    layers[0, 0:10] = 257
    instances = Instances(layers, np.zeros(65535, np.int64))
    result = LayerTransform([A.Affine(**AFFINE)])(layers[0].astype(np.uint8), instances, np.random.default_rng(0))
    assert set(result.kept.tolist()) <= {256, 65534}
    assert 65534 in result.kept


def test_flips_are_independent_of_each_other() -> None:
    image = np.zeros((8, 8), np.uint8)
    image[0, 0] = 200
    transform = LayerTransform([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    results = [transform(image, Instances.empty(8, 8), np.random.default_rng(s)) for s in range(40)]
    assert {int(result.image.argmax()) for result in results} == {0, 7, 56, 63}


def test_same_generator_same_result_whatever_went_before() -> None:
    image, instances = cells()
    transform = LayerTransform(GEOMETRIC["all"](), CellCrop(50, 60, 0.5))
    first = transform(image, instances, np.random.default_rng(7))
    transform(image, instances, np.random.default_rng(8))
    again = transform(image, instances, np.random.default_rng(7))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances.layers, again.instances.layers)
    assert not np.array_equal(first.image, transform(image, instances, np.random.default_rng(9)).image)


def test_cells_below_the_visible_share_are_dropped() -> None:
    masks = np.zeros((3, 40, 40), bool)
    masks[0, 0:10, 15:25] = True  # columns 15 to 19 stay: half of it
    masks[1, 20:30, 18:28] = True  # 2 of 10 columns
    masks[2, 30:40, 0:5] = True
    instances = Instances.from_masks(masks, [0, 1, 2])
    image, crop = np.zeros((40, 40), np.uint8), CellCrop(40, 20)
    seed = next(s for s in range(200) if _left(crop, s) == 0)
    for share, kept in ((0.0, [0, 1, 2]), (0.2, [0, 1, 2]), (0.21, [0, 2]), (0.5, [0, 2]), (0.51, [2]), (1.0, [2])):
        result = LayerTransform((), crop, min_visible=share)(image, instances, np.random.default_rng(seed))
        assert result.kept.tolist() == kept
        assert result.instances.cell_types.tolist() == kept
        assert set(np.unique(result.instances.layers).tolist()) == set(range(len(kept) + 1))
    result = LayerTransform((), crop, min_area=21)(image, instances, np.random.default_rng(seed))
    assert result.kept.tolist() == [0, 2]


def _left(crop: CellCrop, seed: int) -> int:
    image = np.tile(np.arange(40, dtype=np.uint8), (40, 1))
    return int(crop(image, np.zeros((1, 40, 40), np.uint16), np.random.default_rng(seed))[0][0, 0])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_visible_share_is_of_the_scaled_area(scale: float) -> None:
    masks = np.zeros((1, 80, 80), bool)
    masks[0, 35:45, 35:45] = True
    transform = LayerTransform([A.Affine(scale=(scale, scale), p=1.0)], min_visible=0.8)
    result = transform(np.zeros((80, 80), np.uint8), Instances.from_masks(masks, [0]), np.random.default_rng(0))
    assert result.kept.tolist() == [0]
    assert result.instances.areas[0] == pytest.approx(100 * scale**2, rel=0.1)


def test_crops_have_their_size_and_hold_a_cell() -> None:
    image, _ = cells(1, height=200, width=300)
    masks = np.zeros((2, 200, 300), bool)
    masks[0, 0:4, 296:300], masks[1, 100:103, 5:8] = True, True
    instances = Instances.from_masks(masks, [0, 1])
    always = LayerTransform((), CellCrop(50, 60, on_cell=1.0))
    seen = [always(image, instances, np.random.default_rng(s)) for s in range(30)]
    assert all(result.image.shape == (50, 60) and result.instances.layers.shape[1:] == (50, 60) for result in seen)
    assert all(len(result.instances) >= 1 for result in seen)
    assert {int(result.kept[0]) for result in seen} == {0, 1}
    never = LayerTransform((), CellCrop(50, 60, on_cell=0.0))
    assert any(len(never(image, instances, np.random.default_rng(s)).instances) == 0 for s in range(30))


def test_image_smaller_than_the_crop_is_padded() -> None:
    image, instances = cells(height=60, width=70)
    result = LayerTransform((), CellCrop(100, 65, fill=7))(image, instances, np.random.default_rng(0))
    assert result.image.shape == (100, 65)
    assert (result.image[60:] == 7).all()
    assert not result.instances.layers[:, 60:].any()


def test_image_without_cells() -> None:
    image, _ = cells()
    transform = LayerTransform(GEOMETRIC["all"](), CellCrop(32, 32, 1.0), 0.5)
    result = transform(image, Instances.empty(90, 120), np.random.default_rng(0))
    assert len(result.instances) == 0
    assert result.instances.layers.shape == (1, 32, 32)


def test_transforms_by_name_skip_none() -> None:
    image, instances = cells()
    result = LayerTransform({"turn": None})(image, instances, np.random.default_rng(0))
    np.testing.assert_array_equal(result.image, image)
    np.testing.assert_array_equal(result.instances.layers, instances.layers)


ELASTIC = {"alpha": 40, "sigma": 5, "fill": 128, "p": 1.0}


@pytest.mark.parametrize("planes", [3, 10])
def test_elastic_bends_layers_as_it_bends_single_masks(planes: int) -> None:
    image, _ = cells()
    masks = np.zeros((planes, 90, 120), bool)
    for k, mask in enumerate(masks):
        mask[20 : 60 + k, 30 + k : 80] = True  # all overlap: a layer each
    instances = Instances.from_masks(masks, np.zeros(planes))
    result = LayerTransform([A.ElasticTransform(**ELASTIC)])(image, instances, np.random.default_rng(1))
    reference, rng = A.Compose([A.ElasticTransform(**ELASTIC)]), np.random.default_rng(1)
    reference.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    expected = reference(image=image, masks=list(masks.astype(np.uint8)))
    np.testing.assert_array_equal(result.image, expected["image"])
    np.testing.assert_array_equal(masks_of(result.instances), np.array(expected["masks"], bool))
    assert not np.array_equal(result.instances.layers, instances.layers)


def test_areas_beside_a_distortion_are_those_of_the_other_transforms() -> None:
    masks = np.zeros((1, 60, 80), bool)  # smaller than the distance of the points that measure areas
    masks[0, 20:40, 30:50] = True
    bent = [A.ElasticTransform(alpha=1, sigma=5, p=1.0), A.Affine(scale=(0.5, 0.5), p=1.0)]
    instances = Instances.from_masks(masks, [0])
    for order in (bent, bent[::-1]):
        result = LayerTransform(order, min_visible=0.85)(
            np.zeros((60, 80), np.uint8), instances, np.random.default_rng(0)
        )
        assert result.kept.tolist() == [0]
        assert result.instances.areas[0] == pytest.approx(400 * 0.5**2, rel=0.15)


def test_what_comes_after_the_crop_sees_the_crop_alone() -> None:
    image, instances = cells()
    after = [A.RandomBrightnessContrast(p=1.0), A.GaussNoise(std_range=(0.02, 0.02), p=1.0)]
    plain = LayerTransform((), CellCrop(32, 40))(image, instances, np.random.default_rng(5))
    result = LayerTransform((), CellCrop(32, 40), after=after)(image, instances, np.random.default_rng(5))
    assert result.image.shape == (32, 40) and result.image.dtype == np.uint8
    assert not np.array_equal(result.image, plain.image)
    np.testing.assert_array_equal(result.instances.layers, plain.instances.layers)
    again = LayerTransform((), CellCrop(32, 40), after=after)(image, instances, np.random.default_rng(5))
    np.testing.assert_array_equal(again.image, result.image)
    with pytest.raises(InputError, match="transform.after: D4 moves pixels"):
        LayerTransform((), after={"turn": A.D4(p=1.0), "none": None})


@pytest.mark.parametrize("bad", [{"min_visible": 1.1}, {"min_visible": -0.1}, {"min_area": 0}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(
        InputError, match=rf"transform\.{next(iter(bad))}: expected a number .*, got {next(iter(bad.values()))}"
    ):
        LayerTransform((), **bad)  # type: ignore[arg-type]


def test_densest_real_image_against_its_masks(real_data: Path) -> None:
    competition = Competition(real_data / "sartorius")
    image, instances = competition.image("5d066f4c3eef"), competition.instances("5d066f4c3eef")
    result = LayerTransform([A.Affine(**AFFINE)])(image, instances, np.random.default_rng(3))
    chosen = result.kept[::60]
    for k, cell in zip(range(0, len(result.kept), 60), chosen, strict=True):
        alone = LayerTransform([A.Affine(**AFFINE)])(image, instances.select([int(cell)]), np.random.default_rng(3))
        np.testing.assert_array_equal((result.instances.layers == k + 1).any(0), alone.instances.layers[0] > 0)


def partly_labelled() -> tuple[np.ndarray, Instances]:
    """A cell near the left edge; nobody has labelled what lies right of column 30 of 120."""
    masks = np.zeros((1, 90, 120), bool)
    masks[0, 20:30, 5:12] = True
    unlabelled = np.zeros((90, 120), bool)
    unlabelled[:, 30:] = True
    image = np.where(unlabelled, 200, 50).astype(np.uint8)
    return image, Instances.from_masks(masks, [1]).with_region(unlabelled, DOUBTFUL)


@pytest.mark.parametrize("name", ["affine", "turns", "flips"])
def test_unlabelled_pixels_move_with_the_image(name: str) -> None:
    image, instances = partly_labelled()
    for seed in range(4):
        result = LayerTransform(GEOMETRIC[name](), min_visible=0.9, min_area=50)(
            image, instances, np.random.default_rng(seed)
        )
        target = Target.from_instances("p", 0, result.instances)
        assert target.ignored is not None
        ignored, light = target.ignored.numpy(), result.image > 160  # outside the image lies 128: background
        assert (ignored != light).mean() < 0.02  # interpolated at the edge


def crops_of() -> list[Crop]:
    """Of each kind that may be placed on a cell, always so."""
    rotated = {"angle": (-45, 45), "scale": (1.0, 1.2), "mirror": 0.5}
    shorter = {"short_edges": [80, 100], "max_size": 200}
    options = {"height": 24, "width": 24, "on_cell": 1.0, "fill": 128}
    return [CellCrop(**options), RotatedCrop(**rotated, **options), ShortEdgeCrop(**shorter, **options)]


@pytest.mark.parametrize("crop", crops_of(), ids=lambda crop: type(crop).__name__)
def test_a_crop_is_placed_on_cells_and_not_on_what_nobody_has_labelled(crop: Crop) -> None:
    image, instances = partly_labelled()
    for seed in range(20):
        result = LayerTransform(crop=crop)(image, instances, np.random.default_rng(seed))
        assert (result.instances.cell_types == 1).any()
    no_cell = instances.select([1])
    LayerTransform(crop=crop)(image, no_cell, np.random.default_rng(0))


def test_a_crop_that_teaches_nothing_is_drawn_again() -> None:
    """A quarter of the image teaches; of crops that are drawn once, half lie outside it."""
    image, instances = partly_labelled()
    for crop in (CellCrop(24, 24), TileCrop(24, 0), FiveCrop(24, 24)):
        for drawn, least in ((LayerTransform(crop=crop), 95), (crop, 0)):
            teaching = 0
            for seed in range(100):
                rng = np.random.default_rng(seed)
                if isinstance(drawn, LayerTransform):
                    result = drawn(image, instances, rng).instances
                    target = Target.from_instances("p", 0, result)
                    teaching += target.ignored is None or not bool(target.ignored.all())
                else:
                    teaching += not (drawn(image, instances.layers, rng).layers == 2).any(axis=0).all()
            assert teaching >= least and (least or teaching < 70)
    everything = Instances.empty(90, 120).with_region(np.ones((90, 120), bool), DOUBTFUL)
    result = LayerTransform(crop=CellCrop(24, 24))(image, everything, np.random.default_rng(0))
    ignored = Target.from_instances("p", 0, result.instances).ignored
    assert ignored is not None and ignored.all()
    plain = instances.select([0])
    once = CellCrop(24, 24)(image, plain.layers, np.random.default_rng(5)).image
    np.testing.assert_array_equal(
        LayerTransform(crop=CellCrop(24, 24))(image, plain, np.random.default_rng(5)).image, once
    )
