"""Two processes on the CPU (gloo): scores are those of one, and all stop and go on at the same batch."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from sartorius.errors import InputError
from sartorius.running import processes
from sartorius.sweeps.members import was_pruned
from sartorius.sweeps.search import Search
from tests.distributed import work

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def find_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_scores_are_those_of_one_process_and_a_search_stops_both(tiny_competition: Path, tmp_path: Path) -> None:
    """Two processes, started once: three images, one of which the sampler repeats, and a trial that is given up."""
    search = Search(tmp_path / "study.journal", {"x": FloatDistribution(0.0, 1.0)}, "max", 0, 10, {})
    (good, _), (bad, _) = search.ask(2)
    assert work.fit_in_search(tmp_path, good, 1.0) == [4]
    search.study.tell(good, 4.0)
    calls = [
        (work.validate, [tiny_competition, tmp_path / "two", 2]),
        (work.fit_in_search, [tmp_path, bad, 0.5, 4, 2]),
    ]
    two, epochs = processes.launch(work.in_turn, [calls], 2)

    one = work.validate(tiny_competition, tmp_path / "one", 1)
    assert len(one["rows"]) == 3 and one["logged"]["val/map"] > 0
    assert two == one
    for kind, names in (("detections", ["meta.json", *(f"{name}.npz" for name in one["images"])]), ("overlays", [])):
        files = [sorted((tmp_path / folder / kind).iterdir()) for folder in ("one", "two")]
        assert [file.name for file in files[0]] == [file.name for file in files[1]]
        assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
        assert not names or [file.name for file in files[1]] == sorted(names)

    assert epochs == [1, 1]  # by the first process's score, the only one that the search hears of
    assert was_pruned(tmp_path)
    assert search.study.trials()[bad].intermediate_values == {1: 0.5}


def fit(root: Path, folder: Path, count: int, *options: Any, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = processes.launch(work.fit_with, [root, folder, count, options, more], count)
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "signum", "batch"),
    [(1, signal.SIGINT, 2), (0, signal.SIGTERM, 8)],  # of 9 batches; gradients of two are added up
)
def test_a_signal_to_one_process_stops_both_and_nothing_is_lost(
    tiny_competition: Path, tmp_path: Path, number: int, signum: int, batch: int
) -> None:
    whole = fit(tiny_competition, tmp_path / "whole", 2)
    assert len(whole["seen"]) == 3 * 9  # 9 images twice, half of them here
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_competition, tmp_path / "part", 2, work.Signal(1, batch, number, signum))
    resumed = fit(tiny_competition, tmp_path / "part", 2, resume=True)
    assert resumed["level"] == whole["level"]
    assert resumed["seen"] == whole["seen"][{2: 9 + 4, 8: 18}[batch] :]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [1, 2])
def test_a_kill_costs_the_steps_since_the_last_file(tiny_competition: Path, tmp_path: Path, count: int) -> None:
    """A file every two steps of two batches: the one after the fourth batch of the second epoch is the last one."""
    whole = fit(tiny_competition, tmp_path / "whole", count)
    with pytest.raises(InputError, match="killed"):
        fit(tiny_competition, tmp_path / "part", count, work.Signal(1, 6), every_n_steps=2)
    resumed = fit(tiny_competition, tmp_path / "part", count, resume=True)
    assert resumed["level"] == whole["level"]
    kept = len(whole["seen"]) - len(resumed["seen"])
    assert kept > len(whole["seen"]) // 3  # the first epoch, and some of the second
    assert resumed["seen"] == whole["seen"][kept:]
