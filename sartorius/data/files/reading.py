"""How image files are read: as the meta.json of detections, a folder's dataset.json and checkpoints tell it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.structures import checks

PAGES = ("each", "first", "max", "mean")
_ROUNDED = 1e-3  # relative difference that formats make of one pixel size


@dataclass(frozen=True)
class Reading:
    """How images are read.

    channel, pages: see `source.FileImages`. levels: what grey levels become. Raises InputError for a channel or pages
    that do not exist.
    """

    channel: int | None = None
    pages: str = "each"
    levels: Levels = field(default_factory=Levels)

    def __post_init__(self) -> None:
        checks.one_of("", PAGES, pages=self.pages)
        if self.channel is not None and (type(self.channel) is not int or self.channel < 0):
            raise InputError(f"channel={self.channel}: expected a whole number from 0, or null")

    @classmethod
    def parse(cls, told: Mapping[str, Any] | None, name: str) -> Reading:
        """Make it of what a file tells: what it leaves out is usual, its entries about other things are passed over.

        Raises InputError, which begins with `name`, for what cannot be used.
        """
        given = {entry.name: told[entry.name] for entry in fields(cls) if entry.name in told} if told else {}
        try:
            return cls(**{**given, "levels": Levels(**given.get("levels") or {})})
        except (TypeError, InputError) as error:
            raise InputError(f"{name}: cannot read images as it tells, with {given}: {error}") from error

    @classmethod
    def of_training(cls, metadata: Mapping[str, Any], levels: str | None = None) -> Reading:
        """Return how images are brought to the grey levels of a training, of which its checkpoint's metadata tell.

        They are read as its original files were, whatever the network subtracts and divides by afterwards; without
        such, or where another kind of `levels` is told, mean and std are the network's. Raises InputError as `parse`.
        """
        told = metadata.get("reading") or {}
        trained = told.get("levels") or {}
        if levels is not None and levels != trained.get("levels", "auto"):
            trained = {"levels": levels}
        return cls.parse({**told, "levels": {**grey_levels(metadata), **trained}}, "the model's training")

    def plain(self) -> dict[str, Any]:
        """Return the settings as `parse` takes them."""
        return asdict(self)

    def options(self) -> dict[str, Any]:
        """Return the options of a command that tell most of it: channel, pages and the kind of levels."""
        return {"channel": self.channel, "pages": self.pages, "levels": self.levels.levels}

    def sentence(self) -> str:
        """Describe what is not usual of it for people who use the model elsewhere; "" where nothing is."""
        usual = Reading().options()
        other = [f"{key}={value}" for key, value in self.options().items() if value != usual[key]]
        return f"The images of the training were read with {', '.join(other)}; channels count from 0." if other else ""


def common_size(sizes: Collection[float | None]) -> float | None:
    """Return the pixel size, in micrometres, that all of these are but for rounding; None where they differ, or none.

    An unknown size, None, is another than any that is known.
    """
    first = next(iter(sizes), None)
    alike = first is not None and all(
        size is not None and math.isclose(size, first, rel_tol=_ROUNDED) for size in sizes
    )
    return first if alike else None


def note_of_sizes(sizes: Collection[float | None]) -> list[str]:
    """Return a sentence that names pixel sizes that are not the same; none where they are, or none is known."""
    if common_size(sizes) is not None or not any(sizes):
        return []
    names = sorted({str(size) for size in sizes})
    return [f"pixel sizes differ ({', '.join(names[:5])}): none is kept, nothing is resized; give pixel_size="]


def grey_levels(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return `mean` and `std` of the images that a network, of several the first, was trained on.

    {} where the metadata of its checkpoint tell none.
    """
    model = metadata.get("model") or {}
    while inner := model.get("first") or next(iter((model.get("members") or {}).values()), None):
        model = inner
    network = model.get("network") or {}
    found = {key: network.get(key) for key in ("mean", "std")}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and None not in found.values()
    }
