"""The numbers that rules use; conf/plan.yaml has their values, units and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sartorius.structures import checks


@dataclass(frozen=True, kw_only=True)
class PlanNumbers:
    """Numbers of the rules that all models share, see `rules` of conf/plan.yaml."""

    images: int
    diameter: float
    scales: Sequence[float]
    diameter_factor: float
    stride: int
    crop_length: float
    crop_quantile: float
    tile_quantile: float
    small_quantile: float
    small_share: float
    rotated_pixels: int
    grey_mean: float
    grey_std: float
    mean_tolerance: float
    std_factor: float
    brightness: float
    spare: float
    foreground: Sequence[float]
    anchor_ratios: Sequence[float]
    anchor_gain: float
    shared: float
    shared_cells: float
    folds: int
    builtin_images: int
    memory_share: float
    process_memory: float
    whole_pixels: int
    bytes_per_pixel: float
    cache_bytes: float
    cache_share: float
    workers: int
    passes: float
    least_steps: int
    epochs: int
    warmup_share: float
    steps: int

    def __post_init__(self) -> None:
        checks.positive("rules", **{f"scales[{k}]": scale for k, scale in enumerate(self.scales)})


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model that can be planned, see `models` of conf/plan.yaml.

    experiment: that the plan begins with.  title: of the model.  lengths, areas: its settings in pixels of the image,
    which follow the size of the cells.  megapixel_seconds, pixel_bytes: cost of a training step, of a million pixels
    and of a pixel inside the network, on one thread.  least_batch: images of a step at least.  validations: of a
    training.  second_stage: experiment, lengths and areas of the model that is advised behind it.
    """

    title: str
    experiment: str
    lengths: Sequence[str]
    areas: Sequence[str]
    megapixel_seconds: float
    pixel_bytes: float
    least_batch: int
    validations: int
    second_stage: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BaseSettings:
    """The settings of the experiment that a plan begins with, predicting in tiles, as nested mappings.

    second: those of the second stage.
    """

    tree: Mapping[str, Any] = field(repr=False)
    second: BaseSettings | None = field(default=None, repr=False)

    def __getitem__(self, key: str) -> Any:
        """Return the setting of a full key, such as `data.batch_size`."""
        node: Any = self.tree
        for part in key.split("."):
            node = node[part]
        return node
