"""Settings of pseudo-labels: their file, and which scores make a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sartorius.data import annotation_rows
from sartorius.errors import InputError
from sartorius.structures import checks
from sartorius.structures.reading import read_yaml
from sartorius.structures.rules import number

COLUMNS = (*annotation_rows.COLUMNS, "score")  # of the file; see `source`
Threshold = float | Mapping[str, float]  # of all cell types, or by their names


@dataclass(frozen=True)
class PseudoLabels:
    """A file of pseudo-labels to train on beside the labelled images, its thresholds and its weight.

    file: see `source`. folder: of the images that it names. min_score: a row is a cell from here on;
    doubtful_score: it is doubtful from here on and background below. min_agreement: with less a cell is doubtful, too.
    Rows with `ignore` are doubtful whatever they score. The three are numbers in 0..1, or a number for each cell type.
    ratio: pseudo-labelled samples of an epoch for each labelled one. weight: of these images in every loss.
    cache_mb: memory for decoded ones. thresholds: file with a `min_score` by cell type that goes before the one given.

    Raises InputError where `file` is None, for values out of range, and where `thresholds` cannot be read.
    """

    file: str | Path | None
    folder: str | Path
    min_score: Threshold
    doubtful_score: Threshold
    min_agreement: Threshold
    ratio: float
    weight: float
    cache_mb: int
    thresholds: str | Path | None = None

    def __post_init__(self) -> None:
        if self.thresholds is not None:
            below = self.min_score if isinstance(self.min_score, Mapping) else {}
            object.__setattr__(self, "min_score", {**below, **_read_thresholds(self.thresholds)})
        if self.file is None:
            raise InputError(
                "pseudo_labels.file is not set; give pseudo_labels.file=FILE, a csv with the columns "
                f"{', '.join(COLUMNS)} and a row for each cell that models found in images of "
                f"{self.folder}; or set pseudo_labels=null"
            )
        checks.fractions("pseudo_labels", **self.limits)
        for key, value in (("ratio", self.ratio), ("weight", self.weight)):
            fine = number(above=0).admits(value)
            checks.expect(fine, "pseudo_labels", key, value, "a number above 0; pseudo_labels=null does without")

    @property
    def limits(self) -> dict[str, Threshold]:
        """The three thresholds by their keys."""
        return {
            "min_score": self.min_score,
            "doubtful_score": self.doubtful_score,
            "min_agreement": self.min_agreement,
        }

    def threshold(self, key: str, cell_type: str) -> float:
        """Return the threshold `key` of a cell type; raises InputError where a mapping has none for it."""
        threshold = self.limits[key]
        if not isinstance(threshold, Mapping):
            return float(threshold)
        if cell_type not in threshold:
            raise InputError(
                f"pseudo_labels.{key} has no value for cell type '{cell_type}', only for {', '.join(threshold)}; add "
                f"+pseudo_labels.{key}.{cell_type}=0.5, or give one number for all types"
            )
        return float(threshold[cell_type])


def _read_thresholds(path: str | Path) -> Mapping[str, float]:
    """Read the `min_score` by cell type of a file of `tune`. Raises InputError where there is none."""
    hint, source = (
        "`python -m sartorius.tune pseudo_labels.precision=0.9` writes one",
        f"pseudo_labels.thresholds={path}",
    )
    try:
        values = read_yaml(Path(str(path)), source, hint)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error}); {hint}") from error
    scores = values.get("min_score") if isinstance(values, dict) else None
    if not isinstance(scores, dict):
        raise InputError(f"{source}: no min_score by cell type in it; {hint}")
    return scores
