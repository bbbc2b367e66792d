"""The windows and views through which a trained module predicts: which and how many there are, and fewer of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sartorius.structures.constructible import config_of

if TYPE_CHECKING:
    from sartorius.inference.windows import Windows
    from sartorius.modules.base import SegmentationModule


def _windows_of(module: SegmentationModule) -> list[Windows]:
    """List the windows of each network of a module; none where it takes whole images only."""
    found: list[Windows] = []

    def note(windows: Windows) -> Windows:
        found.append(windows)
        return windows

    if module.inference is not None:
        module.change_windows(note)
    return found


def count_views(module: SegmentationModule) -> int:
    """Count the views of an image that a module joins, of several networks the most; 1 where each sees it once."""
    from sartorius.inference.tta import Augmented

    return max([1, *(len(windows.views) for windows in _windows_of(module) if isinstance(windows, Augmented))])


def describe_views(module: SegmentationModule) -> Any:
    """Describe the views of an image that a module predicts; None where each network sees it once.

    Of several networks a list, unless they have the same.
    """
    from sartorius.inference.tta import Augmented

    parts = [config_of(part) if isinstance(part, Augmented) else None for part in _windows_of(module)]
    return _one_of([part and {key: value for key, value in part.items() if key != "windows"} for part in parts])


def describe_windows(module: SegmentationModule) -> Any:
    """Describe the windows within the views, as `describe_views`; None for a module that takes whole images only."""
    from sartorius.inference.tta import unaugmented

    return _one_of([config_of(unaugmented(windows)) for windows in _windows_of(module)])


def _one_of(parts: list[Any]) -> Any:
    return parts if any(part != parts[0] for part in parts) else next(iter(parts), None)


def limit_views(module: SegmentationModule, most: int) -> None:
    """Let each network of a module join at most `most` views; see `Augmented.limited`."""
    from sartorius.inference.tta import Augmented

    if module.inference is not None:
        module.change_windows(lambda windows: windows.limited(most) if isinstance(windows, Augmented) else windows)
