"""An array that is joined from parts while they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class GrowingArray:
    """Arrays [n, ...] of one type and shape behind the first axis, one after the other; those without rows of any.

    A part is copied and not held, and the system moves no pages of a large block that grows: `np.concatenate` would
    take the memory of all of them twice.
    """

    def __init__(self) -> None:
        self._rows: NDArray[Any] = np.zeros(0)
        self._count = 0

    def take(self, part: NDArray[Any]) -> NDArray[Any]:
        """Add the rows of a part; returns an array of as many rows, and of no size behind them, to put in its place."""
        if not self._count:
            self._rows = np.zeros((0, *part.shape[1:]), part.dtype)
        if len(part):
            end = self._count + len(part)
            if end > len(self._rows):
                self._rows.resize((end + end // 8, *part.shape[1:]), refcheck=False)
            self._rows[self._count : end] = part
            self._count = end
        return np.zeros((len(part), *[0] * (part.ndim - 1)), part.dtype)

    def finish(self) -> NDArray[Any]:
        """Return the array; nothing is added any more."""
        self._rows.resize((self._count, *self._rows.shape[1:]), refcheck=False)
        return self._rows
