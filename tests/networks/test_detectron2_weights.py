"""Files of detectron2's model zoo: names, layouts, and the same function before and after."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch

from sartorius.errors import InputError
from sartorius.networks.anchors import AnchorGrid
from sartorius.networks.detectron2_weights import check_parts, convert, is_detectron2
from sartorius.networks.mask_rcnn import MaskRCNN
from sartorius.networks.weights import load_weights
from sartorius.running import wiring

from .detectron2_reference import (
    Reference,
    Shapes,
    body_shapes,
    box_shapes,
    layer,
    mask_rcnn_shapes,
    mask_shapes,
    norm_shapes,
    pyramid_shapes,
    rpn_shapes,
    values,
)

State = dict[str, Any]


def r50(types: int, *overrides: str) -> MaskRCNN:
    """The network of the shipped experiment, with weights to come."""
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        chosen = ["experiment=maskrcnn_r50_detectron2", "model.weights=a.pkl", f"model.network.classes={types}"]
        cfg = hydra.compose("train", [*chosen, *overrides])
    with torch.device("meta"):  # no random numbers for what is loaded
        network: MaskRCNN = wiring.instantiate(cfg.model.network)
    return network.to_empty(device="cpu").eval()


@pytest.fixture(scope="module")
def zoo() -> State:
    return values(mask_rcnn_shapes())


@pytest.fixture(scope="module")
def file(zoo: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the model zoo writes it."""
    path = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
    extra = {"pixel_mean": np.zeros((3, 1, 1), np.float32), "pixel_std": np.ones((3, 1, 1), np.float32)}
    cells = {f"proposal_generator.anchor_generator.cell_anchors.{k}": np.zeros((3, 4), np.float32) for k in range(5)}
    path.write_bytes(pickle.dumps({"model": {**zoo, **extra, **cells}, "__author__": "Detectron2 Model Zoo"}, 4))
    return path


def test_the_list_is_that_of_r50_fpn() -> None:
    shapes = mask_rcnn_shapes()
    # 53 convolutions of 5 tensors; 8 of the pyramid, 3 of the RPN, 4 of the box head, 6 of the mask head, of 2
    assert len(shapes) == 53 * 5 + 2 * (8 + 3 + 4 + 6)
    statistics = sum(np.prod(shape) for name, shape in shapes.items() if "running" in name)
    # torchvision's maskrcnn_resnet50_fpn has 44,401,393 parameters beside the norms, with 11 rows more a type
    norms = statistics  # as many factors and offsets as means and variances
    more = (91 - 81) * 1025 + 4 * (91 - 80) * 1025 + (91 - 80) * 257
    assert sum(np.prod(shape) for shape in shapes.values()) - statistics == 44_401_393 + norms - more


def test_it_computes_the_same(zoo: State, file: Path) -> None:
    network = r50(80)
    report = load_weights(network, file)
    assert report.missing == report.reshaped == report.unused == ()
    assert len(report.loaded) == len(zoo)
    reference = Reference(zoo)
    grey = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    with torch.no_grad():
        ours, theirs = list(network.backbone(grey).values()), reference.pyramid(grey)
        for own, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
        # grey images do not tell BGR from RGB
        torch.testing.assert_close(reference.pyramid(grey.flip(1))[0], theirs[0])
        scores, deltas = network.rpn.head(theirs)
        for k, feature in enumerate(theirs):
            objectness, codes = reference.rpn(feature)
            torch.testing.assert_close(scores[k][0], objectness, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(deltas[k][0].unflatten(0, (-1, 4)), codes, rtol=1e-4, atol=1e-4)
        heads = network.roi_heads
        regions = torch.randn(5, 256, 7, 7, generator=torch.Generator().manual_seed(1))
        logits, boxes = heads.box_predictor(heads.box_head(regions))
        probability, codes = reference.boxes(regions)
        torch.testing.assert_close(logits.softmax(1), probability.roll(1, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(boxes.unflatten(1, (-1, 4))[:, 1:], codes, rtol=1e-4, atol=1e-4)
        regions = torch.randn(2, 256, 14, 14, generator=torch.Generator().manual_seed(2))
        masks = heads.mask_predictor(heads.mask_head(regions))
        torch.testing.assert_close(masks[:, 1:], reference.masks(regions), rtol=1e-4, atol=1e-4)


def test_other_cell_types_start_from_nothing_and_are_named(zoo: State, file: Path) -> None:
    network = r50(3)
    for name, value in network.state_dict().items():
        if "predictor" in name:
            value.fill_(7)
    report = load_weights(network, file, cell_types=("a", "b", "c"))
    assert report.missing == report.unused == ()
    assert set(report.reshaped) == {
        f"roi_heads.{name}.{kind}"
        for name in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        for kind in ("weight", "bias")
    }
    after = network.state_dict()
    assert all((after[name] == 7).all() for name in report.reshaped)
    hidden = torch.from_numpy(zoo["proposal_generator.rpn_head.conv.weight"])
    assert torch.equal(after["rpn.head.conv.0.0.weight"], hidden)


def tensors(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in values(shapes).items()}


def test_anchors_go_by_ratio() -> None:
    """Every row of the file stands for one shape of anchor; after the conversion for the anchor of that shape here."""
    sizes, ratios = [8.0, 16.0], [0.5, 1.0, 2.0]
    shapes = torch.tensor([[size / ratio**0.5, size * ratio**0.5] for size in sizes for ratio in ratios])
    state = {
        "proposal_generator.rpn_head.objectness_logits.bias": shapes[:, 0],
        "proposal_generator.rpn_head.anchor_deltas.bias": torch.cat((shapes, shapes), dim=1).flatten(),
    }
    converted = convert(state, len(sizes), "a")
    grid = AnchorGrid([sizes], ratios)
    assert grid.sizes == 2
    anchors = grid([torch.zeros(1, 1, 1, 1)], (4, 4))[0]
    wanted = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(converted["rpn.head.cls_logits.bias"], wanted[:, 0])
    torch.testing.assert_close(converted["rpn.head.bbox_pred.bias"], torch.cat((wanted, wanted), dim=1).flatten())


def test_cascade() -> None:
    shapes: Shapes = mask_shapes(3)
    for stage in range(3):
        shapes |= box_shapes(3, f"{stage}.", boxes=4)
    state = tensors({name: (*shape[:1], 2) if len(shape) == 2 else shape for name, shape in shapes.items()})
    converted = convert(state, 1, "a")
    for stage in range(3):
        head, predictor = f"roi_heads.box_head.{stage}", f"roi_heads.box_predictor.{stage}"
        assert torch.equal(converted[f"{head}.fc6.weight"], state[f"{head}.fc1.weight"])
        assert torch.equal(converted[f"{head}.fc7.bias"], state[f"{head}.fc2.bias"])
        assert torch.equal(converted[f"{predictor}.bbox_pred.weight"], state[f"{predictor}.bbox_pred.weight"])
        scores = state[f"{predictor}.cls_score.weight"]
        assert torch.equal(converted[f"{predictor}.cls_score.weight"], torch.cat((scores[3:], scores[:3])))
    heads = {name for name in r50(3, "model=cascade_r50").state_dict() if name.startswith("roi_heads.")}
    assert set(converted) == heads
    with pytest.raises(InputError, match=r"of detectron2's that lacks 4 tensors of roi_heads.box_head .*cascade_r50"):
        check_parts(converted, [f"roi_heads.box_head.fc{k}.{p}" for k in (6, 7) for p in ("weight", "bias")], "a")


def caffe2(shapes: Shapes) -> Shapes:
    """ImageNet's ResNet under the names of Caffe2's R-50.pkl, with norms fused to `s` and `b`."""
    places = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    found: Shapes = {"conv1_b": (64,), "fc1000_w": (1000, 2048), "fc1000_b": (1000,)}
    for name, shape in shapes.items():
        if "running" in name:
            continue
        kind = {"norm.weight": "_bn_s", "norm.bias": "_bn_b"}.get(".".join(name.split(".")[-2:]), "_w")
        parts = name.split(".")
        place = f"{parts[0]}_{parts[1]}_{places[parts[2]]}" if parts[0] != "stem" else "res_conv1"
        found["conv1_w" if place == "res_conv1" and kind == "_w" else place + kind] = shape
    return found


def test_resnets_of_imagenet() -> None:
    modern = {**body_shapes(""), "stem.fc.weight": (1000, 2048), "stem.fc.bias": (1000,)}
    network = r50(3)
    body = {name for name in network.state_dict() if name.startswith("backbone.body.")}
    for shapes in (modern, caffe2(body_shapes(""))):
        assert is_detectron2(shapes)
        converted = convert(tensors(shapes), 1, "a")
        assert set(converted) == body
        check_parts(converted, network.state_dict(), "a")
        report = network.load_state_dict(converted, strict=False)
        assert not report.unexpected_keys
    assert torch.equal(network.backbone.body.bn1.running_var, torch.ones(64))  # fused: Caffe2's
    assert torch.equal(network.backbone.body.bn1.running_mean, torch.zeros(64))


BAD: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (
        lambda state: state.pop("backbone.fpn_output3.bias"),
        r"lacks 1 tensors of backbone.fpn here, such as backbone\.fpn\.layer_blocks\.1\.0\.bias. It is damaged",
    ),
    "no body": (
        lambda state: [state.pop(name) for name in list(state) if ".res5." in name],
        r"lacks \d+ tensors of backbone.body here",
    ),
    "larger body": (
        lambda state: state.update({"backbone.bottom_up.res4.6.conv1.weight": np.zeros((256, 1024, 1, 1), np.float32)}),
        r"has 1 tensors more than backbone.body here, such as backbone\.body\.layer3\.6\.conv1\.weight",
    ),
    "other head": (
        lambda state: state.update(values(layer("roi_heads.box_head.conv1", 256, 256, 3, 3))),
        r"'roi_heads\.box_head\.conv1\.weight' is of no Mask R-CNN",
    ),
    "norms": (
        lambda state: state.update(values(norm_shapes("backbone.fpn_lateral2", 256))),
        r"'backbone\.fpn_lateral2\.norm\.weight' is of no",
    ),
    "keypoints": (
        lambda state: state.update({"roi_heads.keypoint_head.conv_fcn1.weight": np.zeros(3, np.float32)}),
        "is of no Mask R-CNN",
    ),
    "text": (lambda state: state.update({"pixel_mean": "hello"}), r"'pixel_mean' is a str"),
}


@pytest.fixture(scope="module")
def small() -> tuple[MaskRCNN, State]:
    """A file whose tensors are single numbers: names are all that is looked at before these errors."""
    return r50(80), {name: np.zeros((), np.float32) for name in mask_rcnn_shapes()}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, small: tuple[MaskRCNN, State], tmp_path: Path) -> None:
    change, message = BAD[name]
    network, state = small
    state, shapes = dict(state), mask_rcnn_shapes()
    for key in state:  # rows are put in order before parts are counted
        if key.startswith(("proposal_generator.", "roi_heads.")):
            state[key] = np.zeros((shapes[key][0], 1), np.float32)
    change(state)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": state, "__author__": "x"}))
    with pytest.raises(InputError, match=message):
        load_weights(network, tmp_path / "a.pkl")


def test_a_file_without_masks_is_no_error(small: tuple[MaskRCNN, State]) -> None:
    state = tensors({**pyramid_shapes(), **rpn_shapes()})
    check_parts(convert(state, 1, "a"), small[0].state_dict(), "a")
