"""Doubling times: exact where growth is exact, the textbook's interval, and none where they mean nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sartorius.reports.plates.growth import fit, growth_of

HOURS = np.arange(0.0, 60, 6)


def test_exact_growth_has_its_doubling_time() -> None:
    found = fit(HOURS, 7 * 2 ** (HOURS / 20))
    assert found.doubling == pytest.approx((20, 20, 20)) and found.r_squared == pytest.approx(1) and found.points == 10


def test_the_interval_is_that_of_a_regression() -> None:
    """The slope's standard error from the normal equations."""
    counts = np.array([10.0, 13, 14, 20, 21, 29, 34, 41, 44, 60])
    found = fit(HOURS, counts, 0.9)
    design = np.column_stack((np.ones(10), HOURS))
    beta, residual, *_ = np.linalg.lstsq(design, np.log(counts), rcond=None)
    error = np.sqrt(residual[0] / 8 * np.linalg.inv(design.T @ design)[1, 1])
    margin = stats.t.ppf(0.95, 8) * error
    assert (found.rate, found.low, found.high) == pytest.approx((beta[1], beta[1] - margin, beta[1] + margin))
    assert found.doubling == pytest.approx(tuple(np.log(2) / r for r in (beta[1], beta[1] + margin, beta[1] - margin)))


@pytest.mark.parametrize(
    ("counts", "remark"),
    [
        ([5, 10], "fewer than 3"), ([0, 0, 0, 8, 16], "fewer than 3"), ([], "fewer than 3"),
        ([9, 7, 5, 4, 3], "declines"), ([10, 12, 9, 11, 10], "no growth"), ([8, 8, 8, 8], "no growth"),
    ],
)  # fmt: skip
def test_no_doubling_time_where_it_means_nothing(counts: list[float], remark: str) -> None:
    found = fit(HOURS[: len(counts)], np.array(counts, float))
    assert found.remark.startswith(remark) and np.isnan(found.doubling).all()


def test_times_without_cells_are_left_out() -> None:
    found = fit(HOURS[:5], np.array([0, 4, 8, 16, 32.0]))
    assert found.points == 4 and found.doubling[0] == pytest.approx(6)


def test_each_well_within_the_hours() -> None:
    rows = [("", well, hour, "cells", 5 * 2 ** (min(hour, 24) / rate), 0, 0, 1, 1)
            for well, rate in (("A1", 12), ("A2", 8)) for hour in HOURS]  # fmt: skip
    columns = ["plate", "well", "time", "measure", "mean", "low", "high", "fields", "images"]
    wells = pd.DataFrame(rows, columns=columns)
    assert growth_of(wells, [0, 24], 0.95).doubling_hours.tolist() == pytest.approx([12, 8])
    assert (growth_of(wells, None, 0.95).doubling_hours > 14).all(), "the plateau is in it"
    assert growth_of(wells.assign(time=np.nan), None, 0.95).empty
