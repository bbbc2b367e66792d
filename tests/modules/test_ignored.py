"""Ignored pixels and weights of images in the losses of the dense networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sartorius.data.dataset import Batch, Target
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.structures.instances import Instances

LAYOUT = MapLayout(types=3, border=2, offset_scale=8.0)
HEIGHT, WIDTH, SPLIT = 48, 64, 40


def cells() -> Instances:
    """Two cells that touch and one alone, left of column 36."""
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[0, 5:15, 5:17] = masks[1, 15:28, 8:22] = masks[2, 30:40, 24:36] = True
    return Instances.from_masks(masks, [2, 0, 1])


def target(ignored: Tensor | None = None, weight: float = 1.0, width: int = WIDTH) -> Target:
    whole = cells()
    instances = Instances(np.ascontiguousarray(whole.layers[:, :, :width]), whole.cell_types)
    return replace(Target.from_instances("p", 0, instances, "cort"), ignored=ignored, weight=weight)


def right() -> Tensor:
    """Everything from column SPLIT on."""
    mask = torch.zeros((HEIGHT, WIDTH), dtype=torch.bool)
    mask[:, SPLIT:] = True
    return mask


def unet_module() -> UNetModule:
    torch.manual_seed(0)
    network = UNet(PlainEncoder(8, 2, "group"), LAYOUT, channels=[16, 8], norm="group", mean=128.0, std=11.58)
    return UNetModule(network, LAYOUT, lambda maps: maps, torch.optim.SGD, border_weight=2.0, dice=0.8)


def test_a_unet_does_not_see_ignored_pixels() -> None:
    """Every term is that of the image without them, and no gradient reaches them."""
    built = unet_module()
    logits = torch.randn((2, LAYOUT.channels, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    found = built.losses(logits, [target(right()), target(right())])
    torch.stack(list(found.values())).sum().backward()
    cut = built.losses(logits[..., :SPLIT], [target(width=SPLIT)] * 2)
    inner = SPLIT - LAYOUT.border  # a cell beyond the split would make borders up to there
    cut["border"] = built.losses(logits[..., :inner], [target(width=inner)] * 2)["border"]
    for name, value in found.items():
        assert value.item() == pytest.approx(cut[name].item(), rel=1e-5), name
    assert logits.grad is not None
    assert (logits.grad[..., SPLIT:] == 0).all()
    assert logits.grad[..., :SPLIT].any()
    one = built.losses(logits, [target(right()), target()])  # the other image keeps all its pixels
    assert cut["foreground"].item() != pytest.approx(one["foreground"].item(), rel=1e-3)
    everything = torch.ones((HEIGHT, WIDTH), dtype=torch.bool)
    nothing = built.losses(logits, [target(everything)] * 2)
    assert nothing["foreground"].item() == nothing["border"].item() == nothing["centre"].item() == 0


LAYOUTS = {
    "all maps": LAYOUT,
    "foreground": MapLayout(types=0, border=0, centre=False),
    "foreground and border": MapLayout(types=0, border=3, centre=False),
    "no border": MapLayout(types=3, offset_scale=16.0),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=[*LAYOUTS])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 1.0)], ids=str)
def test_what_is_predicted_in_ignored_pixels_changes_no_bit(layout: MapLayout, weights: tuple[float, float]) -> None:
    torch.manual_seed(0)
    network = UNet(PlainEncoder(8, 2, "group"), layout, channels=[16, 8], norm="group", mean=128.0, std=11.58)
    built = UNetModule(network, layout, lambda maps: maps, torch.optim.SGD, border_weight=2.0, dice=0.8)
    mask = right() | (torch.rand((HEIGHT, WIDTH)) < 0.05)
    mask &= torch.from_numpy(~cells().foreground())
    targets = [target(mask, weights[0]), target(right(), weights[1])]
    logits = torch.randn((2, layout.channels, HEIGHT, WIDTH))
    hidden = torch.stack([t.ignored for t in targets])[:, None]  # type: ignore[misc]
    other = torch.where(hidden, 50 * torch.randn_like(logits), logits)
    results = []
    for given in (logits, other):
        given = given.clone().requires_grad_()
        terms = built.losses(given, targets)
        torch.stack(list(terms.values())).sum().backward()
        assert given.grad is not None and not given.grad[hidden.expand_as(given)].any()
        results.append(({name: term.item() for name, term in terms.items()}, given.grad))
    assert set(results[0][0]) == set(layout.slices)
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_an_unknown_cell_beside_a_labelled_one_teaches_no_border() -> None:
    """The third cell ends at column 36, the ignored pixels begin there: a cell may touch it."""
    mask = torch.zeros((HEIGHT, WIDTH), dtype=torch.bool)
    mask[:, 36:] = True
    logits = torch.zeros((1, LAYOUT.channels, HEIGHT, WIDTH), requires_grad=True)
    built = unet_module()
    built.losses(logits, [target(mask)])["border"].backward()
    assert logits.grad is not None
    border = logits.grad[0, LAYOUT.slices["border"]][0]
    assert not border[:, 36 - LAYOUT.border :].any() and border[:, : 36 - LAYOUT.border].all()
    touching = logits.grad[0, LAYOUT.slices["border"]][0, 14, 10]
    assert touching < 0, "between the two labelled cells there is one"
    mask[:] = False
    mask[14:16, 30:] = mask[20:, :] = True  # within reach of that border: it is known all the same
    logits = torch.zeros_like(logits, requires_grad=True)
    built.losses(logits, [target(mask & ~torch.from_numpy(cells().foreground()))])["border"].backward()
    assert logits.grad is not None and logits.grad[0, LAYOUT.slices["border"]][0, 14, 10] < 0


def test_a_crop_that_lies_in_ignored_pixels_costs_nothing() -> None:
    built, everywhere = unet_module(), torch.ones((HEIGHT, WIDTH), dtype=torch.bool)
    nothing = Target.from_instances("p", 0, Instances.empty(HEIGHT, WIDTH))
    logits = torch.randn((2, LAYOUT.channels, HEIGHT, WIDTH), requires_grad=True)
    terms = built.losses(logits, [replace(nothing, ignored=everywhere)] * 2)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.item() == 0 and logits.grad is not None and not logits.grad.any()
    single = built.losses(logits[:1], [target(right())])
    both = built.losses(logits, [target(right()), replace(nothing, ignored=everywhere)])
    assert {k: v.item() for k, v in both.items()} == pytest.approx({k: v.item() for k, v in single.items()}, rel=1e-5)


def test_a_unet_counts_images_with_their_weight() -> None:
    built = unet_module()
    logits = torch.randn((2, LAYOUT.channels, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0))
    first, both, half = (built.losses(logits, [target(right()), target(weight=weight)]) for weight in (0.0, 1.0, 0.5))
    for name, value in both.items():
        assert half[name].item() == pytest.approx((first[name] + value).item() / 2), name
        assert first[name] < value


class Given(torch.nn.Module):
    """The logits it holds, whatever the crops."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn((count, 2, size, size)))

    def forward(self, crops: Tensor) -> Tensor:
        return self.logits[: len(crops)]


def crop_step(first: Target, second: Target) -> tuple[float, Tensor]:
    """The loss of a training step on two images, and its gradient of the logits [6, 2, 32, 32]."""
    torch.manual_seed(0)
    network = CropNetwork(Given(6, 32), size=32, margin=0.5, min_side=12, mean=128.0, std=11.0, prompt=True)
    built = CropSegmenterModule(network, torch.optim.SGD, jitter=0.0, low=0.1, mask_size=28, crops_at_once=3)
    built.log = built.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    image = torch.full((1, HEIGHT, WIDTH), 128, dtype=torch.uint8)
    loss = built.training_step(Batch([image, image], [first, second]), 0)
    loss.backward()
    gradient = network.body.logits.grad
    assert gradient is not None
    return loss.item(), gradient


def test_a_crop_segmenter_does_not_see_ignored_pixels() -> None:
    mask = right()
    mask[:, 30:] |= torch.from_numpy(~cells().foreground())[:, 30:]  # reaches into the square of the third cell
    loss, gradient = crop_step(target(mask), target())
    plain, whole = crop_step(target(), target())
    assert loss != pytest.approx(plain, rel=1e-4)
    hidden = (gradient == 0) & (whole != 0)
    assert hidden[2].any()
    assert not hidden[:2].any()
    assert not hidden[3:].any()  # the other image
    left, right_ = hidden[2, :, :, :10], hidden[2, :, :, 26:]
    assert right_.all()
    assert not left.any()
    _, gradient = crop_step(target(torch.ones_like(mask)), target())
    assert not gradient[2].any()  # a square that lies in the image


def test_a_crop_segmenter_is_validated_on_labelled_pixels() -> None:
    mask = right()
    mask[:, 30:] |= torch.from_numpy(~cells().foreground())[:, 30:]
    torch.manual_seed(0)
    network = CropNetwork(Given(3, 32), size=32, margin=0.5, min_side=12, mean=128.0, std=11.0, prompt=True)
    built = CropSegmenterModule(network, torch.optim.SGD, jitter=0.0, low=0.1, mask_size=28, crops_at_once=3)
    image = torch.full((1, HEIGHT, WIDTH), 128, dtype=torch.uint8)
    logged: list[dict[str, Tensor]] = []
    built.log_scores = lambda values, _: logged.append(values)  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        built.validation_step(Batch([image], [target(mask)]), 0)
        network.body.logits[2, :, :, 26:] += 9  # type: ignore[operator]
        built.validation_step(Batch([image], [target(mask)]), 0)
        built.validation_step(Batch([image], [target()]), 0)
    first, second, plain = logged
    assert first == second and set(first) == {"val/loss", "val/crop_iou", "val/crop_dice"}
    assert all(plain[name] != value for name, value in first.items())


def test_a_crop_segmenter_counts_images_with_their_weight() -> None:
    (one, _), (both, _), (half, _) = (crop_step(target(), target(weight=weight)) for weight in (0.0, 1.0, 0.5))
    assert half == pytest.approx((one + both) / 2)
    assert one < both
