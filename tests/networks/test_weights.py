import hashlib
import pickle

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.networks.backbones import ResNetPyramid
from sartorius.networks.checkpoints import FORMAT_VERSION, KEY
from sartorius.networks.weights import load_weights

from .conftest import tiny_network


def test_a_state_dict_and_a_checkpoint_load(tmp_path) -> None:
    source = tiny_network()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    torch.save({"state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "b.ckpt")
    for name in ("a.pth", "b.ckpt"):
        network = tiny_network()
        report = load_weights(network, tmp_path / name, "maskrcnn_resnet50_fpn", "resnet18")
        assert report.missing == report.reshaped == ()
        for key, value in source.state_dict().items():
            assert torch.equal(network.state_dict()[key], value)


def test_what_does_not_fit_keeps_its_start_and_is_named(tmp_path) -> None:
    state = tiny_network().state_dict()
    state["rpn.head.conv.weight"] = state.pop("rpn.head.conv.0.0.weight")  # the name torchvision's files have
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(91, 32)
    del state["roi_heads.box_predictor.bbox_pred.bias"]
    torch.save(state, tmp_path / "a.pth")
    network = tiny_network()
    before = network.roi_heads.box_predictor.cls_score.weight.clone()
    report = load_weights(network, tmp_path / "a.pth", "maskrcnn_resnet50_fpn", "resnet18")
    assert report.reshaped == ("roi_heads.box_predictor.cls_score.weight",)
    assert report.missing == ("roi_heads.box_predictor.bbox_pred.bias",)
    assert "rpn.head.conv.0.0.weight" in report.loaded
    assert torch.equal(network.roi_heads.box_predictor.cls_score.weight, before)
    assert "other shape, start from nothing: roi_heads.box_predictor.cls_score.weight" in str(report)


def test_imagenet_goes_into_the_body(monkeypatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    state = resnet18(weights=None).state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *a, **k: state)
    network = tiny_network("frozen_batch")
    report = load_weights(network, "imagenet", "maskrcnn_resnet50_fpn", "resnet18")
    assert torch.equal(network.backbone.body.conv1.weight, state["conv1.weight"])
    assert not any("backbone.body" in name for name in report.missing)


def test_imagenet_comes_from_the_folder_of_weights(tmp_path, monkeypatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    state = resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.setenv("SARTORIUS_WEIGHTS", str(tmp_path))
    with pytest.raises(
        InputError, match=r"resnet18-f37072fd\.pth: damaged, its SHA-256 begins with \w+, expected f370"
    ):
        load_weights(tiny_network("frozen_batch"), "imagenet", "maskrcnn_resnet50_fpn", "resnet18")
    digits = hashlib.sha256((tmp_path / "resnet18-f37072fd.pth").read_bytes()).hexdigest()[:8]
    (tmp_path / "resnet18-f37072fd.pth").rename(tmp_path / f"resnet18-{digits}.pth")
    monkeypatch.setattr(ResNet18_Weights, "url", f"https://host/resnet18-{digits}.pth")
    network = tiny_network("frozen_batch")
    load_weights(network, "imagenet", "maskrcnn_resnet50_fpn", "resnet18")
    assert torch.equal(network.backbone.body.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def resnet_of(name: str) -> nn.Module:
    network = nn.Module()
    network.backbone = ResNetPyramid(name, "batch", 5)
    return network


def test_bad_files(tmp_path) -> None:
    def load(name: str) -> None:
        load_weights(tiny_network(), tmp_path / name, "maskrcnn_resnet50_fpn", "resnet18")

    with pytest.raises(InputError, match="no such file; expected none, coco, imagenet, builtin or a file"):
        load("missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(InputError, match=r"text\.pth: not a checkpoint or other file of PyTorch weights"):
        load("text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="expected a state dict"):
        load("list.pth")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="none of its 1 tensors"):
        load("other.pth")
    for wrong in (tiny_network("frozen_batch"), resnet_of("resnet34")):
        torch.save(wrong.state_dict(), tmp_path / "body.pth")
        with pytest.raises(
            InputError, match=r"tensors of the backbone do not fit, such as backbone\.body\..*norm=group"
        ):
            load_weights(resnet_of("resnet50"), tmp_path / "body.pth", "maskrcnn_resnet50_fpn", "resnet50")


def test_a_failed_download_says_what_to_do(monkeypatch) -> None:
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(MaskRCNN_ResNet50_FPN_Weights, "get_state_dict", fail)
    with pytest.raises(
        InputError, match=r"could not be downloaded .*model\.weights=none.*_coco-\w+\.pth .*SARTORIUS_WEIGHTS$"
    ):
        load_weights(tiny_network(), "coco", "maskrcnn_resnet50_fpn", "resnet18")


def checkpoint(path, cell_types, **metadata) -> nn.Module:
    """One of ours, of tiny networks with so many cell types."""
    network = tiny_network(classes=len(cell_types))
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    metadata = {"format_version": FORMAT_VERSION, "cell_types": list(cell_types), **metadata}
    torch.save({"state_dict": state, KEY: metadata}, path)
    return network


def test_a_checkpoint_of_other_cell_types(tmp_path) -> None:
    source = checkpoint(tmp_path / "a.ckpt", ("A172", "SHSY5Y", "BV2", "SkBr3"), trained_on={})
    network = tiny_network()
    report = load_weights(
        network, tmp_path / "a.ckpt", cell_types=("shsy5y", "astro", "cort"), class_mapping={"shsy5y": "SHSY5Y"}
    )
    assert report.missing == report.reshaped == report.unused == ()
    assert report.heads == "shsy5y from SHSY5Y; astro, cort from the mean of all 4"
    assert f"cell types: {report.heads}" in str(report)
    lines = ["A172", "SHSY5Y", "BV2", "SkBr3"]
    assert report.metadata == {"format_version": FORMAT_VERSION, "cell_types": lines, "trained_on": {}}
    ours, theirs = network.state_dict(), source.state_dict()
    for name, value in theirs.items():
        if ours[name].shape == value.shape:
            assert torch.equal(ours[name], value)
    for kind in ("weight", "bias"):
        cls, own = (s[f"roi_heads.box_predictor.cls_score.{kind}"] for s in (theirs, ours))
        torch.testing.assert_close(own, torch.stack((cls[0], cls[2], cls[1:].mean(0), cls[1:].mean(0))))
        box, own = (s[f"roi_heads.box_predictor.bbox_pred.{kind}"] for s in (theirs, ours))
        torch.testing.assert_close(own[4:8], box[8:12])
        torch.testing.assert_close(own[8:12], (box[4:8] + box[8:12] + box[12:16] + box[16:20]) / 4)


def test_a_head_map_needs_cell_types(tmp_path) -> None:
    torch.save(tiny_network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"model\.class_mapping=.*a\.pth does not name the cell types.*class_mapping=null"
    ):
        load_weights(tiny_network(), tmp_path / "a.pth", cell_types=("a", "b", "c"), class_mapping={"a": "A"})


def test_a_larger_body_is_refused_and_what_is_not_used_is_named(tmp_path) -> None:
    state = tiny_network().state_dict()
    state["roi_heads.keypoint_head.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pth")
    report = load_weights(tiny_network(), tmp_path / "a.pth")
    assert report.unused == ("roi_heads.keypoint_head.weight",)
    assert "in it, not used: roi_heads.keypoint_head.weight" in str(report)
    state["backbone.body.layer4.2.conv1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"1 tensors of its backbone are not in this one.*layer4\.2.*model\.body"):
        load_weights(tiny_network(), tmp_path / "a.pth")


class Calls:
    def __reduce__(self):
        return print, ("called",)


def test_files_that_hold_more_than_tensors_are_refused(tmp_path, capsys) -> None:
    torch.save({"model": {"a": torch.zeros(2)}, "scheduler": Calls()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: refused, it calls __builtin__ print; .*weights_only=False"):
        load_weights(tiny_network(), tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": Calls()}))
    with pytest.raises(InputError, match=r"a\.pkl: refused, it calls builtins\.print"):
        load_weights(tiny_network(), tmp_path / "a.pkl")
    assert capsys.readouterr().out == ""


def test_weights_of_detectron2_for_another_network(tmp_path) -> None:
    torch.save({"model": {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"weights of detectron2's Mask R-CNN, which a Linear does not take"):
        load_weights(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"lacks \d+ tensors of backbone\.body here"):
        load_weights(tiny_network("frozen_batch"), tmp_path / "a.pth")
