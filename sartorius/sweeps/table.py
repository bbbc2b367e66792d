"""The table of a sweep's members, best first, and the mean over folds where `data.fold` was swept."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sartorius.files import write_csv, write_json
from sartorius.sweeps.members import FAILED, SweepMember

FOLD = "data.fold"  # the key whose members are averaged
_DIGITS = 9  # characters of a number from which it is printed in four digits; the files hold them all
_COLUMNS = ["member", "status", "score", "monitor", "seconds", "folder", "error"]


def varied(members: Sequence[SweepMember]) -> list[str]:
    """List the keys that the members differ in, in the order of the command; all keys of a single member."""
    keys = list(dict.fromkeys(key for member in members for key in member.options))
    if len(members) < 2:
        return keys
    return [key for key in keys if len({member.options.get(key) for member in members}) > 1]


def member_table(members: Sequence[SweepMember]) -> pd.DataFrame:
    """Tabulate one member a row: member (its number), status, score, monitor, seconds, folder, error, a column for each
    key that was varied (text), and the other numbers of the command.

    Best scores first, by each member's monitor; then those without a score, by number. A missing value is NaN or "".
    Folders are relative to the working folder.
    """
    keys = varied(members)
    numbers = dict.fromkeys(name for member in members for name in member.numbers if name != member.monitor)
    lines = [
        [
            member.number, member.status, _number(member.score), member.monitor or "", _number(member.seconds),
            os.path.relpath(member.folder) if member.folder else "", member.error or "",
            *(member.options.get(key, "") for key in keys), *(_number(member.numbers.get(name)) for name in numbers),
        ]
        for member in sorted(members, key=rank)
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=[*_COLUMNS, *keys, *numbers])


def fold_table(members: Sequence[SweepMember]) -> pd.DataFrame:
    """Average the scores over `data.fold`, a row for each choice of the other keys: those, then monitor, mean, sd
    (of the sample; NaN of one), scored, members. Best mean first; empty where folds do not vary.
    """
    keys = varied(members)
    others = [key for key in keys if key != FOLD]
    columns = [*others, "monitor", "mean", "sd", "scored", "members"]
    if FOLD not in keys:
        return pd.DataFrame(columns=columns)
    groups: dict[tuple[str, ...], list[SweepMember]] = {}
    for member in members:
        groups.setdefault(tuple(member.options.get(key, "") for key in others), []).append(member)
    lines: list[list[Any]] = []
    for choice, group in groups.items():
        scores = pd.Series([member.score for member in group if member.score is not None], dtype=float)
        monitor = next((member.monitor for member in group if member.monitor), "")
        lines.append([*choice, monitor, scores.mean(), scores.std(), len(scores), len(group)])
    lowest = members[0].mode == "min"
    return pd.DataFrame(lines, columns=columns).sort_values("mean", ascending=lowest, kind="stable", ignore_index=True)


def write_tables(folder: str | Path, members: Sequence[SweepMember]) -> None:
    """Write sweep.csv (`member_table`) and sweep.json: members in the same order, folds (`fold_table`), and counts."""
    table, folds = member_table(members), fold_table(members)
    write_csv(Path(folder) / "sweep.csv", table)
    counts = table.status.value_counts().to_dict()
    numbers = {"counts": counts, "varied": varied(members), "members": _records(table), "folds": _records(folds)}
    write_json(Path(folder) / "sweep.json", numbers)


def print_tables(members: Sequence[SweepMember], title: str) -> None:
    """Print `member_table` with the scores by cell type, if any, then `fold_table`, then each error."""
    from rich.console import Console

    table, folds = member_table(members), fold_table(members)
    monitors = [name for name in dict.fromkeys(table.monitor) if name]
    parts = [name for name in table.columns if any(name.startswith(f"{monitor}_") for monitor in monitors)]
    shown = table[["member", *varied(members), "score", *parts, "status", "seconds", "folder"]]
    shown = shown.assign(folder=shown.folder.map(os.path.basename))
    if len(monitors) > 1:
        shown = shown.assign(monitor=table.monitor)
    console = Console(width=None if Console().is_terminal else 200)
    console.print(_rich(shown, f"{title}: {', '.join(monitors) or 'no score'}"))
    if len(folds):
        console.print(_rich(folds, "mean and standard deviation over folds"))
    for line in table[table.status == FAILED].sort_values("member").itertuples():
        console.print(f"member {line.member} failed: {line.error}", markup=False, highlight=False)


def _rich(table: pd.DataFrame, title: str) -> Any:
    from rich.table import Table
    from rich.text import Text

    lines = Table(title=Text(title), title_justify="left")
    for name in table.columns:
        number = table[name].dtype.kind in "if"
        lines.add_column(Text(str(name)), justify="right" if number else "left", overflow="fold")
    for row in table.itertuples(index=False):
        lines.add_row(*(Text(_text(value, name)) for value, name in zip(row, table.columns, strict=True)))
    return lines


def _text(value: Any, name: str) -> str:
    if not isinstance(value, float):
        return _shortened(str(value))
    return "" if math.isnan(value) else f"{value:.0f}" if name == "seconds" else f"{value:.4f}"


def _shortened(text: str) -> str:
    """Print a number that a search drew in four digits."""
    try:
        return f"{float(text):.4g}" if len(text) > _DIGITS else text
    except ValueError:
        return text


def rank(member: SweepMember) -> tuple[bool, str, float, int]:
    """Return what sorts members from the best to those without a score."""
    score = math.inf if member.score is None else member.score if member.mode == "min" else -member.score
    return (member.score is None, member.monitor or "", score, member.number)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the lines for JSON, None for NaN."""
    lines = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in line.items()} for line in lines]
