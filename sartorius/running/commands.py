"""The decorator that makes a command of a function of a config."""

from __future__ import annotations

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from sartorius.errors import one_line
from sartorius.running import failures, outputs, settings, wiring
from sartorius.running.outputs import FOLDER, Output
from sartorius.running.settings.typed import as_typed
from sartorius.running.signals import Terminated, sigterm_raises
from sartorius.sweeps.task import MembersFailed, in_multirun, run_member

SKIPPED = 3  # exit code


def command(
    config_name: str, output: Output = FOLDER, skipped: Callable[[Any], int] = lambda result: 0
) -> Callable[[Callable[[DictConfig], Any]], Callable[..., Any]]:
    """Decorate `main(cfg)`: a Hydra program over conf/<config_name>.yaml; `main(cfg)` can still be called in Python.

    Bad input, a mistyped option, a missing value and a file that cannot be read or written end in one line
    `error: ...` on stderr and exit code 1, Ctrl-C in exit code 130, SIGTERM in 143; a bug keeps its traceback. In a
    multirun a failed member does not stop the others, whatever its error; the exit code is 1 all the same (see
    `sweeps`). skipped: counts, in what `main` returns, the bad files that were left out: with any, the exit code is 3.
    `output` is claimed while `main` runs, called in Python too.
    """

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[..., Any]:
        def write(cfg: DictConfig) -> Any:
            with output.claimed(cfg, config_name):
                return main(cfg)

        def checked(cfg: DictConfig) -> Any:
            settings.check(cfg, config_name)
            return write(cfg)

        @functools.wraps(main)
        def job(cfg: DictConfig) -> Any:
            if in_multirun():
                tame_warnings()  # in this process too, which a launcher may have started
                return run_member(checked, cfg, failures.line_of)
            return _ended(checked, cfg, skipped)

        @functools.wraps(main)
        def program(cfg: DictConfig | None = None) -> Any:
            return _run_hydra(job, config_name) if cfg is None else write(cfg)

        return program

    return decorate


def _ended(checked: Callable[[DictConfig], Any], cfg: DictConfig, skipped: Callable[[Any], int]) -> Any:
    """Run a command to its exit code; a bug is raised."""
    try:
        result = checked(cfg)
    except Exception as error:
        _end(error)
    if skipped(result):
        sys.exit(SKIPPED)
    return result


def _run_hydra(job: Callable[[DictConfig], Any], config_name: str) -> Any:
    """Run the job with the config of the command line; every end but a bug's is an exit code."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand errors over instead of printing them
    tame_warnings()
    try:
        with sigterm_raises():
            sys.argv[1:] = as_typed(config_name, wiring.without_null_groups(sys.argv[1:]))
            return hydra.main(str(wiring.CONF_DIR), config_name, version_base="1.3")(job)()
    except MembersFailed:
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Terminated:
        print("terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except Exception as error:
        _end(error)
    finally:
        outputs.delete_unused()


# Warnings of other libraries that ask for nothing
_NOISE = (
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 with torch 2.15, at every fit
    ".*sync_dist=True.*",  # scores are of the rows of all processes: alike in each, every image counted once
    "Using `DistributedSampler` with the dataloaders.*",
    "You called `self.log.* but have no logger configured.*",  # a line a metric with logger=none
    "Checkpoint directory .* exists and is not empty.*",  # of a resumed run
)


def tame_warnings() -> None:
    """Ignore noise, and print every other warning as one line without the place in the source."""
    for text in _NOISE:
        warnings.filterwarnings("ignore", text)
    # not `formatwarning`, which Lightning replaces when it is imported
    warnings.showwarning = _print_warning


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {one_line(str(message))}", file=sys.stderr, flush=True)


def _end(error: Exception) -> NoReturn:
    """Print one line and exit with 1 when the user can fix `error`; raise a bug again."""
    if failures.expected(error) is None:
        raise error
    print(f"error: {failures.message(error)}", file=sys.stderr)
    sys.exit(1)
