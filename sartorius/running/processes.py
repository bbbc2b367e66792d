"""Run a function in N processes and report a failure once.

`launch` is for one machine. The process that calls it computes nothing itself: it starts one process for each rank,
forwards Ctrl-C and SIGTERM, and ends all of them as soon as one fails, for the others would wait for it forever. A rank
whose starter was killed ends itself. On several machines srun or torchrun starts the ranks.

torch's own starters (`multiprocessing.spawn`, `elastic_launch`) turn an InputError into text, and only interrupt a rank
whose starter was killed, which has no effect on one that waits for the others.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import atomic_path
from sartorius.running.signals import KilledError, Terminated, sigterm_raises

_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_KILLED = -9  # exit code of a process that SIGKILL ended
_GRACE = 60.0  # seconds that the others have to stop after the first was interrupted or terminated
_POLL = 0.1  # seconds between polls of the ranks
_LAST_LINES = 5  # of a dead rank's stderr, in the message


@dataclass(frozen=True)
class _Outcome:
    """How a rank ended: its exit code (below 0: killed, or by itself), the error message, the function's result."""

    code: int
    message: str = ""
    result: Any = None
    bug: bool = False  # the message is a traceback


def rank() -> int:
    """Number this process among those started together, by `launch`, torchrun or srun; 0 alone."""
    names = ("RANK", *(["SLURM_PROCID"] if by_srun() else []), "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def count() -> int:
    """Count the processes that were started together; 1 alone."""
    if "WORLD_SIZE" in os.environ and "LOCAL_RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _tasks() if by_srun() else 1


def by_srun() -> bool:
    """Whether srun started this process beside others.

    SLURM's variables alone do not tell: a batch script has them, a shell within a job, and a job of one task.
    """
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # as Lightning tells one
    return "SLURM_STEP_ID" in os.environ and _tasks() > 1 and not shell


def _tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", 1)))


def launch(function: Callable[..., Any], arguments: Sequence[Any], count: int) -> Any:
    """Call a function in `count` new processes at once, and return what it returned in the first.

    function: of a module, found there by name. arguments and the result are pickled. Each process finds RANK and
    LOCAL_RANK (0 to count - 1), WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its environment, and OMP_NUM_THREADS, its
    share of the cores, unless that is set. Only the first prints.

    Raises InputError, KeyboardInterrupt and Terminated as the function did in one of the processes, RuntimeError with
    the traceback for any other exception, and InputError where a process was killed (KilledError: by SIGKILL).
    """
    with tempfile.TemporaryDirectory(prefix="sartorius-ranks-") as name:
        folder = Path(name)
        (folder / "job").write_bytes(pickle.dumps((function, list(arguments))))
        processes = _start(folder, count)
        try:
            with _forwarded_signals(processes):
                _wait(folder, processes)
        finally:
            outcomes = _outcomes(folder, processes)
            for process in processes:
                process.kill()
            for process in processes:
                process.communicate()
        return _result(folder, outcomes)


def _start(folder: Path, count: int) -> list[subprocess.Popen[bytes]]:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // count)), **os.environ,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), "NODE_RANK": "0",
    }  # fmt: skip
    processes = []
    with ExitStack() as files:  # which the processes hold open
        for number in range(count):
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder)],
                stdin=subprocess.PIPE,  # never written to; it ends with this process, see `end_with_starter`
                stdout=subprocess.DEVNULL if number else None,
                stderr=files.enter_context(open(_stderr_file(folder, number), "wb")) if number else None,
                env={**environment, "RANK": str(number), "LOCAL_RANK": str(number)},
                start_new_session=True,  # Ctrl-C comes from here, once
            )
            processes.append(process)
    return processes


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def _forwarded_signals(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Forward Ctrl-C and SIGTERM to the processes; a thread cannot, and leaves them to its main thread."""

    def forward(signum: int, _: Any) -> None:
        for process in processes:
            process.send_signal(signum)  # does nothing to one that has ended

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return when all have ended, when one has failed, or `_GRACE` seconds after one was interrupted."""
    until = float("inf")
    while time.monotonic() < until:
        codes = [None if outcome is None else outcome.code for outcome in _outcomes(folder, processes)]
        if any(code not in (None, 0, _INTERRUPTED, _TERMINATED) for code in codes):
            time.sleep(_POLL)  # where one was killed the others fail too, maybe first
            return
        if None not in codes:
            return
        if until == float("inf") and any(codes):
            until = time.monotonic() + _GRACE
        time.sleep(_POLL)


def _outcomes(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> list[_Outcome | None]:
    """Read the outcome of each rank; None while it runs."""
    outcomes: list[_Outcome | None] = []
    for number, process in enumerate(processes):
        code = process.poll()  # before the file: a process writes it and then ends
        file = _outcome_file(folder, number)
        if file.is_file():
            outcomes.append(pickle.loads(file.read_bytes()))
        elif code is None:
            outcomes.append(None)
        else:
            outcomes.append(_Outcome(min(code, -1), f"process {number + 1} of {len(processes)} {_ending(code)}"))
    return outcomes


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended by itself with code {code}"
    reason = "; did the machine's memory run out?" if code == _KILLED else ""
    return f"was killed ({signal.Signals(-code).name}){reason}"


def _result(folder: Path, outcomes: Sequence[_Outcome | None]) -> Any:
    """Return the first rank's result, or raise the error of a rank that died, else of the first that failed."""
    failed = [(end.code, number, end) for number, end in enumerate(outcomes) if end is not None and end.code]
    if not failed:
        return outcomes[0].result if outcomes[0] is not None else None
    code, number, end = min(failed, key=lambda entry: entry[:2])  # below 0 first; an interrupt (130) last
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code == _TERMINATED:
        raise Terminated
    if end.bug:
        raise RuntimeError(f"process {number + 1} of {len(outcomes)} failed\n{end.message}")
    file = _stderr_file(folder, number)
    last = file.read_text(errors="replace").splitlines()[-_LAST_LINES:] if code < 0 and file.is_file() else []
    raise (KilledError if code == _KILLED else InputError)(" | ".join([end.message, *last]))


def _outcome_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.end"


def _stderr_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.err"


def run_rank(folder: Path) -> None:
    """Run the function of `launch` as one of its ranks, write the outcome, exit."""
    number = int(os.environ["LOCAL_RANK"])
    threading.Thread(target=end_with_starter, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    try:
        function, arguments = pickle.loads((folder / "job").read_bytes())
        with sigterm_raises():
            outcome = _Outcome(0, result=function(*arguments))
    except KeyboardInterrupt:
        outcome = _Outcome(_INTERRUPTED)
    except Terminated:
        outcome = _Outcome(_TERMINATED)
    except InputError as error:
        outcome = _Outcome(1, str(error))
    except BaseException:
        outcome = _Outcome(1, traceback.format_exc(), bug=True)
    sys.stdout.flush()
    with atomic_path(_outcome_file(folder, number)) as temporary:
        temporary.write_bytes(pickle.dumps(outcome if number == 0 or outcome.code else _Outcome(0)))
    if outcome.code not in (0, _INTERRUPTED, _TERMINATED):
        threading.Event().wait()  # for the starter: others that lose their connection would complain, too
    sys.exit(outcome.code)


def end_with_starter() -> None:
    """Wait until standard input, a pipe from who started this process, is closed; then end, with a group led by it."""
    while os.read(0, 1):
        pass
    if sys.platform != "win32":
        if os.getpgrp() == os.getpid():  # or loaders of data would hold its locks for seconds
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    # by the module's own name: what is pickled here would not be found under __main__
    from sartorius.running import processes

    processes.run_rank(Path(sys.argv[1]))
