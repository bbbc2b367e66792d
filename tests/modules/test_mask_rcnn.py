from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.inference.windows import Tiles
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
    targets = [SimpleNamespace(image_id=f"p{k}", scale=1.0, pixel_size=None) for k in range(n)]
    return SimpleNamespace(images=[torch.zeros(1, 12, 10, dtype=torch.uint8)] * n, targets=targets)


def module(network: nn.Module, **options) -> MaskRCNNModule:
    return MaskRCNNModule(network, torch.optim.AdamW, cell_type_names=["shsy5y", "astro", "cort"], **options)


def test_loss_is_the_weighted_sum(monkeypatch) -> None:
    built, logged = module(Toy(2.0), loss_weights={"loss_b": 0.5}), {}
    monkeypatch.setattr(built, "log", lambda name, value, **_: logged.update({name: value.item()}))
    monkeypatch.setattr(built, "log_dict", lambda values, **_: logged.update({k: v.item() for k, v in values.items()}))
    assert built.training_step(batch(), 0).item() == 2 + 0.5 * 20
    assert logged == {"train/loss": 12, "train/loss_a": 2, "train/loss_b": 20}


def test_a_broken_loss_stops_with_the_images() -> None:
    with pytest.raises(InputError, match="not finite on p0, p1: loss_a nan, loss_b nan"):
        module(Toy(float("nan"))).training_step(batch(), 0)


@pytest.mark.parametrize("step", ["validation_step", "predict_step"])
def test_detections_are_numpy_and_inside_the_image(step: str) -> None:
    with torch.no_grad():
        first, second = getattr(module(Toy()), step)(batch(), 0)
    assert (first.image_id, second.image_id) == ("p0", "p1")
    assert (first.height, first.width) == (12, 10)
    assert first.boxes.tolist() == [[1, 2, 5, 6], [0, 3, 4, 12]]
    assert str(first.masks.dtype) == "float16"
    assert first.cell_type_names == ("shsy5y", "astro", "cort")


class Bright(nn.Module):
    """Detects the pixels above 0 of each image as one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.zeros(())), []

    def forward(self, images, targets=None):
        self.seen += [tuple(image.shape) for image in images]
        return [self.detect(image[0]) for image in images]

    def detect(self, image: torch.Tensor) -> RawDetections:
        rows, columns = torch.nonzero(image, as_tuple=True)
        ends = [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)] if len(rows) else []
        n = len(ends)
        boxes = torch.tensor(ends, dtype=torch.float32).reshape(n, 4)
        return RawDetections(boxes, torch.full((n,), 0.5), torch.ones(n, dtype=torch.int64), torch.ones(n, 8, 8))


@pytest.mark.parametrize("windows", [None, Tiles(16, 6, margin=1, batch=2, join_iou=0.5)])
def test_a_image_may_be_looked_at_in_windows(windows: Tiles | None) -> None:
    image = torch.zeros(1, 12, 26, dtype=torch.uint8)
    image[:, 3:9, 5:21] = 200  # from the first tile into the second, neither sees it whole
    network = Bright()
    images = SimpleNamespace(images=[image, image[..., :16]], targets=batch().targets)
    with torch.no_grad():
        first, second = module(network, inference=windows).predict_step(images, 0)
    assert network.seen == ([(1, 12, 16)] * 3 if windows else [(1, 12, 26), (1, 12, 16)])
    assert (first.boxes.tolist(), first.cell_types.tolist()) == ([[5, 3, 21, 9]], [1])
    assert (first.image_id, first.height, first.width) == ("p0", 12, 26)
    assert (second.image_id, second.boxes.tolist()) == ("p1", [[5, 3, 16, 9]])
