"""Maps that a U-Net predicts so that touching cells can be separated, and their targets, made on the device.

Channels in their order, each a map over the image:

    foreground         a pixel of any cell
    border             within `border` pixels of two cells, or covered by two
    centre             exp(-m2 / 2), m2 the squared Mahalanobis distance from the cell's centroid under the cell's own
                       second moments: 1 at the centre and about exp(-2) = 0.14 at the edge (m2 = 4 there for a filled
                       ellipse), however long the cell is; 0 outside. One peak a cell, which no distance map has
    offset             centroid minus pixel, rows and columns, in units of `offset_scale` pixels
    types              one logit a cell type

Everything comes from the layered map by scattered sums over pixels of cells: no mask a cell, no distance transform.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sartorius.structures.constructible import constructible

# Second moments of a pixel, a unit square: 1/12 on each axis. Added, so that a cell of one pixel has some extent.
_PIXEL_MOMENT = 1 / 12


@constructible
@dataclass(frozen=True)
class MapLayout:
    """The maps that there are, and their channels.

    types: number of cell types, 0 for none. border: reach in pixels, 0 for no such map. offset_scale: pixels, 0 for no
    such map.
    """

    types: int
    border: int = 0
    centre: bool = True
    offset_scale: float = 0.0

    @property
    def slices(self) -> dict[str, slice]:
        """The channels of each map that there is."""
        lengths = {
            "foreground": 1,
            "border": int(self.border > 0),
            "centre": int(self.centre),
            "offset": 2 * int(self.offset_scale > 0),
            "types": self.types,
        }
        start, slices = 0, {}
        for name, length in lengths.items():
            if length:
                slices[name] = slice(start, start + length)
            start += length
        return slices

    @property
    def channels(self) -> int:
        """The number of all channels."""
        return max(part.stop for part in self.slices.values())


@dataclass(frozen=True)
class MapTargets:
    """Targets of one image: foreground, border, centre float32 [H, W] in 0..1; offset float32 [2, H, W];
    types int64 [H, W], -1 where there is no cell. A map that the layout does not have is [0]. Where cells overlap, the
    one with the larger centre value counts."""

    foreground: Tensor
    border: Tensor
    centre: Tensor
    offset: Tensor
    types: Tensor

    def maps(self, layout: MapLayout) -> dict[str, Tensor]:
        """Select the maps that `layout` has, by name."""
        return {name: vars(self)[name] for name in layout.slices}


def map_targets(layers: Tensor, cell_types: Tensor, layout: MapLayout) -> MapTargets:
    """Make the targets of an image for a layout, on the device of `layers`.

    layers: int32 [L, H, W], value k is cell k - 1. cell_types: int64 [N].
    """
    foreground = (layers > 0).any(0).float()
    nothing = foreground.new_zeros(0)
    border = border_map(layers, layout.border) if layout.border else nothing
    if not (layout.centre or layout.offset_scale or layout.types):  # nothing that depends on which cell it is
        return MapTargets(foreground, border, nothing, nothing, nothing)
    height, width = layers.shape[-2:]
    layer, row, column = torch.nonzero(layers, as_tuple=True)
    cell = layers[layer, row, column].long() - 1
    position = torch.stack([row, column]).float()
    from_centre, centre = _moments(cell, position, len(cell_types))
    # the cell with the larger value of `centre` is written last; sorting makes that certain on a GPU too
    order = torch.argsort(centre, stable=True)
    pixel = (row * width + column)[order]
    winner = torch.full((height * width,), -1, dtype=torch.int64, device=layers.device)
    winner.scatter_reduce_(0, pixel, torch.arange(len(pixel), device=layers.device), "amax")
    covered = torch.nonzero(winner >= 0).flatten()
    chosen = order[winner[covered]]

    def scatter(values: Tensor, empty: float) -> Tensor:
        flat = values.new_full((*values.shape[:-1], height * width), empty)
        flat[..., covered] = values[..., chosen]
        return flat.unflatten(-1, (height, width))

    return MapTargets(
        foreground,
        border,
        scatter(centre, 0.0) if layout.centre else nothing,
        scatter(-from_centre / layout.offset_scale, 0.0) if layout.offset_scale else nothing,
        scatter(cell_types[cell], -1) if layout.types else nothing,
    )


def _moments(cell: Tensor, position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute of each covered pixel its vector from the cell's centroid [2, A], and its `centre` value [A]."""

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(count, device=values.device).index_add_(0, cell, values) / pixels

    pixels = torch.bincount(cell, minlength=count).clamp(min=1).float()
    y, x = position - torch.stack([mean(axis) for axis in position])[:, cell]
    yy, xx, xy = mean(y * y) + _PIXEL_MOMENT, mean(x * x) + _PIXEL_MOMENT, mean(x * y)
    determinant = yy * xx - xy * xy
    m2 = (xx[cell] * y * y - 2 * xy[cell] * x * y + yy[cell] * x * x) / determinant[cell]
    return torch.stack([y, x]), torch.exp(-0.5 * m2)


def border_map(layers: Tensor, reach: int) -> Tensor:
    """Make a map float32 [H, W]: 1 where two different cells lie within `reach` pixels (in a square), else 0."""
    values = layers.float()  # max_pool2d takes no integers; ids up to 65535 are exact
    absent = values.new_full((), 2.0**17)  # above every id

    def highest_near(planes: Tensor) -> Tensor:
        return F.max_pool2d(planes[None], 2 * reach + 1, stride=1, padding=reach)[0].amax(0)

    highest = highest_near(values)
    lowest = -highest_near(-torch.where(values > 0, values, absent))
    return ((highest > 0) & (lowest < highest)).float()
