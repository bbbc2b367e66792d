"""The command that writes an experiment, and trainings of what it writes."""

from __future__ import annotations

import contextlib
import importlib
import math
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sartorius import plan
from sartorius.callbacks.throughput import peak_megabytes
from sartorius.errors import InputError
from sartorius.planning import machine as machines
from sartorius.planning.costs import Batches, StepCost
from sartorius.planning.experiment_file import MARKER
from sartorius.running import measuring, processes, wiring
from sartorius.running.building import build_training
from sartorius.running.signals import KilledError
from tests.planning.drawn import CPU, GPU, facts, folder_of_discs, planner


def planned(tmp_path: Path, *overrides: str, name: str = "mine") -> Path:
    """The file that the command writes."""
    given = ["measure=false", "accelerator=cpu", *overrides, f"output={tmp_path}/conf/experiment/{name}.yaml"]
    return Path(plan.main(wiring.compose("plan", given)))


def composed(file: Path, *overrides: str) -> DictConfig:
    folder = file.parent.parent
    return wiring.compose("train", [f"hydra.searchpath=['file://{folder}']", f"experiment={file.stem}", *overrides])


@pytest.mark.parametrize(("diameter", "scale", "crop"), [(10, 2.0, 64), (20, 1.0, 128), (40, 0.5, 192)])
def test_an_experiment_for_each_size_of_cells_trains_as_it_is(
    tmp_path: Path, diameter: float, scale: float, crop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = folder_of_discs(tmp_path / "own data", diameter, side=192)
    cfg = composed(planned(tmp_path, f"data.root={root}"))
    assert (cfg.model.network.scale, cfg.transform.crop.height, cfg.transform.crop.width) == (scale, crop, crop)
    assert cfg.data.root == str(root) and cfg.cell_types == ["cell"] and cfg.model.weights == "builtin"
    assert cfg.model.layout.types == "${count:${cell_types}}" or cfg.model.layout.types == 1
    if diameter == 10:  # one is trained
        cost = measuring.measure_step(cfg, 2)
        assert cost.measured and 0 < cost.seconds < 100 and cost.megabytes > 100
        assert not list(tmp_path.glob("runs*"))


def test_the_same_data_give_the_same_file_and_it_is_not_overwritten(tmp_path: Path) -> None:
    root = folder_of_discs(tmp_path / "data", 20)
    first = planned(tmp_path, f"data.root={root}")
    text = first.read_text()
    assert text.splitlines()[0] == "# @package _global_" and MARKER in text
    with pytest.raises(InputError, match="there is such an experiment.*overwrite=true"):
        planned(tmp_path, f"data.root={root}")
    assert planned(tmp_path, f"data.root={root}", "overwrite=true").read_text() == text
    first.write_text("model: mine\n")
    with pytest.raises(InputError, match="which `plan` did not write"):
        planned(tmp_path, f"data.root={root}", "overwrite=true")
    assert first.read_text() == "model: mine\n"


def test_the_file_is_named_after_the_folder_in_the_conf_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "conf"
    monkeypatch.setattr(wiring, "CONF_DIR", conf)

    def file_of(**options: object) -> Path:
        settings = {"name": None, "output": None, "overwrite": False, "data": {"root": "x"}, **options}
        return plan.experiment_file(OmegaConf.create(settings))

    assert file_of(data={"root": "/data/my cells (1)"}) == conf / "experiment" / "my_cells_1_.yaml"
    assert file_of(name="other") == conf / "experiment" / "other.yaml"
    for name in ("2021", "a.b", "../x"):
        with pytest.raises(InputError, match="expected letters"):
            file_of(name=name)
    with pytest.raises(InputError, match="folder named experiment"):
        file_of(output="mine.yaml")
    with pytest.raises(InputError, match="give one of them"):
        file_of(output="experiment/mine.yaml", name="other")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot be written; give output=FOLDER/experiment/other.yaml"):
        file_of(name="other")


def test_the_command_line_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In Hydra's own run, with the measurement, and by the options that it prints."""
    monkeypatch.chdir(tmp_path)
    folder_of_discs(tmp_path / "data", 10)
    HydraConfig.instance().cfg = None
    options = ["data.root=data", "output=conf/experiment/mine.yaml", "rules.steps=2", "accelerator=cpu"]
    monkeypatch.setattr(sys, "argv", ["plan", *options])
    importlib.import_module("sartorius.plan").main()
    shown = capsys.readouterr().out
    assert f"next: python -m sartorius.train --config-dir {tmp_path}/conf experiment=mine" in shown
    text = Path("conf/experiment/mine.yaml").read_text()
    assert " MB, measured" in text and "s each, measured" in text
    assert {path.name for path in tmp_path.iterdir()} == {"data", "conf"}
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"Train: python -m sartorius.train --config-dir {tmp_path}/conf experiment=mine (" in head
    again = shlex.split(head[head.index("python -m sartorius.plan data.") : head.index(" Data:")])[3:]
    assert again == [
        f"data.root={tmp_path}/data", f"output={tmp_path}/conf/experiment/mine.yaml", "minutes=20", "network=auto",
        "accelerator=cpu", "measure=true", "rules.steps=2",
    ]  # fmt: skip
    HydraConfig.instance().cfg = None
    assert composed(tmp_path / "conf" / "experiment" / "mine.yaml").model.network.scale == 2.0


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(cfg: object, steps: int) -> object:
        size = cfg.data.batch_size  # type: ignore[attr-defined]
        asked.append((size, cfg.trainer.accumulate_grad_batches))  # type: ignore[attr-defined]
        return replace(
            planner(facts()).estimate(planner(facts()).first_batches()), megabytes=1000.0 * size, measured=True
        )

    monkeypatch.setattr(measuring, "measure_step", measure)
    batches, cost = plan.cost_of(planner(facts(), replace(CPU, memory=6000.0)), 2)
    assert asked == [(8, 1), (4, 2), (2, 4)] and (batches.size, batches.accumulated, cost.megabytes) == (2, 4, 2000.0)


@pytest.mark.parametrize(("size", "batches"), [(5, [(2, 2), (1, 5)]), (8, [(4, 2), (2, 4), (1, 8)])])
def test_steps_of_halved_batches_have_the_images_that_their_comment_tells(
    size: int, batches: list[tuple[int, int]]
) -> None:
    of, now = planner(facts()), Batches(size, size)
    for expected in batches:
        now = now.halved()
        assert (now.size, now.accumulated) == expected
        told = {choice.key: choice.reason for choice in of.choices(now, of.estimate(now))}
        images = now.size * now.accumulated
        assert told["trainer.accumulate_grad_batches"] == (
            "as many images a step as without" if images == size else f"{images} images a step, {size} without"
        )


@pytest.mark.parametrize("megabytes", [5000.0, math.inf])
@pytest.mark.parametrize("memory", [6000.0, None])
def test_one_image_that_does_not_fit(megabytes: float, memory: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the share of the memory is warned of, more than all of it refused."""
    monkeypatch.setattr(measuring, "measure_step", lambda cfg, steps: StepCost(0.5, megabytes, measured=True))
    of = planner(facts(), replace(GPU, memory=memory), "maskrcnn")
    if megabytes == math.inf:
        has = "memory" if memory is None else "6,000 MB"
        with pytest.raises(
            InputError, match=rf"needs more memory than the {has} of some GPU; network=unet.*accelerator"
        ):
            plan.cost_of(of, 2)
        return
    with contextlib.nullcontext() if memory is None else pytest.warns(UserWarning, match="5,000 MB, more than 40% of"):
        batches, cost = plan.cost_of(of, 2)
    told = {choice.key: choice for choice in of.choices(batches, cost)}["data.batch_size"]
    if memory is None:
        assert told.value == of.first_batches().size and "more than" not in told.reason
        return
    assert told.value == 1
    assert told.reason.endswith("5,000 of 6,000 MB, measured, more than the 40% that a plan may take")
    with pytest.warns(UserWarning, match=r"a batch of one image takes [\d,]+ MB, more than 40% of the 1 MB"):
        plan.cost_of(replace(of, machine=replace(GPU, memory=1.0)), None)


def test_an_earlier_peak_of_memory_does_not_count(tmp_path: Path) -> None:
    """Of a process that took 2 GB before, a small batch takes what it takes alone."""
    root = folder_of_discs(tmp_path / "data", 10)
    cfg = composed(planned(tmp_path, f"data.root={root}"), "data.batch_size=1")
    assert len(b"x" * 2_000_000_000) > 0
    assert (peak := peak_megabytes()) is None or peak > 2000
    assert measuring.measure_step(cfg, 2).megabytes < 1900


@pytest.mark.parametrize("end", ["killed", "allocation"])
def test_a_batch_that_ran_out_of_memory_is_infinite(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_launch(function: object, arguments: list[object], count: int) -> object:
        if end == "killed":
            raise KilledError("process 1 of 1 was killed (SIGKILL)")
        return function(*arguments)  # type: ignore[operator]

    def build(cfg: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(processes, "launch", end_of_launch)
    monkeypatch.setattr(measuring, "build_training", build)
    monkeypatch.setattr("logging.disable", lambda level: None)
    with warnings.catch_warnings():
        assert measuring.measure_step(OmegaConf.create({"trainer": {}}), 2) == StepCost(None, math.inf, measured=True)


@pytest.mark.parametrize("model", ["unet", "maskrcnn", "maskrcnn_cpu"])
@pytest.mark.parametrize("large", [False, True])
def test_every_model_composes_on_every_machine(model: str, large: bool) -> None:
    """A GPU with crowded, crossing, other grey cells in large images, and the plain case."""
    images = facts(7, sides=(6000, 6000), grey_mean=30.0, folds=2) if large else facts()
    of = planner(images, CPU if model == "maskrcnn_cpu" else GPU, model)
    batches = of.first_batches()
    _, cfg = plan.experiment_of(of, batches, of.estimate(batches), of.notes("plan", "train", "16-mixed"))
    assert cfg.data.root == "/data/mine" and cfg.inference._target_.endswith("Tiles" if large else "Whole")


def test_a_planned_mask_rcnn_builds(tmp_path: Path) -> None:
    root = folder_of_discs(tmp_path / "data", 40, side=256)
    cfg = composed(planned(tmp_path, f"data.root={root}", "network=maskrcnn"), "callbacks=null", "logger=none")
    assert cfg.model.network.scale == 0.5 and cfg.transform.crop.height == 256
    module = build_training(cfg).module
    assert module.network.scale == 0.5


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="no GPU"):
        machines.read_machine("gpu")
