"""Losses: their formulas as arithmetic, and finite on nothing."""

from __future__ import annotations

import math

import pytest
import torch

from sartorius.networks import losses


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_bce_dice_as_arithmetic() -> None:
    logits = torch.tensor([[[logit(0.8), logit(0.4)], [logit(0.1), logit(0.3)]]])
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    bce = -(math.log(0.8) + math.log(0.4) + math.log(0.9) + math.log(0.7)) / 4
    dice = 1 - (2 * (0.8 + 0.4) + 1) / (0.8 + 0.4 + 0.1 + 0.3 + 2 + 1)
    assert float(losses.bce_dice(logits, target)) == pytest.approx(bce + dice)
    assert float(losses.bce_dice(logits, target, dice=0.5)) == pytest.approx(bce + 0.5 * dice)
    weighted = -(3 * math.log(0.8) + math.log(0.4) + math.log(0.9) + math.log(0.7)) / 4
    weight = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]])
    assert float(losses.bce_dice(logits, target, weight, dice=0.0)) == pytest.approx(weighted)


def test_dice_is_a_mean_over_images_with_cells() -> None:
    crowded, sparse, empty = torch.ones(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 2)
    logits = torch.full((3, 2, 2), logit(0.5))
    first, second = 1 - (2 * 2 + 1) / (2 + 4 + 1), 1 - (2 * 0.5 + 1) / (2 + 1 + 1)
    assert float(losses.dice_loss(logits, torch.stack([crowded, sparse, empty]))) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("level", [-100.0, 0.0, 100.0])
def test_finite_with_a_finite_gradient_on_empty_crops(level: float) -> None:
    logits = torch.full((2, 8, 8), level, requires_grad=True)
    loss = losses.bce_dice(logits, torch.zeros(2, 8, 8))
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert float(losses.dice_loss(logits.detach(), torch.zeros(2, 8, 8))) == 0
    if level == -100.0:
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)


def test_nothing_at_all() -> None:
    assert float(losses.bce_dice(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))) == 0


def test_half_precision_is_computed_in_full() -> None:
    logits = torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))
    target = (logits > 1).float()
    full, half = losses.bce_dice(logits, target), losses.bce_dice(logits.bfloat16(), target)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=0.01)


def test_offsets_count_pixels_of_cells_only() -> None:
    offset, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    target[0, :, 0, 0] = torch.tensor([3.0, -0.5])
    target[0, :, 1, 1] = 100.0  # no cell there
    foreground = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert float(losses.offset_loss(offset, target, foreground)) == pytest.approx(((3 - 0.5) + 0.5 * 0.5**2) / 2)
    assert float(losses.offset_loss(offset, target, 0 * foreground)) == 0


def test_types_count_pixels_of_cells_only() -> None:
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 1, 0, 0] = math.log(2)
    assert float(losses.type_loss(logits, torch.tensor([[[1, -1]]]))) == pytest.approx(-math.log(2 / 4))
    assert float(losses.type_loss(logits, torch.full((1, 1, 2), -1))) == 0


def test_sum() -> None:
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(losses.sum_losses(terms, {"b": 0.5})) == 2 + 0.5 * 3


def test_pixels_that_do_not_count() -> None:
    """The same as if they were cut out, whatever is in them; their gradient is zero."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn((2, 6, 8), generator=generator), torch.rand((2, 6, 8), generator=generator)
    certain = torch.ones(2, 6, 8)
    certain[..., 5:] = 0
    logits.requires_grad_()
    found = losses.bce_dice(logits, target, 1 + target, 0.7, certain)
    found.backward()
    cut = losses.bce_dice(logits[..., :5], target[..., :5], 1 + target[..., :5], 0.7)
    assert found.item() == pytest.approx(cut.item())
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, certain.bool())
    assert losses.bce_dice(logits, target, certain=0 * certain).item() == 0


def test_samples_count_with_their_weight() -> None:
    """A weight of 0.25 leaves a quarter of the sample's share; the mean is still over all."""
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn((2, 3, 4, 4), generator=generator), torch.rand((2, 4, 4), generator=generator)
    types = torch.randint(-1, 3, (2, 4, 4), generator=generator)
    certain, foreground = (target > 0.2).float(), (target > 0.5).float()
    terms = {
        "bce_dice": lambda w: losses.bce_dice(logits[:, 0], target, dice=0.5, certain=certain, samples=w),
        "all pixels": lambda w: losses.bce_dice(logits[:, 0], target, samples=w),
        "offset": lambda w: losses.offset_loss(logits[:, :2], logits[:, 1:], foreground, w),
        "types": lambda w: losses.type_loss(logits, types, w),
    }
    for name, term in terms.items():
        one, first, mixed = (float(term(torch.tensor(w))) for w in ([1.0, 1.0], [1.0, 0.0], [1.0, 0.25]))
        assert mixed == pytest.approx(first + 0.25 * (one - first)), name
        assert 0 < first < one, name
    for name in ("all pixels", "offset", "types"):
        assert float(terms[name](None)) == pytest.approx(float(terms[name](torch.ones(2)))), name
