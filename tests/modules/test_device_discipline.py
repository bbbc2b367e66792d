"""No step of a model makes a tensor on the wrong device, or fetches numbers from it outside named places; and how often
the host waits for a GPU in a step is bounded. Checked without a GPU, see `device_watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sartorius.data.dataset import Batch, Target
from sartorius.fusion.methods import WBF
from sartorius.modules.base import SegmentationModule
from sartorius.modules.crop_segmenter import CropSegmenterModule
from sartorius.modules.joined import JoinedModule
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.modules.optimisation import TrainedModule
from sartorius.modules.two_stage import TwoStageModule
from sartorius.modules.unet import UNetModule
from sartorius.networks import matching
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.timm_backbone import TimmPyramid
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Components, OffsetVoting, Watershed
from sartorius.structures.cell_types import CELL_TYPES, DOUBTFUL
from sartorius.structures.instances import Instances
from tests.modules.device_watch import DeviceWatch, watched
from tests.networks.conftest import STAGES, tiny_network

SIDE = 96  # pixels

# Where numbers may come from the device, or a tensor may begin on the host, and why.
NAMED = {
    "networks.matching:count_true": "lengths of all images at once, which shapes and random draws need",
    "networks.matching:_cells_in_reach": "the same",
    "structures.mask_sampling:gather_masks": "samples of a bin, which shapes need",
    "networks.finite:check_finite": "stops on an output that is not finite",
    "modules.optimisation:TrainedModule.total": "stops on a loss that is not finite",
    "modules.mask_rcnn:MaskRCNNModule._detect": "predictions become Detections",
    "modules.unet:UNetModule._detections": "predictions become Detections",
    "modules.crop_segmenter:CropSegmenterModule._detections": "predictions become Detections",
    "modules.two_stage:TwoStageModule._segment": "Detections of the first stage come in, those of the second go out",
    "networks.cell_crops:jitter": "all devices draw the same random numbers",
}
LIBRARIES = {"torchvision.ops.boxes:_batched_nms_coordinate_trick": "the number 1, moved to the device"}

# Waits of a training step with two images, forwards and backwards; of validating and predicting one image.
BOUNDS = {
    "maskrcnn_r50": (12, 17, 17),
    "maskrcnn_timm": (12, 17, 17),
    "cascade_r50": (17, 19, 19),
    "unet_effb0": (7, 8, 5),
    "unet_voting": (7, 9, 6),
    "unet_livecell": (1, 2, 2),
    "cropseg_effb0": (4, 8, None),
    "two_stage": (None, None, 29),
    "joined": (None, None, 2 * 5),  # of two U-Nets; joining works in NumPy
}
OF_MODEL = {"maskrcnn_r18": "maskrcnn_r50"}  # files of conf/model that differ in numbers alone
STEPS = ("training", "validation", "predict")


def image(seed: int, doubtful: bool = False) -> tuple[Tensor, Instances]:
    """An image with a grid of cells, every third doubtful or none."""
    masks = np.zeros((9, SIDE, SIDE), bool)
    for k, mask in enumerate(masks):
        row, column = 32 * (k // 3), 32 * (k % 3)
        mask[row + 4 : row + 25, column + 3 + k % 5 : column + 25] = True
    types = np.where((np.arange(9) % 3 == 0) & doubtful, DOUBTFUL, np.arange(9) % 3)
    noise = np.random.default_rng(seed).normal(128, 5, (SIDE, SIDE)) + 40 * masks.any(0)
    return torch.from_numpy(noise.astype(np.uint8))[None], Instances.from_masks(masks, types.tolist())


def batch(count: int, doubtful: bool = False) -> Batch:
    samples = [image(k, doubtful) for k in range(count)]
    weight = 0.5 if doubtful else 1.0
    targets = [Target.from_instances(f"p{k}", k, cells, "cort", weight) for k, (_, cells) in enumerate(samples)]
    return Batch([grey for grey, _ in samples], targets)


def mask_rcnn(**options: Any) -> MaskRCNNModule:
    return MaskRCNNModule(tiny_network(**options), torch.optim.SGD)


def timm_pyramid() -> TimmPyramid:
    options: dict[str, Any] = {"in_channels": 1, "finest_stride": 4, "checkpoint_activations": False}
    return TimmPyramid("resnet10t", None, "group", 5, 64, **options)


def unet(layout: MapLayout, decoder: Any) -> UNetModule:
    network = UNet(PlainEncoder(8, 2, "group"), layout, channels=[16, 8], norm="group", mean=128.0, std=11.58)
    return UNetModule(network, layout, decoder, torch.optim.SGD, border_weight=2.0)


def crop_segmenter() -> CropSegmenterModule:
    body = UNet(PlainEncoder(8, 2, "group", 2), 2, channels=[16, 8], norm="group", mean=0.0, std=1.0)
    network = CropNetwork(body, size=32, margin=0.25, min_side=12, mean=128.0, std=11.0, prompt=True)
    options = {"jitter": 0.1, "low": 0.1, "mask_size": 28, "crops_at_once": 20}
    return CropSegmenterModule(network, torch.optim.SGD, **options)


def two_stage() -> TwoStageModule:
    options: dict[str, Any] = {"min_score": 0.0, "box_probability": 0.4, "combine": "mean", "mask_size": 28}
    return TwoStageModule(mask_rcnn(), crop_segmenter(), **options)


def joined() -> JoinedModule:
    members = {name: FAMILIES["unet_effb0"]() for name in "ab"}
    numbers = {name: [1.0] * 3 for name in members}
    thresholds = {name: [0.5] * 3 for name in members}
    options: dict[str, Any] = {"min_score": 0.0, "calibrate": False, "image_type": "each"}
    method = WBF(box_iou=0.4, mask_iou=0.4, share_power=1.0)
    return JoinedModule(
        members, method, member_weights=numbers, mask_thresholds=thresholds, cell_type_names=CELL_TYPES, **options
    )


WATERSHED = Watershed(foreground_low=0.3, smooth=0.7, border_weight=0.3, depth=0.08, peak=0.3, min_area=5)
VOTING = OffsetVoting(foreground_low=0.3, smooth=1.5, depth=0.3, min_area=5, largest_piece=True)
FAMILIES: dict[str, Callable[[], SegmentationModule]] = {
    "maskrcnn_r50": mask_rcnn,
    "maskrcnn_timm": lambda: mask_rcnn(backbone=timm_pyramid()),
    "cascade_r50": lambda: mask_rcnn(parts={"cascade": STAGES}),
    "unet_effb0": lambda: unet(MapLayout(types=3, border=2), WATERSHED),
    "unet_voting": lambda: unet(MapLayout(types=3, border=2, offset_scale=16.0), VOTING),
    "unet_livecell": lambda: unet(MapLayout(types=0, centre=False), Components(threshold=0.5, min_area=5)),
    "cropseg_effb0": crop_segmenter,
    "two_stage": two_stage,
    "joined": joined,
}


def steps(built: SegmentationModule, train: Batch, one: Batch) -> dict[str, DeviceWatch]:
    """Run the steps that the family has."""
    built.log = built.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    found = {}
    if isinstance(built, TrainedModule):
        found["training"] = watched(lambda: built.train().training_step(train, 0).backward())
    built.eval()
    with torch.no_grad():
        if isinstance(built, TrainedModule):
            found["validation"] = watched(built.validation_step, one, 0)
        if not isinstance(built, CropSegmenterModule):  # it needs boxes
            found["predict"] = watched(built.predict_step, one, 0)
    return found


@pytest.fixture(scope="module", autouse=True)
def several_blocks() -> Iterator[None]:
    """Make the blocks in which anchors are matched smaller than the image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "BLOCK", 500)
        yield


@pytest.fixture(scope="module")
def watches(several_blocks) -> dict[tuple[str, bool], dict[str, DeviceWatch]]:
    """The steps of every family, on plain images and on those with ignored pixels and a weight."""
    found = {}
    for family, build in FAMILIES.items():
        for doubtful in (False, True) if family not in ("maskrcnn_timm", "two_stage", "joined") else (False,):
            torch.manual_seed(0)
            found[family, doubtful] = steps(build(), batch(2, doubtful), batch(1, doubtful))
    return found


def places(record: Any) -> set[str]:
    return {place.removeprefix("sartorius.") for place, _ in record}


def test_every_model_of_the_configs_is_watched() -> None:
    models = {path.stem for path in (Path(__file__).parents[2] / "conf/model").glob("*.yaml")}
    assert {OF_MODEL.get(model, model) for model in models} <= set(FAMILIES) == set(BOUNDS)


def test_tensors_and_transfers_are_at_named_places(watches) -> None:
    seen = set()
    for key, found in watches.items():
        for step, watch in found.items():
            host = places(watch.homeless) | places(watch.to_host)
            assert host <= {*NAMED, *LIBRARIES}, (key, step, watch.homeless, watch.to_host)
            seen |= host
    assert seen == {*NAMED, *LIBRARIES}, "a named place that no step needs"


@pytest.mark.parametrize("family", FAMILIES)
def test_waits_for_the_device_are_few(family: str, watches) -> None:
    found = watches[family, False]
    for step, bound in zip(STEPS, BOUNDS[family], strict=True):
        assert (step in found) == (bound is not None), step
        if bound is not None:
            assert found[step].waits.total() <= bound, (step, found[step].waits)


def test_waits_grow_with_the_images_of_a_batch_alone() -> None:
    """Of a training step: with each image by its NMS, not with its pixels or cells."""
    torch.manual_seed(0)
    built = mask_rcnn(backbone=timm_pyramid())
    targets = [Target.from_instances(f"p{k}", k, Instances.from_masks(np.ones((1, 32, 32), bool), [0])) for k in (0, 1)]
    small = Batch([grey[:, :32, :32] for grey in batch(2).images], targets)
    few, many, four = (steps(built, train, batch(1))["training"].waits for train in (small, batch(2), batch(4)))
    assert many.total() - few.total() <= 1  # for cells in reach of the blocks of anchors, where there are several
    of_nms = sum(count for (place, _), count in many.items() if place.startswith("torchvision.ops.boxes"))
    assert four.total() - many.total() == of_nms


@pytest.mark.parametrize(
    ("fault", "kinds", "operation"),
    [
        (lambda x: torch.zeros(3), {"homeless", "waits"}, "zeros"),
        (lambda x: torch.randperm(3), {"homeless", "waits"}, "randperm"),
        (lambda x: torch.tensor([1.0]), {"homeless"}, "tensor"),
        (lambda x: torch.tensor([1.0], device=x.device), {"waits"}, "lift_fresh"),
        (lambda x: torch.from_numpy(np.zeros(2)), {"homeless"}, "from host memory"),
        (lambda x: x[0].item(), {"to_host"}, "item"),
        (lambda x: x[0].item(), {"waits"}, "_local_scalar_dense"),
        (lambda x: x.tolist(), {"to_host", "waits"}, "tolist"),
        (lambda x: x.numpy(), {"to_host"}, "numpy"),
        (lambda x: x.cpu(), {"to_host", "waits"}, "cpu"),
        (lambda x: x.to("cpu"), {"to_host", "waits"}, "to"),
        (lambda x: 1 if x.sum() > 2 else 0, {"to_host"}, "__bool__"),
        (lambda x: float(x[0]), {"to_host"}, "__float__"),
        (lambda x: len(torch.nonzero(x)), {"waits"}, "nonzero"),
        (lambda x: torch.where(x > 0), {"waits"}, "nonzero"),
        (lambda x: x[x > 0], {"waits"}, "index"),
        (lambda x: x.index_put((x > 0,), x[:1]), {"waits"}, "index_put"),
        (lambda x: x.unique(), {"waits"}, "_unique2"),
        (lambda x: x.repeat_interleave(torch.ones_like(x).long()), {"waits"}, "repeat_interleave"),
    ],
)
def test_a_planted_fault_is_caught(fault: Callable[[Tensor], Any], kinds: set[str], operation: str) -> None:
    class Planted(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            fault(x)
            return x * 2

    watch = watched(Planted(), torch.arange(5.0))
    for kind in kinds:
        ((place, found),) = [key for key in getattr(watch, kind) if key[1] == operation]
        assert (place.split(":")[1], found) == ("<lambda>", operation), kind


def test_sound_code_is_not_reported() -> None:
    def sound(x: Tensor) -> None:
        torch.zeros(3, device=x.device)
        torch.where(x > 0, x, 0.0)[torch.arange(2, device=x.device)] = 1.0
        x.repeat_interleave(torch.ones_like(x).long(), output_size=5).sort()
        x.masked_fill(x > 2, 0.0).to(torch.float16)

    watch = watched(sound, torch.arange(5.0))
    assert watch.homeless == watch.to_host == watch.waits == {}
