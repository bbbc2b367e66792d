from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sartorius.errors import InputError
from sartorius.sweeps.members import FAILED, FINISHED, PRUNED, RUNNING, SweepMember
from sartorius.sweeps.search import Search, values_text

SPACE = {
    "x": optuna.distributions.FloatDistribution(0.0, 1.0),
    "kind": optuna.distributions.CategoricalDistribution(("a", "b")),
}


def search(folder: Path, seed: int = 0) -> Search:
    return Search(folder / "study.journal", SPACE, "max", seed, 3, {"seed": seed})


def run(searching: Search, trials: int, together: int = 1) -> list[float]:
    """Asks and tells; the score is x. Returns what was tried."""
    tried = []
    while len(searching.done()) < trials:
        for number, values in searching.ask(together):
            tried.append(values["x"])
            searching.tell(SweepMember(number, (), FINISHED, score=values["x"]))
    return tried


def test_a_search_that_is_cut_in_two_tries_the_same(tmp_path: Path) -> None:
    whole = run(search(tmp_path / "a"), 8)
    assert run(search(tmp_path / "b"), 5) + run(search(tmp_path / "b"), 8) == whole
    assert run(search(tmp_path / "c", seed=1), 3) != whole[:3]
    assert run(search(tmp_path / "a"), 8) == []


def test_numbers_are_consecutive_and_batches_differ(tmp_path: Path) -> None:
    asked = search(tmp_path).ask(4)
    assert [number for number, _ in asked] == [0, 1, 2, 3]
    assert len({values["x"] for _, values in asked}) == 4


def test_another_search_in_the_file(tmp_path: Path) -> None:
    search(tmp_path)
    with pytest.raises(InputError, match=r"study\.journal: holds a search with seed 0, and this one has 1"):
        search(tmp_path, seed=1)


def test_what_a_killed_process_leaves(tmp_path: Path) -> None:
    first = search(tmp_path)
    asked = first.ask(4)
    records = {
        0: SweepMember(0, (), FINISHED, score=0.5),
        1: SweepMember(1, (), RUNNING),
        3: SweepMember(3, (), FAILED, error="no memory"),
    }
    again = search(tmp_path)
    assert again.settle(records) == [1, 2]
    assert again.killed() == {1, 2}
    assert [trial.number for trial in again.done()] == [0, 3]
    assert search(tmp_path).settle(records) == []  # killed again before anything ran
    repeated = search(tmp_path).ask(2)
    assert [number for number, _ in repeated] == [4, 5]
    assert [values for _, values in repeated] == [asked[1][1], asked[2][1]]


def test_ends_of_trials(tmp_path: Path) -> None:
    searching = search(tmp_path)
    searching.ask(4)
    for member in (
        SweepMember(0, (), FINISHED, score=0.5),
        SweepMember(1, (), FINISHED),
        SweepMember(2, (), PRUNED, score=0.25),
        SweepMember(3, (), FAILED),
    ):
        searching.tell(member)
    state = optuna.trial.TrialState
    assert [trial.state for trial in searching.study.trials()] == [state.COMPLETE, state.FAIL, state.PRUNED, state.FAIL]
    assert len(searching.done()) == 4


def test_importances(tmp_path: Path) -> None:
    searching = search(tmp_path)
    assert searching.study.importances(list(SPACE)) == {}
    run(searching, 8)
    shares = searching.study.importances(list(SPACE))
    assert shares["x"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)


def test_values_as_options() -> None:
    assert values_text({"b": 0.1 + 0.2, "a": 3, "c": "x"}, ["a", "b", "c"]) == ("a=3", f"b={0.1 + 0.2!r}", "c=x")
