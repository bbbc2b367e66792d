from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sartorius.synthetic.cells import POPULATIONS
from sartorius.synthetic.competition import write_synthetic_competition
from sartorius.synthetic.neurites import add_neurites, link_path
from sartorius.synthetic.optics import IMAGING, bodies, middle
from sartorius.synthetic.placement import place_cells

SCRIPT = Path(__file__).parents[2] / "experiments" / "compare_generated.py"


def test_a_link_begins_and_ends_where_asked() -> None:
    start, end = np.array([3.0, 4.0]), np.array([60.0, 20.0])
    path = link_path(np.random.default_rng(0), start, end, 1.0)
    np.testing.assert_allclose(path[[0, -1]], [start, end], atol=1e-9)
    assert np.hypot(*np.diff(path, axis=0).T).max() < 12


@pytest.mark.parametrize("cell_type", ["cort", "shsy5y"])
def test_neurites_reach_the_cells_and_show_little_over_them(cell_type: str) -> None:
    rng = np.random.default_rng(0)
    cells = place_cells(rng, POPULATIONS[cell_type], np.full(20, 200.0), 200, 240)
    field = np.zeros((200, 240), np.float32)
    add_neurites(rng, field, np.zeros_like(field), cells, IMAGING[cell_type])
    covered = bodies(cells, 200, 240)
    assert field.min() == 0
    assert field[covered].max() <= 0.16 * IMAGING[cell_type].neurite_thickness
    around = ndimage.binary_dilation(covered, iterations=3) & ~covered
    assert (field[around] > 0).mean() > (field[~around & ~covered] > 0).mean()


@pytest.mark.parametrize("count", [0, 1])
def test_few_cells_are_no_fault(count: int) -> None:
    rng = np.random.default_rng(0)
    cells = place_cells(rng, POPULATIONS["shsy5y"], np.full(count, 200.0), 64, 64)
    field = np.zeros((64, 64), np.float32)
    add_neurites(rng, field, np.zeros_like(field), cells, IMAGING["shsy5y"])
    assert np.isfinite(field).all()
    assert all(np.isfinite(middle(cell)).all() for cell in cells)


def test_a_folder_compared_with_itself_has_equal_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {"cort": 2, "shsy5y": 1, "astro": 1}
    folder = str(write_synthetic_competition(tmp_path / "a", 0, images, test=0, height=160, width=160))
    monkeypatch.setattr(sys, "argv", ["compare_generated.py", folder, folder])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert {row[0] for row in rows} == set(images)
    assert len(rows) >= 3 * 20
    assert all(row[-1] == row[-2] for row in rows)
