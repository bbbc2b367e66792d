"""The trainers as configs: what they compose to, how many processes they ask for, and the folder that all agree on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from sartorius.errors import InputError
from sartorius.running import distributed, processes, wiring

STARTED = (
    "LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS",
    "SLURM_JOB_NAME", "SLURM_PROCID", "TORCHELASTIC_RUN_ID",
)  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*STARTED, "SLURM_JOB_NUM_NODES", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def trainer(command: str, *overrides: str) -> DictConfig:
    needed = {"predict": ["checkpoint=a", "images=a"]}.get(command, [])
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        return DictConfig(wiring.plain(compose(command, [*needed, *overrides]).trainer))


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
@pytest.mark.parametrize("name", ["ddp", "ddp_multinode"])
def test_every_verb_with_a_network_takes_them(command: str, name: str) -> None:
    cfg = trainer(command, f"trainer={name}", "trainer.accelerator=cpu", "trainer.devices=2")
    assert get_class(cfg.strategy._target_).__name__ == "DDPStrategy"
    assert distributed.process_count(cfg) == 2


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_one_device_is_the_default_and_needs_no_other_process(command: str) -> None:
    assert trainer(command).devices == 1
    assert distributed.process_count(trainer(command)) == 0


def test_debugging_is_on_one_device() -> None:
    cfg = trainer("train", "debug=fast", "trainer=ddp")
    assert cfg.devices == 1 and distributed.process_count(cfg) == 1


def test_processes_that_are_started_are_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = trainer("train", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert distributed.process_count(cfg) == 0


@pytest.mark.parametrize(
    "slurm",
    [
        {
            "SLURM_NTASKS": "1",
            "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_STEP_ID": "0",
            "SLURM_JOB_NAME": "train",
        },  # submitit
        {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "a.sh"},  # a batch script
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "a.sh"},
    ],
)
def test_one_task_of_a_job_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch, slurm: dict[str, str]) -> None:
    """Lightning alone would take part in a run of whose devices nobody serves the others."""
    for name, value in {**slurm, "SLURM_JOB_ID": "77", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    launched = []
    monkeypatch.setattr(processes, "launch", lambda function, arguments, count: launched.append(count))
    cfg = trainer("train", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    distributed.run_on_devices("train")(breaks)(DictConfig({"trainer": cfg}))
    assert launched == [2]


def breaks(cfg: DictConfig) -> None:
    raise AssertionError("this process computes nothing")


@pytest.mark.parametrize(
    "started",
    [
        {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"},
        {"WORLD_SIZE": "4", "LOCAL_RANK": "1", "RANK": "1"},
    ],
)
def test_several_processes_for_one_device_are_refused(monkeypatch: pytest.MonkeyPatch, started: dict[str, str]) -> None:
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"4 processes were started .* add trainer=ddp_multinode"):
        distributed.run_on_devices("train")(breaks)(DictConfig({"trainer": trainer("train")}))


def test_several_machines_are_not_started_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    cfg = trainer("train", "trainer=ddp_multinode", "trainer.accelerator=cpu", "trainer.devices=2")
    assert cfg.num_nodes == 3
    with pytest.raises(InputError, match=r"trainer.num_nodes=3: .* run it by srun or torchrun"):
        distributed.process_count(cfg)
    monkeypatch.delenv("SLURM_JOB_NUM_NODES")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")  # torchrun
    assert trainer("train", "trainer=ddp_multinode").num_nodes == 2


def stamp() -> str:
    return str(OmegaConf.create({"name": "${stamp:}"}).name)


def test_processes_of_a_job_agree_on_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stamp().startswith("20") and len(stamp()) == len("2026-01-31_23-59-59")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert stamp().startswith("20")  # alone in its job
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert stamp() == "slurm-77.0"
    for name in ("SLURM_NTASKS", "SLURM_STEP_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    assert stamp() == "torchrun-a-run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(Exception, match="give it --standalone or --rdzv-id"):
        stamp()


def test_the_run_folder_has_the_name_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_JOB_ID", "77"), ("SLURM_NTASKS", "2"), ("SLURM_STEP_ID", "1")):
        monkeypatch.setenv(name, value)
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", ["experiment=unet_cpu"], return_hydra_config=True)
        assert Path(cfg.hydra.run.dir) == Path("runs/slurm-77.1_unet_cpu_fold0_seed0")
        assert compose("evaluate").output == "runs/slurm-77.1_evaluate"
