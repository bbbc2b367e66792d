"""U-Net: any size comes back at its own size, and padding mirrors the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder, TimmEncoder
from sartorius.networks.unet import UNet, reflect_to_multiple, upsampled_conv


def plain(**changes: object) -> UNet:
    options = {"channels": [16, 8], "norm": "group", "mean": 128.0, "std": 11.58} | changes
    torch.manual_seed(0)
    return UNet(PlainEncoder(8, 2, "group"), 3, **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(32, 48), (37, 51), (1, 1), (3, 70)])
def test_any_size_keeps_its_size(size: tuple[int, int]) -> None:
    logits = plain()(torch.zeros(2, 1, *size, dtype=torch.uint8))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


def test_fewer_blocks_are_interpolated() -> None:
    assert plain(channels=[8])(torch.zeros(1, 1, 37, 51)).shape == (1, 3, 37, 51)
    with pytest.raises(ValueError, match="3 decoder blocks double more often than the encoder halves"):
        plain(channels=[8, 8, 8])


@pytest.mark.parametrize("skipped", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 6)])
def test_the_first_convolution_of_a_block_is_that_of_the_upsampled_map(size: tuple[int, int], skipped: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4 + skipped, 5, 3, padding=1)
    x, skip = torch.randn(2, 4, *size), torch.randn(2, skipped, 2 * size[0], 2 * size[1]) if skipped else None
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = conv(large if skip is None else torch.cat([large, skip], 1))
    torch.testing.assert_close(upsampled_conv(conv, x, skip), expected)


def test_a_prediction_is_the_training_s_forward_pass() -> None:
    """Group norm does the same in both; only the decoder's convolutions are computed in another way."""
    network, image = plain(), torch.randint(0, 255, (1, 1, 37, 51), dtype=torch.uint8)
    torch.testing.assert_close(network(image), network.train()(image))


def test_a_scale_comes_back_in_image_pixels() -> None:
    network = plain(scale=2.0)
    inner = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: inner.append(inputs[0].shape[-2:]))
    assert network(torch.zeros(1, 1, 37, 51)).shape == (1, 3, 37, 51)
    assert inner == [(76, 104)]  # 74 x 102 up to multiples of 4


def test_transformers_and_networks_without_a_fine_level() -> None:
    network = UNet(TimmEncoder("convnext_atto"), 2, channels=[16, 16, 8, 8, 8], norm="batch", mean=0.0, std=1.0).eval()
    assert network(torch.zeros(1, 1, 37, 51)).shape == (1, 2, 37, 51)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (9, 2), (1, 3)])
def test_reflection_is_numpys(size: tuple[int, int]) -> None:
    image = torch.arange(size[0] * size[1]).view(1, 1, *size)
    padded = reflect_to_multiple(image, 8)
    pads = [(0, -n % 8) for n in size]
    assert torch.equal(padded[0, 0], torch.from_numpy(np.pad(image[0, 0].numpy(), pads, mode="reflect")))


def test_outputs_of_a_layout_and_the_first_bias() -> None:
    layout = MapLayout(types=3, border=2, offset_scale=8.0)
    network = UNet(PlainEncoder(8, 1, "none"), layout, channels=[8], norm="none", mean=0.0, std=1.0, foreground=0.1)
    assert network.head.out_channels == 1 + 1 + 1 + 2 + 3
    assert network.head.bias is not None
    assert float(network.head.bias[0].detach()) == pytest.approx(np.log(0.1 / 0.9))


def test_it_learns_one_image() -> None:
    torch.manual_seed(0)
    network = UNet(PlainEncoder(8, 2, "group"), 1, channels=[16, 8], norm="group", mean=128.0, std=20.0)
    image = torch.full((1, 1, 32, 32), 120.0)
    image[..., 8:20, 10:24] = 160.0
    target = (image > 150).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(image), target).backward()
        optimizer.step()
    assert torch.equal(network(image) > 0, target > 0)
