"""The channels of an image, of which a network is shown one, or the luminance of colours."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from sartorius.errors import InputError


def check_channel(name: str, channel: int | None, count: int) -> None:
    """Raise InputError where an image, `name`, has no such channel, counted from 0; None is none in particular."""
    if channel is not None and channel >= count:
        raise InputError(f"{name}: no channel {channel}, it has {count}; give channel=0 to {count - 1}")


def choose_channel(pixels: NDArray[Any], channel: int | None, name: str) -> NDArray[Any]:
    """Return a channel of an array [H, W, channels]; None: grey [H, W] or colours [H, W, 3], without opaque alpha.

    An array [H, W] is such a channel. Raises InputError for other arrays, and where the channel is not there or not
    told.
    """
    if pixels.dtype.kind not in "buif" or not pixels.size or pixels.ndim not in (2, 3):
        raise InputError(f"{name}: {pixels.dtype} {pixels.shape}; expected numbers [height, width] or x channels")
    if pixels.ndim == 2:
        return pixels
    count = pixels.shape[-1]
    check_channel(name, channel, count)
    if channel is not None:
        return pixels[..., channel]
    if count in (2, 4) and (pixels[..., -1] == pixels[0, 0, -1]).all():
        pixels, count = pixels[..., :-1], count - 1
    if count not in (1, 3):
        raise InputError(f"{name}: {count} channels, neither colours nor opaque alpha; give channel=0 to {count - 1}")
    return pixels[..., 0] if count == 1 else pixels
