"""Rules of everything in pixels: it follows from the size of the cells.

The network is shown cells of the size that it was tuned for: it enlarges the image (`model.network.scale`), and all
that counts in its own pixels (receptive field, anchors, strides) stays as it is. What counts in pixels of the image,
lengths and areas, is divided by the same factor and by its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from sartorius.planning.experiment_file import Choice
from sartorius.planning.facts import FolderFacts, sizes_text
from sartorius.planning.machine import Machine
from sartorius.planning.numbers import BaseSettings, PlannedModel, PlanNumbers
from sartorius.structures.arrays import Floats

_STRIDE = 32  # pixels inside the network, of its coarsest map
_WIDE = [0.25, 0.5, 1.0, 2.0, 4.0]  # ratios of anchors, height / width


@dataclass(frozen=True)
class Sizes:
    """The factor by which the network enlarges images, and the side of the training crops in pixels of the image."""

    scale: float
    crop: int

    @property
    def stride(self) -> int:
        """Pixels of the image that the coarsest map of the network has one value for."""
        return max(1, round(_STRIDE / self.scale))

    def rounded(self, pixels: float) -> int:
        """Round a length up to a multiple of the stride."""
        return ceil(pixels / self.stride - 1e-9) * self.stride


def choose_sizes(facts: FolderFacts, numbers: PlanNumbers, base: BaseSettings) -> Sizes:
    """Choose the scale nearest to the one that shows cells at their reference size, and a crop of the base's size.

    The crop is larger where long cells ask for it, and no larger than the shorter side of the middle image.
    """
    scale = min(numbers.scales, key=lambda offered: abs(log(offered * facts.diameter / numbers.diameter)))
    sizes = Sizes(scale, max(1, round(base["transform.crop.height"] / scale)))
    wanted = max(sizes.crop, sizes.rounded(numbers.crop_length * facts.length(numbers.crop_quantile)))
    short = sizes.rounded(float(np.median(facts.sizes.min(axis=1))))
    return Sizes(scale, min(wanted, short))


def size_choices(
    facts: FolderFacts, numbers: PlanNumbers, model: PlannedModel, base: BaseSettings, sizes: Sizes
) -> Iterator[Choice]:
    """Choose the scale, the crop, and all lengths and areas."""
    scale, name = sizes.scale, model.experiment
    yield Choice(
        "model.network.scale",
        scale,
        f"cells measure {facts.diameter:.3g} px (diameter of a disc of their area, median of an image, mean of all "
        f"images), {facts.diameter * scale:.3g} inside the network; it was tuned for {numbers.diameter:g}",
    )
    long = facts.length(numbers.crop_quantile)
    reason = (
        f"{sizes.crop * scale:g} px inside the network, {base['transform.crop.height']} in {name}; "
        f"{numbers.crop_quantile:.0%} of the cells are up to {long:.0f} px long"
    )
    yield Choice("transform.crop.height", sizes.crop, reason)
    yield Choice("transform.crop.width", sizes.crop, "")
    if scale != 1:
        for key, power in [*((key, 1) for key in model.lengths), *((key, 2) for key in model.areas)]:
            whole = isinstance(base[key], int)
            value = base[key] / scale**power
            changed = max(1, round(value)) if whole else round(value, 3)
            yield Choice(key, changed, f"px: {base[key]:g} in {name}, divided by scale{'^2' * (power == 2)}")
    yield from _least_areas(facts, numbers)
    yield from _anchors(facts, base, scale)


def _least_areas(facts: FolderFacts, numbers: PlanNumbers) -> Iterator[Choice]:
    """Choose the area below which few cells of a type are; of cells of one size a share of that."""
    share, part = numbers.small_quantile, numbers.small_share
    least = {
        name: int(min(np.quantile(areas, share), part * np.median(areas))) if len(areas) else 0
        for name, areas in facts.areas.items()
    }
    reason = f"px: {share:.0%} of the cells of a type are smaller; at most {part:.0%} of its median"
    yield Choice("postprocess.min_area.pixels", least, reason)


def _anchors(facts: FolderFacts, base: BaseSettings, scale: float) -> Iterator[Choice]:
    """Choose other ratios of anchors where more cells get one: sizes are of the network's pixels and stay."""
    network = base["model.network"]
    if "anchors" not in network:
        return
    sides = np.array(network["anchors"]["sizes"], float).ravel()
    ratios, needed = list(network["anchors"]["ratios"]), network["rpn"]["foreground_iou"]
    reached, wider = (_reached(facts.boxes * scale, sides, of, needed) for of in (ratios, _WIDE))
    reason = f"height / width; {reached:.0%} of the cells have an anchor of their shape (IoU {needed:g})"
    if wider > reached + 0.05:
        ratios, reason = _WIDE, f"{reason} with {ratios}, {wider:.0%} with these"
    yield Choice("model.network.anchors.ratios", ratios, reason)


def _reached(boxes: Floats, sides: Floats, ratios: list[float], iou: float) -> float:
    """Return the share of boxes [n, 2] with an anchor whose IoU, centre on centre, is at least `iou`."""
    root = np.sqrt(np.array(ratios))
    shapes = np.stack([(sides[:, None] / root).ravel(), (sides[:, None] * root).ravel()], axis=1)
    both = np.minimum(boxes[:, None], shapes[None]).prod(axis=2)
    union = boxes.prod(axis=1)[:, None] + shapes.prod(axis=1)[None] - both
    return float(((both / union).max(axis=1) >= iou).mean())


def window_choices(
    facts: FolderFacts, numbers: PlanNumbers, machine: Machine, base: BaseSettings, sizes: Sizes
) -> Iterator[Choice]:
    """Choose whole images where the largest fits into the memory, else overlapping tiles."""
    inside = facts.largest * sizes.scale**2
    needed = numbers.process_memory + inside * numbers.bytes_per_pixel / 1e6
    most = float("inf") if machine.memory is None else machine.memory * numbers.memory_share
    about = f"the largest image has {inside / 1e6:.2g} million pixels inside the network, about {needed:,.0f} MB"
    if inside <= numbers.whole_pixels and needed <= most:
        yield Choice("/inference", "whole", about)
        return
    yield Choice("/inference", "tiles", about)
    long = facts.length(numbers.tile_quantile)
    overlap = max(sizes.rounded(64 / sizes.scale), sizes.rounded(long))
    reason = f"px; {numbers.tile_quantile:.0%} of the cells are up to {long:.0f} px long and lie whole in a tile"
    yield Choice("inference.size", max(sizes.rounded(256 / sizes.scale), 4 * overlap), "px, of the image")
    yield Choice("inference.overlap", overlap, reason)
    yield Choice("inference.margin", max(1, round(16 / sizes.scale)), "px: 16 inside the network")


def crowd_choices(facts: FolderFacts, numbers: PlanNumbers, base: BaseSettings) -> Iterator[Choice]:
    """Choose how many cells an image may have, where the base's numbers would cut a crowd off."""
    most = int(facts.counts.max())
    reason = f"the densest image has {most:,} cells"
    limits = {"callbacks.competition_score.max_detections": most}
    limits["postprocess.max_detections.count"] = ceil(facts.densest * base["postprocess.max_detections.area"])
    if "roi_heads" in base["model.network"]:
        limits["model.network.roi_heads.detections"] = most
    for key, cells in limits.items():
        if (wanted := ceil(cells * numbers.spare / 100) * 100) > base[key]:
            yield Choice(key, wanted, f"{reason}; {base[key]} would not leave room for false ones")
    if "foreground" in base["model.network"]:
        share = min(max(round(facts.foreground, 2), 0.01), 0.5)
        yield Choice("model.network.foreground", share, "share of the pixels that are cells, where training starts")


def image_choices(facts: FolderFacts, numbers: PlanNumbers, base: BaseSettings) -> Iterator[Choice]:
    """Choose how images are turned, and the grey levels that the network expects."""
    middle = float(np.median(facts.sizes.prod(axis=1)))
    rotated = middle > numbers.rotated_pixels
    if rotated:
        yield Choice("/transform", "rotated", f"images of {sizes_text(facts.sizes)}: only the crop is warped")
    mean, std = facts.grey_mean, facts.grey_std
    near = abs(mean - numbers.grey_mean) <= numbers.mean_tolerance
    if near and 1 / numbers.std_factor <= max(std, 0.1) / numbers.grey_std <= numbers.std_factor:
        return
    std = max(round(std, 2), 0.1)
    reason = f"grey levels of the images; {base['model.network.mean']:g} and {base['model.network.std']:g} in others"
    yield Choice("model.network.mean", round(mean, 2), reason)
    yield Choice("model.network.std", std, "")
    fill, bright = round(mean), min(round(0.5 * std / max(mean, 1.0), 3), 0.5)
    yield Choice("transform.crop.fill", fill, "their mean, around images that are too small")
    step = "after" if rotated else "transforms"
    if not rotated and base["transform.transforms"].get("affine") is not None:
        yield Choice("transform.transforms.affine.fill", fill, "")
    yield Choice(
        f"transform.{step}.brightness.brightness",
        [round(1 - bright, 3), round(1 + bright, 3)],
        "times the grey levels: half a standard deviation at most",
    )
