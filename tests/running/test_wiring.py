from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.postprocess import Postprocess
from sartorius.running import building, wiring
from sartorius.running.commands import command
from tests.doubles import ToyModule, toy_config


def fails(message: str) -> None:
    raise InputError(message)


def keep(**arguments: Any) -> dict[str, Any]:
    return arguments


class Weighted:
    """A stand-in for a module that would fetch weights."""

    cell_type_names = ("a",)

    def __init__(self, weights: str | None, norm: str) -> None:
        self.weights, self.norm, self.hparams = weights, norm, {}


def breaks() -> None:
    raise KeyError("bug")


def test_conf_dir_is_absolute_and_holds_the_roots() -> None:
    assert wiring.CONF_DIR.is_absolute()
    assert (wiring.CONF_DIR / "train.yaml").is_file()


def test_plain_resolves_and_names_what_is_missing() -> None:
    assert wiring.plain(OmegaConf.create({"a": 1, "b": ["${a}"]})) == {"a": 1, "b": [1]}
    assert wiring.plain({"a": 1}) == {"a": 1}
    assert wiring.plain(None) is None
    with pytest.raises(InputError, match="'a.b' is not set"):
        wiring.plain(OmegaConf.create({"a": {"b": "???"}}))


def test_instantiate_gives_plain_containers() -> None:
    cfg = OmegaConf.create({"_target_": f"{__name__}.keep", "a": {"b": [1, 2]}})
    built = wiring.instantiate(cfg)
    assert type(built["a"]) is dict
    assert type(built["a"]["b"]) is list


def test_instantiate_leaves_objects_alone() -> None:
    postprocess = Postprocess()
    built = wiring.instantiate(OmegaConf.create({"_target_": f"{__name__}.keep", "a": 1}), p=postprocess)
    assert built["p"] is postprocess
    assert built["a"] == 1


def test_an_input_error_comes_out_unwrapped_and_a_bug_does_not() -> None:
    with pytest.raises(InputError, match="^row 3$"):
        wiring.instantiate(OmegaConf.create({"_target_": f"{__name__}.fails", "message": "row 3"}))
    with pytest.raises(InputError, match="^row 3$"):
        wiring.instantiate(OmegaConf.create({"_target_": f"{__name__}.fails"}), message="row 3")
    with pytest.raises(Exception, match="KeyError"):
        wiring.instantiate(OmegaConf.create({"_target_": f"{__name__}.breaks"}))


def test_instantiate_all_skips_null() -> None:
    cfg = OmegaConf.create({"a": {"_target_": f"{__name__}.keep", "k": 1}, "b": None})
    assert wiring.instantiate_all(cfg) == [{"k": 1}]
    assert wiring.instantiate_all(cfg, a={"j": 2}) == [{"k": 1, "j": 2}]
    assert wiring.instantiate_all(None) == []


def test_a_module_carries_its_metadata() -> None:
    cfg = toy_config(width=2)
    module = building.build_module(cfg)
    assert isinstance(module, ToyModule)
    assert module.hparams["format_version"] == checkpoints.FORMAT_VERSION
    assert module.hparams["model"] == {"_target_": "tests.doubles.ToyModule", "lr": 0.1, "width": 2}
    assert module.hparams["cell_types"] == ["shsy5y", "astro", "cort"]
    assert module.hparams["config"]["seed"] == 0


def test_a_resumed_module_fetches_no_weights_and_keeps_its_metadata() -> None:
    cfg = OmegaConf.create(
        {"model": {"_target_": f"{__name__}.Weighted", "weights": "coco", "norm": "${default_norm:${model.weights}}"}}
    )
    for pretrained in (True, False):
        module: Any = building.build_module(cfg, pretrained)
        assert (module.weights, module.norm) == ("coco" if pretrained else None, "frozen_batch")
        assert module.hparams["model"] == wiring.plain(cfg.model) == module.hparams["config"]["model"]


@pytest.mark.parametrize(
    ("resolver", "arguments", "expected"),
    [
        ("either", "null,b", "b"),
        ("either", "a,b", "a"),
        ("default_norm", "none", "group"),
        ("default_norm", "coco", "frozen_batch"),
        ("last_part", "runs/a_b", "a_b"),
        ("file_name", "data.fold-0_model-x/y", "data.fold-0_model-x-y"),
    ],
)
def test_resolvers(resolver: str, arguments: str, expected: str) -> None:
    assert OmegaConf.create({"x": f"${{{resolver}:{arguments}}}"}).x == expected


def test_a_resumed_run_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    rest = {"data": {"fold": 1}, "seed": 2, "paths": {"runs_dir": "runs"}, "model": {"_target_": "a.B"}}
    for checkpoint, folder in (
        (None, "runs/now_B_fold1_seed2"),
        ("nowhere/last.ckpt", "runs/now_B_fold1_seed2"),
        (str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path)),
    ):
        assert OmegaConf.create({"ckpt_path": checkpoint, "x": "${run_folder:now}", **rest}).x == folder


@pytest.fixture
def run_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a verb over a small config in a temporary folder."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "small.yaml").write_text("seed: 0\nneeded: ???\n")
    monkeypatch.setattr(wiring, "CONF_DIR", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)

    def run(main: Callable[[Any], Any], *overrides: str) -> None:
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", ["small", *overrides, *quiet])
        command("small")(main)()

    return run


def lightning_refuses() -> None:
    raise MisconfigurationException("No `device` called tea")


NO_SUCH_DEVICE = {"_target_": f"{__name__}.lightning_refuses"}


def raising(error: BaseException) -> Callable[[Any], None]:
    def main(cfg: Any) -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "overrides", "code", "line"),
    [
        (raising(InputError("a.csv row 3:\nno such cell")), [], 1, "error: a.csv row 3: no such cell"),
        (raising(FileNotFoundError(errno.ENOENT, "No such file", "x.png")), [], 1, "error: x.png: No such file"),
        (raising(OSError(errno.ENOSPC, "No space left", "/runs/a")), [], 1, "error: /runs/a: No space left"),
        (lambda cfg: cfg.needed, [], 1, "error: 'needed' is not set; give it on the command line: needed=..."),
        (lambda cfg: None, ["sed=1"], 1, "error: Could not override 'sed'."),
        (lambda cfg: wiring.instantiate(NO_SUCH_DEVICE), [], 1, "error: trainer: No `device` called tea"),
        (raising(KeyboardInterrupt()), [], 130, "interrupted"),
    ],
)
def test_expected_errors_are_one_line(
    run_verb: Any, capfd: pytest.CaptureFixture[str], main: Any, overrides: list[str], code: int, line: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_verb(main, *overrides)
    assert stopped.value.code == code
    output = capfd.readouterr().err.strip()
    assert output.startswith(line)
    assert "\n" not in output


def test_a_bug_keeps_its_traceback(run_verb: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        run_verb(raising(ZeroDivisionError("bug")))


def test_a_failed_job_of_a_multirun_does_not_stop_the_next(run_verb: Any, capfd: pytest.CaptureFixture[str]) -> None:
    seeds: list[int] = []

    def main(cfg: Any) -> None:
        seeds.append(cfg.seed)
        if cfg.seed == 1:
            raise InputError("seed 1 is bad")

    with pytest.raises(SystemExit) as stopped:
        run_verb(main, "-m", "seed=1,2")
    assert stopped.value.code == 1
    assert seeds == [1, 2]
    assert "error: seed 1 is bad" in capfd.readouterr().err


def test_paths_are_what_was_typed(run_verb: Any, tmp_path: Path) -> None:
    (tmp_path / "conf" / "small.yaml").write_text(
        "seed: 0\noutput: x\nfilter: none\ndata: {root: null, fold: null}\npaths:\n  runs_dir: ???\nlr: 0.1\n"
    )
    came: list[Any] = []

    def main(cfg: Any) -> None:
        came.append(wiring.plain(cfg))

    run_verb(main, "output=2026_11", "data.root=123e4567", "data.fold=1", "seed=1_0", "paths.runs_dir=1.50", "lr=0.20")
    run_verb(main, "filter=null", "output=Jörg's (1) #=[2]", "data.root=true", "paths.runs_dir=0x10")
    data = {"root": "123e4567", "fold": 1}
    paths = {"runs_dir": "1.50"}
    assert came[0] == {"seed": 10, "output": "2026_11", "filter": "none", "data": data, "paths": paths, "lr": 0.2}
    data, paths = {"root": "true", "fold": None}, {"runs_dir": "0x10"}
    output = "Jörg's (1) #=[2]"
    assert came[1] == {"seed": 0, "output": output, "filter": None, "data": data, "paths": paths, "lr": 0.1}


def test_one_path_several_or_none() -> None:
    cases = ((None, []), ("a", ["a"]), (7, ["7"]), (OmegaConf.create(["a", 7]), ["a", "7"]))
    for given, expected in cases:
        assert wiring.path_list(given) == expected


def test_main_can_be_called_with_a_config() -> None:
    assert command("small")(lambda cfg: cfg.seed)(OmegaConf.create({"seed": 4})) == 4


def test_the_same_seed_gives_the_same_numbers() -> None:
    import torch

    building.seed_everything(3)
    first = torch.rand(2)
    building.seed_everything(3)
    assert torch.equal(first, torch.rand(2))
