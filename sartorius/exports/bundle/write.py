"""The writer of bundles."""

from __future__ import annotations

from pathlib import Path

from sartorius.errors import InputError
from sartorius.exports.trained import TrainedModel


def write_bundle(model: TrainedModel, path: Path) -> None:
    """Write a bundle."""
    raise InputError(f"{path}: not written, format=bundle is not there yet")
