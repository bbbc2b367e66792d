"""The U-Net's module: losses of the maps there are, cells out of perfect maps, any size, any window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartorius.data.dataset import Target
from sartorius.errors import InputError
from sartorius.inference.windows import Tiles
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout, map_targets
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Components, Watershed
from sartorius.structures.instances import Instances
from tests.postprocess.pipelines import pipeline

LAYOUT = MapLayout(types=3, border=2, offset_scale=8.0)
KEEP = pipeline(score=0.1, mask=0.5, box_nms=1.0, mask_nms=0.5, min_area=1)


def cells() -> Instances:
    """Two discs that touch, and a third alone; of types 2, 2, 0."""
    y, x = np.mgrid[:60, :80]
    discs = [(y - cy) ** 2 + (x - cx) ** 2 <= 81 for cy, cx in ((20, 20), (20, 38), (44, 60))]
    discs[1] &= ~discs[0]
    return Instances.from_masks(np.stack(discs), [2, 2, 0])


def batch_of(*image_ids: Instances) -> Any:
    targets = [Target.from_instances(f"p{k}", k, instances, "cort") for k, instances in enumerate(image_ids)]
    images = [torch.full((1, i.height, i.width), 128, dtype=torch.uint8) for i in image_ids]
    return SimpleNamespace(images=images, targets=targets)


class Perfect(nn.Module):
    """Logits of the true maps of one image; the image holds each pixel's place, so that a crop is found again."""

    def __init__(self, instances: Instances, layout: MapLayout) -> None:
        super().__init__()
        truth = map_targets(
            torch.from_numpy(instances.layers.astype(np.int32)), torch.from_numpy(instances.cell_types), layout
        )
        maps = {name: getattr(truth, name) for name in ("foreground", "border", "centre")}
        parts = {name: torch.logit(value.clamp(1e-4, 1 - 1e-4))[None] for name, value in maps.items()}
        parts["offset"] = truth.offset
        parts["types"] = 20.0 * nn.functional.one_hot(truth.types.clamp(min=0), layout.types).permute(2, 0, 1).float()
        self.logits = torch.cat([parts[name] for name in layout.slices])

    def forward(self, images: Tensor) -> Tensor:
        width = self.logits.shape[-1]
        places = images[:, 0].long()
        return torch.stack([self.logits[:, place // width, place % width] for place in places])


def module(network: nn.Module, layout: MapLayout = LAYOUT, **options: Any) -> UNetModule:
    decoder = options.pop("decoder", None) or Watershed(
        foreground_low=0.3, smooth=0.0, border_weight=0.0, depth=0.1, peak=0.3, min_area=5
    )
    return UNetModule(network, layout, decoder, torch.optim.AdamW, **options)


def tiny(layout: MapLayout = LAYOUT) -> nn.Module:
    torch.manual_seed(0)
    return UNet(PlainEncoder(8, 2, "group"), layout, channels=[16, 8], norm="group", mean=128.0, std=11.58)


def places(instances: Instances) -> Any:
    batch = batch_of(instances)
    count = instances.height * instances.width
    batch.images = [torch.arange(count).view(1, instances.height, instances.width)]
    return batch


@pytest.mark.parametrize("inference", [None, Tiles(size=32, overlap=12, margin=4, batch=4, join_iou=0.5)])
def test_perfect_maps_give_the_cells(inference: Tiles | None) -> None:
    truth = cells()
    (found,) = module(Perfect(truth, LAYOUT), inference=inference).eval().detect(places(truth))
    final = KEEP(found)
    assert len(final) == 3
    for k in range(3):
        mask = truth.layers[0] == k + 1
        best = max(
            np.logical_and(mask, final.instances.layers[0] == j + 1).sum()
            / np.logical_or(mask, final.instances.layers[0] == j + 1).sum()
            for j in range(3)
        )
        assert best > 0.97
    assert sorted(final.cell_types.tolist()) == [0, 2, 2]
    assert (final.scores > 0.9).all()


def test_every_term_is_logged_and_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    built, logged = module(tiny(), loss_weights={"types": 0.0}), {}
    monkeypatch.setattr(built, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(built, "log_dict", lambda values, **_: logged.update({k: float(v) for k, v in values.items()}))
    loss = built.training_step(batch_of(cells(), cells()), 0)
    loss.backward()
    assert set(logged) == {"train/loss"} | {f"train/{name}" for name in LAYOUT.slices}
    terms = [logged[f"train/{name}"] for name in LAYOUT.slices if name != "types"]
    assert float(loss.detach()) == pytest.approx(sum(terms))
    assert all(p.grad is not None for p in built.parameters())


def test_a_perfect_prediction_costs_less_than_any_other() -> None:
    truth = cells()
    built = module(Perfect(truth, LAYOUT))
    targets = batch_of(truth).targets
    perfect = built.losses(built.network(places(truth).images[0][None]), targets)
    other = built.losses(torch.zeros(1, LAYOUT.channels, 60, 80), targets)
    assert all(float(perfect[name]) < float(other[name]) for name in LAYOUT.slices)
    assert float(perfect["offset"]) == 0


def test_only_the_foreground() -> None:
    layout = MapLayout(types=0, centre=False)
    built = module(tiny(layout), layout, decoder=Components(threshold=0.5, min_area=1))
    assert set(built.losses(torch.zeros(1, 1, 60, 80), batch_of(cells()).targets)) == {"foreground"}
    with torch.no_grad():
        (found,) = built.eval().detect(batch_of(cells()))
    assert found.cell_type_names == ("shsy5y", "astro", "cort")


def test_images_without_cells_and_of_odd_sizes() -> None:
    built = module(tiny())
    batch = batch_of(Instances.empty(37, 51), Instances.empty(37, 51))
    assert torch.isfinite(built.losses(torch.zeros(2, LAYOUT.channels, 37, 51), batch.targets)["types"])
    with torch.no_grad():
        found = built.eval().predict_step(batch_of(Instances.empty(37, 51), Instances.empty(9, 70)), 0)
    assert [(d.height, d.width) for d in found] == [(37, 51), (9, 70)]


def test_validation_leaves_the_foreground_and_logs_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    built, logged = module(tiny()).eval(), {}
    monkeypatch.setattr(built, "log", lambda name, value, **_: logged.update({name: float(value)}))
    with torch.no_grad():
        built.validation_step(batch_of(cells()), 0)
        built.test_step(batch_of(cells()), 0)
    assert logged["val/loss"] == logged["test/loss"] > 0
    assert built.foreground[0].shape == (60, 80)
    assert 0 <= float(built.foreground[0].min()) <= float(built.foreground[0].max()) <= 1


def test_training_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"images p0, p1 of one batch have sizes .*: train on crops of one size"):
        module(tiny()).training_step(batch_of(cells(), Instances.empty(9, 9)), 0)


def test_a_broken_loss_stops_with_the_images() -> None:
    network = tiny()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="not finite on p0: foreground nan"):
        module(network).training_step(batch_of(cells()), 0)
