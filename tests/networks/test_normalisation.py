"""Fixed grey levels and each image's own; the same alone, in a batch, in training and in prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sartorius.inference.windows import Tiles, Whole
from sartorius.networks.cell_crops import CropNetwork
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.normalisation import normalise
from sartorius.networks.unet import UNet
from tests.networks.conftest import tiny_network


def arrays(count: int = 2, height: int = 48, width: int = 64) -> Tensor:
    """Noise of another mean and contrast in each image, uint8 [B, 1, H, W]."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, 1, height, width))
    levels = 90 + 30 * np.arange(count) + (6 + 4 * np.arange(count)) * np.moveaxis(noise, 0, -1)
    return torch.from_numpy(np.moveaxis(levels, -1, 0).clip(0, 255).astype(np.uint8))


def test_fixed_levels_are_one_formula_for_all_images() -> None:
    images = arrays()
    expected = (images.numpy().astype(np.float64) - 128) / 11.58
    np.testing.assert_allclose(normalise(images, 128.0, 11.58).numpy(), expected, atol=1e-5)
    assert normalise(images, 128.0, 11.58).dtype == torch.float32


@pytest.mark.parametrize(("mean", "std"), [(None, None), (None, 10.0), (100.0, None)])
def test_what_is_null_is_each_images_own(mean: float | None, std: float | None) -> None:
    images = arrays(3)
    for image, ready in zip(images.numpy().astype(np.float64), normalise(images, mean, std).numpy(), strict=True):
        shift, scale = image.mean() if mean is None else mean, image.std() if std is None else std
        np.testing.assert_allclose(ready, (image - shift) / scale, atol=1e-4)


def test_exposure_and_contrast_are_taken_away() -> None:
    image = arrays(1)[0].float()
    ready = normalise(image, None, None)
    assert float(ready.mean()) == pytest.approx(0, abs=1e-5)
    assert float(ready.std(correction=0)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(normalise(0.5 * image + 40, None, None), ready, atol=1e-4, rtol=0)


def test_a_flat_image_stays_flat_and_faint_noise_faint() -> None:
    flat = torch.full((1, 8, 8), 77, dtype=torch.uint8)
    assert not normalise(flat, None, None).any()
    faint = torch.full((1, 8, 8), 77.0)
    faint[0, :4] += 0.2  # deviation 0.1, below the least of 1
    assert float(normalise(faint, None, None).abs().max()) == pytest.approx(0.1, abs=1e-4)
    assert normalise(torch.zeros(1, 1, 1), None, None).tolist() == [[[0.0]]]


def own_unet() -> UNet:
    torch.manual_seed(0)
    return UNet(PlainEncoder(8, 2, "group"), 2, channels=[16, 8], norm="group", mean=None, std=None).eval()


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 0.5 * x + 60])
def test_networks_do_not_see_exposure(change: object) -> None:
    image = arrays(1)[0].float()
    other = change(image)  # type: ignore[operator]
    network = own_unet()
    torch.testing.assert_close(network(other[None]), network(image[None]), atol=1e-3, rtol=1e-3)
    crops = CropNetwork(nn.Identity(), size=8, margin=0.2, min_side=8, mean=None, std=None, prompt=False)
    boxes = torch.tensor([[5.0, 6.0, 20.0, 17.0]])
    torch.testing.assert_close(crops.crops(other, boxes), crops.crops(image, boxes), atol=1e-3, rtol=1e-3)
    detector = tiny_network()
    detector.mean = detector.std = None
    torch.testing.assert_close(detector.normalise([other]), detector.normalise([image]), atol=1e-3, rtol=1e-3)


def test_a_image_is_the_same_alone_and_in_a_batch_training_or_not() -> None:
    images, network, detector = arrays(3), own_unet(), tiny_network()
    together = network(images)
    for k in range(3):
        torch.testing.assert_close(together[k], network(images[k : k + 1])[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.train()(images), together, atol=1e-4, rtol=1e-4)
    detector.mean = detector.std = None
    smaller = images[1][:, :32, :40]
    batch = detector.normalise([images[0], smaller])
    torch.testing.assert_close(batch[1, :, :32, :40], detector.normalise([smaller])[0, :, :32, :40])
    assert not batch[1, :, 32:].any()  # padding is the mean, which no statistic counts


def test_a_tile_has_statistics_of_its_own() -> None:
    """Whole images and tiles differ by design; a tile is treated as a training crop of those pixels is."""
    image = arrays(1, 64, 96)[0]
    image[:, :, 48:] = image[:, :, 48:] // 2 + 90  # its right half is fainter

    def ready(crops: Tensor) -> Tensor:
        return normalise(crops, None, None)

    whole = Whole().maps(ready, image)
    tiled = Tiles(margin=0, batch=4, join_iou=0.5, size=32, overlap=8).maps(ready, image)
    assert float((whole - tiled).abs().max()) > 0.5
    torch.testing.assert_close(tiled[:, :24, :24], ready(image[None, :, :32, :32])[0, :, :24, :24])

    def fixed(crops: Tensor) -> Tensor:
        return normalise(crops, 128.0, 11.58)

    tiled = Tiles(margin=0, batch=4, join_iou=0.5, size=32, overlap=8).maps(fixed, image)
    torch.testing.assert_close(tiled, Whole().maps(fixed, image))
