"""Several processes for one call: started together, watched, and ended together; what went wrong is said once.

`launch` is for one machine. The process that calls it computes nothing itself: it starts one process for each rank,
passes on Ctrl-C and SIGTERM, and ends all of them as soon as one fails, for the others would wait for it forever. A
rank whose starter was killed ends itself. On several machines somebody else starts the ranks (srun, torchrun).

torch's own starters (`multiprocessing.spawn`, `elastic_launch`) make text of an InputError, and tell a rank whose
starter was killed by an interrupt, which one that waits for the others never hears.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import atomic_path

_INTERRUPTED = 128 + signal.SIGINT
_GRACE = 60.0  # seconds that the others have to stop after the first was interrupted
_LOOK = 0.1  # seconds between looks at the ranks
_LAST_LINES = 5  # of what a rank wrote before it died, in the message


@dataclass(frozen=True)
class _End:
    """How a rank ended: its exit code, what is to be told about it, what the function returned."""

    code: int
    message: str = ""
    result: Any = None
    bug: bool = False  # the message is a traceback


def rank() -> int:
    """The number of this process among those that were started together, by `launch`, torchrun or srun; 0 alone."""
    names = ("RANK", *(["SLURM_PROCID"] if by_srun() else []), "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def count() -> int:
    """How many processes were started together; 1 alone."""
    if "WORLD_SIZE" in os.environ and "LOCAL_RANK" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return _tasks() if by_srun() else 1


def by_srun() -> bool:
    """Whether srun started this process beside others. SLURM's variables alone do not say so: a batch script has them,
    and a shell within a job, and a job of one task.
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

    Raises InputError and KeyboardInterrupt as the function did in one of the processes, RuntimeError with the traceback
    for any other exception, and InputError where a process was killed.
    """
    with tempfile.TemporaryDirectory(prefix="sartorius-ranks-") as name:
        folder = Path(name)
        (folder / "job").write_bytes(pickle.dumps((function, list(arguments))))
        processes = _start(folder, count)
        try:
            with _passed_on(processes):
                _wait(folder, processes)
        finally:
            ends = _look(folder, processes)
            for process in processes:
                process.kill()
            for process in processes:
                process.communicate()
        return _result(folder, ends)


def _start(folder: Path, count: int) -> list[subprocess.Popen[bytes]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // count)), **os.environ}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count)}
    environment |= {"NODE_RANK": "0"}
    processes: list[subprocess.Popen[bytes]] = []
    for number in range(count):
        output: Any = None
        if number:
            output = open(_words(folder, number), "wb")  # noqa: SIM115 - the process holds it open
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.PIPE,  # never written to; it ends with this process, see `_end_with_starter`
            stdout=subprocess.DEVNULL if number else None,
            stderr=output,
            env={**environment, "RANK": str(number), "LOCAL_RANK": str(number)},
            start_new_session=True,  # Ctrl-C comes from here, once
        )
        processes.append(process)
        if output is not None:
            output.close()
    return processes


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to the processes; a thread cannot, and leaves them to its main thread."""

    def pass_on(signum: int, _: Any) -> None:
        for process in processes:
            process.send_signal(signum)  # which knows of one that has ended

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return when all have ended, when one has failed, or some time after one was interrupted."""
    until = float("inf")
    while time.monotonic() < until:
        ends = _look(folder, processes)
        if any(end is not None and end.code not in (0, _INTERRUPTED) for end in ends):
            time.sleep(_LOOK)  # where one was killed the others fail too, maybe first
            return
        if None not in ends:
            return
        if until == float("inf") and any(end is not None and end.code for end in ends):
            until = time.monotonic() + _GRACE
        time.sleep(_LOOK)


def _look(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> list[_End | None]:
    """The end of each, None for one that goes on."""
    ends: list[_End | None] = []
    for number, process in enumerate(processes):
        code = process.poll()  # before the file: a process writes it and then ends
        file = _report(folder, number)
        if file.is_file():
            ends.append(pickle.loads(file.read_bytes()))
        else:
            ends.append(None if code is None else _End(-1, f"process {number + 1} of {len(processes)} {_how(code)}"))
    return ends


def _how(code: int) -> str:
    if code >= 0:
        return f"ended by itself with code {code}"
    reason = "; did the machine's memory run out?" if code == -9 else ""
    return f"was killed ({signal.Signals(-code).name}){reason}"


def _result(folder: Path, ends: Sequence[_End | None]) -> Any:
    """What the first returned, or the error of the one that died, else of the first that failed."""
    failed = [(end.code, number, end) for number, end in enumerate(ends) if end is not None and end.code]
    if not failed:
        return ends[0].result if ends[0] is not None else None
    code, number, end = min(failed, key=lambda one: one[:2])  # -1 first; an interrupt (130) last
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if end.bug:
        raise RuntimeError(f"process {number + 1} of {len(ends)} failed\n{end.message}")
    words = _words(folder, number)
    last = words.read_text(errors="replace").splitlines()[-_LAST_LINES:] if code < 0 and words.is_file() else []
    raise InputError(" | ".join([end.message, *last]))


def _report(folder: Path, number: int) -> Path:
    return folder / f"{number}.end"


def _words(folder: Path, number: int) -> Path:
    return folder / f"{number}.err"


def _serve(folder: Path) -> None:
    """Be a rank: call the function, write how it ended, end."""
    number = int(os.environ["LOCAL_RANK"])
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        function, arguments = pickle.loads((folder / "job").read_bytes())
        end = _End(0, result=function(*arguments))
    except KeyboardInterrupt:
        end = _End(_INTERRUPTED)
    except InputError as error:
        end = _End(1, str(error))
    except BaseException:
        end = _End(1, traceback.format_exc(), bug=True)
    sys.stdout.flush()
    with atomic_path(_report(folder, number)) as temporary:
        temporary.write_bytes(pickle.dumps(end if number == 0 or end.code else _End(0)))
    if end.code not in (0, _INTERRUPTED):
        threading.Event().wait()  # for the starter: others that lose their connection would complain, too
    sys.exit(end.code)


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    # as the module's own name, or what is pickled here could not be found there
    from sartorius.running import processes

    processes._serve(Path(sys.argv[1]))
