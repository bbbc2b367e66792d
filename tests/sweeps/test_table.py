from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from sartorius.sweeps.members import FAILED, FINISHED, PRUNED, SweepMember
from sartorius.sweeps.plot import draw_search, draw_sweep
from sartorius.sweeps.table import fold_table, member_table, print_tables, varied, write_tables


def members(scores: dict[tuple[str, int], float | None], mode: str = "max") -> list[SweepMember]:
    """One member a (learning rate, fold)."""
    return [
        SweepMember(
            n, (f"lr={lr}", f"data.fold={fold}", "debug=fast"), FAILED if score is None else FINISHED, "val/map", mode,
            score, error="no memory" if score is None else None,
        )
        for n, ((lr, fold), score) in enumerate(scores.items())
    ]  # fmt: skip


TWO = {("1e-3", 0): 0.2, ("1e-3", 1): 0.4, ("1e-4", 0): 0.5, ("1e-4", 1): None}


def test_best_first_and_failures_last() -> None:
    table = member_table(members(TWO))
    assert table.member.tolist() == [2, 1, 0, 3]
    assert table.score.tolist()[:3] == [0.5, 0.4, 0.2]
    assert math.isnan(table.score[3])
    assert table.error.tolist() == ["", "", "", "no memory"]
    assert member_table(members(TWO, "min")).member.tolist() == [0, 1, 2, 3]


def test_only_what_varies_is_a_column() -> None:
    assert varied(members(TWO)) == ["lr", "data.fold"]
    assert varied(members(TWO)[:1]) == ["lr", "data.fold", "debug"]  # one member: everything
    assert varied([]) == []
    assert member_table([]).empty


def test_means_over_folds() -> None:
    table = fold_table(members(TWO))
    assert table["lr"].tolist() == ["1e-4", "1e-3"]
    assert table["mean"].tolist() == pytest.approx([0.5, (0.2 + 0.4) / 2])
    assert table.sd[1] == pytest.approx(math.sqrt(2 * 0.1**2))
    assert math.isnan(table.sd[0])
    assert table.scored.tolist() == [1, 2]
    assert table.members.tolist() == [2, 2]
    assert fold_table(members(TWO, "min")).lr.tolist() == ["1e-3", "1e-4"]
    assert fold_table(members({("1", 0): 0.1, ("2", 0): 0.2})).empty


def test_files_and_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(tmp_path, members(TWO))
    assert pd.read_csv(tmp_path / "sweep.csv").member.tolist() == [2, 1, 0, 3]
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert report["varied"] == ["lr", "data.fold"]
    assert report["members"][3]["score"] is None
    assert report["folds"][0]["sd"] is None
    print_tables(members(TWO), "sweep [of two]")
    output = capsys.readouterr().out
    assert "sweep [of two]: val/map" in output
    assert "member 3 failed: no memory" in output


@pytest.mark.parametrize(
    "scores",
    [
        TWO,
        {("a", 0): 0.2, ("b", 0): 0.1},
        {("a", 0): 0.2, ("b", 1): 0.1},
        {("1", 0): 0.0},
        {("0", 0): 0.1, ("9", 0): 0.2},
    ],
)
def test_every_grid_can_be_drawn(tmp_path: Path, scores: dict[tuple[str, int], float | None]) -> None:
    assert draw_sweep(members(scores), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_nothing_to_draw(tmp_path: Path) -> None:
    failed = members({("1", 0): None})
    assert not draw_sweep(failed, tmp_path / "a.png")
    assert not draw_search(failed, ["lr"], {}, tmp_path / "a.png")
    assert not draw_sweep([], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("importances", [{}, {"lr": 0.75, "body": 0.25}])
def test_searches_are_drawn(tmp_path: Path, importances: dict[str, float]) -> None:
    found = [
        SweepMember(n, (f"lr={10.0**-n}", f"body={'ab'[n % 2]}"), PRUNED if n == 2 else FINISHED, "m", "max", n * 0.1)
        for n in range(4)
    ]
    assert draw_search(found, ["lr", "body"], importances, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
