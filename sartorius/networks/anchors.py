"""Anchor boxes on the levels of a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sartorius.structures import checks
from sartorius.structures.constructible import constructible

MOST = 1000  # anchors of a location


@constructible
class AnchorGrid(nn.Module):
    """Anchors at every location of every level, in the order in which torchvision's RPNHead is flattened.

    sizes: for each level the anchors' sides (square root of the area) in pixels of the network's input.
    ratios: height / width, the same for all levels. All levels must have the same number of sizes, because one head
    serves them all. A location's anchors are centred on the middle of its pixels, (column + 0.5) * stride: torchvision
    puts them on the corner, which is half a stride off.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float]) -> None:
        super().__init__()
        if len({len(level) for level in sizes}) != 1:
            raise ValueError(f"every level needs the same number of anchor sizes, got {[list(s) for s in sizes]}")
        self.levels, self.sizes = len(sizes), len(sizes[0])
        self.per_location = len(sizes[0]) * len(ratios)
        fine = self.per_location <= MOST
        checks.expect(fine, "model.network", "anchors", self.per_location, f"at most {MOST} sizes times ratios")
        ratio = torch.tensor(list(ratios), dtype=torch.float32).sqrt()
        for level, side in enumerate(torch.tensor(sizes, dtype=torch.float32)):
            width, height = (side[None] / ratio[:, None]).flatten(), (side[None] * ratio[:, None]).flatten()
            shapes = torch.stack((-width, -height, width, height), dim=1) / 2
            self.register_buffer(f"level{level}", shapes, persistent=False)

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Make the anchors of each level, float32 [H_l * W_l * A, 4], x1 y1 x2 y2, of a (height, width)."""
        if len(features) != self.levels:
            raise ValueError(f"{len(features)} feature levels but anchor sizes for {self.levels}")
        return [
            self._level(self.get_buffer(f"level{k}"), feature.shape[-2:], image_size)
            for k, feature in enumerate(features)
        ]

    @staticmethod
    def _level(shapes: Tensor, grid: Sequence[int], image_size: tuple[int, int]) -> Tensor:
        # Strided layers round up, so the stride is the nearest power of two, not the quotient.
        stride_y, stride_x = (2.0 ** round(math.log2(s / g)) for s, g in zip(image_size, grid, strict=True))
        y = (torch.arange(grid[0], device=shapes.device) + 0.5) * stride_y
        x = (torch.arange(grid[1], device=shapes.device) + 0.5) * stride_x
        centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 1, 2).repeat(1, 1, 2)
        return (centre + shapes).reshape(-1, 4)
