"""Commands on several devices: one process for each, all with the same resolved config."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging.config
import os
import warnings
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sartorius.errors import InputError
from sartorius.running import commands, failures, processes, wiring

Main = Callable[[DictConfig], Any]


def run_on_devices(name: str) -> Callable[[Main], Main]:
    """Decorate the `main(cfg)` of a command: run it in one process for each device of `cfg.trainer`.

    Every process builds its objects from the resolved config, so that there is one run folder, in a multirun too
    (Lightning itself starts the command again, multirun and all). The result is that of the first process, and an error
    is raised once, see `processes.launch`. With one device, and where srun or torchrun started this process beside
    others, `main` is called directly; only the first of those prints.

    Raises InputError for a trainer on several machines that nobody started there, and for one device where several
    processes were started: all would do the same in one folder.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def on_every_device(cfg: DictConfig) -> Any:
            if not processes.by_srun():  # or Lightning would leave the other devices to other tasks
                os.environ.pop("SLURM_NTASKS", None)
            if count := process_count(cfg.trainer):
                log = wiring.plain(HydraConfig.get().job_logging) if HydraConfig.initialized() else None
                return processes.launch(_run_here, (name, wiring.plain(cfg), log), count)
            silent = contextlib.redirect_stdout(None) if processes.rank() else contextlib.nullcontext()
            with silent:
                return main(cfg)

        return on_every_device

    return decorate


def process_count(trainer: DictConfig) -> int:
    """Count the processes to start for this trainer; 0 where this one is enough, or is one of them already."""
    if trainer.get("strategy", "auto") == "auto" and trainer.get("devices") == 1 and trainer.get("num_nodes", 1) == 1:
        if (count := processes.count()) > 1:
            raise InputError(
                f"{count} processes were started (by srun or torchrun), and trainer.devices=1 is for one; start one, "
                "or add trainer=ddp_multinode"
            )
        return 0
    # each process resolves its own precision; it does not matter here
    built = wiring.build_trainer({**wiring.plain(trainer), **wiring.NOTHING_ELSE, "precision": "32-true"})
    environment = getattr(built.strategy, "cluster_environment", None)  # of strategies with several devices only
    if environment is None or environment.creates_processes_externally:
        return 0
    if built.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={built.num_nodes}: a command starts processes on its own machine only; run it by srun "
            "or torchrun on all of them (experiments/CLUSTER.md)"
        )
    return int(built.num_devices)


def _run_here(name: str, cfg: dict[str, Any], log: dict[str, Any] | None) -> Any:
    """Run a command in one of its processes; raises InputError for every error that the user can fix."""
    commands.tame_warnings()
    if processes.rank():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    elif log is not None:
        logging.config.dictConfig(log)
    config = OmegaConf.create(cfg)
    OmegaConf.set_struct(config, True)
    with failures.as_input_errors():
        # without the lock of its output, which the process that started this one holds
        return importlib.import_module(f"sartorius.{name}").main.__wrapped__(config)
