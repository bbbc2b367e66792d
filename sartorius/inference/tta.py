"""Test-time augmentation: an image seen several times, mirrored, turned and rescaled, and what comes out as one.

Every view is brought back exactly before anything is joined. Dense maps are averaged pixel by pixel, before cells are
decoded from them; detections come back as detections of the image, which a joiner of models then fuses. The wrapper
is itself a kind of `Windows`: a view is looked at whole or by tiles, as the image would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sartorius.errors import InputError
from sartorius.fusion.methods import Method
from sartorius.fusion.pool import Seen, pool
from sartorius.inference.windows import DetectFn, NetworkFn, Whole, Windows
from sartorius.structures.detections import Detections

_CUT = 0.5  # probability above which a mask's pixels count when masks of views are compared
JoinFn = Callable[[Sequence[Detections]], Detections]  # of one image, one for each view -> one for all

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
class View:
    """An image under one of SYMMETRIES and enlarged `scale` times (below 1: shrunk), and the way back.

    Raises InputError for an unknown symmetry and a scale that is not above 0.
    """

    symmetry: str
    scale: float

    def __post_init__(self) -> None:
        if self.symmetry not in SYMMETRIES:
            raise InputError(f"tta.symmetries: '{self.symmetry}', expected some of {', '.join(SYMMETRIES)}")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int | float) or not 0 < self.scale < np.inf:
            raise InputError(f"tta.scales: {self.scale!r}, expected numbers above 0")

    @property
    def name(self) -> str:
        """A name for files: `left_right`, `turn_90_x1.25`."""
        return self.symmetry if self.scale == 1 else f"{self.symmetry}_x{self.scale:g}"

    def apply(self, image: Tensor) -> Tensor:
        """The view of an image [1, H, W]: [1, h, w], rescaled with pixel centres at +0.5, then float."""
        height, width = (max(round(length * self.scale), 1) for length in image.shape[-2:])
        if (height, width) != image.shape[-2:]:
            # shrunk with a filter, as the eye of a microscope of lower power would: no pixel is skipped
            options = {"mode": "bilinear", "antialias": self.scale < 1}
            image = F.interpolate(image[None].float(), (height, width), **options)[0]  # type: ignore[arg-type]
        transpose, *reverse = SYMMETRIES[self.symmetry]
        image = image.transpose(-2, -1) if transpose else image
        return image.flip([axis for axis, reversed_ in zip((-2, -1), reverse, strict=True) if reversed_]).contiguous()

    def maps_back(self, maps: Tensor, height: int, width: int, vectors: slice | None) -> Tensor:
        """Maps [C, h, w] of the view as maps [C, height, width] of the image.

        vectors: channels (dy, dx) in pixels, which turn and shrink with the image.
        """
        transpose, *reverse = SYMMETRIES[self.symmetry]
        maps = maps.flip([axis for axis, reversed_ in zip((-2, -1), reverse, strict=True) if reversed_])
        maps = maps.transpose(-2, -1) if transpose else maps
        seen = maps.shape[-2:]
        if seen != (height, width):
            maps = F.interpolate(maps[None], (height, width), mode="bilinear")[0]
        if vectors is not None:
            signs = [-1.0 if reversed_ else 1.0 for reversed_ in reverse]
            shrink = [height / seen[0], width / seen[1]]
            pair = maps[vectors] * maps.new_tensor(signs).view(2, 1, 1)
            pair = (pair.flip(0) if transpose else pair) * maps.new_tensor(shrink).view(2, 1, 1)
            maps = torch.cat([maps[: vectors.start], pair, maps[vectors.stop :]])
        return maps

    def detections_back(self, found: Detections, image_id: str, height: int, width: int) -> Detections:
        """Detections of the view as those of the image: boxes in its pixels, masks turned with their boxes."""
        transpose, up_down, left_right = SYMMETRIES[self.symmetry]
        left, top, right, bottom = found.boxes.T
        masks = found.masks
        if left_right:
            left, right, masks = found.width - right, found.width - left, masks[:, :, ::-1]
        if up_down:
            top, bottom, masks = found.height - bottom, found.height - top, masks[:, ::-1]
        seen = np.array([found.width, found.height], np.float32)
        if transpose:
            left, top, right, bottom, masks, seen = top, left, bottom, right, masks.transpose(0, 2, 1), seen[::-1]
        size = np.array([width, height] * 2, np.float32)
        boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
        if tuple(seen) != (width, height):
            boxes = (boxes * (size / np.tile(seen, 2))).clip(0, size).astype(np.float32)
        return replace(
            found, image_id=image_id, height=height, width=width, boxes=boxes, masks=np.ascontiguousarray(masks)
        )


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Joins the detections of the views as an ensemble joins those of its members, all with one weight.

    method: how cells are clustered and fused, see `fusion.methods`. min_score: detections below it are left out first.
    """

    method: Method
    min_score: float

    def __call__(self, found: Sequence[Detections]) -> Detections:
        """One set of detections, best score first, with the views' `agreement`."""
        equal = np.ones(len(found[0].cell_type_names))
        seen = [Seen(one, weights=equal, cuts=equal * _CUT) for one in found]
        return self.method(pool(seen, min_score=self.min_score, level=False, image_type="each"))


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Every symmetry at every scale, each view looked at through `windows`.

    symmetries: names in SYMMETRIES. scales: factors, 1 for the image's own size. fuse: makes one set of detections of
    those of the views, in their order, such as `Fused`; not asked where there is one view, nor for maps. None: `apart`
    gives views that are to be written one by one.

    Raises InputError for an empty list, a repeated view, and as `View` does.
    """

    symmetries: Sequence[str]
    scales: Sequence[float]
    fuse: JoinFn | None
    windows: Windows = field(default_factory=Whole)

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"tta: symmetries={list(self.symmetries)} and scales={list(self.scales)} give the views "
                f"{', '.join(names) or '(none)'}; expected at least one, and each once"
            )

    @property
    def views(self) -> list[View]:
        """The views, all symmetries of a scale together."""
        return [View(symmetry, scale) for scale in self.scales for symmetry in self.symmetries]

    def apart(self) -> dict[str, Augmented]:
        """The same, one view at a time, by the view's name."""
        return {view.name: replace(self, symmetries=[view.symmetry], scales=[view.scale]) for view in self.views}

    def maps(self, network_fn: NetworkFn, image: Tensor, vectors: slice | None = None) -> Tensor:
        """The mean over the views of dense outputs [C, H, W] of an image [1, H, W]; where views agree, theirs exactly.

        Two image-sized maps are held, whatever the number of views.
        """
        height, width = image.shape[-2:]
        result: Tensor | None = None
        for count, view in enumerate(self.views, start=1):
            seen = self.windows.maps(network_fn, view.apply(image), vectors)
            seen = view.maps_back(seen, height, width, vectors)
            result = seen if result is None else torch.lerp(result, seen, 1 / count)
        assert result is not None
        return result

    def detect(self, detect_fn: DetectFn, image: Tensor, image_id: str) -> Detections:
        """Detections of an image [1, H, W], fused; those of a single view as they are, brought back.

        Raises InputError for several views without `fuse`.
        """
        height, width = image.shape[-2:]
        found = [
            view.detections_back(self.windows.detect(detect_fn, view.apply(image), image_id), image_id, height, width)
            for view in self.views
        ]
        if len(found) == 1:
            return found[0]
        if self.fuse is None:
            raise InputError(
                "tta.fuse=null: there is nothing to join the views' detections with; `predict` writes them"
            )
        return self.fuse(found)
