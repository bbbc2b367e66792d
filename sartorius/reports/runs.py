"""Read a run's folder for a report: the config, numbers, tables and curves that it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.data.provenance import ALL
from sartorius.errors import InputError
from sartorius.metrics import report
from sartorius.reports.curves import read_numbers
from sartorius.structures.detections import DetectionsFolder
from sartorius.structures.reading import read_json, read_yaml


@dataclass(frozen=True)
class Run:
    """The content of a folder of `train`, `evaluate`, `predict` or `ensemble`; a missing part is empty and noted.

    config: resolved for `train`; with interpolations as text for the others. numbers: metrics.json. table:
    per_image.csv, None without. curves, batches: metrics.csv and batches.csv, see `read_numbers`. git: git.json.
    pixels: pixels_val.csv. detections: folders of detections, its own or those that it scored. predictions: the
    csv in the submission format that it scored, "" for none. notes: missing parts, and why. unscored: predictions that
    are to be shown without truth.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    numbers: Mapping[str, Any]
    table: pd.DataFrame | None
    curves: pd.DataFrame
    batches: pd.DataFrame
    git: Mapping[str, Any]
    pixels: pd.DataFrame
    detections: tuple[Path, ...]
    predictions: str
    notes: tuple[str, ...]
    unscored: bool = False

    def get(self, *keys: str) -> Any:
        """Return a value of the config by its path of keys; None where there is none, or text with an interpolation."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if isinstance(value, str) and "${" in value else value


def check_folder(folder: str | Path) -> Path:
    """Return the folder of a run; raises InputError where it is missing."""
    if not Path(folder).is_dir():
        raise InputError(f"run={folder}: no such folder; expected one that train, evaluate, predict or ensemble wrote")
    return Path(folder)


def read_run(folder: str | Path, name: str) -> Run:
    """Read a folder. Raises InputError where it is missing, holds nothing to report, or a file in it is damaged."""
    folder = check_folder(folder)
    config = _read_yaml(folder / "config.yaml") or _read_yaml(folder / ".hydra" / "config.yaml")
    numbers, git = _read_json(folder / "metrics.json"), _read_json(folder / "git.json")
    table = report.read_per_image(folder) if (folder / "per_image.csv").is_file() else None
    curves, batches = read_numbers(folder / "metrics.csv"), read_numbers(folder / "batches.csv")
    detections, predictions = _sources(folder, config)
    if not numbers and table is None and curves.empty and not detections and not predictions:
        raise InputError(
            f"run={folder}: nothing to report in it; expected one or more of detections/, metrics.json, "
            "per_image.csv, metrics.csv, as train, evaluate, predict and ensemble write them"
        )
    data = config.get("data")
    on_all = table is None and isinstance(data, Mapping) and data.get("fold") == ALL
    missing = {
        "no score: all labelled images were trained on (data.fold=all)": on_all,
        "no metrics.csv with numbers: no curve but that of the training loss": curves.empty and not batches.empty,
        "no metrics.csv with numbers: no curves": curves.empty and batches.empty,
        "no detections: no images, no cells; scores are those that the folder holds": not (
            on_all or detections or predictions
        ),
        "no config.yaml: no settings, and data.root= has to be given": not config,
    }
    notes = tuple(text for text, applies in missing.items() if applies)
    pixels = _read_pixels(folder / "pixels_val.csv")
    return Run(name, folder, config, numbers, table, curves, batches, git, pixels, detections, predictions, notes)


def read_detections(folder: str | Path, name: str) -> Run:
    """Open detections to be shown without truth: their folder, or that of the command that wrote it.

    Raises InputError where there are none.
    """
    place = DetectionsFolder(folder).folder
    if not DetectionsFolder(place).image_ids():
        about = "no detections in it" if DetectionsFolder(place).meta else ""  # raises for a folder of something else
        raise InputError(f"detections={folder}: {about}; `predict` writes them")
    around = place.parent if place.name == "detections" else place
    config = _read_yaml(around / "config.yaml") or _read_yaml(around / ".hydra" / "config.yaml")
    nothing = pd.DataFrame()
    return Run(name, around, config, {}, None, nothing, nothing, {}, nothing, (place,), "", (), unscored=True)


def names_of(folders: Sequence[str | Path]) -> list[str]:
    """Return a short name for each folder: its last part, or as much of its path as tells it from the others.

    Raises InputError for a folder that is named twice.
    """
    paths = [os.path.abspath(folder) for folder in folders]
    if repeated := [path for k, path in enumerate(paths) if path in paths[:k]]:
        raise InputError(f"run={repeated[0]}: named twice; give each run once")
    last = [os.path.basename(path) for path in paths]
    if len(set(last)) == len(last):
        return last
    return [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]


def flattened(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten the config to (path of keys, value) in its order, a short list as one value."""
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(config, list) and any(isinstance(value, (dict, list)) for value in config):
        for k, value in enumerate(config):
            yield from flattened(value, f"{prefix}[{k}]")
    else:
        yield prefix, json.dumps(config) if config is None or isinstance(config, bool | list) else str(config)


def _sources(folder: Path, config: Mapping[str, Any]) -> tuple[tuple[Path, ...], str]:
    """Find the existing folders of detections, and the csv that was scored."""
    inside = folder / "detections"
    if inside.is_dir() and DetectionsFolder(inside).image_ids():
        return (inside,), ""
    if DetectionsFolder(folder).image_ids() and (folder / "meta.json").is_file():
        return (folder,), ""
    named = config.get("detections")
    paths = tuple(Path(path) for path in ([named] if isinstance(named, str) else named or ()))
    if paths and all(path.is_dir() for path in paths):
        return paths, ""
    csv = config.get("predictions")
    return (), csv if isinstance(csv, str) and Path(csv).is_file() else ""


def _read_pixels(path: Path) -> pd.DataFrame:
    """Read image_id, cell_type, iou, dice ... of a pixel report; empty without one."""
    try:
        return pd.read_csv(path, dtype={"image_id": str})
    except (FileNotFoundError, ValueError):
        return pd.DataFrame()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path, "delete it, or run the command that wrote it again")
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object of names and values, got {type(value).__name__}; delete it")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_yaml(path, str(path), "delete it, or mend it")
    return value if isinstance(value, dict) else {}
