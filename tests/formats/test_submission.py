from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sartorius.errors import InputError
from sartorius.formats.submission import HEADER, read_rows, read_submission, validate_submission, write_submission
from tests.bad_ids import BAD_IDS

SIZES = {"a": (10, 20), "b": (10, 20)}


@pytest.fixture
def check(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Validate lines under the header; returns (line, rule) pairs."""

    def run(*lines: str, sizes: object = SIZES, header: str = "id,predicted") -> list[tuple[int, str]]:
        path = tmp_path / "submission.csv"
        path.write_text("\n".join([header, *lines]) + "\n")
        return [(problem.line, problem.rule) for problem in validate_submission(path, sizes)]  # type: ignore[arg-type]

    return run


def test_round_trip(tmp_path: Path) -> None:
    rows = {"b": ["1 2 5 1", "9 3"], "a": [], "0123": ["7 1"]}
    write_submission(tmp_path / "s.csv", rows)
    assert read_submission(tmp_path / "s.csv") == rows
    assert list(rows) == list(read_submission(tmp_path / "s.csv"))
    assert (tmp_path / "s.csv").read_text() == "id,predicted\nb,1 2 5 1\nb,9 3\na,\n0123,7 1\n"
    assert validate_submission(tmp_path / "s.csv") == []
    frame = pd.read_csv(tmp_path / "s.csv", dtype=str)  # what the competition's reader sees
    assert tuple(frame.columns) == HEADER and frame.predicted.isna().tolist() == [False, False, True, False]


def test_no_images_at_all(tmp_path: Path) -> None:
    write_submission(tmp_path / "s.csv", {})
    assert read_submission(tmp_path / "s.csv") == {} and validate_submission(tmp_path / "s.csv") == []


def test_valid_lines_have_no_problems(check) -> None:  # type: ignore[no-untyped-def]
    assert check("a,1 2 5 1", "b,", "a,3 2 200 1") == []
    assert check("zzz,1 366080", sizes=None) == []  # 520 x 704, the last pixel included


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("1 2 5", "pairs"),
        ("0 2", "counted from 1"),
        ("1 0", "length"),
        ("200 2", "past the end"),
        ("9 2 1 2", "sorted"),
        ("1 5 3 2", "sorted"),
        ("1 x", "whole number"),
        ("1.0 2", "whole number"),
        ("\u0661 \u0662", "whole number"),
        ("9223372036854775800 9223372036854775800", "past the end"),
    ],
)
def test_bad_masks_are_found_by_line(tmp_path: Path, text: str, detail: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"id,predicted\na,150 1\na,{text}\nb,\n")
    (problem,) = validate_submission(path, SIZES)
    assert (problem.line, problem.rule, problem.image_id) == (3, "bad mask", "a")
    assert detail in problem.detail and str(problem).startswith("line 3: bad mask: image a")


def test_every_problem_is_listed_by_line(check) -> None:  # type: ignore[no-untyped-def]
    found = check("a,1 2", "a,2 2", "c,1 1", "a,", "a,1 2", "a,9 9 1 1", "a,5 2 9", "a,1 2,3")
    assert found == [
        (3, "overlap"), (4, "unknown id"), (5, "empty row"), (6, "duplicate row"),
        (7, "bad mask"), (8, "bad mask"), (9, "columns"), (0, "missing id"),
    ]  # fmt: skip


def test_overlap_names_both_lines_and_the_pixels(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,predicted\nb,1 5\na,1 5\na,10 3\na,4 3 12 1\n")
    details = [problem.detail for problem in validate_submission(tmp_path / "s.csv")]
    assert details == [
        "shares 2 pixels with line 3, image a; a pixel belongs to one cell",
        "shares 1 pixels with line 4, image a; a pixel belongs to one cell",
    ]


@pytest.mark.parametrize("header", ["id,annotation", "predicted,id", "id;predicted", "", "a,1 2"])
def test_a_wrong_header_is_line_1(check, header: str) -> None:  # type: ignore[no-untyped-def]
    assert check("a,1 2", header=header) == [(1, "header")]


def test_column_order_of_a_wide_image_runs_past_no_end_but_sizes_do(check) -> None:  # type: ignore[no-untyped-def]
    assert check("a,190 20", "b,") == [(2, "bad mask")]


def test_limit(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,predicted\n" + "a,1\n" * 3 + "".join(f"a,{k}\n" for k in range(2, 90)))
    assert len(validate_submission(tmp_path / "s.csv", limit=7)) == 7


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        validate_submission(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(np.arange(256, dtype=np.uint8)))
    with pytest.raises(InputError, match="not a csv file"):
        read_rows(tmp_path / "binary.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="line 1: header: expected id,predicted, found an empty file"):
        read_rows(tmp_path / "empty.csv")


def test_a_mask_longer_than_pythons_limit_is_read(tmp_path: Path) -> None:
    text = " ".join(f"{start} 1" for start in range(1, 40_000, 2))
    assert len(text) > 131_072
    write_submission(tmp_path / "s.csv", {"a": [text]})
    assert read_submission(tmp_path / "s.csv") == {"a": [text]}
    assert validate_submission(tmp_path / "s.csv") == []


@pytest.mark.parametrize("bad", BAD_IDS)
def test_bad_ids_are_problems_of_their_lines(tmp_path: Path, bad: str) -> None:
    write_submission(tmp_path / "s.csv", {"a": ["1 2"], bad: ["1 2"], "b": []})
    with pytest.raises(InputError, match=r"s.csv: line \d: bad id: .*image id"):
        read_rows(tmp_path / "s.csv")
    assert [problem.rule for problem in validate_submission(tmp_path / "s.csv")] == ["bad id"]


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes("\ufeffid,predicted\r\na,1 2\r\n\r\nb,\r\n".encode())
    assert read_submission(tmp_path / "s.csv") == {"a": ["1 2"], "b": []}
    assert [row.line for row in read_rows(tmp_path / "s.csv")] == [2, 4]
