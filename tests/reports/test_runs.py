"""What is read of a run's folder, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.reports.runs import flattened, names_of, read_run
from tests.reports.folders import write_run


def test_all_of_a_run(tiny_competition: Path, tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", tiny_competition, ["cort01"]), "a")
    assert run.get("data", "root") == str(tiny_competition) and run.git["commit"].startswith("01234")
    assert run.curves.columns.tolist()[:2] == ["epoch", "step"] and run.batches.empty and run.table is None
    assert run.detections == (tmp_path / "a" / "detections",) and run.notes == ()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "per_image.csv").write_text("image_id,average_precision\n007,0.5\n")
    run = read_run(tmp_path, "scores")
    assert run.table is not None and run.table.image_id.tolist() == ["007"], "an id is a text"
    assert [note.split(":")[0] for note in run.notes] == [
        "no metrics.csv with numbers", "no detections", "no config.yaml",
    ]  # fmt: skip


def test_a_folder_of_evaluate_names_its_detections(tiny_competition: Path, tmp_path: Path) -> None:
    of = write_run(tmp_path / "a", tiny_competition, ["cort01"])
    (tmp_path / "e" / ".hydra").mkdir(parents=True)
    config = tmp_path / "e" / ".hydra" / "config.yaml"
    config.write_text(f"detections: [{of}/detections]\ndata: {{root: '${{paths.x}}'}}\n")
    run = read_run(tmp_path / "e", "e")
    assert run.detections == (of / "detections",) and run.get("data", "root") is None, "an interpolation is no value"
    assert read_run(of / "detections", "d").detections == (of / "detections",), "the folder of detections itself"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("metrics.json", "{", "not valid JSON"), ("metrics.json", "[1]", "expected an object"),
     ("config.yaml", "a: [", "not valid YAML"), ("per_image.csv", "a,b\n1,2\n", "expected columns image")],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_run(tmp_path, "x")


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run=.*: nothing to report in it; expected .* detections/"):
        read_run(tmp_path, "x")
    with pytest.raises(InputError, match="no such folder"):
        read_run(tmp_path / "no", "x")


def test_short_names_that_differ() -> None:
    assert names_of(["runs/a"]) == ["a"] and names_of(["runs/a/", "other/b"]) == ["a", "b"]
    assert names_of(["runs/x/fold0", "runs/y/z/fold0"]) == [os.path.join("x", "fold0"), os.path.join("y", "z", "fold0")]
    with pytest.raises(InputError, match="named twice"):
        names_of(["runs/a", "runs/../runs/a"])


def test_a_config_as_lines() -> None:
    config = {"a": {"b": None, "c": [1, 2]}, "d": [{"e": True}, {"e": "x"}], "f": {}, "g": 0.5}
    assert list(flattened(config)) == [
        ("a.b", "null"), ("a.c", "[1, 2]"), ("d[0].e", "true"), ("d[1].e", "x"), ("f", "{}"), ("g", "0.5"),
    ]  # fmt: skip
