import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sartorius import files
from sartorius.running import failures


def test_written_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("the disk is full")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_failed_json_leaves_the_previous_file(tmp_path) -> None:
    files.write_json(tmp_path / "a.json", [1])
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "a.json", [float("nan")])
    assert (tmp_path / "a.json").read_text() == "[\n  1\n]\n"


def test_csv(tmp_path) -> None:
    files.write_csv(tmp_path / "a.csv", pd.DataFrame({"id": ["x"], "n": [3]}))
    assert (tmp_path / "a.csv").read_text() == "id,n\nx,3\n"


def test_what_killed_programs_left_is_deleted(tmp_path) -> None:
    for name in (".p1.77.partial.npz", ".a.7.partial", "p1.npz", ".hidden"):
        (tmp_path / name).write_text("x")
    files.remove_partial(tmp_path)
    files.remove_partial(tmp_path / "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "p1.npz"]


def test_a_file_is_current_unless_what_it_is_made_of_is_newer(tmp_path) -> None:
    made, one, other = (tmp_path / name for name in ("made", "one", "other"))
    for time, path in enumerate((one, other, made)):
        path.touch()
        os.utime(path, (time, time))
    assert files.is_current(made, [one, other]) and files.is_current(made, [made])
    assert not files.is_current(other, [one, made]) and not files.is_current(made, [one, tmp_path / "absent"])
    assert not files.is_current(tmp_path / "absent", [one])


def test_a_lock_ends_with_its_process_and_leaves_no_file(tmp_path) -> None:
    """The process forks, as data loaders do: a child that outlives it does not hold the lock."""
    program = """
import os, sys, time
from sartorius.files import locked
with locked(sys.argv[1]):
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(20)
        os._exit(0)
    print(child, flush=True)
    time.sleep(20)
"""
    held = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    child = int(held.stdout.readline())
    try:
        with pytest.raises(BlockingIOError, match="another process is writing it"), files.locked(tmp_path / "a"):
            pass
        held.kill()
        held.communicate()
        with files.locked(tmp_path / "a"):
            assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
        assert not list(tmp_path.iterdir())
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_is_waited_for(tmp_path) -> None:
    with ThreadPoolExecutor() as pool:
        with files.locked(tmp_path, inside=True):
            waiting = pool.submit(lambda: files.locked(tmp_path, inside=True, wait=True).__enter__())
            assert wait([waiting], timeout=0.2).not_done
        waiting.result(timeout=20)


def save_torch(path: Path) -> None:
    torch.save({"a": torch.rand(100_000)}, path)


def save_image(path: Path) -> None:
    Image.fromarray(NOISE).save(path)


SAVERS: list[tuple[str, Callable[[Path], object]]] = [
    ("a.npz", lambda path: np.savez_compressed(path, a=NOISE)),
    ("a.ckpt", save_torch),
    ("a.png", save_image),
    ("a.tif", save_image),
    ("a.csv", lambda path: pd.DataFrame(NOISE).to_csv(path)),
    ("a.txt", lambda path: path.write_text("a" * 100_000)),
    ("a.bin", lambda path: NOISE.tofile(path)),
]
NOISE = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
@pytest.mark.parametrize(("name", "save"), SAVERS)
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str, save: Callable[[Path], object]) -> None:
    """A limit on the size of files stands in for a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError) as failed, files.atomic_path(tmp_path / name) as temporary:  # noqa: PT011
            save(temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failed.value.filename == str(tmp_path / name)
    assert failures.message(failed.value).startswith(f"{tmp_path / name}: ")
    assert not list(tmp_path.iterdir())


def test_errors_of_other_files_and_bugs_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, files.atomic_path(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")
    with pytest.raises(RuntimeError, match="^a bug$"), files.atomic_path(tmp_path / "a"):
        raise RuntimeError("a bug")
    with pytest.raises(PermissionError) as refused, files.atomic_path(tmp_path / "a") as temporary:
        raise PermissionError(errno.EACCES, "denied", str(temporary))
    assert refused.value.filename == str(tmp_path / "a")
