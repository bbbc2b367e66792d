from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sartorius.errors import InputError
from sartorius.sweeps.members import FAILED, FINISHED, read_member
from sartorius.sweeps.space import distribution


def table() -> pd.DataFrame:
    return pd.read_csv("sweep/sweep.csv", keep_default_na=False)


def square(cfg: Any) -> float:
    return 1.0 - (cfg.x - 1.0) ** 2 - 0.1 * cfg.data.fold


def test_a_grid_ends_in_a_table_and_a_plot(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(square, "-m", "x=0,1", "data.fold=0,1", "data.root=there") == 0
    found = table()
    assert found.member.tolist() == [2, 3, 0, 1]  # best first
    assert found.score.tolist() == pytest.approx([1.0, 0.9, 0.0, -0.1])
    assert found.x.tolist() == [1, 1, 0, 0]
    assert "data.root" not in found
    assert [Path(folder).name for folder in found.folder] == [
        "2_data.fold-0_x-1", "3_data.fold-1_x-1", "0_data.fold-0_x-0", "1_data.fold-1_x-0",
    ]  # fmt: skip
    report = json.loads(Path("sweep/sweep.json").read_text())
    assert report["counts"] == {"finished": 4}
    assert [fold["mean"] for fold in report["folds"]] == pytest.approx([(1.0 + 0.9) / 2, (0.0 - 0.1) / 2])
    assert Path("sweep/plots/sweep.png").stat().st_size > 1000
    output = capsys.readouterr().out
    assert "mean and standard deviation over folds" in output
    assert "table and plot in sweep" in output


def test_members_that_fail_are_named_and_the_others_go_on(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def main(cfg: Any) -> float:
        if cfg.x == 1:
            raise InputError("x=1: no such x")
        if cfg.x == 2:
            raise ZeroDivisionError("bug")
        return float(cfg.x)

    assert run(main, "-m", "x=1,2,3,4") == 1
    found = table().set_index("member")
    assert found.status.to_dict() == {0: FAILED, 1: FAILED, 2: FINISHED, 3: FINISHED}
    assert found.error[0] == "x=1: no such x"
    assert found.error[1].startswith("ZeroDivisionError: bug (test_sweepers.py, line ")
    output = capsys.readouterr()
    assert "error: x=1: no such x\n" in output.err
    assert "Traceback" in output.err  # of the bug
    assert "member 0 failed: x=1: no such x" in output.out


def test_a_grid_over_a_group_and_without_it(run: Any, conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (conf / "extra").mkdir()
    (conf / "extra" / "some.yaml").write_text("_target_: builtins.dict\n")
    small = conf / "small.yaml"
    small.write_text(small.read_text().replace("  - _self_", "  - _self_\n  - extra: null") + "extra: null\n")
    came: list[bool] = []
    assert run(lambda cfg: came.append(cfg.extra is None) or 0.5, "-m", "extra=null,some") == 0
    assert came == [True, False]
    table = capsys.readouterr().out
    assert "null" in table and "some" in table


def test_a_grid_in_batches(run: Any) -> None:
    assert run(square, "-m", "x=0,1,2", "hydra.sweeper.max_batch_size=2") == 0
    assert sorted(table().member) == [0, 1, 2]


def test_a_grid_goes_on_where_it_was(run: Any) -> None:
    seen = []

    def main(cfg: Any) -> float:
        seen.append(cfg.x)
        if cfg.x == 2 and len(seen) < 4:
            raise InputError("not yet")
        return float(cfg.x)

    assert run(main, "-m", "x=1,2,3") == 1
    assert run(main, "-m", "x=1,2,3") == 0
    assert seen == [1, 2, 3, 2]
    assert table().status.tolist() == [FINISHED] * 3
    assert run(main, "-m", "x=4,2") == 0  # another sweep in the folder
    assert seen == [1, 2, 3, 2, 4]
    assert table().member.tolist() == [0, 1]


def test_a_member_that_was_killed_goes_on_from_its_checkpoint(run: Any) -> None:
    """Ctrl-C leaves what a kill leaves; a member that failed begins anew."""
    seen = []

    def main(cfg: Any) -> float:
        seen.append((cfg.x, cfg.ckpt_path))
        last = Path(cfg.output) / "checkpoints" / "last.ckpt"
        last.parent.mkdir(parents=True, exist_ok=True)
        last.touch()
        if len(seen) == 1:
            raise InputError("not yet")
        if len(seen) == 2:
            raise KeyboardInterrupt
        return float(cfg.x)

    assert run(main, "-m", "x=1,2,3") == 130
    assert run(main, "-m", "x=1,2,3") == 0
    last = str(Path("sweep/1_x-2/checkpoints/last.ckpt").absolute())
    assert seen == [(1, None), (2, None), (1, None), (2, last), (3, None)]
    assert table().score.tolist() == [3.0, 2.0, 1.0]


def test_ctrl_c_leaves_the_table(run: Any) -> None:
    def main(cfg: Any) -> float:
        if cfg.x == 2:
            raise KeyboardInterrupt
        return float(cfg.x)

    assert run(main, "-m", "x=1,2,3") == 130
    assert table().set_index("member").status.to_dict() == {0: FINISHED, 1: "stopped", 2: "waiting"}


def test_a_member_alone_is_the_same(run: Any) -> None:
    import numpy as np

    from sartorius.running.building import seed_everything

    def main(cfg: Any) -> float:
        seed_everything(cfg.seed)
        score = float(np.random.rand()) + cfg.x  # noqa: NPY002
        assert run_alone.setdefault((cfg.seed, cfg.x), score) == score
        return score

    run_alone: dict[Any, float] = {}
    assert run(main, "x=2", "seed=1") == 0
    assert run(main, "-m", "x=1,2", "seed=0,1") == 0
    assert len(run_alone) == 4


def test_numbers_by_name_and_no_score(run: Any) -> None:
    def main(cfg: Any) -> dict[str, Any]:
        return {"score": float("nan") if cfg.x == 1 else 0.5, "score_astro": 0.25, "interval": [0, 1], "name": "a"}

    assert run(main, "-m", "x=1,2") == 0
    found = table()
    assert found.score.tolist() == ["0.5", ""]
    assert found.score_astro.tolist() == [0.25, 0.25]
    assert "interval" not in found


def test_lowest_first_where_the_mode_says_so(run: Any) -> None:
    assert run(lambda cfg: float(cfg.x), "-m", "x=3,1,2", "mode=min") == 0
    assert table().x.tolist() == [1, 2, 3]


def test_members_write_into_their_own_folder(run: Any, tmp_path: Path) -> None:
    outputs = []
    assert run(lambda cfg: outputs.append(cfg.output), "-m", "x=1,2") == 0
    assert outputs == [str(tmp_path / "sweep" / name) for name in ("0_x-1", "1_x-2")]
    assert run(lambda cfg: outputs.append(cfg.output)) == 0
    assert outputs[-1] == "here"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["x=1,2", "y=1"], "error: Could not override 'y'."),
        (["x=interval(1,2)"], "error: x=interval(1,2): a grid takes single values"),
        (["hydra=small,nosuch", "hydra.sweeper.max_batch_size=1"], "Could not find 'hydra/nosuch'"),
        (["sweep=search", "x=1"], "error: nothing to search"),
        (["sweep=search", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected a whole number of at least 1"),
        (["sweep=search", "hydra.sweeper.n_trials=abc"], "hydra.sweeper.n_trials: expected a whole number"),
        (["sweep=search", "hydra.sweeper.seed=-1"], "hydra.sweeper.seed: expected a whole number from 0 to"),
        (["sweep=search", "hydra.sweeper.elsewhere=5"], "hydra.sweeper.elsewhere: expected a list"),
        (["x=1,2", "hydra.sweeper.max_batch_size=0"], "hydra.sweeper.max_batch_size: expected a whole number"),
        (["x=1,2", "hydra.sweeper.params=5"], "hydra.sweeper.params: expected a mapping of keys to values"),
        (["sweep=search", "x=tag(log,interval(-1,1))"], "error: x=tag(log,interval(-1,1)): "),
    ],
)
def test_bad_sweeps(run: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert run(square, "-m", *arguments) == 1
    assert line in capsys.readouterr().err
    assert not Path("sweep/members").exists()


SEARCH = ["-m", "sweep=search", "hydra.sweeper.n_trials=6"]


def test_a_search_finds_the_best_and_goes_on(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[float] = []

    def main(cfg: Any) -> float:
        seen.append(cfg.x)
        return square(cfg)

    assert run(main, *SEARCH) == 0
    assert len(set(seen)) == 6
    assert all(0 <= x <= 2 for x in seen)
    assert Path("sweep/plots/sweep.png").is_file()
    assert table().member.tolist() == sorted(range(6), key=lambda n: abs(seen[n] - 1))
    first, seen[:] = seen.copy(), []

    assert run(main, *SEARCH) == 0  # nothing is left to do
    assert seen == []
    assert run(main, *SEARCH[:2], "hydra.sweeper.n_trials=8", "data.root=elsewhere") == 0
    assert len(seen) == 2
    assert "6 of 8 trials are there" in capsys.readouterr().out

    longer, seen[:] = first + seen, []
    options = ["hydra.sweep.dir=other", "hydra.sweeper.n_trials=8"]
    assert run(main, *SEARCH[:2], *options) == 0
    assert seen == longer  # stopped or not


def test_a_search_of_other_things_is_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(square, *SEARCH) == 0
    for other, line in (("seed=3", "fixed options"), ("x=interval(0,5)", "space"), ("mode=min", "fixed options")):
        assert run(square, *SEARCH, other) == 1
        assert f"study.journal: holds a search with {line}" in capsys.readouterr().err


def test_trials_that_fail_or_score_nothing_count(run: Any) -> None:
    def main(cfg: Any) -> float:
        if cfg.x > 1.2:
            raise InputError("too large")
        return float("nan") if cfg.x < 0.5 else cfg.x

    assert run(main, *SEARCH) == 1
    assert set(table().status) == {FAILED, FINISHED}
    assert len(table()) == 6


def test_a_trial_that_was_killed_is_repeated(run: Any) -> None:
    """What SIGKILL leaves behind: a running trial, with the record of a running member or none."""
    from sartorius.sweeps.study import open_storage

    assert run(square, *SEARCH) == 0
    import optuna

    study = optuna.load_study(study_name="sweep", storage=open_storage("sweep/study.journal"))
    lost = study.ask({"x": optuna.distributions.FloatDistribution(0.0, 2.0)})
    assert lost.number == 6
    assert run(square, *SEARCH[:2], "hydra.sweeper.n_trials=8") == 0
    assert sorted(table().member) == [0, 1, 2, 3, 4, 5, 7, 8]
    again = read_member("sweep", 7)
    assert again is not None
    assert float(again.options["x"]) == lost.params["x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(1,4)", "FloatDistribution(high=4.0, log=False, low=1.0, step=None)"),
        ("int(interval(1,4))", "IntDistribution(high=4, log=False, low=1, step=1)"),
        ("tag(log,interval(1e-5,1))", "FloatDistribution(high=1.0, log=True, low=1e-05, step=None)"),
        ("range(1,9,2)", "IntDistribution(high=7, log=False, low=1, step=2)"),
        ("range(0,1,0.5)", "CategoricalDistribution(choices=('0.0', '0.5'))"),
        ("a,b", "CategoricalDistribution(choices=('a', 'b'))"),
        ("choice([1],[1,2])", "CategoricalDistribution(choices=('[1]', '[1,2]'))"),
    ],
)
def test_words_of_the_command_line_as_distributions(text: str, expected: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"x={text}"])
    assert str(distribution(override)) == expected
