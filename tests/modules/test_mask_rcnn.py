from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.networks.roi_heads import RawDetections


class Toy(nn.Module):
    """Losses that a parameter sets; two fixed detections, one of them over the edge."""

    def __init__(self, loss: float = 2.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(loss))

    def forward(self, images, targets=None):
        if targets is not None:
            return {"loss_a": self.weight * 1, "loss_b": self.weight * 10}
        boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0], [-0.5, 3.0, 4.0, 12.5]])
        raw = RawDetections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([2, 0]), torch.ones(2, 8, 8) / 2)
        return [raw for _ in images]


def batch(n: int = 2) -> SimpleNamespace:
    targets = [SimpleNamespace(picture=f"p{k}") for k in range(n)]
    return SimpleNamespace(images=[torch.zeros(1, 12, 10, dtype=torch.uint8)] * n, targets=targets)


def module(network: nn.Module, **options) -> MaskRCNNModule:
    return MaskRCNNModule(network, torch.optim.AdamW, None, ["shsy5y", "astro", "cort"], **options)


def test_loss_is_the_weighted_sum(monkeypatch) -> None:
    built, logged = module(Toy(2.0), loss_weights={"loss_b": 0.5}), {}
    monkeypatch.setattr(built, "log", lambda name, value, **_: logged.update({name: value.item()}))
    monkeypatch.setattr(built, "log_dict", lambda values, **_: logged.update({k: v.item() for k, v in values.items()}))
    assert built.training_step(batch(), 0).item() == 2 + 0.5 * 20
    assert logged == {"train/loss": 12, "train/loss_a": 2, "train/loss_b": 20}


def test_a_broken_loss_stops_with_the_pictures() -> None:
    with pytest.raises(InputError, match="not finite on p0, p1: loss_a nan, loss_b nan"):
        module(Toy(float("nan"))).training_step(batch(), 0)


@pytest.mark.parametrize("step", ["validation_step", "predict_step"])
def test_detections_are_numpy_and_inside_the_picture(step: str) -> None:
    with torch.no_grad():
        first, second = getattr(module(Toy()), step)(batch(), 0)
    assert (first.picture, second.picture) == ("p0", "p1")
    assert (first.height, first.width) == (12, 10)
    assert first.boxes.tolist() == [[1, 2, 5, 6], [0, 3, 4, 12]]
    assert str(first.masks.dtype) == "float16"
    assert first.cell_type_names == ("shsy5y", "astro", "cort")


def test_the_recipe_travels_with_the_checkpoint() -> None:
    built, checkpoint = module(Toy()), {}
    built.recipe = {"model": 1}
    built.on_save_checkpoint(checkpoint)
    assert checkpoint == {"sartorius": {"model": 1}}
