"""Exponential growth of a well: N(t) = N0 exp(r t), fitted by least squares of ln N on t.

The doubling time is ln 2 / r, its interval that of r, from Student's t with n - 2 degrees of freedom (Draper & Smith,
Applied Regression Analysis, 1998, chapter 1). Time points are the means over a well's fields; errors of successive
times are not independent, so that intervals are rather too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sartorius.reports.plates.tables import KEYS
from sartorius.structures.arrays import Floats

LEAST = 3  # time points: two define a line without any error
COLUMNS = ["plate", "well", "points", "rate_per_hour", "rate_low", "rate_high", "r_squared",
           "doubling_hours", "doubling_low", "doubling_high", "remark"]  # fmt: skip


@dataclass(frozen=True)
class Growth:
    """A fit over `points` time points: rate an hour with its interval, r_squared. All NaN where there is no fit."""

    points: int
    rate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    r_squared: float = np.nan

    @property
    def remark(self) -> str:
        """Tell why there is no doubling time; "" where there is one."""
        if self.points < LEAST or np.isnan(self.rate):
            return f"fewer than {LEAST} time points with cells"
        return "" if self.low > 0 else "declines" if self.high < 0 else "no growth that differs from none"

    @property
    def doubling(self) -> tuple[float, float, float]:
        """Hours of a doubling, and its interval; NaN where the interval of the rate does not lie above 0."""
        if self.remark:
            return np.nan, np.nan, np.nan
        return float(np.log(2) / self.rate), float(np.log(2) / self.high), float(np.log(2) / self.low)


def fit(hours: Floats, counts: Floats, level: float = 0.95) -> Growth:
    """Fit the counts [T] at `hours` [T]; times without cells are left out, as they have no logarithm."""
    kept = counts > 0
    points = int(kept.sum())
    if points < LEAST or np.ptp(hours[kept]) == 0:
        return Growth(points)
    from scipy import stats

    line = stats.linregress(hours[kept], np.log(counts[kept]))
    margin = float(stats.t.ppf((1 + level) / 2, points - 2)) * line.stderr
    return Growth(points, float(line.slope), line.slope - margin, line.slope + margin, float(line.rvalue**2))


def growth_of(wells: pd.DataFrame, hours: Sequence[float] | None, level: float) -> pd.DataFrame:
    """Return a row a well, see COLUMNS: the fit of its counts. Empty without times.

    wells: of `tables.wells_of`. hours: [from, to] of the fit; None takes all.
    """
    counts = wells[(wells.measure == "cells") & wells.time.notna()]
    if hours is not None:
        counts = counts[counts.time.between(hours[0], hours[1])]
    rows = []
    for (plate, well), group in counts.groupby(KEYS[:2], sort=False):
        found = fit(group.time.to_numpy(float), group["mean"].to_numpy(float), level)
        rates = (found.points, found.rate, found.low, found.high, found.r_squared)
        rows.append((plate, well, *rates, *found.doubling, found.remark))
    return pd.DataFrame(rows, columns=COLUMNS)
