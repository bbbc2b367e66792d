"""Normalisation of grey levels to about mean 0 and standard deviation 1.

Given numbers shift and scale all images alike, and a brighter or more contrasty one stays so. Without them the
statistics are each image's, which removes differences of exposure. It is a part of the network, so that training,
validation and prediction cannot differ, and the statistics are those of the network's input: under `inference=tiles`
of each tile, as in training of each crop. Choose tiles of the size of those crops then; a crop full of cells has
another mean and deviation than the image around it.
"""

from __future__ import annotations

from torch import Tensor

# Grey levels, about the noise of a camera: what an image without any contrast is divided by instead of its own.
LEAST_STD = 1.0


def normalise(images: Tensor, mean: float | None, std: float | None) -> Tensor:
    """Compute (images - mean) / std, float32 of the same shape [..., H, W], H and W >= 1.

    images: uint8 or float, grey levels. mean, std: grey levels; None for those of each image [H, W] (the standard
    deviation over all its pixels, at least 1), whatever else is in the batch.
    """
    values = images.float()
    shift = values.mean(dim=(-2, -1), keepdim=True) if mean is None else mean
    if std is not None:
        return (values - shift) / std
    deviation = values.std(dim=(-2, -1), keepdim=True, correction=0).clamp(min=LEAST_STD)
    return (values - shift) / deviation
