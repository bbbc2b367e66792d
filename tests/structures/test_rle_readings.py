"""Other readings of run-length text, on generated cells and on every real annotation."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sartorius.structures import rle
from sartorius.structures.rle_readings import READINGS, fitting_shapes, shape_hint
from tests.rewritten import WRITTEN, discs, written

HEIGHT, WIDTH = 60, 90


@pytest.mark.parametrize("how", WRITTEN)
def test_the_way_a_file_was_written_is_found_by_the_shapes(how: str | None) -> None:
    truth = rle.parse(discs(HEIGHT, WIDTH), HEIGHT, WIDTH)
    runs = rle.parse(written(truth, how), HEIGHT, WIDTH)
    assert fitting_shapes([runs]) == how
    if how is not None:
        assert rle.format(READINGS[how](runs)) == rle.format(truth)
        assert f"F.csv: the masks seem to be {how} (" in str(shape_hint("F.csv", [runs]))


def test_nothing_is_found_in_few_runs_no_cells_and_square_images() -> None:
    assert fitting_shapes([]) is None
    assert fitting_shapes([rle.parse(["", "1 4 900 3"], HEIGHT, WIDTH)]) is None
    square = rle.parse(discs(WIDTH, WIDTH), WIDTH, WIDTH)
    turned = rle.parse(written(square, "written column by column"), WIDTH, WIDTH)
    assert fitting_shapes([square]) is fitting_shapes([turned]) is None


def test_a_run_at_the_end_of_the_image_stays_in_it() -> None:
    runs = READINGS["counted from 0"](rle.parse([f"{HEIGHT * WIDTH - 1} 2"], HEIGHT, WIDTH))
    assert (runs.start + runs.length).tolist() == [HEIGHT * WIDTH]


@pytest.mark.parametrize("how", WRITTEN)
def test_real_annotations(real_data: Path, how: str | None) -> None:
    with gzip.open(real_data / "annotations" / "train_annotations.csv.gz", "rt") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    images = [rle.parse(list(texts), 520, 704) for _, texts in table.groupby("id")["annotation"]]
    again = [rle.parse(written(runs, how), 520, 704) for runs in images]
    assert {fitting_shapes(again[k : k + 50]) for k in range(0, 500, 50)} == {how}
    if how is None:
        assert {fitting_shapes([runs]) for runs in again} == {None}
    elif "column" in how:
        assert np.mean([fitting_shapes([runs]) is not None for runs in again]) > 0.99
