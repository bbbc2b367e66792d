from __future__ import annotations

from pathlib import Path

import pytest

from sartorius.errors import InputError
from sartorius.sweeps.members import (
    FINISHED,
    WAITING,
    SweepMember,
    mark_pruned,
    read_member,
    read_members,
    result,
    was_pruned,
    write_member,
)

MEMBER = SweepMember(3, ("a=1", "+b.c=[x=1]"), FINISHED, "val/map", "max", 0.25, {"n": 2.0}, 1.5, "/runs/3", None)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    write_member(tmp_path, MEMBER)
    assert read_member(tmp_path, 3) == MEMBER
    assert read_member(tmp_path, 4) is None


def test_options() -> None:
    assert MEMBER.options == {"a": "1", "+b.c": "[x=1]"}
    assert SweepMember(0, ()).options == {}


def test_a_record_of_another_sweep_is_not_ours(tmp_path: Path) -> None:
    write_member(tmp_path, MEMBER)
    found = read_members(tmp_path, [(3, ["a=1", "+b.c=[x=1]"]), (4, ["a=2"])])
    assert found == [MEMBER, SweepMember(4, ("a=2",))]
    assert read_members(tmp_path, [(3, ["a=2"])])[0].status == WAITING
    assert read_members(tmp_path, []) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"number": 1}', '{"number": 1, "overrides": [], "colour": "red"}'])
def test_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "members").mkdir()
    (tmp_path / "members" / "1.json").write_text(text)
    with pytest.raises(
        InputError, match=r"1\.json: (expected the record of a sweep's member|not valid JSON).*to run it again"
    ):
        read_member(tmp_path, 1)


def test_results() -> None:
    member = SweepMember(0, (), monitor="map")
    assert result(member, 0.5).score == 0.5
    assert result(member, float("nan")).score is None
    assert result(member, None).score is None
    assert result(member, True).score is None
    named = result(member, {"map": 0.25, "cells": 3, "interval": [0, 1], "best": float("inf")})
    assert (named.score, named.numbers) == (0.25, {"map": 0.25, "cells": 3.0})
    assert result(member, {"iou": 0.5}).score is None


def test_pruned_runs_say_so(tmp_path: Path) -> None:
    assert not was_pruned(tmp_path)
    mark_pruned(tmp_path, {"epochs": 2})
    assert was_pruned(tmp_path)
    mark_pruned(tmp_path, None)
    assert not was_pruned(tmp_path)
