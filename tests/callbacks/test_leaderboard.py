from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from sartorius.callbacks.leaderboard import record_run


def test_lines_are_added_and_a_resumed_run_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "leaderboard.csv"
    record_run(path, {"run": "a", "map": 0.1})
    record_run(path, {"run": "b", "map": 0.25, "map_astro": 0.5})
    record_run(path, {"run": "a", "map": 0.3})
    table = pd.read_csv(path)
    assert table.run.tolist() == ["b", "a"]
    assert table["map"].tolist() == [0.25, 0.3]
    assert list(table) == ["run", "map", "map_astro"]


def test_numbers_of_earlier_lines_stay_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    record_run(path, {"run": "a", "map": 0.1 + 0.2, "commit": "0012"})
    before = path.read_text().splitlines()[1]
    record_run(path, {"run": "b", "map": 1.0, "commit": "1e5"})
    assert path.read_text().splitlines()[1] == before


def add(path: Path, k: int) -> None:
    record_run(path, {"run": f"run{k}", "map": k})


def test_runs_that_end_together_all_get_a_line(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(add, [path] * 12, range(12)))
    assert sorted(pd.read_csv(path)["map"]) == list(range(12))
