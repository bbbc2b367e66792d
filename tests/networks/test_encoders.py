"""Encoders: every kind gives what it promises; names and weights that cannot be had are said clearly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sartorius.errors import InputError
from sartorius.networks.encoders import PlainEncoder, TimmEncoder


@pytest.mark.parametrize(
    ("name", "reductions"),
    [
        ("efficientnet_b0", (2, 4, 8, 16, 32)),
        ("resnet10t", (2, 4, 8, 16, 32)),
        ("convnext_atto", (4, 8, 16, 32)),
        ("sam2_hiera_tiny", (4, 8, 16, 32)),
        ("vit_small_patch16_dinov3", (4, 8, 16)),
    ],
)
def test_timm_features_have_the_promised_shapes(name: str, reductions: tuple[int, ...]) -> None:
    encoder = TimmEncoder(name)
    assert encoder.reductions == reductions
    features = encoder(torch.zeros(1, 1, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, channels, 64 // r, 96 // r) for channels, r in zip(encoder.channels, reductions, strict=True)
    ]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv4_conv_small", "resnet10t"])
def test_stages_that_no_level_needs_are_not_kept(name: str) -> None:
    whole, encoder = TimmEncoder(name), TimmEncoder(name, levels=2)
    assert encoder.channels == whole.channels[:2] and encoder.reductions == whole.reductions[:2]
    sum(feature.sum() for feature in encoder(torch.rand(2, 1, 64, 64))).backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []
    state = {name.removeprefix("model."): value for name, value in encoder.body.state_dict().items()}
    whole.body.load_state_dict(state, strict=False)
    image = torch.rand(1, 1, 64, 96)
    for found, expected in zip(encoder.eval()(image), whole.eval()(image)[:2], strict=True):
        torch.testing.assert_close(found, expected)


def test_levels_keep_the_finest() -> None:
    encoder = TimmEncoder("resnet10t", levels=3, in_channels=2).eval()
    assert encoder.reductions == (2, 4, 8)
    assert len(encoder(torch.zeros(1, 2, 32, 32))) == 3
    assert not any(name.startswith("layer4") for name, _ in encoder.body.named_parameters())  # not built
    with pytest.raises(InputError, match=r"resnet10t: timm cannot give features of it at 6 levels"):
        TimmEncoder("resnet10t", levels=6)


def test_the_plain_encoder_doubles_its_filters() -> None:
    encoder = PlainEncoder(16, 3, "none")
    assert encoder.channels == (16, 32, 64, 128)
    assert [tuple(f.shape) for f in encoder(torch.zeros(2, 1, 16, 24))] == [
        (2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3),
    ]  # fmt: skip
    parameters = sum(p.numel() for p in encoder.parameters())
    # 3x3 weights and a bias for each of the two convolutions of a block
    pairs = [(1, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    assert parameters == sum(9 * i * o + o for i, o in pairs)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"efficientnet_bo: timm knows no such network; near ones: .*efficientnet_b"):
        TimmEncoder("efficientnet_bo")


def test_weights_from_a_file(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("resnet10t", in_chans=3)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    encoder = TimmEncoder("resnet10t", str(tmp_path / "w.pth"))
    first = source.state_dict()["conv1.0.weight"]  # [C, 3, 3, 3]: grey input sums the colours
    torch.testing.assert_close(encoder.body.state_dict()["conv1.0.weight"], first.sum(1, keepdim=True))
    name = "layer1.0.conv1.weight"
    torch.testing.assert_close(encoder.body.state_dict()[name], source.state_dict()[name])


def test_weights_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"encoder.weights=.*none.pth: no such file"):
        TimmEncoder("resnet10t", str(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(
        InputError, match=r"encoder.weights=.*bad.pth: not a checkpoint or other file of PyTorch weights"
    ):
        TimmEncoder("resnet10t", str(tmp_path / "bad.pth"))
