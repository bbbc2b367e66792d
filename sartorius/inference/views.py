"""Views of an image: its symmetries and scales, and the way back for maps and detections."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sartorius.structures import checks, rules
from sartorius.structures.detections import Detections

LARGEST_SCALE = 16
# The eight symmetries of a rectangle's pixels: transpose, then reverse the rows, then the columns. Turns are
# counterclockwise.
SYMMETRIES = {
    "none": (False, False, False),
    "left_right": (False, False, True),
    "up_down": (False, True, False),
    "turn_180": (False, True, True),
    "transpose": (True, False, False),
    "turn_90": (True, True, False),
    "turn_270": (True, False, True),
    "anti_transpose": (True, True, True),
}


@dataclass(frozen=True)
class ImageView:
    """An image under one of SYMMETRIES and enlarged `scale` times (below 1: shrunk), and the way back.

    Raises InputError for an unknown symmetry and a scale that is not above 0, up to LARGEST_SCALE.
    """

    symmetry: str
    scale: float

    def __post_init__(self) -> None:
        checks.one_of("tta", SYMMETRIES, symmetries=self.symmetry)
        checks.check("tta", rules.number(above=0, high=LARGEST_SCALE), scales=self.scale)

    @property
    def name(self) -> str:
        """A name for files: `left_right`, `turn_90_x1.25`."""
        return self.symmetry if self.scale == 1 else f"{self.symmetry}_x{self.scale:g}"

    def apply(self, image: Tensor) -> Tensor:
        """Transform an image [1, H, W] into the view [1, h, w], rescaled with pixel centres at +0.5, then float."""
        height, width = (max(round(length * self.scale), 1) for length in image.shape[-2:])
        if (height, width) != image.shape[-2:]:
            # shrunk with a filter, as a microscope of lower power would: no pixel is skipped
            options = {"mode": "bilinear", "antialias": self.scale < 1}
            image = F.interpolate(image[None].float(), (height, width), **options)[0]  # type: ignore[arg-type]
        image = image.transpose(-2, -1) if SYMMETRIES[self.symmetry][0] else image
        return image.flip(self._flipped).contiguous()

    def maps_back(self, maps: Tensor, height: int, width: int, vectors: slice | None) -> Tensor:
        """Map back maps [C, h, w] of the view to maps [C, height, width] of the image.

        vectors: channels (dy, dx) in pixels, which turn and shrink with the image.
        """
        transpose, *reverse = SYMMETRIES[self.symmetry]
        maps = maps.flip(self._flipped)
        maps = maps.transpose(-2, -1) if transpose else maps
        size = maps.shape[-2:]
        if size != (height, width):
            maps = F.interpolate(maps[None], (height, width), mode="bilinear")[0]
        if vectors is not None:
            signs = [-1.0 if reversed_ else 1.0 for reversed_ in reverse]
            shrink = [height / size[0], width / size[1]]
            pair = maps[vectors] * maps.new_tensor(signs).view(2, 1, 1)
            pair = (pair.flip(0) if transpose else pair) * maps.new_tensor(shrink).view(2, 1, 1)
            maps = torch.cat([maps[: vectors.start], pair, maps[vectors.stop :]])
        return maps

    def detections_back(self, detections: Detections, image_id: str, height: int, width: int) -> Detections:
        """Map back detections to the image: boxes in its pixels, masks turned with their boxes."""
        transpose, up_down, left_right = SYMMETRIES[self.symmetry]
        left, top, right, bottom = detections.boxes.T
        masks, view_size = detections.masks, np.array([detections.width, detections.height], np.float32)
        if left_right:
            left, right, masks = detections.width - right, detections.width - left, masks[:, :, ::-1]
        if up_down:
            top, bottom, masks = detections.height - bottom, detections.height - top, masks[:, ::-1]
        if transpose:
            left, top, right, bottom, masks = top, left, bottom, right, masks.transpose(0, 2, 1)
            view_size = view_size[::-1]
        size = np.array([width, height] * 2, np.float32)
        boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
        if tuple(view_size) != (width, height):
            boxes = (boxes * (size / np.tile(view_size, 2))).clip(0, size).astype(np.float32)
        masks = np.ascontiguousarray(masks)
        return replace(detections, image_id=image_id, height=height, width=width, boxes=boxes, masks=masks)

    @property
    def _flipped(self) -> list[int]:
        """The axes that are reversed."""
        _, up_down, left_right = SYMMETRIES[self.symmetry]
        return [-2] * up_down + [-1] * left_right
