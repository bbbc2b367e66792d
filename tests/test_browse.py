"""The browse command: what the loader gives, drawn; targets of every kind of model; errors in one line."""

from __future__ import annotations

import functools
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.cell_chunks import CellsDataModule
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.dataset import Target
from sartorius.errors import InputError
from sartorius.modules.base import SegmentationModule
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.structures.instances import Instances
from sartorius.visualise.samples import (
    Sample,
    caption,
    draw_sample,
    draw_samples,
    first_samples,
    table,
    write_sheet,
)
from tests.doubles import ToyModule
from tests.networks.conftest import tiny_network

SGD = functools.partial(torch.optim.SGD, lr=0.1)


def datamodule(root: Path, size: int = 24) -> SupervisedDataModule:
    transform = LayerTransform([A.D4(p=1.0)], CellCrop(size, size, 0.5))
    return SupervisedDataModule(root, n_folds=4, train_transform=transform, batch_size=3)


def sample(**changes: object) -> Sample:
    """Two cells of an image 24 x 32."""
    masks = np.zeros((2, 24, 32), bool)
    masks[0, 4:14, 5:15] = masks[1, 10:22, 12:28] = True
    target = Target.from_instances("p", 0, Instances.from_masks(masks, [0, 2]), "cort")
    for name, value in changes.items():
        setattr(target, name, value)
    image = torch.from_numpy(np.random.default_rng(0).integers(100, 150, (1, 24, 32)).astype(np.uint8))
    return Sample(image, target, 4)


def test_samples_are_those_of_the_loader(tiny_competition: Path) -> None:
    found = first_samples(datamodule(tiny_competition), "train", 5, epoch=2)
    again = datamodule(tiny_competition)
    again.setup("fit")
    loader = again.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    expected = [image for batch in loader for image in batch.images][:5]
    assert len(found) == 5
    assert all(torch.equal(one.image, image) for one, image in zip(found, expected, strict=True))
    other = first_samples(datamodule(tiny_competition), "train", 5, epoch=3)
    assert [one.target.image_id for one in other] != [one.target.image_id for one in found]
    whole = first_samples(datamodule(tiny_competition), "val", 2)
    assert {tuple(one.image.shape) for one in whole} == {(1, 48, 64)}
    assert len(first_samples(datamodule(tiny_competition), "val", 1000)) == len(again.val_images)


def test_a_sheet_and_a_table_are_written(tiny_competition: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "sheet.png"
    text = write_sheet(datamodule(tiny_competition), output, "train", 6, 3, 96)
    lines = text.splitlines()
    assert lines[-1] == str(output)
    assert len(lines) == 1 + 6 + 3 and lines[0].split()[:4] == ["image_id", "type", "pixels", "cells"]
    with Image.open(output) as sheet:
        assert sheet.size[1] == 2 * (96 + 42 + 8) + 8
        assert sheet.size[0] >= 3 * (96 + 8) + 8


def test_the_table_counts() -> None:
    line = table([sample()]).splitlines()[1].split()
    grey = sample().image.numpy()
    sides = np.median([10, 10, 16, 12])
    assert line[:4] == ["p", "cort", "32x24", "2"]
    assert line[4:7] == ["10", f"{torch.tensor([10.0, 10, 16, 12]).median():.0f}", "16"] and sides == 11
    assert line[7:] == [f"{grey.mean():.1f}", "+-", f"{grey.std():.1f}"]
    empty = sample()
    empty = Sample(empty.image, Target.from_instances("e", 0, Instances.empty(24, 32)), 0)
    assert "-" in table([empty]).splitlines()[1].split()


def test_outlines_boxes_and_ignored_pixels_are_drawn() -> None:
    ignored = torch.zeros(24, 32, dtype=torch.bool)
    ignored[:3, 20:] = True
    plain, marked = draw_sample(sample(), 2, (100, 150), marks=False), draw_sample(sample(), 2, (100, 150))
    assert plain.shape == marked.shape == (48, 64, 3)
    assert (plain == plain[..., :1]).all()
    coloured = (marked != marked[..., :1]).any(axis=2)
    assert coloured[8, 10:30].all() and coloured[8:28, 10].all()  # the upper and left edge of the first cell
    assert not coloured[:6].any() and not coloured[14:18, 16:22].any()
    striped = draw_sample(sample(ignored=ignored), 2, (100, 150))
    assert (striped[:6, 40:] == (255, 60, 60)).all(axis=2).mean() > 0.25
    one = draw_sample(sample(chosen=torch.tensor([1])), 2, (100, 150))
    changed = (one != marked).any(axis=2)  # the first cell keeps its outline and loses its box
    assert changed[8, 10:30].all() and not changed[28:].any() and not changed[:, 30:].any()


def test_captions_say_what_is_special() -> None:
    assert caption(sample()) == ["p", "cort, 2 cells, epoch 4"]
    ignored = torch.ones(24, 32, dtype=torch.bool)
    special = sample(chosen=torch.tensor([1]), cell_type="", weight=0.5, ignored=ignored)
    assert caption(special)[1] == "type not known, 1 of 2 cells, epoch 4, 768 px ignored, weight 0.5"


def modules() -> dict[str, SegmentationModule]:
    layout = MapLayout(types=3, border=2, offset_scale=8.0)
    maps = UNet(PlainEncoder(8, 1, "none"), layout, channels=[8], norm="none", mean=0.0, std=1.0)
    body = UNet(PlainEncoder(8, 1, "none", 2), 2, channels=[8], norm="none", mean=0.0, std=1.0)
    crops = CropNetwork(body, size=16, margin=0.25, min_side=12, mean=128.0, std=11.0, prompt=True)
    return {
        "unet": UNetModule(maps, layout, lambda maps: maps, SGD),
        "mask_rcnn": MaskRCNNModule(tiny_network(), SGD),
        "crops": CropSegmenterModule(crops, SGD, jitter=0.1, low=0.1, mask_size=28, crops_at_once=4),
    }


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("unet", ["foreground", "border", "centre", "offset y", "offset x", "types"]),
        ("mask_rcnn", ["anchors for cells", "2 masks of 28 x 28"]),
        ("crops", ["2 crops of 16 px"]),
    ],
)
def test_every_model_shows_its_targets(kind: str, texts: list[str]) -> None:
    module = modules()[kind].eval()
    one = sample()
    canvas = draw_sample(one, 2, (100, 150), marks=False)
    shown = module.target_panels(one.image, one.target, canvas, 2)
    assert len(shown) == len(texts) and all(text in found for text, (found, _) in zip(texts, shown, strict=True))
    assert all(image_id.dtype == np.uint8 and image_id.shape[2] == 3 for _, image_id in shown)
    empty = Sample(one.image, Target.from_instances("e", 0, Instances.empty(24, 32)), 0)
    assert len(module.target_panels(empty.image, empty.target, canvas, 2)) == len(texts)
    sheet = draw_samples([one, empty], 4, 48, module)
    assert sheet.shape[1] > (1 + len(texts)) * 48


def test_maps_are_drawn_where_cells_are() -> None:
    one = sample()
    shown = dict(modules()["unet"].target_panels(one.image, one.target, draw_sample(one, 1, (0, 255)), 1))
    foreground = one.target.layers.numpy().any(axis=0)
    np.testing.assert_array_equal((shown["foreground"] == shown["foreground"][5, 6]).all(axis=2), foreground)


def test_masks_are_drawn_in_their_boxes() -> None:
    one = sample()
    canvas = draw_sample(one, 4, (0, 255))
    drawn = modules()["mask_rcnn"].eval().target_panels(one.image, one.target, canvas, 4)[1][1]
    foreground = one.target.layers.numpy().any(axis=0).repeat(4, axis=0).repeat(4, axis=1)
    assert (drawn.any(axis=2) != foreground).mean() < 0.01


def test_another_module_has_nothing_to_show() -> None:
    one = sample()
    assert ToyModule().target_panels(one.image, one.target, draw_sample(one, 1, (0, 255)), 1) == []


def test_chunks_of_cells(tiny_competition: Path) -> None:
    data = CellsDataModule(tiny_competition, cells_per_sample=2, n_folds=4, batch_size=2)
    found = first_samples(data, "train", 3)
    assert all(" of " in caption(one)[1] for one in found)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"split": "test"}, "expected train or val"),
        ({"samples": 0}, "1 sample or more"),
        ({"columns": 0}, "columns=0"),
        ({"tile": 0}, "tile=0"),
        ({"output": Path("a.jpg")}, "a name in .png"),
    ],
)
def test_what_cannot_be_drawn(tiny_competition: Path, tmp_path: Path, bad: dict[str, object], message: str) -> None:
    options = {"output": tmp_path / "a.png", "split": "train", "samples": 2, "columns": 2, "tile": 32} | bad
    with pytest.raises(InputError, match=message):
        write_sheet(datamodule(tiny_competition), **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
