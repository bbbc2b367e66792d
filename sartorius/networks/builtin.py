"""The model that comes along: a U-Net trained on generated images only, see `experiments/builtin.sh`."""

from __future__ import annotations

from pathlib import Path

NAME = "builtin"  # in place of a file of a checkpoint or of weights
_FILE = Path(__file__).with_name("builtin.zip")


def located(checkpoint: str | Path) -> Path:
    """Return the file that a checkpoint or weights are read from: that of the model that comes along for its NAME."""
    return _FILE if str(checkpoint) == NAME else Path(checkpoint)
