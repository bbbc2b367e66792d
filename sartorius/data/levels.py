"""Grey levels of images from anywhere, brought to those that a network was trained on.

A network depends on the grey levels of its training: 8-bit images of about one mean and one standard deviation. The
same levels come in other forms, such as 16-bit integers or floats in 0..1; those are read back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.arrays import GreyImage

LEVELS = ("auto", "exact", "range", "standardise")
GREY_MEAN, GREY_STD = 128.0, 11.58  # of the competition's images, and `mean` and `std` in conf/model
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green, blue: ITU-R BT.601
_BLOCK = 1 << 22  # pixels that are measured at once
_WIDE = {257: np.uint16, 16_843_009: np.uint32}  # 0..255 spread evenly over all values of a type: times so many


@dataclass(frozen=True)
class Mapping:
    """Grey levels of an image to 0..255: (value - shift) * factor + offset, rounded and clipped.

    reason: why they do not stay as they are; "" where they do.
    """

    shift: float
    factor: float
    offset: float
    reason: str

    def __call__(self, pixels: NDArray[Any]) -> GreyImage:
        """Map pixels [H, W] or [H, W, 3] of the image, or of a part of it, to uint8 [H, W]."""
        values, _ = _grey(pixels)
        if values.dtype == np.uint8 and (self.shift, self.factor, self.offset) == (0, 1, 0):
            return np.ascontiguousarray(values)
        mapped = (values.astype(np.float64) - self.shift) * self.factor + self.offset
        return np.asarray(np.rint(mapped).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How grey levels become those that a network was trained on.

    levels: `standardise` shifts and scales each image to `mean` and `std` (a coloured one's luminance); `range` scales
    its lowest..highest value to 0..255; an image of one value becomes 128. `exact` takes only levels 0..255, in any
    form: 8-bit grey, RGB of equal channels, whole numbers of another type, those 257 times as large in 16 bits, k/255
    in 0..1. `auto` leaves these as they are where their mean is within `mean_tolerance` of `mean` and their standard
    deviation within a factor `std_factor` of `std`, and standardises all others.
    mean, std: of the images that the network was trained on, grey levels.
    """

    levels: str = "auto"
    mean_tolerance: float = 10.0
    std_factor: float = 4.0
    mean: float = GREY_MEAN
    std: float = GREY_STD

    def __post_init__(self) -> None:
        checks.one_of("data", LEVELS, levels=self.levels)
        checks.numbers("data", 0, 255, mean_tolerance=self.mean_tolerance)
        checks.numbers("data", 1, 1000, std_factor=self.std_factor)

    def __call__(self, pixels: NDArray[Any], name: str = "the image") -> GreyImage:
        """Convert an image in memory, numbers [H, W] or [H, W, 3], to uint8 [H, W]; raises as `mapping` does."""
        return self.mapping([pixels], name)(pixels)

    def mapping(self, parts: Iterable[NDArray[Any]], name: str) -> Mapping:
        """Choose the mapping of an image from its parts [h, w] or [h, w, 3], one below the other.

        Raises InputError, which begins with `name`, for NaN and infinity, and with `exact` for other levels.
        """
        found = _Measured()
        for part in parts:
            rows = rows_at_once(part.shape[1])
            for start in range(0, len(part), rows):
                found.add(part[start : start + rows])
        if found.not_finite:
            raise InputError(f"{name}: {found.not_finite} pixels are NaN or infinite; mend the image")
        factor = found.exact_factor()
        std, low, high = float(np.sqrt(found.squares / found.count)), found.low, found.high
        if self.levels == "exact":
            if factor is None:
                raise InputError(
                    f"{name}: {found.kind} values from {found.low:g} to {found.high:g}, expected grey levels 0 to 255; "
                    "leave out data.levels=exact, or convert it"
                )
            return Mapping(0, factor, 0, "")
        reason = "" if factor is None else self._doubt(found.mean * factor, std * factor)
        if self.levels == "auto" and factor is not None and not reason:
            return Mapping(0, factor, 0, "")
        reason = reason or found.kind
        if low == high:
            return Mapping(low, 1, round(GREY_MEAN), reason)
        if self.levels == "range":
            return Mapping(low, 255 / (high - low), 0, reason)
        return Mapping(found.mean, self.std / std, self.mean, reason)

    def _doubt(self, mean: float, std: float) -> str:
        """Tell why levels 0..255 are not those of the training; "" where they may be."""
        near = abs(mean - self.mean) <= self.mean_tolerance
        if near and self.std / self.std_factor <= std <= self.std * self.std_factor:
            return ""
        return "another mean or deviation"


class _Measured:
    """Sums over the blocks of an image, and the forms of 0..255 that all of them have."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares, self.not_finite = 0, 0.0, 0.0, 0
        self.low, self.high = float("inf"), float("-inf")
        self.coloured, self.whole, self.parts_of_255, self.wide, self.dtype = False, True, True, True, np.dtype("u1")

    def add(self, pixels: NDArray[Any]) -> None:
        grey, coloured = _grey(pixels)
        grey, counts = _counted(grey)
        values = grey.astype(np.float64)
        if bad := int((~np.isfinite(values)).sum()):
            self.not_finite += bad
            return
        mean, size = float(np.average(values, weights=counts)), pixels.shape[0] * pixels.shape[1]
        count = self.count + size
        gap = mean - self.mean  # Chan, Golub and LeVeque 1979: moments of parts, joined
        variance = float(np.average((values - mean) ** 2, weights=counts))
        self.squares += size * variance + gap**2 * self.count * size / count
        self.mean, self.count = self.mean + gap * size / count, count
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.coloured, self.dtype = self.coloured or coloured, pixels.dtype
        if grey.dtype.kind == "f":
            scaled, tolerance = values * 255, max(1e-3, 255 * float(np.finfo(grey.dtype).eps))
            self.whole = self.whole and bool((values == np.rint(values)).all())
            self.parts_of_255 = self.parts_of_255 and bool((np.abs(scaled - np.rint(scaled)) < tolerance).all())
        else:
            step = next((step for step, dtype in _WIDE.items() if dtype == grey.dtype), None)
            self.parts_of_255 = False
            self.wide = self.wide and step is not None and not (grey % step).any()

    def exact_factor(self) -> float | None:
        """Return what levels 0..255 were multiplied with, inverted; None where they are others."""
        if self.coloured or self.low < 0:
            return None
        if self.whole and self.high <= 255:
            return 255.0 if self.dtype.kind == "b" else 1.0
        if self.parts_of_255 and self.high <= 1:
            return 255.0
        step = next((step for step, dtype in _WIDE.items() if dtype == self.dtype), None)
        return 1 / step if self.wide and step is not None else None

    @property
    def kind(self) -> str:
        return "coloured" if self.coloured else str(self.dtype)


def _grey(pixels: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return values [H, W] and whether they are the luminance of colours."""
    if pixels.ndim == 2:
        return pixels, False
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0], False
    return pixels @ _LUMINANCE, True


def _counted(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the different values, and how often they occur, of at most 16 bits, to be faster; else all and None."""
    if values.dtype not in (np.uint8, np.uint16):
        return values.ravel(), None
    counts = np.bincount(values.ravel())
    found = np.flatnonzero(counts)
    return found.astype(values.dtype), counts[found]


def rows_at_once(width: int) -> int:
    """Return the rows of an image that are measured together: of parts of so many rows, the mapping is the whole's."""
    return max(1, _BLOCK // max(1, width))
