"""The protocol of a step of post-processing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from sartorius.postprocess.candidates import Candidates


@dataclass(frozen=True)
class SearchRange:
    """The values low, low + step, ... high of a threshold that `tune` tries."""

    low: float
    high: float
    step: float


class Step(Protocol):
    """A decision between detections and cells.

    A step is a frozen dataclass that subclasses this protocol, whose fields are its settings: what a config gives and
    a checkpoint keeps. To add one: a class in a file of this package, and a line of YAML with its `_target_`.

    searchable: the settings that `tune` may search, numbers or numbers per cell type (`PerType`), with the range it
    tries unless conf/search gives another. of_image: it needs the candidates of the whole image; the others decide
    about each by itself and those around it, and run block by block on an image that is larger than memory.
    """

    searchable: ClassVar[Mapping[str, SearchRange]] = {}
    of_image: ClassVar[bool] = False

    def __call__(self, candidates: Candidates) -> Candidates:
        """The candidates that remain, in their order, with their masks as this step leaves them.

        Those missing from `source` of the result were dropped here.
        """
