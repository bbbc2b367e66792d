"""The networks of the GPU check: which they are, torchvision's counterpart, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from benchmarks import images
from benchmarks.augmentation import masks_of
from sartorius.data.dataset import Batch, Target
from sartorius.modules.base import SegmentationModule
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.modules.unet import UNetModule
from sartorius.running.wiring import instantiate
from sartorius.structures.cell_types import HEIGHT, WIDTH
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances

FAMILIES = {
    "Mask R-CNN R50": ["experiment=maskrcnn_r50"],
    "Mask R-CNN timm": ["experiment=maskrcnn_timm"],
    "cascade": ["experiment=cascade_r50"],
    "U-Net": ["experiment=unet_effb0"],
    "crop segmenter": ["experiment=cropseg_effb0"],
}
_TINY_HEADS = [
    "model.network.box_features=16", "model.network.mask_layers=[8]", "model.network.rpn.before_nms=[200,200]",
    "model.network.rpn.after_nms=[50,50]", "model.network.roi_heads.detections=20",
    "model.network.backbone.channels=16", "model.network.roi_heads.batch=32", "model.network.roi_heads.mask_batch=8",
]  # fmt: skip
_TINY_CROPS = ["transform.crop.height=64", "transform.crop.width=64"]
_TINY_R18 = [*_TINY_HEADS, *_TINY_CROPS, "model.body=resnet18"]
TINY_UNET = [
    *_TINY_CROPS, "model.network.encoder.name=resnet18", "model.network.encoder.levels=2",
    "model.network.encoder.weights=none", "model.network.channels=[16]",
]  # fmt: skip
TINY = {
    "Mask R-CNN R50": _TINY_R18,
    "Mask R-CNN timm": [*_TINY_HEADS, *_TINY_CROPS, "model.network.backbone.name=resnet18"],
    "cascade": _TINY_R18,
    "U-Net": TINY_UNET,
    "crop segmenter": [
        "model.network.size=32", "model.network.body.encoder.name=resnet18", "model.network.body.encoder.levels=2",
        "model.network.body.channels=[16]",
    ],
}  # fmt: skip
CELLS = 150  # of an image that both networks of `pair` train on
Step = Callable[[], object]


class _NoPasting(GeneralizedRCNNTransform):
    """torchvision's transform that leaves masks in their boxes, as ours are."""

    def postprocess(self, result: Any, *_: Any) -> Any:
        """Return the detections as they are."""
        return result


def torchvision_network(cfg: DictConfig, size: tuple[int, int]) -> MaskRCNN:
    """Build torchvision's Mask R-CNN with the body, the anchors and the numbers of regions of a config of ours."""
    anchors, rpn, heads = cfg.model.network.anchors, cfg.model.network.rpn, cfg.model.network.roi_heads
    body = resnet_fpn_backbone(
        backbone_name=cfg.model.body, weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    network = MaskRCNN(
        body, len(cfg.cell_types) + 1,
        rpn_anchor_generator=AnchorGenerator([tuple(level) for level in anchors.sizes], (tuple(anchors.ratios),) * 5),
        rpn_pre_nms_top_n_train=rpn.before_nms[0], rpn_pre_nms_top_n_test=rpn.before_nms[1],
        rpn_post_nms_top_n_train=rpn.after_nms[0], rpn_post_nms_top_n_test=rpn.after_nms[1],
        rpn_nms_thresh=rpn.nms_iou, rpn_fg_iou_thresh=rpn.foreground_iou, rpn_bg_iou_thresh=rpn.background_iou,
        rpn_batch_size_per_image=rpn.batch, rpn_positive_fraction=rpn.positive_fraction,
        box_score_thresh=heads.score, box_nms_thresh=heads.nms_iou, box_detections_per_img=heads.detections,
        box_batch_size_per_image=heads.batch, box_positive_fraction=heads.positive_fraction,
    )  # fmt: skip
    network.transform = _NoPasting(min(size), max(size), [0.5] * 3, [0.05] * 3)
    return network


def samples(device: str, tiny: bool) -> tuple[Batch, list[Tensor], list[dict[str, Tensor]]]:
    """Draw two images of 520 x 704 (of 128 x 128 where tiny) with their cells: our batch; torchvision's input."""
    ours, theirs, targets = Batch([], []), [], []
    height, width = (128, 128) if tiny else (HEIGHT, WIDTH)
    for seed in range(2):
        drawn = images.generated(CELLS, seed)
        cut = np.stack(masks_of(drawn.instances()))[:, :height, :width]
        masks = cut[cut.any(axis=(1, 2))]
        instances = Instances.from_masks(masks > 0, np.zeros(len(masks)))
        image = torch.from_numpy(drawn.image[:height, :width].copy()).to(device)
        ours.images.append(image[None])
        ours.targets.append(Target.from_instances(str(seed), seed, instances).to(device))
        theirs.append((image / 255).expand(3, -1, -1))
        target = {"boxes": instances.boxes, "labels": instances.cell_types.astype(np.int64) + 1, "masks": masks}
        targets.append({name: torch.from_numpy(value).to(device) for name, value in target.items()})
    return ours, theirs, targets


def pair(cfg: DictConfig, device: str, precision: str, tiny: bool) -> dict[str, Callable[[], tuple[Step, Step]]]:
    """Make, for "ours" and "torchvision", a function that builds the network and returns its steps.

    The first is a training step on two images (SGD), the second predicts one of them: boxes, scores, cell types and
    masks in their boxes, on the device.
    """
    batch, theirs, targets = samples(device, tiny)

    def steps(network: nn.Module, losses: Callable[[], Any], predict: Step) -> tuple[Step, Step]:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)  # the weights hardly move
        half = precision == "bf16-mixed"

        def learn() -> None:
            network.train()
            with torch.autocast(device, torch.bfloat16, enabled=half):
                loss = sum(losses().values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def detect() -> None:
            network.eval()
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
                predict()

        return learn, detect

    def ours() -> tuple[Step, Step]:
        network = instantiate(cfg.model.network).to(device)
        return steps(network, lambda: network(batch.images, batch.targets), lambda: network(batch.images[:1]))

    def torchvision() -> tuple[Step, Step]:
        network = torchvision_network(cfg, tuple(batch.images[0].shape[-2:])).to(device)
        return steps(network, lambda: network(theirs, targets), lambda: network(theirs[:1]))

    return {"ours": ours, "torchvision": torchvision}


def first_outputs(module: SegmentationModule, image: Tensor) -> list[Tensor]:
    """Compute what is continuous in the input, float32 on the CPU, for an image [1, H, W]: logits of a U-Net, the
    pyramid of a Mask R-CNN."""
    network = module.network
    if isinstance(module, UNetModule):
        outputs = [network(image[None])]
    elif isinstance(module, MaskRCNNModule):
        outputs = list(network.backbone(network.normalise([image])).values())
    else:
        raise TypeError(f"{type(module).__name__} is neither a U-Net nor a Mask R-CNN")
    return [output.float().cpu() for output in outputs]


@torch.inference_mode()
def outputs_and_detections(
    module: SegmentationModule, batch: Batch, device: str, tf32: bool = False
) -> tuple[list[Tensor], Detections]:
    """Apply a module in float32 to the only image of a batch on a device."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32):
        module.to(device).eval()
        moved = batch.to(device)
        return first_outputs(module, moved.images[0]), module.detect(moved)[0]


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    """Compute the largest difference, as a share of the largest value of each output."""
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(first, second, strict=True))


def matched(first: Detections, second: Detections, iou: float = 0.9) -> float | None:
    """Compute the percentage of the detections of either that the other has too: same cell type, box IoU above `iou`.

    Scores may differ by 0.01. None where neither has any.
    """
    if not len(first) or not len(second):
        return None if len(first) == len(second) else 0.0
    same = box_iou(torch.from_numpy(first.boxes), torch.from_numpy(second.boxes)).numpy() > iou
    same &= first.cell_types[:, None] == second.cell_types
    same &= np.abs(first.scores[:, None] - second.scores) < 0.01
    return 100 * float(min(same.any(axis=1).mean(), same.any(axis=0).mean()))


def equal(first: Detections, second: Detections) -> bool:
    """Whether two sets of detections are equal bit by bit."""
    return all(
        np.array_equal(a, b)
        for a, b in (
            (first.boxes, second.boxes), (first.scores, second.scores), (first.cell_types, second.cell_types),
            (first.masks, second.masks),
        )
    )  # fmt: skip
