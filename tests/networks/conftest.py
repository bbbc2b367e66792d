from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.backbones import ResNetPyramid
from sartorius.networks.mask_rcnn import MaskRCNN, mask_rcnn
from sartorius.structures.instances import Instances


def target_of(instances: Instances) -> Any:
    """What the dataset gives, as tensors."""
    return SimpleNamespace(
        boxes=torch.from_numpy(instances.boxes),
        cell_types=torch.from_numpy(instances.cell_types),
        layers=torch.from_numpy(instances.layers.astype(np.int32)),
        layer_of=torch.from_numpy(instances.layer_of),
        ids=torch.arange(1, len(instances) + 1),
        ignored=None,
        weight=1.0,
    )


# Cascade R-CNN's stages, as in conf/model/cascade_r50.yaml
STAGES: list[dict[str, Any]] = [
    {"foreground_iou": iou, "coder": [10.0 * k, 10.0 * k, 5.0 * k, 5.0 * k]}
    for k, iou in ((1, 0.5), (2, 0.6), (3, 0.7))
]


def tiny_network(
    norm: str = "group",
    scale: float = 1.0,
    backbone: torch.nn.Module | None = None,
    strides: list[int] | None = None,
    parts: dict[str, Any] | None = None,
    classes: int = 3,
    **heads: Any,
) -> MaskRCNN:
    """ResNet-18 (or another backbone) with small heads; `parts` are further arguments of `mask_rcnn`."""
    align = {"sampling_ratio": 1, "strides": strides, "canonical_size": 224, "canonical_level": 2}
    return mask_rcnn(
        backbone or ResNetPyramid("resnet18", norm, 5),
        AnchorGrid([[8], [16], [32], [64], [128]], [1.0]),
        classes,
        mean=128,
        std=11.58,
        scale=scale,
        norm=norm,
        rpn={
            "foreground_iou": 0.6,
            "background_iou": 0.3,
            "batch": 32,
            "positive_fraction": 0.5,
            "before_nms": (50, 50),
            "after_nms": (30, 30),
            "nms_iou": 0.7,
            "min_size": 1.0,
        },
        roi_heads={
            "foreground_iou": 0.5,
            "batch": 16,
            "positive_fraction": 0.5,
            "mask_batch": 4,
            "score": 0.0,
            "nms_iou": 0.9,
            "detections": 20,
            "min_size": 1.0,
            **heads,
        },
        box_align={"size": 7, **align},
        mask_align={"size": 14, **align},
        box_features=32,
        mask_layers=[32, 32],
        **(parts or {}),
    )


@pytest.fixture
def example() -> tuple[torch.Tensor, Instances]:
    """A grey image 70x90 with a bright cell and a brighter one that overlap, and their truth."""
    masks = np.zeros((2, 70, 90), bool)
    masks[0, 10:30, 20:44] = masks[1, 26:46, 40:64] = True
    image = np.full((1, 70, 90), 128, np.uint8)
    image[0, masks[0]], image[0, masks[1]] = 150, 220
    return torch.from_numpy(image), Instances.from_masks(masks, [2, 1])
