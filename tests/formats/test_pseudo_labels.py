from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sartorius.errors import InputError
from sartorius.formats.pseudo_labels import ImageLabels, PseudoLabelFile

SETTINGS = {"min_score": {"cort": 0.7}, "detections": "a"}


def labels(image_id: str, *, agreement: bool = True, cells: int = 2) -> ImageLabels:
    texts, scores = [f"{1 + 10 * k} 5" for k in range(cells)], [0.9 - k / 4 for k in range(cells)]
    return ImageLabels(
        image_id, 48, 64, "cort", "", texts, scores, scores if agreement else None, [k > 0 for k in range(cells)], 3
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")  # type: ignore[return-value]


def detections(folder: Path, seconds_ago: float) -> Path:
    """A file of that age."""
    (path := folder / "detections" / "a.npz").parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_parts_become_the_file(tmp_path: Path) -> None:
    file = PseudoLabelFile(tmp_path / "p.csv", SETTINGS)
    for image_id in ("b", "a", "nothing"):
        file.add(labels(image_id, cells=0 if image_id == "nothing" else 2))
    made_of = detections(tmp_path, seconds_ago=9)
    assert not (tmp_path / "p.csv").exists() and file.has("a", made_of) and not file.has("c", made_of)
    assert (file.read("a").kept, file.read("a").doubtful, file.read("a").dropped) == (1, 1, 3)
    file.finish(["a", "b", "nothing"], agreement=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections", "p.csv"]
    found = rows(tmp_path / "p.csv")
    assert [row["id"] for row in found] == ["a", "a", "b", "b"]
    about = {"width": "64", "height": "48", "cell_type": "cort", "sample_id": ""}
    assert found[1] == {
        "id": "a", "annotation": "11 5", **about, "score": "0.65", "agreement": "0.65", "ignore": "true",
    }  # fmt: skip
    assert found[0]["ignore"] == "false"


def test_without_agreement_there_is_no_such_column(tmp_path: Path) -> None:
    file = PseudoLabelFile(tmp_path / "p.csv", SETTINGS)
    file.add(labels("a", agreement=False))
    file.finish(["a"], agreement=False)
    assert "agreement" not in rows(tmp_path / "p.csv")[0]


def test_parts_of_a_stopped_run_are_taken_up_or_refused(tmp_path: Path) -> None:
    PseudoLabelFile(tmp_path / "p.csv", SETTINGS).add(labels("a"))
    assert PseudoLabelFile(tmp_path / "p.csv", dict(SETTINGS)).has("a", detections(tmp_path, seconds_ago=9))
    assert not PseudoLabelFile(tmp_path / "p.csv", SETTINGS).has("a", detections(tmp_path, seconds_ago=-9))
    with pytest.raises(InputError, match="made with another min_score; delete that folder"):
        PseudoLabelFile(tmp_path / "p.csv", {**SETTINGS, "min_score": 0.5})
    PseudoLabelFile(tmp_path / "p.csv", SETTINGS).discard()
    assert not PseudoLabelFile(tmp_path / "p.csv", {**SETTINGS, "min_score": 0.5}).has("a", detections(tmp_path, 9))


def test_damaged_parts_are_named(tmp_path: Path) -> None:
    file = PseudoLabelFile(tmp_path / "p.csv", SETTINGS)
    part = file.add(labels("a")) or next(file.parts.glob("a*"))
    for text in ("{", '{"image": "a"}'):
        part.write_text(text)
        with pytest.raises(InputError, match=r"a\.part\.json: (damaged|not valid JSON) .*; delete it and run again"):
            file.read("a")
    (file.parts / "settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings\.json: not valid JSON"):
        PseudoLabelFile(tmp_path / "p.csv", SETTINGS)
