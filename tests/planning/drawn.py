"""Folders of labelled discs and bars of known size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartorius.data.competition.about import About
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.planning.experiment_file import Choice
from sartorius.planning.facts import FolderFacts
from sartorius.planning.machine import Machine
from sartorius.planning.numbers import BaseSettings, PlannedModel, PlanNumbers
from sartorius.planning.planner import Planner
from sartorius.running import wiring
from sartorius.structures.instances import Instances

CPU = Machine(threads=1, memory=16_000.0, ram=16_000.0)
GPU = Machine(threads=8, memory=8_000.0, ram=32_000.0, gpu="some GPU")


def discs(side: int, diameter: float, mean: float = 128.0) -> tuple[np.ndarray, Instances]:
    """An image of side x side with a disc in each square of 2 diameters, and its cells."""
    pitch = round(2 * diameter)
    rows, columns = np.mgrid[:side, :side]
    of = (rows // pitch) * (side // pitch) + columns // pitch
    inside = np.hypot(rows % pitch - pitch / 2 + 0.5, columns % pitch - pitch / 2 + 0.5) < diameter / 2
    inside &= (rows < side // pitch * pitch) & (columns < side // pitch * pitch)
    labels = np.where(inside, of + 1, 0)
    image = np.random.default_rng(0).normal(mean, 11.0, (side, side)) + 12.0 * inside
    return image.clip(0, 255).astype(np.uint8), Instances.from_label_map(labels, np.zeros(labels.max(), np.int64))


def folder_of_discs(root: Path, diameter: float, images: int = 6, side: int = 128, mean: float = 128.0) -> Path:
    drawn = discs(side, diameter, mean)
    write_labelled(root, About(("cell",)), [Labelled(f"image{k}", *drawn) for k in range(images)])
    return root


def facts(
    diameter: float = 20.0, images: int = 32, sides: Sequence[int] = (520, 704), **changes: object
) -> FolderFacts:
    """Of round cells of one type, 60 an image."""
    area = np.full(60 * images, np.pi * diameter**2 / 4)
    values: dict[str, object] = {
        "root": Path("/data/mine"),
        "groups": images,
        "folds": None,
        "cell_types": ("cell",),
        "areas": {"cell": area},
        "pixel_size": None,
        "sizes": np.full((images, 2), sides, np.int64),
        "counts": np.full(images, 60),
        "densest": 60 / (sides[0] * sides[1]),
        "diameters": np.full(images, diameter),
        "boxes": np.full((60 * images, 2), diameter),
        "shared": np.zeros(60 * images),
        "foreground": 0.1,
        "grey_mean": 128.0,
        "grey_std": 11.58,
    }
    return FolderFacts(**{**values, **changes})  # type: ignore[arg-type]


def settings_of(experiment: str) -> dict[str, Any]:
    return wiring.OmegaConf.to_container(wiring.compose("train", [f"experiment={experiment}", "inference=tiles"]))


def planner(of: FolderFacts, machine: Machine = CPU, model: str = "unet", minutes: float = 20.0) -> Planner:
    cfg = wiring.compose("plan")
    numbers: PlanNumbers = wiring.instantiate(cfg.rules)
    planned: PlannedModel = wiring.instantiate(cfg.models[model])
    second = BaseSettings(settings_of("cropseg_cpu")) if planned.second_stage else None
    base = BaseSettings(settings_of(planned.experiment), second)
    return Planner(of, machine, numbers, planned, "", base, minutes, "auto")


def choices(of: Planner) -> dict[str, Choice]:
    """All choices by key, of an estimated cost."""
    batches = of.first_batches()
    return {choice.key: choice for choice in of.choices(batches, of.estimate(batches))}


def values(of: Planner) -> dict[str, object]:
    return {key: choice.value for key, choice in choices(of).items()}
