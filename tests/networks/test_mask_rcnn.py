import numpy as np
import pytest
import torch

from sartorius.networks.backbones import ResNetPyramid, norm_layer
from sartorius.networks.roi_heads import PyramidRoIAlign
from sartorius.structures.instances import Instances

from .conftest import target_of, tiny_network

LOSSES = {"loss_objectness", "loss_rpn_box", "loss_classifier", "loss_box", "loss_mask"}


def test_losses_are_finite_and_reach_every_parameter(example) -> None:
    image, instances = example
    network = tiny_network()
    losses = network([image, image], [target_of(instances)] * 2)
    assert set(losses) == LOSSES
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_a_image_without_cells_trains(example) -> None:
    image, _ = example
    network = tiny_network()
    losses = network([image], [target_of(Instances.empty(70, 90))])
    torch.stack(list(losses.values())).sum().backward()
    assert losses["loss_mask"] == losses["loss_box"] == losses["loss_rpn_box"] == 0
    assert losses["loss_objectness"] > 0
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_detections_are_in_image_pixels_and_bounded(example, scale: float) -> None:
    image, _ = example
    network = tiny_network(scale=scale, detections=7).eval()
    with torch.no_grad():
        small, large = network([image, image.repeat(1, 1, 2)[:, :64]])
    for found, height, width in ((small, 70, 90), (large, 64, 180)):
        assert len(found.boxes) <= 7
        assert found.masks.shape[1:] == (28, 28)
        assert ((found.masks >= 0) & (found.masks <= 1)).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert set(found.cell_types.tolist()) <= {0, 1, 2}
        middle = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        assert (middle[:, 0] < width).all()
        assert (middle[:, 1] < height).all()


def test_nothing_above_the_score_gives_no_detections(example) -> None:
    network = tiny_network(score=1.1).eval()
    with torch.no_grad():
        found = network([example[0]])[0]
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 28, 28)


def test_it_learns_one_image(example) -> None:
    """A few dozen steps on two squares: the box, mask and type of both are found, to the pixel or nearly."""
    torch.manual_seed(0)
    image, instances = example
    network = tiny_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(100):
        loss = torch.stack(list(network([image], [target_of(instances)]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = network.eval()([image])[0]
    boxes, types = found.boxes.numpy(), found.cell_types.numpy()
    for box, cell_type in zip(instances.boxes, instances.cell_types, strict=True):
        nearest = np.abs(boxes[:5] - box).max(axis=1).argmin()
        assert np.abs(boxes[nearest] - box).max() < 4
        assert types[nearest] == cell_type
        assert found.scores[nearest] > 0.5
        assert (found.masks[nearest, 4:-4, 4:-4] > 0.5).float().mean() > 0.9


def test_state_dict_names_are_torchvisions() -> None:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    from sartorius.networks.anchors import AnchorGrid
    from sartorius.networks.mask_rcnn import mask_rcnn

    align = {"sampling_ratio": 2, "strides": [4, 8, 16, 32], "canonical_size": 224, "canonical_level": 2}
    ours = mask_rcnn(
        ResNetPyramid("resnet50", "frozen_batch", 3),
        AnchorGrid([[32]] * 5, [0.5, 1.0, 2.0]),
        90,
        mean=0,
        std=1,
        scale=1,
        norm="frozen_batch",
        rpn={
            "foreground_iou": 0.7,
            "background_iou": 0.3,
            "batch": 1,
            "positive_fraction": 0.5,
            "before_nms": (1, 1),
            "after_nms": (1, 1),
            "nms_iou": 0.7,
            "min_size": 1.0,
        },
        roi_heads={
            "foreground_iou": 0.5,
            "batch": 1,
            "positive_fraction": 0.5,
            "mask_batch": 1,
            "score": 0,
            "nms_iou": 1,
            "detections": 1,
            "min_size": 1.0,
        },
        box_align={"size": 7, **align},
        mask_align={"size": 14, **align},
        box_features=1024,
        mask_layers=[256] * 4,
    )
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    shapes = {
        name: value.shape for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")
    }
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes


def test_trainable_layers() -> None:
    frozen = {
        n.split(".")[0]
        for n, p in ResNetPyramid("resnet18", "frozen_batch", 2).body.named_parameters()
        if not p.requires_grad
    }
    assert frozen == {"conv1", "layer1", "layer2"}
    with pytest.raises(ValueError, match="norm='layer'"):
        norm_layer("layer")


def test_regions_are_cut_from_the_level_of_their_size_on_the_pixel_convention() -> None:
    """On features that hold the image coordinate of their middle, a cut returns those of its bins' middles."""
    align = PyramidRoIAlign(4, 2, [4, 8], canonical_size=64, canonical_level=1)
    levels = [
        ((torch.arange(128 // s) + 0.5) * s).expand(128 // s, -1)[None, None] + 1000 * k for k, s in enumerate((4, 8))
    ]
    cut = align(levels, torch.tensor([[0, 20.0, 20.0, 36.0, 36.0], [0, 20.0, 20.0, 100.0, 100.0]]))
    torch.testing.assert_close(cut[0, 0, 0], torch.tensor([22.0, 26.0, 30.0, 34.0]))  # side 16: the fine level
    torch.testing.assert_close(cut[1, 0, 0] - 1000, torch.tensor([30.0, 50.0, 70.0, 90.0]))  # side 80: the coarse one


def test_half_precision_features_do_not_round_the_coordinates_of_regions() -> None:
    """In bfloat16 the edge 601 would become 600; far from the origin a region must still be cut where it is."""
    align = PyramidRoIAlign(7, 2, [4], canonical_size=64, canonical_level=0)
    features = torch.rand(1, 3, 32, 176, generator=torch.Generator().manual_seed(0)).bfloat16()
    rois = torch.tensor([[0, 601.3, 70.6, 617.1, 88.9], [0, 402.7, 3.2, 431.9, 20.4]])
    with torch.autocast("cpu", torch.bfloat16):
        half = align([features], rois)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, align([features.float()], rois), atol=0, rtol=0)
    shifted = align([features.float()], rois.bfloat16().float())
    assert (half - shifted).abs().max() > 0.1  # what rounding would have done


def test_boxes_end_where_their_image_ends(example) -> None:
    """Padding (70 rows to 96) is not part of the image: masks are cut from the boxes that are reported."""
    network = tiny_network(detections=30).eval()
    with torch.no_grad():
        found = network([example[0]])[0]
    assert found.boxes[:, 2].max() <= 90
    assert found.boxes[:, 3].max() <= 70
    assert ((found.boxes[:, 2:] - found.boxes[:, :2]) >= 1).all()
