"""A pseudo-label file and its images beside the tiny competition folder of tests.conftest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sartorius.data.pseudo_labels.settings import COLUMNS, PseudoLabels
from tests.conftest import HEIGHT, WIDTH

# 60 pixels each, below each other: rows 4 to 9, 14 to 19, 24 to 29, 34 to 39, columns 5 to 14
CELLS = [" ".join(f"{(10 * k + 4 + y) * WIDTH + 6} 10" for y in range(6)) for k in range(4)]
PLAIN = {
    "min_score": 0.6, "doubtful_score": 0.3, "min_agreement": 0.0, "ratio": 1.0, "weight": 0.5, "cache_mb": 0,
}  # fmt: skip


def write_images(folder: Path, names: Sequence[str]) -> None:
    """Noise of 64x48 pixels, another for each name."""
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        noise = np.random.default_rng(list(name.encode())).integers(118, 139, (HEIGHT, WIDTH))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{name}.png")


def row(image_id: str, annotation: str, score: Any, cell_type: str = "cort", **more: Any) -> dict[str, Any]:
    """A row of the file."""
    size = {"width": WIDTH, "height": HEIGHT}
    return {"id": image_id, "annotation": annotation, **size, "cell_type": cell_type, "score": score, **more}


def write_file(folder: Path, rows: Sequence[dict[str, Any]], name: str = "pseudo.csv") -> Path:
    """The file of these rows, beside the folder of images."""
    pd.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *rows[0]]))).to_csv(folder / name, index=False)
    return folder / name


def settings(file: Path | None, folder: Path, **changes: Any) -> PseudoLabels:
    """PseudoLabels with plain thresholds."""
    return PseudoLabels(**{"file": file, "folder": folder, **PLAIN, **changes})
