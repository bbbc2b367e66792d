"""Label images: a compressed TIFF, 0 for background and k for cell k, one page a layer where cells overlap.

The pixel size stands in the resolution tags, per centimetre, where Fiji, QuPath and Bio-Formats read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.structures.instances import MAX_CELLS, Instances

if TYPE_CHECKING:
    from sartorius.formats.cells import Cells

_MICROMETRES = 10_000  # of a centimetre


def write(cells: Cells, path: Path) -> None:
    """Write uint16 pages [H, W], uint32 where there are more than 65,535 cells."""
    import tifffile

    size: dict[str, Any] = {}
    if cells.pixel_size is not None:
        size = {"resolution": (_MICROMETRES / cells.pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary, cells.labels, compression="zlib", photometric="minisblack", metadata=None, software=False, **size
        )


def read(path: Path) -> dict[str, Any]:
    """Read a label image, of this program or another, as arguments of Cells; its cells have no scores and no types.

    Values without pixels are left out. Raises InputError for a file that is missing or holds no whole numbers.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            layers = file.asarray()
            tags = file.pages.first.tags
            unit, across = (tags[name].value if name in tags else None for name in ("ResolutionUnit", "XResolution"))
    except (OSError, ValueError, KeyError) as error:  # TiffFileError is a ValueError
        raise InputError(f"{path}: not a readable label image ({error})") from error
    layers = layers[None] if layers.ndim == 2 else layers
    if layers.ndim != 3 or layers.dtype.kind not in "ui" or layers.min(initial=0) < 0:
        raise InputError(f"{path}: expected pages of labels, got {layers.dtype} of shape {layers.shape}")
    labels = np.concatenate([np.zeros(1, layers.dtype), *map(np.unique, layers)])
    labels = np.append(labels[:1], labels[labels > 0])
    count = len(labels) - 1
    labels.sort()
    if count > MAX_CELLS or (labels[1:] == labels[:-1]).any():
        raise InputError(
            f"{path}: expected at most {MAX_CELLS} cells, each on one page, got {count} on {len(layers)} pages"
        )
    sized = unit == tifffile.RESUNIT.CENTIMETER and across is not None and across[0] > 0
    return {
        "image_id": path.stem,
        "instances": Instances(np.searchsorted(labels, layers).astype(np.uint16), np.zeros(count, np.int64)),
        "pixel_size": _MICROMETRES * across[1] / across[0] if sized else None,
    }
