"""Files of microscopes that no part of this program reads, through `bioio` and its readers where they are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.data.channels import check_channel
from sartorius.data.files import pixel_sizes
from sartorius.errors import InputError

# `bioio` has readers for them; those of nd2 and lif come with the extra `formats`. Others have licences of their own.
MICROSCOPES = (".nd2", ".lif", ".czi", ".lsm", ".dv", ".oib", ".oif", ".vsi", ".ims", ".zvi", ".sldy", ".mrxs")
OTHERS = (".gif", ".webp", ".jp2", ".jxl", ".avif", ".heic", ".psd", ".dcm", ".svs", ".ndpi", ".scn", ".stk", ".mrc")


def is_other(path: Path) -> bool:
    """Whether a file has the suffix of a format that only `bioio` reads."""
    return path.suffix.lower() in MICROSCOPES


def can_read() -> bool:
    """Whether `bioio` is installed."""
    try:
        import bioio  # noqa: F401
    except ImportError:
        return False
    return True


def open_other(path: Path) -> Sequence[OtherStack]:
    """Open a file: a stack of each of its scenes. Raises InputError where no reader for it is installed."""
    if not can_read():
        raise InputError(
            f"{path}: {path.suffix} files need bioio; pip install 'sartorius[formats]', or save it as TIFF"
        )
    import bioio

    try:
        image = bioio.BioImage(path)
    except Exception as error:  # its readers' own, of many kinds
        raise InputError(
            f"{path}: none of the installed readers of bioio reads it ({' '.join(str(error).split())}); install one of "
            f"{path.suffix} files, or save it as TIFF"
        ) from error
    return [OtherStack(path, scene) for scene in range(len(image.scenes))]


class OtherStack:
    """A scene of a file; see `stacks.Stack`."""

    def __init__(self, path: Path, scene: int) -> None:
        import bioio

        self.name, self._image = str(path), bioio.BioImage(path)
        self._image.set_scene(scene)
        sizes, dims = self._image.physical_pixel_sizes, self._image.dims
        self.height, self.width = int(dims.Y), int(dims.X)
        self.axes = {axis.lower(): int(dims[axis][0]) for axis in "TCZ" if dims[axis][0] > 1}
        self._colours = "S" in dims.order
        x, y = (pixel_sizes.in_micrometres(size, "um", self.name) for size in (sizes.X, sizes.Y))
        self.pixel_size = pixel_sizes.square(x, y, self.name)

    def read(self, index: Mapping[str, int], channel: int | None) -> NDArray[Any]:
        """Read a plane; see `stacks.Stack`."""
        places = {axis.upper(): place for axis, place in index.items()}
        pixels = np.asarray(self._image.get_image_data("YXS" if self._colours else "YX", **places))
        check_channel(self.name, channel, 1 if pixels.ndim == 2 else pixels.shape[-1])
        if pixels.ndim == 2:
            return pixels
        return pixels[..., 0 if pixels.shape[-1] < 3 else slice(3)] if channel is None else pixels[..., channel]

    def rows_at_once(self, index: Mapping[str, int], channel: int | None) -> int:
        """Return 0; see `stacks.Stack`."""
        return 0

    def region(self, index: Mapping[str, int], channel: int | None, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part of a plane; see `stacks.Stack`."""
        return self.read(index, channel)[rows, columns]
