from __future__ import annotations

import numpy as np
import pytest
from shape_types import ShapeTypes

from sartorius.errors import InputError
from sartorius.structures import rle
from tests.rescoring.test_shapes import label_map


def test_types_by_shape() -> None:
    runs, types = rle.from_layers(label_map()), ShapeTypes(0.93, 1.5)

    def only(k: int) -> str:
        return types(rle.from_layers((label_map() == k).astype(np.int64)))

    assert [only(1), only(2), only(3)] == ["cort", "shsy5y", "astro"]
    assert ShapeTypes(0.0, 1.5)(runs) == "shsy5y" and ShapeTypes(0.0, 9.0)(runs) == "cort"
    assert types(rle.parse([], 5, 6)) == types(rle.parse([""], 5, 6)) == "cort"
    with pytest.raises(InputError, match="astro_fill=2"):
        ShapeTypes(2, 1.5)
