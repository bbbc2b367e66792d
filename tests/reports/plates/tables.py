"""images.csv as the writer of tables writes it, by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

Row = Mapping[str, object]
OK = {
    "height": 520, "width": 704, "pixel_size": None, "cells": 0, "cells_astro": 0, "cells_cort": 0, "confluence": 0.0,
    "mean_area": None, "mean_area_um2": None, "mean_score": None, "status": "ok", "problem": None,
}  # fmt: skip


def row(image: str, cells: int = 0, **more: object) -> Row:
    """An image whose cells are all of one type and cover 1 % of it each."""
    return {"image": image, **OK, "cells": cells, "cells_cort": cells, "confluence": min(1.0, cells / 100), **more}


def bad(image: str, problem: str = "truncated") -> Row:
    nothing = dict.fromkeys(OK)
    return {"image": image, **nothing, "status": "bad", "problem": problem}


def write(path: Path, *rows: Row) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path
