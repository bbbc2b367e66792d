"""Regions of a large image, resized, are those of the resized image."""

from __future__ import annotations

import pytest
import torch

from sartorius.inference.scaled import resize
from sartorius.structures.blocks import Blocks
from sartorius.structures.large_image import LargeImage, reader_of


@pytest.mark.parametrize("scale", [0.3, 0.77, 1.9])
@pytest.mark.parametrize("region", [(0, 20, 0, 31), (11, 40, 17, 23), (25, 34, 30, 36)])
def test_regions_are_those_of_the_resized_image(scale: float, region: tuple[int, int, int, int]) -> None:
    image = torch.randint(0, 256, (1, 131, 143), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    large = resize(LargeImage(131, 143, reader_of(image[0].numpy()), Blocks(1, 64, 8)), scale)
    whole = resize(image, scale)
    assert tuple(large.shape) == tuple(whole.shape)
    top, bottom, left, right = region
    found = large[:, top:bottom, left:right].int() - whole[:, top:bottom, left:right].int()
    assert found.abs().max() <= 1
    assert (found != 0).float().mean() < 0.01
