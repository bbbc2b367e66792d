"""Wrong settings on the command lines of all commands, and names with special characters in a real shell."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from sartorius.errors import InputError
from sartorius.running import wiring
from sartorius.running.settings.typed import as_typed

Run = Callable[[str, list[str]], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in an empty folder, until it ends with 1; returns its one line of error."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, arguments: list[str]) -> str:
        HydraConfig.instance().cfg = None
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(f"sartorius.{name}").main()
        line = capfd.readouterr().err
        assert end.value.code == 1
        assert line.count("\n") == 1
        return line.strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        ("train data.num_workers=-1", "data.num_workers", "a whole number from 0 to 1024, got -1"),
        ("train data.batch_size=0", "data.batch_size", "a whole number from 1 to 65536, got 0"),
        ("train seed=abc", "seed", "a whole number from 0 to 4294967295, got 'abc'"),
        ("train trainer.precision=abc", "trainer.precision", "one of auto, 32-true, bf16-mixed"),
        ("train optimizer.lr=nan", "optimizer.lr", "a number above 0, up to 1000, got nan"),
        ("train transform.crop.height=0", "transform.crop.height", "a whole number from 1 to 65536, or null, got 0"),
        ("train model=unet_effb0 model.network.channels=[0,0,0]", "model.network.channels", "a list with each entry"),
        ("train trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches", "a whole number from 1"),
        ("train trainer.devices=2x", "trainer.devices", "a whole number from 1"),
        ("train trainer.max_time=5", "trainer.max_time", "a time DD:HH:MM:SS, or null, got 5"),
        ("train transform.crop=5", "transform.crop", "a group of settings, or null, got 5"),
        ("train model._target_=5", "model._target_", "the full name of a class or function, got 5"),
        ("train model=unet_effb0 model.dice=-1", "model.dice", "a number from 0 to 1, got -1"),
        ("train transform.transforms.affine.p=1.5", "transform.transforms.affine.p", "a number from 0 to 1, got 1.5"),
        ("train optimizer.lr={a: 1}", "optimizer.lr", "a number above 0"),
        ("train sweep=null callbacks.early_stopping.patience=null", "callbacks.early_stopping.patience", "a whole"),
        ("browse samples=0", "samples", "a whole number from 1"),
        ("prepare n_folds=2.5", "n_folds", "a whole number from 2 to 1000000, got 2.5"),
        ("prepare source=synthetic source.images.cort=x", "source.images.cort", "a whole number from 0"),
        ("evaluate bootstrap.level=abc", "bootstrap.level", "a number above 0, up to 0.9999, got 'abc'"),
        ("tune trials=abc", "trials", "a whole number from 1 to 1000000, got 'abc'"),
        ("ensemble members=[a,b] min_score=abc", "min_score", "a number from 0 to 1, got 'abc'"),
        ("submit limit=abc", "limit", "a whole number from 1 to 1000000, got 'abc'"),
        ("predict images=null", "images", "a path, or a list with each entry a path, got None"),
        ("report run=a gallery.images=-1", "gallery.images", "a whole number from 0"),
        ("pseudo_label detections=a output=b workers=0", "workers", "a whole number from 1 to 256, got 0"),
        ("fit_filter thresholds=[0.1,2]", "thresholds", "a list with each entry a number from 0 to 1, got [0.1, 2]"),
    ],
)
def test_a_wrong_setting_is_one_line(run: Run, arguments: str, key: str, expected: str) -> None:
    command, _, rest = arguments.partition(" ")
    given = [part for part in rest.replace(": ", ":").split(" ") if part]
    assert run(command, given).startswith(f"error: {key}: expected {expected}")


def test_all_bad_settings_are_named_and_references_once(run: Run) -> None:
    line = run("train", ["seed=-1", "optimizer.lr=0", "data.num_workers=x"])
    assert line.split("; ")[0].startswith("error: ")
    assert {part.removeprefix("error: ").partition(":")[0] for part in line.split("; ")} == {
        "seed", "optimizer.lr", "data.num_workers",
    }  # fmt: skip


def test_members_of_a_sweep_are_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    HydraConfig.instance().cfg = None
    monkeypatch.setattr(sys, "argv", ["submit", "-m", "limit=0,abc", "validate=x.csv", "hydra.sweep.dir=sweep"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("sartorius.submit").main()
    assert end.value.code == 1
    errors = capfd.readouterr().err
    assert "error: limit: expected a whole number from 1 to 1000000, got 0" in errors
    assert "error: limit: expected a whole number from 1 to 1000000, got 'abc'" in errors


def test_search_spaces_pass_as_they_are() -> None:
    for text in ("optimizer.lr=1e-3,1e-4", "optimizer.lr=tag(log,interval(1e-5,1e-2))", "data.fold=range(0,3)"):
        assert as_typed("train", ["-m", text]) == ["-m", text]
    assert as_typed("train", ["-m", "data.root=2021_11,b"]) == ["-m", 'data.root="2021_11",b']


def test_python_users_are_told_too() -> None:
    with pytest.raises(InputError, match=r"^optimizer\.lr: expected a number above 0, up to 1000, got 'x'$"):
        wiring.compose("train", ["optimizer.lr=x"])
    assert wiring.compose("predict", ["images=Jörg (1)", "output=2021_11"]).output == "2021_11"


def test_settings_of_a_class_of_their_own_pass() -> None:
    own = "+callbacks.mine={_target_: mine.Callback, folder: 5, images: -1, scale: none}"
    cfg = wiring.compose("train", [own, "~optimizer", "+optimizer={_target_: mine.SGD, lr: auto}"])
    assert (cfg.callbacks.mine.folder, cfg.optimizer.lr) == (5, "auto")


UGLY = [
    "a=b", "a (1)", "[a]", "{a}", "it's", "#1", "Jörg", "a b", 'say "hi"', "a,b", "a;b&c", "~x", "!x", "a\\b", "$HOME",
    "2021_11", "123e4567", "1e5", "007", "0x10", "true", "nan", "1_0.5", "-5", "a:b", "*?", "a'b\"c", "日本",
]  # fmt: skip


@pytest.mark.parametrize("name", UGLY)
def test_names_stay_as_they_are_typed(name: str) -> None:
    """Of one path; a comma is a sweep, brackets are a list, and such names are quoted as the message shows."""
    try:
        (argument,) = as_typed("predict", [f"output=/data/{name}"])
    except InputError as error:
        argument = in_shell(str(error).partition("typed ")[2])
    if name == "a,b":
        (argument,) = as_typed("predict", [f'output="/data/{name}"'])
    assert OverridesParser.create().parse_override(argument).value() == f"/data/{name}"
    try:
        (argument,) = as_typed("predict", [f"output={name}"])
    except InputError as error:
        argument = in_shell(str(error).partition("typed ")[2])
    if name != "a,b":
        assert OverridesParser.create().parse_override(argument).value() == name


@pytest.mark.parametrize("name", UGLY)
def test_the_quoting_that_is_shown_works_in_a_shell(name: str) -> None:
    if "," in name or "]" in name:
        return
    with pytest.raises(InputError, match="typed ") as error:
        as_typed("evaluate", [f"detections=[/data/{name}/(x),b]"])
    parsed = OverridesParser.create().parse_override(in_shell(str(error.value).partition("typed ")[2]))
    assert parsed.value() == [f"/data/{name}/(x)", "b"]


def in_shell(words: str) -> str:
    """What a program gets that is called with these words in sh."""
    return subprocess.run(["sh", "-c", f"printf %s {words}"], capture_output=True, text=True, check=True).stdout


def test_an_option_without_a_rule_that_cannot_be_read(run: Run) -> None:
    line = run("train", ["+mine=(x"])
    assert line.startswith("error: +mine: cannot read the value (x (")
    assert line.endswith(shlex.quote('+mine="(x"'))


def test_hydras_folder_is_as_typed_too(run: Run, tmp_path: Path) -> None:
    name = "Jörg's (1) #=[2]"
    assert "a: no such checkpoint" in run("predict", [f"images={name}", "output=2021_11", "checkpoint=a"])
    assert "a: no such checkpoint" in run("predict", ["images=a", f"output={name}", "checkpoint=a"])
    assert not list(tmp_path.iterdir()), "Hydra's would stay, had it another name"
