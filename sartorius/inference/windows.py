"""Inference on images of any size: whole, by tiles, or by five crops.

The network runs on windows that overlap, and its output near a window's inner edges counts less than its neighbour's.
Dense maps are blended; detections are merged, so that a cell across a seam comes out once and in one piece.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sartorius.errors import InputError
from sartorius.inference.merge import merge
from sartorius.structures import checks
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.large_image import LargeImage
from sartorius.structures.windows import Window, five_crops, tiles

Pixels = Tensor | LargeImage  # of an image [1, H, W]
NetworkFn = Callable[[Tensor], Tensor]  # [B, 1, h, w] -> [B, C, h, w]
DetectFn = Callable[[Tensor], Detections]  # [1, h, w] -> detections of that crop, in its pixels


class Windows(Protocol):
    """How a network is applied to one image: the setting `inference` of a module.

    Implementations run the network on the image or on parts of it, and return one result in the image's pixels.
    They may hold other windows: `Enlarged` and `tta.Augmented` transform an image and pass it on.
    """

    def maps(
        self, network_fn: NetworkFn, image: Pixels, vectors: slice | None = None, region: Window | None = None
    ) -> Tensor:
        """Predict dense outputs [C, H, W] of an image [1, H, W] by a function of crops [B, 1, h, w] -> [B, C, h, w].

        vectors: the channels (dy, dx) in pixels of the crop, if any; they turn and scale with it. region: the part
        [C, h, w] of these outputs that is returned, and of the image that is read; None for all. Raises InputError for
        a LargeImage where more than windows of it would be read.
        """

    def detect(self, detect_fn: DetectFn, image: Pixels, image_id: str) -> Detections:
        """Detect the cells of an image [1, H, W] with this id by a function of one crop [1, h, w]."""


def in_memory(image: Pixels, option: str, instead: str) -> Tensor:
    """Return an image that is a tensor; raises InputError, naming the option that needs one, for a LargeImage."""
    if isinstance(image, LargeImage):
        raise InputError(
            f"{option} needs the whole image in memory, and one of {image.height} x {image.width} px (height x width) "
            f"is read by regions; {instead}, or a higher large.pixels="
        )
    return image


@constructible
@dataclass(frozen=True)
class Whole:
    """The image in one piece."""

    def maps(
        self, network_fn: NetworkFn, image: Pixels, vectors: slice | None = None, region: Window | None = None
    ) -> Tensor:
        """Apply the network to the image; see `Windows`."""
        maps = network_fn(in_memory(image, "inference=whole", "give inference=tiles")[None])[0]
        return maps if region is None else maps[:, region.rows, region.columns]

    def detect(self, detect_fn: DetectFn, image: Pixels, image_id: str) -> Detections:
        """Apply the detector to the image; see `Windows`."""
        return detect_fn(in_memory(image, "inference=whole", "give inference=tiles"))


@dataclass(frozen=True, kw_only=True)
class _Overlapping(ABC):
    """Windows that share pixels with their neighbours.

    margin: pixels along each inner edge whose dense output is ignored; at least the network's receptive field radius
    makes the result that of the whole image. batch: windows in one forward pass (dense outputs only). join_iou:
    detections of two windows are one cell from this IoU of their masks on, within the pixels that the windows share.
    """

    margin: int
    batch: int
    join_iou: float

    def __post_init__(self) -> None:
        checks.whole("inference", 0, margin=self.margin)
        checks.whole("inference", 1, batch=self.batch)
        checks.expect(0 < self.join_iou <= 1, "inference", "join_iou", self.join_iou, "a number above 0, up to 1")

    @abstractmethod
    def windows(self, height: int, width: int) -> list[Window]:
        """List windows of one size that cover an image of this size."""

    @abstractmethod
    def shared(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns that neighbours share, at least."""

    def maps(
        self, network_fn: NetworkFn, image: Pixels, vectors: slice | None = None, region: Window | None = None
    ) -> Tensor:
        """Blend the windows' outputs into [C, H, W] of an image [1, H, W], in the network's device and dtype.

        Where windows agree the result is exactly theirs. Memory: one map of the region and one batch of windows.
        """
        height, width = image.shape[-2:]
        region = region or Window(0, 0, height, width)
        ramps = [shared - 2 * self.margin for shared in self.shared(height, width)]
        windows = [w for w in self.windows(height, width) if w.without(self.margin, height, width).shared(region)]
        result: Tensor | None = None
        for start in range(0, len(windows), self.batch):
            chosen = windows[start : start + self.batch]
            predicted = network_fn(torch.stack([image[:, window.rows, window.columns] for window in chosen]))
            if result is None:
                result = predicted.new_zeros((predicted.shape[1], region.height, region.width))
                total = torch.zeros((region.height, region.width), device=predicted.device)
            for window, output in zip(chosen, predicted, strict=True):
                trusted = window.without(self.margin, height, width)
                weight = _weight(trusted, window.inner_edges(height, width), ramps, total)
                _blend(result, total, output, weight, window, trusted, region)
        assert result is not None
        return result

    def detect(self, detect_fn: DetectFn, image: Pixels, image_id: str) -> Detections:
        """Merge the windows' detections of an image [1, H, W], best score first; one window's stay as they are."""
        height, width = image.shape[-2:]
        windows = self.windows(height, width)
        if len(windows) == 1:
            return detect_fn(image[:, :, :])
        # a generator: no part is held longer than needed
        parts = ((window, detect_fn(image[:, window.rows, window.columns])) for window in windows)
        return merge(parts, image_id, height, width, margin=self.margin, join_iou=self.join_iou)


@constructible
@dataclass(frozen=True)
class Tiles(_Overlapping):
    """Square tiles of `size` px of which neighbours share at least `overlap` px.

    Raises InputError where margins would leave nothing of the overlap.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        super().__post_init__()
        tiles(1, 1, self.size, self.overlap)
        if self.overlap <= 2 * self.margin:
            raise InputError(
                f"inference: tiles that share {self.overlap} px, with a margin of {self.margin} px at each edge, leave "
                f"pixels uncovered; give overlap={2 * self.margin + 1} or more, or a smaller margin"
            )

    def windows(self, height: int, width: int) -> list[Window]:
        """List the tiles, row by row; see `sartorius.structures.windows.tiles`."""
        return tiles(height, width, self.size, self.overlap)

    def shared(self, height: int, width: int) -> tuple[int, int]:
        """Return the overlap, in both directions."""
        return self.overlap, self.overlap


@constructible
@dataclass(frozen=True)
class FiveCrops(_Overlapping):
    """The four corners and the centre, each `height` x `width` px."""

    height: int
    width: int

    def __post_init__(self) -> None:
        super().__post_init__()
        five_crops(1, 1, self.height, self.width)

    def windows(self, height: int, width: int) -> list[Window]:
        """List the crops. Raises InputError where without their margins they do not cover an image of this size."""
        needed = [min(length, (length + 2 * self.margin) // 2 + 1) for length in (height, width)]
        if self.height < needed[0] or self.width < needed[1]:
            raise InputError(
                f"inference: five crops of {self.height} x {self.width} px (height x width) with a margin of "
                f"{self.margin} px do not cover an image of {height} x {width} px; the smallest that do have "
                f"{needed[0]} x {needed[1]} px"
            )
        return five_crops(height, width, self.height, self.width)

    def shared(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns that crops in opposite corners share."""
        return 2 * self.height - height, 2 * self.width - width


def _weight(trusted: Window, inner: tuple[bool, bool, bool, bool], ramps: list[int], like: Tensor) -> Tensor:
    """Make the weights [h, w] of a window's trusted pixels, lower towards its edges inside the image."""
    top, left, bottom, right = inner
    return torch.outer(
        _ramp(trusted.height, top, bottom, ramps[0], like), _ramp(trusted.width, left, right, ramps[1], like)
    )


def _blend(
    result: Tensor, total: Tensor, output: Tensor, weight: Tensor, window: Window, trusted: Window, region: Window
) -> None:
    """Blend a window's output [C, h, w] into `result`, the maps of a region; `total`: weights of earlier windows."""
    part = trusted.shared(region)
    assert part is not None
    weight, (rows, columns) = weight[_inside(part, trusted)], _inside(part, region)
    total[rows, columns] += weight
    share = (weight / total[rows, columns]).to(result.dtype)
    # out + share * (tile - out): the first tile stays as it is, and equal values stay equal
    result[:, rows, columns].lerp_(output[(slice(None), *_inside(part, window))], share)


def _inside(part: Window, window: Window) -> tuple[slice, slice]:
    """Return the index of a part of an image within a window of it."""
    top, left = part.top - window.top, part.left - window.left
    return slice(top, top + part.height), slice(left, left + part.width)


def _ramp(length: int, low: bool, high: bool, steps: int, like: Tensor) -> Tensor:
    """Make weights [length] above 0 that rise to 1 over `steps` pixels from the ends inside the image."""
    rising = torch.arange(1, length + 1, device=like.device, dtype=like.dtype).div(steps + 1).clamp(max=1)
    weights = torch.ones_like(rising)
    if low:
        weights *= rising
    if high:
        weights *= rising.flip(0)
    return weights
