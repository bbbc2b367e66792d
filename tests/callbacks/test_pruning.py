from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from sartorius.errors import InputError
from sartorius.sweeps.members import was_pruned
from sartorius.sweeps.search import Search
from sartorius.sweeps.study import open_storage
from tests.distributed.work import fit_in_search as fit

SPACE = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_run_without_prospects_is_stopped(tmp_path: Path) -> None:
    search = Search(tmp_path / "study.journal", SPACE, "max", 0, 10, {})
    (first, _), (second, _), (third, _) = search.ask(3)
    assert fit(tmp_path, first, 1.0) == [4]
    assert not was_pruned(tmp_path)
    search.study.tell(first, 4.0)
    assert search.study.trials()[first].intermediate_values == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}

    assert fit(tmp_path, second, 0.5) == [1]
    assert was_pruned(tmp_path)
    assert search.study.trials()[second].intermediate_values == {1: 0.5}

    (tmp_path / "pruned.json").unlink()
    assert fit(tmp_path, third, 0.5, epochs=1) == [1]  # it is over, so nothing was stopped
    assert not was_pruned(tmp_path)


def test_without_a_search(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study\.journal: no such search; sweep=optuna goes with -m"):
        fit(tmp_path, 0, 1.0)


def test_the_search_lies_in_one_file(tmp_path: Path) -> None:
    Search(tmp_path / "study.journal", SPACE, "min", 0, 10, {}).ask(1)
    study = optuna.load_study(study_name="sweep", storage=open_storage(tmp_path / "study.journal"))
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert len(study.trials) == 1
