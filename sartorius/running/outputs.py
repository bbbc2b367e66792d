"""The folder or file that a command writes: one process writes it at a time, and a folder holds one run.

Hydra makes the folder of a run before the command is called; its notes about the command are written here, once the
folder is known to be this run's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sartorius import files
from sartorius.errors import InputError
from sartorius.running import processes
from sartorius.sweeps.task import in_multirun

_named: list[Path] = []  # by `new_folder`
_NOTES = ".hydra"  # in a folder: config.yaml, hydra.yaml and overrides.yaml of the command


@dataclass(frozen=True)
class Output:
    """What a command writes.

    path: of the folder or file, from the config; None where it writes nothing. is_folder: a folder. check: raises
    InputError where the folder holds something that the command must not mix with its own.
    """

    path: Callable[[DictConfig], Path | None]
    is_folder: bool = True
    check: Callable[[DictConfig], None] = lambda cfg: None

    @contextmanager
    def claimed(self, cfg: DictConfig, command: str) -> Iterator[None]:
        """Lock the output while the command runs, check a folder and write Hydra's notes into it.

        The first of several processes does so for all. Raises BlockingIOError where another command is writing there,
        InputError where a folder holds what another command wrote, and as `check` does unless a failed member of a
        multirun begins anew.
        """
        path = self.path(cfg)
        if path is None or processes.rank():
            yield
            return
        if not self.is_folder:
            with files.locked(path, inside=False):
                yield
            return
        with _made(path), files.locked(path, inside=True), _noted(path):
            _check_command(path, command)
            if not _repeats_member(path):
                self.check(cfg)
            _write_notes(path, cfg)
            yield


def run_folder(cfg: DictConfig) -> Path | None:
    """Return the folder that the option `output` or, else, `run_dir` names; None without both."""
    folder = cfg.get("output", cfg.get("run_dir"))
    return None if folder is None else Path(str(folder))


def output_file(cfg: DictConfig) -> Path:
    """Return the file of a command whose option `output` is one."""
    return Path(str(cfg.output))


FOLDER = Output(run_folder)
FILE = Output(output_file, is_folder=False)


def new_folder(name: str) -> str:
    """Name the folder of the run that Hydra is starting, and make it: with _2, _3 ... at its end where it is taken.

    Only its name where nothing is started, or several processes are, which must all find the same one.
    """
    starting = HydraConfig.initialized() and OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir")
    if not starting or HydraConfig.get().mode == RunMode.MULTIRUN or processes.count() > 1:
        return name
    _named.append(files.make_new_folder(name))
    return str(_named[-1])


def delete_unused() -> None:
    """Delete the folders that `new_folder` made and nothing was written to: of a config that was only shown, say."""
    while _named:
        with suppress(OSError):
            _named.pop().rmdir()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; where it is empty at the end, delete it."""
    new = not folder.exists() or HydraConfig.initialized()  # which makes the folder of a command before
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _noted(folder: Path) -> Iterator[None]:
    """Delete the notes and the log in a locked folder where a command is refused and left nothing else."""
    try:
        yield
    except InputError:
        if not in_multirun() and not _results(folder):  # a multirun repeats a failed member by its notes
            _delete_notes(folder)
        raise


def _results(folder: Path) -> list[Path]:
    """List what a command left in its folder beside its notes and logs."""
    return [path for path in folder.glob("[!.]*") if path.suffix != ".log"]


def _delete_notes(folder: Path) -> None:
    if (folder / _NOTES).is_dir():
        shutil.rmtree(folder / _NOTES)
    if HydraConfig.initialized():
        (folder / f"{HydraConfig.get().job.name}.log").unlink(missing_ok=True)


def _check_command(folder: Path, command: str) -> None:
    """Raise InputError where another command noted that it wrote this folder, and left more than its notes and log."""
    notes = folder / _NOTES / "hydra.yaml"
    if not notes.is_file() or not _results(folder):
        return
    noted: Any = OmegaConf.load(notes)
    if (before := noted.hydra.job.config_name) != command:
        raise InputError(f"{folder}: holds what `{before}` wrote; give another folder")


def _repeats_member(folder: Path) -> bool:
    """Whether this is the member of a multirun that wrote this folder before."""
    before = folder / _NOTES / "overrides.yaml"
    return in_multirun() and before.is_file() and OmegaConf.load(before) == HydraConfig.get().overrides.task


def _write_notes(folder: Path, cfg: DictConfig) -> None:
    """Write what Hydra would; nothing where the command was called in Python, or has no folder of a run."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or OmegaConf.is_missing(hydra.runtime, "output_dir") or hydra.run.dir == ".":
        return
    notes = {"config": cfg, "hydra": OmegaConf.create({"hydra": hydra}), "overrides": hydra.overrides.task}
    for name, node in notes.items():
        files.write_text(folder / _NOTES / f"{name}.yaml", OmegaConf.to_yaml(node))
