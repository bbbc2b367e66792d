"""Grey levels as networks want them: about mean 0 and standard deviation 1.

With numbers all images are shifted and scaled alike, and a brighter or more contrasty one stays so. Without them each
image is by its own, which takes differences of exposure away. It is a part of the network, so that training,
validation and prediction cannot differ, and it is by what the network is given: under `inference=tiles` each tile has
statistics of its own, as training crops have. Choose tiles of the size of those crops then; a crop full of cells has
another mean and deviation than the image around it.
"""

from __future__ import annotations

from torch import Tensor

# Grey levels, about the noise of a camera: what an image without any contrast is divided by instead of its own.
LEAST_STD = 1.0


def normalise(images: Tensor, mean: float | None, std: float | None) -> Tensor:
    """(images - mean) / std, float32 of the same shape [..., H, W], H and W >= 1.

    images: uint8 or float, grey levels. mean, std: grey levels; None for those of each image [H, W] (the standard
    deviation over all its pixels, at least 1), whatever else is in the batch.
    """
    values = images.float()
    shift = values.mean(dim=(-2, -1), keepdim=True) if mean is None else mean
    if std is not None:
        return (values - shift) / std
    own = values.std(dim=(-2, -1), keepdim=True, correction=0).clamp(min=LEAST_STD)
    return (values - shift) / own
