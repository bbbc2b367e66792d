"""The views of each image that a trained module joins: how many there are, and fewer of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sartorius.inference.windows import Windows
    from sartorius.modules.base import SegmentationModule


def count_views(module: SegmentationModule) -> int:
    """Count the views of an image that a module joins, of several networks the most; 1 where each sees it once."""
    from sartorius.inference.tta import Augmented

    counts = [1]

    def count(windows: Windows) -> Windows:
        counts.append(len(windows.views) if isinstance(windows, Augmented) else 1)
        return windows

    if module.inference is not None:
        module.change_windows(count)
    return max(counts)


def limit_views(module: SegmentationModule, most: int) -> None:
    """Let each network of a module join at most `most` views; see `Augmented.limited`."""
    from sartorius.inference.tta import Augmented

    if module.inference is not None:
        module.change_windows(lambda windows: windows.limited(most) if isinstance(windows, Augmented) else windows)
