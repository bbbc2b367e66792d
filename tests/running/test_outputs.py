"""One process writes an output at a time, and a folder holds one run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from sartorius import files
from sartorius.errors import InputError
from sartorius.running import outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.detections import DetectionsFolder
from tests.fusion.members_of import found, write_folder
from tests.layers import commands
from tests.smoke.test_pipeline import ROOT, TOY
from tests.sweeps.conftest import conf, run  # noqa: F401

# Both find the same name, whatever the second in which they start.
SAME_SECOND = """
import runpy
from omegaconf import OmegaConf
from sartorius.running import wiring
OmegaConf.register_new_resolver("stamp", lambda: "now", replace=True)
runpy.run_module("tests.smoke.toy_train", run_name="__main__", alter_sys=True)
"""


def together(folder: Path, *programs: list[str]) -> list[tuple[int, str]]:
    """The exit code and stderr of Python programs that run at once."""
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    started = [
        subprocess.Popen([sys.executable, *program], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        for program in programs
    ]
    errors = [process.communicate(timeout=240)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, errors, strict=True)]


def test_two_trainings_of_one_name_have_a_folder_and_a_line_each(tiny_competition: Path, tmp_path: Path) -> None:
    options = ["trainer.accelerator=cpu", "trainer.max_epochs=1", f"data.root={tiny_competition}"]
    program = ["-c", SAME_SECOND, *TOY, *options]
    ended = together(tmp_path, program, program)
    assert [code for code, _ in ended] == [0, 0], ended
    runs = tmp_path / "runs"
    names = sorted(path.name for path in runs.iterdir() if path.is_dir())
    assert len(names) == 2 and names[1] == f"{names[0]}_2" and names[0].startswith("now_")
    assert sorted(path.name for path in runs.iterdir()) == ["leaderboard.csv", *names]
    assert sorted(pd.read_csv(runs / "leaderboard.csv").run) == [f"runs/{name}" for name in names]
    first, second = (pd.read_csv(runs / name / "batches.csv") for name in names)
    assert first.batch.tolist() == second.batch.tolist() == list(range(len(first))) != []
    for name in names:
        noted = yaml.safe_load((runs / name / ".hydra" / "hydra.yaml").read_text())
        assert Path(noted["hydra"]["runtime"]["output_dir"]) == runs / name
        assert DetectionsFolder(runs / name / "detections").image_ids()


def test_two_ensembles_at_once(tmp_path: Path) -> None:
    """The second waits a second and is refused, or comes when the first has ended, and keeps what is there."""
    images = [found([[10, 10, 30, 20]], [0.8])] * 1
    write_folder(tmp_path / "a", *images)
    program = ["-m", "sartorius.ensemble", "members=[a]", "output=joined"]
    ended = together(tmp_path, program, program)
    assert sorted(code for code, _ in ended) in ([0, 0], [0, 1]), ended
    assert all("joined: another process is writing it" in errors for code, errors in ended if code), ended
    assert DetectionsFolder(tmp_path / "joined" / "detections").image_ids() == ["image_id"]
    assert not list(tmp_path.rglob("*.lock"))


OPTIONS: dict[str, list[str]] = {
    "pseudo_label": ["detections=a"],
    "report": ["run=."],
    "submit": ["detections=a"],
    "train": ["run_dir=out"],
}


@pytest.mark.parametrize("name", commands(ROOT))
def test_an_output_that_another_process_writes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    is_file = name in ("browse", "export", "fit_filter", "plan", "pseudo_label", "report", "submit")
    out = "experiment/out.yaml" if name == "plan" else "out.html" if is_file else "out"
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose(name, [f"output={out}" if name != "train" else "run_dir=out", *OPTIONS.get(name, [])])
    with files.locked(out, inside=not is_file), pytest.raises(BlockingIOError, match="another process") as refused:
        import_module(f"sartorius.{name}").main(cfg)
    assert refused.value.filename == out
    assert not list(tmp_path.rglob("*.lock"))


def test_the_folder_of_another_command(run: Any, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    def write(cfg: Any) -> None:
        Path(cfg.output, "a.csv").write_text("")

    assert run(write) == 0
    notes = Path("here/.hydra/hydra.yaml")
    before = notes.read_text()
    assert run(write) == 0, "its own"
    notes.write_text(before.replace("config_name: small", "config_name: train"))
    assert run(write, "x=2") == 1
    assert "here: holds what `train` wrote; give another folder" in capsys.readouterr().err
    assert "- x=2" not in Path("here/.hydra/overrides.yaml").read_text()
    Path("here/a.csv").unlink()
    assert run(write, "x=2") == 0, "nothing is left of it"


def test_a_refused_command_leaves_no_folder(run: Any, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    def refuse(cfg: Any) -> None:
        if cfg.x == 2:
            Path(cfg.output, "a.csv").write_text("")
        raise InputError("not this")

    log = Path("here/small.log")
    for own in ([], ["hydra.run.dir=here"]):  # Hydra makes it
        assert run(refuse, *own) == 1 and not Path("here").exists()
    Path("here").mkdir()
    Path("here/of_others.log").write_text("")
    log.write_text("of Hydra")
    assert run(refuse, "hydra.job.name=small") == 1 and [path.name for path in Path("here").iterdir()] == [
        "of_others.log"
    ]
    assert run(refuse, "x=2") == 1, "what it wrote stays, with its notes"
    assert sorted(path.name for path in Path("here").iterdir()) == [".hydra", "a.csv", "of_others.log"]
    assert "error: not this" in capsys.readouterr().err


def test_what_a_command_checks_in_its_folder(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A failed member of a multirun begins anew in its folder, other members and single runs do not."""
    came: list[str] = []

    def check(cfg: Any) -> None:
        if list(Path(cfg.output).glob("*.csv")):
            raise InputError("a.csv is there")

    def main(cfg: Any) -> float:
        came.append(cfg.output)
        Path(cfg.output, "a.csv").write_text("")
        if len(came) == 1:
            raise InputError("not yet")
        return 1.0

    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["small", *arguments, "hydra/job_logging=none", "hydra/hydra_logging=none"])
        try:
            command("small", outputs.Output(outputs.run_folder, check=check))(main)()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert [call("-m", "x=1,2") for _ in range(2)] == [1, 0] and len(came) == 3
    assert [call("-m", "x=1,2", "seed=1,2", "hydra.sweep.dir=two", "hydra.sweep.subdir=one") for _ in range(2)] == [
        1,
        1,
    ]
    assert len(came) == 4, "one of four that share a folder"
    assert [call(), call()] == [0, 1] and len(came) == 5


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    names = [files.make_new_folder(tmp_path / "deep" / "a").name for _ in range(3)]
    assert names == ["a", "a_2", "a_3"] and (tmp_path / "deep" / "a_3").is_dir()


def test_a_sweep_named_by_the_clock_has_a_folder_of_its_own(run: Any, conf: Path) -> None:  # noqa: F811
    text = (conf / "hydra" / "small.yaml").read_text()
    (conf / "hydra" / "small.yaml").write_text(text.replace('dir: "sweep"', 'dir: "sweep_${now:%Y}"'))
    for _ in range(2):
        assert run(lambda cfg: cfg.x, "-m", "x=1,2") == 0
    first, second = sorted(Path().glob("sweep_*"))
    assert second.name == f"{first.name}_2"
    for folder in (first, second):
        assert sorted(path.name for path in folder.glob("*_x-*")) == ["0_x-1", "1_x-2"]
        assert (folder / "sweep.csv").is_file() and (folder / "multirun.yaml").is_file()


def test_a_sweep_that_runs_already(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(files, "_PATIENCE", 0.0)
    with files.locked("sweep", inside=True):
        assert run(lambda cfg: cfg.x, "-m", "x=1,2") == 1
    assert not Path("sweep/members").exists()
    assert run(lambda cfg: cfg.x, "-m", "x=1,2") == 0


def test_a_config_that_is_only_shown_makes_no_folder(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    text = (conf / "hydra" / "small.yaml").read_text()
    (conf / "hydra" / "small.yaml").write_text(text.replace("run: {dir: run}", 'run: {dir: "${output}"}'))
    for more, folders in ((["--cfg", "job", "--resolve"], []), ([], ["here"]), ([], ["here", "here_2"])):
        monkeypatch.setattr(sys, "argv", ["small", *more, "hydra/job_logging=none", "hydra/hydra_logging=none"])
        command("small")(lambda cfg: Path(cfg.output, "a.csv").write_text(""))()
        assert sorted(path.name for path in Path().glob("here*")) == folders
        HydraConfig.instance().cfg = None  # Hydra leaves it behind where it only shows
