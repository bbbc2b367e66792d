"""Predict each cell's IoU with the truth; drop cells below a threshold.

With U = TP + FP + FN at an IoU threshold t, leaving out a hit makes TP / U to (TP - 1) / U, and leaving out a miss
TP / (U - 1). So a cell pays there when p / (1 - p) > TP / (U - 1), with p = P(IoU > t): in crowded, hard images at
lower odds than in easy ones. The mean over IoU thresholds becomes one threshold of the expected IoU, found by trying
(`training`); one per cell type, or per image by its estimated TP and U, did no better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.postprocess.candidates import Candidates
from sartorius.postprocess.step import Step
from sartorius.rescoring.cell_features import FEATURES, cell_features
from sartorius.rescoring.trees import Trees
from sartorius.structures import checks
from sartorius.structures.arrays import Floats
from sartorius.structures.instances import Instances
from sartorius.structures.reading import read_arrays

FORMAT_VERSION = 2
MOST_BYTES = 2**24  # of a file; one of 80 trees has 80 KB
_HINT = "write it again with `python -m sartorius.fit_filter`"


@dataclass(frozen=True)
class FalsePositiveFilter(Step):
    """A trained filter of cells, the last step of post-processing.

    trees: from `cell_features` to the expected IoU. threshold: cells with a lower expected IoU are dropped, 0 keeps
    all. cell_type_names: of the detections that it was trained on; it counts types in this order.
    """

    trees: Trees
    threshold: float
    cell_type_names: tuple[str, ...]
    of_image: ClassVar = True

    def expected_iou(self, candidates: Candidates) -> Floats:
        """Predict the IoU of each of N cells, float64 [N]. Raises InputError for other cell types."""
        detections = candidates.detections
        self.check_types(detections.cell_type_names, f"image {detections.image_id}")
        runs = Instances(candidates.layers(), candidates.cell_types).to_runs()
        return self.trees.predict(cell_features(detections, candidates.source, runs))

    def check_types(self, names: Sequence[str], source: str) -> None:
        """Raise InputError, naming `source`, unless these are the cell types of the filter."""
        if tuple(names) != self.cell_type_names:
            raise InputError(
                f"{source}: cell types {', '.join(names)}, the filter was trained on "
                f"{', '.join(self.cell_type_names)}; train one on detections of this model"
            )

    def __call__(self, candidates: Candidates) -> Candidates:
        """Keep the cells whose expected IoU reaches the threshold. Pixels of the others become free."""
        return candidates.select(self.expected_iou(candidates) >= self.threshold)

    def save(self, path: str | Path) -> None:
        """Write one .npz of numbers and names (no pickle), atomically."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                version=FORMAT_VERSION,
                features=FEATURES,
                cell_type_names=self.cell_type_names,
                iou_threshold=self.threshold,
                **self.trees.arrays(),
            )

    @classmethod
    def load(cls, path: str | Path) -> FalsePositiveFilter:
        """Read what `save` wrote; executes nothing. Raises InputError where the file is missing or does not fit."""
        if not Path(path).is_file():
            raise InputError(f"filter={path}: no such file; `python -m sartorius.fit_filter` writes one")
        return cls.from_bytes(Path(path).read_bytes(), f"filter={path}")

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> FalsePositiveFilter:
        """Read the content of such a file; raises InputError, naming `source`, where it does not fit."""
        try:
            arrays = read_arrays(content, MOST_BYTES)
            version, features = int(arrays["version"]), tuple(arrays["features"].tolist())
            if (version, features) != (FORMAT_VERSION, FEATURES):
                raise InputError(
                    f"{source}: of another version of this program, format {version}, expected {FORMAT_VERSION} "
                    f"with {len(FEATURES)} features; {_HINT}"
                )
            names = tuple(str(name) for name in arrays["cell_type_names"].tolist())
            threshold = float(arrays["iou_threshold"])
            checks.fractions(source, iou_threshold=threshold)
            return cls(Trees.from_arrays(arrays), threshold, names)
        except InputError:
            raise
        except Exception as error:  # zipfile and numpy each raise their own
            raise InputError(f"{source}: not a readable filter ({error}); {_HINT}") from error
