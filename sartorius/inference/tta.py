"""Test-time augmentation: an image predicted several times, mirrored, turned and rescaled, and the results joined.

Every view's result is mapped back exactly before anything is joined. Dense maps are averaged pixel by pixel, before
cells are decoded from them; detections are joined by an object that is given. `Augmented` is itself a kind of
`Windows`: each view is processed whole or by tiles, as the image would be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from sartorius.errors import InputError
from sartorius.inference.views import ImageView
from sartorius.inference.windows import DetectFn, NetworkFn, Pixels, Whole, Windows, in_memory
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.windows import Window


class JoinViews(Protocol):
    """Joins the detections of several views of one image, such as `fusion.view_fusion.ViewFusion`."""

    def __call__(self, views: Sequence[Detections], /) -> Detections:
        """Join the detections of at least two views, all mapped back to the image."""


def unaugmented(windows: Windows) -> Windows:
    """Return the windows within `Augmented`, others as they are: each image is seen once."""
    return windows.windows if isinstance(windows, Augmented) else windows


def replaced(old: Windows, new: Windows) -> Windows:
    """Replace windows, under the views that they had."""
    return replace(old, windows=new) if isinstance(old, Augmented) else new


def seen_in(windows: Windows, view: Augmented) -> Augmented:
    """Replace the views of windows, if any, by those of `view`."""
    return replace(view, windows=unaugmented(windows))


@constructible
@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Every symmetry at every scale, each view processed through `windows`.

    symmetries: names in SYMMETRIES. scales: factors, 1 for the image's own size. fuse: joins the detections of the
    views, in their order; not used for a single view, nor for maps. None: `apart` gives views to write one by one.

    Raises InputError for an empty list, a repeated view, and as `ImageView` does.
    """

    symmetries: Sequence[str]
    scales: Sequence[float]
    fuse: JoinViews | None
    windows: Windows = field(default_factory=Whole)

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if not names or len(set(names)) < len(names):
            raise InputError(
                f"tta: symmetries={list(self.symmetries)} and scales={list(self.scales)} give the views "
                f"{', '.join(names) or '(none)'}; expected at least one, and each once"
            )

    @property
    def views(self) -> list[ImageView]:
        """The views, all symmetries of a scale together."""
        return [ImageView(symmetry, scale) for scale in self.scales for symmetry in self.symmetries]

    def apart(self) -> dict[str, Augmented]:
        """Split into one view each, by the view's name."""
        return {view.name: replace(self, symmetries=[view.symmetry], scales=[view.scale]) for view in self.views}

    def limited(self, most: int) -> Augmented:
        """Keep at most `most` views, 1 or more: symmetries from the first on, then scales from the nearest to 1 on."""
        nearest = sorted(self.scales, key=lambda scale: abs(math.log(scale)))
        scales = max(1, min(most // len(self.symmetries), len(nearest)))
        return replace(self, symmetries=list(self.symmetries)[:most], scales=nearest[:scales])

    def maps(
        self, network_fn: NetworkFn, image: Pixels, vectors: slice | None = None, region: Window | None = None
    ) -> Tensor:
        """Average the views' dense outputs [C, H, W] of an image [1, H, W]; where views agree, theirs exactly.

        Memory: two image-sized maps, whatever the number of views.
        """
        image = in_memory(image, "tta=", "give tta=none")
        height, width = image.shape[-2:]
        result: Tensor | None = None
        for count, view in enumerate(self.views, start=1):
            maps = self.windows.maps(network_fn, view.apply(image), vectors)
            maps = view.maps_back(maps, height, width, vectors)
            result = maps if result is None else torch.lerp(result, maps, 1 / count)
        assert result is not None
        return result if region is None else result[:, region.rows, region.columns]

    def detect(self, detect_fn: DetectFn, image: Pixels, image_id: str) -> Detections:
        """Detect the cells of an image [1, H, W] in all views, joined; those of a single view are only mapped back.

        Raises InputError for several views without `fuse`.
        """
        image = in_memory(image, "tta=", "give tta=none")
        height, width = image.shape[-2:]
        mapped_back = [
            view.detections_back(self.windows.detect(detect_fn, view.apply(image), image_id), image_id, height, width)
            for view in self.views
        ]
        if len(mapped_back) == 1:
            return mapped_back[0]
        if self.fuse is None:
            raise InputError("tta.fuse=null: nothing joins the views' detections; `predict` writes them view by view")
        return self.fuse(mapped_back)
