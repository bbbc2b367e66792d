"""A verb on several devices: a process for each, all with the same resolved config."""

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
    """Decorate the `main(cfg)` of the verb `name` whose `cfg.trainer` may have several devices: a process for each.

    Every process builds its objects from the resolved config, so that there is one run folder, in a multirun too
    (Lightning's own way is to start the command again, multirun and all). What the first process returns comes back,
    and an error is raised once, see `ranks.launch`. With one device, and where srun or torchrun started this process
    beside others, `main` is called as it is; only the first of those prints.

    Raises InputError for a trainer on several machines that nobody started there, and for one device where several
    processes were started: all would do the same in one folder.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def on_every_device(cfg: DictConfig) -> Any:
            if (
                not processes.by_srun()
            ):  # Lightning takes this for srun's, and would leave the other devices to other tasks
                os.environ.pop("SLURM_NTASKS", None)
            if count := process_count(cfg.trainer):
                log = wiring.plain(HydraConfig.get().job_logging) if HydraConfig.initialized() else None
                return processes.launch(_be_one, (name, wiring.plain(cfg), log), count)
            silent = contextlib.redirect_stdout(None) if processes.rank() else contextlib.nullcontext()
            with silent:
                return main(cfg)

        return on_every_device

    return decorate


def process_count(trainer: DictConfig) -> int:
    """How many processes have to be started for this trainer; 0 where this one is enough, or one of them already."""
    if trainer.get("strategy", "auto") == "auto" and trainer.get("devices") == 1 and trainer.get("num_nodes", 1) == 1:
        if (count := processes.count()) > 1:
            raise InputError(
                f"{count} processes were started (by srun or torchrun), and trainer.devices=1 is for one; start one, "
                "or add trainer=ddp_multinode"
            )
        return 0
    # each process resolves its own precision; it does not matter here
    built = wiring.instantiate({**wiring.plain(trainer), **wiring.NOTHING_ELSE, "precision": "32-true"})
    environment = getattr(built.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        return 0
    if built.num_nodes > 1:
        raise InputError(
            f"trainer.num_nodes={built.num_nodes}: a command starts processes on its own machine only; run it by srun "
            "or torchrun on all of them (experiments/CLUSTER.md)"
        )
    return int(built.num_devices)


def _be_one(name: str, cfg: dict[str, Any], log: dict[str, Any] | None) -> Any:
    """What each process of a verb does; raises InputError for all that is the user's to mend."""
    commands.ignore_noise()
    if processes.rank():
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    elif log is not None:
        logging.config.dictConfig(log)
    config = OmegaConf.create(cfg)
    OmegaConf.set_struct(config, True)
    try:
        return importlib.import_module(f"sartorius.{name}").main(config)
    except Exception as error:
        if failures.expected(error) is None:
            raise
        raise InputError(failures.message(error)) from error
