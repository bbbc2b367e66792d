"""Windows enlarged before the forward pass, for a network trained on enlarged crops (`SliceCrop`)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from sartorius.inference.scaled import resized
from sartorius.inference.windows import DetectFn, NetworkFn, Pixels, Windows
from sartorius.structures import checks
from sartorius.structures.constructible import constructible
from sartorius.structures.detections import Detections
from sartorius.structures.windows import Window


@constructible
@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """The windows of `windows`, each enlarged `factor` times; results are in pixels of the image.

    Raises InputError for a factor below 1.
    """

    windows: Windows
    factor: float

    def __post_init__(self) -> None:
        checks.numbers("inference", 1, 16, factor=self.factor)

    def maps(
        self, network_fn: NetworkFn, image: Pixels, vectors: slice | None = None, region: Window | None = None
    ) -> Tensor:
        """Predict dense outputs [C, H, W] of an image [1, H, W], shrunk to the window's size before blending.

        Values stay as they are, but for `vectors`: lengths in enlarged pixels become those of the image.
        """

        def shrunk(crops: Tensor) -> Tensor:
            large = self._enlarge(crops)
            maps = F.interpolate(network_fn(large), crops.shape[-2:], mode="bilinear")
            if vectors is not None:
                scale = [before / after for before, after in zip(crops.shape[-2:], large.shape[-2:], strict=True)]
                maps[:, vectors] *= maps.new_tensor(scale).view(2, 1, 1)
            return maps

        return self.windows.maps(shrunk, image, vectors, region)

    def detect(self, detect_fn: DetectFn, image: Pixels, image_id: str) -> Detections:
        """Detect the cells of an image [1, H, W]; masks are in box coordinates and stay as they are."""

        def shrunk(crop: Tensor) -> Detections:
            return resized(detect_fn(self._enlarge(crop[None])[0]), *crop.shape[-2:])

        return self.windows.detect(shrunk, image, image_id)

    def _enlarge(self, crops: Tensor) -> Tensor:
        """Enlarge crops [B, 1, h, w] to float ones with pixel centres at +0.5, as `SliceCrop` does."""
        size = [round(length * self.factor) for length in crops.shape[-2:]]
        return F.interpolate(crops.float(), size, mode="bilinear")
