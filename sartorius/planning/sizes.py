"""Rules of everything in pixels: it follows from the size of the cells.

The network is shown cells of the size that it was tuned for: it enlarges the image (`model.network.scale`), and all
that counts in its own pixels (receptive field, anchors, strides) stays as it is. What counts in pixels of the image,
lengths and areas, is divided by the same factor and by its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from sartorius.planning.experiment_file import Choice
from sartorius.planning.facts import FolderFacts, sizes_text
from sartorius.planning.machine import Machine
from sartorius.planning.numbers import BaseSettings, PlannedModel, PlanNumbers
from sartorius.structures.arrays import Floats


@dataclass(frozen=True)
class Sizes:
    """The factor by which the network enlarges images, and the side of the training crops in pixels of the image.

    coarsest: pixels inside the network that its coarsest map has one value for.
    """

    scale: float
    crop: int
    coarsest: int

    @property
    def stride(self) -> int:
        """Pixels of the image that the coarsest map of the network has one value for."""
        return max(1, round(self.coarsest / self.scale))

    def rounded(self, pixels: float) -> int:
        """Round a length up to a multiple of the stride."""
        return ceil(pixels / self.stride - 1e-9) * self.stride


def choose_sizes(facts: FolderFacts, numbers: PlanNumbers, base: BaseSettings) -> Sizes:
    """Choose the scale nearest to the one that shows cells at their reference size, and a crop of the base's size.

    The crop is larger where long cells ask for it, and no larger than the shorter side of the middle image.
    """
    scale = min(numbers.scales, key=lambda offered: abs(log(offered * facts.diameter / numbers.diameter)))
    sizes = Sizes(scale, max(1, round(base["transform.crop.height"] / scale)), numbers.stride)
    wanted = max(sizes.crop, sizes.rounded(numbers.crop_length * facts.length(numbers.crop_quantile)))
    short = sizes.rounded(float(np.median(facts.sizes.min(axis=1))))
    return Sizes(scale, min(wanted, short), numbers.stride)


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
        for key, value in scaled(base, scale, model.lengths, model.areas).items():
            yield Choice(key, value, f"px: {base[key]:g} in {name}, divided by scale{'^2' * (key in model.areas)}")
    yield from _least_areas(facts, numbers)
    yield from _anchors(facts, numbers, base, scale)


def scaled(base: BaseSettings, scale: float, lengths: Sequence[str], areas: Sequence[str]) -> dict[str, float]:
    """Divide settings in pixels of the image by the scale and by its square; whole numbers stay whole and above 0."""
    values = {key: base[key] / scale for key in lengths} | {key: base[key] / scale**2 for key in areas}
    return {key: max(1, round(v)) if isinstance(base[key], int) else round(v, 3) for key, v in values.items()}


def doubts(facts: FolderFacts, numbers: PlanNumbers, scale: float) -> list[str]:
    """Tell, in a sentence, where no scale shows cells at about their reference size; none otherwise."""
    ratio, wanted = facts.diameter * scale / numbers.diameter, numbers.diameter / facts.diameter
    if 1 / numbers.diameter_factor <= ratio <= numbers.diameter_factor:
        return []
    return [
        f"Doubtful: cells of {facts.diameter:.3g} px measure {facts.diameter * scale:.3g} inside the network at the "
        f"nearest scale, {scale:g}; it was tuned for {numbers.diameter:g}. Resize images and labels by {wanted:.2g}, "
        "or give a scale near that in rules.scales."
    ]


def _least_areas(facts: FolderFacts, numbers: PlanNumbers) -> Iterator[Choice]:
    """Choose the area below which few cells of a type are; of cells of one size a share of that."""
    share, part = numbers.small_quantile, numbers.small_share
    least = {
        name: int(min(np.quantile(areas, share), part * np.median(areas))) if len(areas) else 0
        for name, areas in facts.areas.items()
    }
    reason = f"px: {share:.0%} of the cells of a type are smaller; at most {part:.0%} of its median"
    yield Choice("postprocess.min_area.pixels", least, reason)


def _anchors(facts: FolderFacts, numbers: PlanNumbers, base: BaseSettings, scale: float) -> Iterator[Choice]:
    """Choose other ratios of anchors where more cells get one: sizes are of the network's pixels and stay."""
    network = base["model.network"]
    if "anchors" not in network:
        return
    sides = np.array(network["anchors"]["sizes"], float).ravel()
    ratios, wide, needed = (
        list(network["anchors"]["ratios"]),
        list(numbers.anchor_ratios),
        network["rpn"]["foreground_iou"],
    )
    reached, wider = (_reached(facts.boxes * scale, sides, of, needed) for of in (ratios, wide))
    reason = f"height / width; {reached:.0%} of the cells have an anchor of their shape (IoU {needed:g})"
    if wider > reached + numbers.anchor_gain:
        ratios, reason = wide, f"{reason} with {ratios}, {wider:.0%} with these"
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
    long, scale = facts.length(numbers.tile_quantile), sizes.scale
    size, apart, margin = (base[f"inference.{key}"] for key in ("size", "overlap", "margin"))  # inside the network
    overlap = max(sizes.rounded(apart / scale), sizes.rounded(long))
    reason = f"px; {numbers.tile_quantile:.0%} of the cells are up to {long:.0f} px long and lie whole in a tile"
    yield Choice("inference.size", max(sizes.rounded(size / scale), ceil(size / apart) * overlap), "px, of the image")
    yield Choice("inference.overlap", overlap, reason)
    yield Choice("inference.margin", max(1, round(margin / scale)), f"px: {margin} inside the network")


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
        share = min(max(round(facts.foreground, 2), numbers.foreground[0]), numbers.foreground[1])
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
    share = numbers.brightness
    fill, bright = round(mean), min(round(share * std / max(mean, 1.0), 3), share)
    yield Choice("transform.crop.fill", fill, "their mean, around images that are too small")
    step = "after" if rotated else "transforms"
    if not rotated and base["transform.transforms"].get("affine") is not None:
        yield Choice("transform.transforms.affine.fill", fill, "")
    yield Choice(
        f"transform.{step}.brightness.brightness",
        [round(1 - bright, 3), round(1 + bright, 3)],
        f"times the grey levels: {share:g} standard deviations at most",
    )
