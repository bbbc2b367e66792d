"""How a session keeps its time, and how its detections become cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """How the time is measured and kept.

    spare: seconds that stay free at the end. measured: images from which on the time of one is trusted. poll: seconds
    between looks at a running command. refresh: seconds between submissions while the first pass runs. joining:
    seconds that joining an image takes, as long as none was joined.
    """

    spare: float
    measured: int
    poll: float
    refresh: float
    joining: float


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """How detections become cells: options of `predict` and `ensemble`, and changes to what was saved with them.

    tta: option of `predict`, None for the members' own views. ensemble: options, without members. postprocess, filter:
    of what is submitted, see `SavedCells`; those of a single member are its own where the kit has several.
    """

    tta: Mapping[str, Any] | None
    ensemble: Mapping[str, Any]
    weights: Mapping[str, Any]
    postprocess: Mapping[str, Any]
    filter: str
