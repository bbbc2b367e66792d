"""Atomic files, which a full disk or a kill leaves whole, and locks, which a kill ends.

Everything is written to a temporary name in the same folder (so that the move is a rename on one
file system), flushed to the disk, and moved onto its name.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PATIENCE = 1.0  # seconds that a lock is waited for: a process that was just killed may still be ending


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Open a temporary sibling of `path` to write to; it moves onto `path` on success and is deleted on failure.

    The temporary name keeps the suffix (savers depend on it), starts with a dot and carries the process id,
    so that two processes never share one. Missing parent folders are made. A write that fails (a full disk) raises
    OSError with the name of `path`, whatever the saver.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a zip file with this content by name, all of one fixed time: the same content gives the same file."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Make a new sibling of a folder to fill; it replaces the folder, if any, on success and is deleted on failure.

    What was there is deleted only after the move. Names are as those of `atomic_path`; missing parents are made.
    """
    path = Path(path)
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def naming(path: str | Path, temporary: Path | None = None) -> Iterator[None]:
    """Name `path` in the errors of writing it, in place of no file or of `temporary`.

    Systems name no file in the error of a write, Pillow and numpy give some errors no number, and torch's writer raises
    a RuntimeError.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        what = error.strerror or str(error) or "cannot be written"
        raise OSError(error.errno or errno.EIO, what, str(path)) from error
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        raise OSError(errno.EIO, f"cannot be written; is the disk full? ({error})", str(path)) from error


@contextmanager
def locked(path: str | Path, inside: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder, `.<name>.lock` beside it, or `.lock` inside a folder that exists.

    The operating system ends the lock with the process that holds it. wait: until the other process is done; else
    raises BlockingIOError where one holds the lock.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    file = path / ".lock" if inside else path.with_name(f".{path.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=-1 if wait else _PATIENCE)
    except Timeout as error:
        what = "another process is writing it; wait until that has ended, or write elsewhere"
        raise BlockingIOError(errno.EAGAIN, what, str(path)) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows: filelock deletes it there
            file.unlink()  # while it is locked: who waits for it makes a new one
        lock.release()


def make_new_folder(path: str | Path) -> Path:
    """Make a folder of this name or, where that is taken, with _2, _3 ... at its end; returns its path."""
    for number in itertools.count(1):
        folder = Path(path if number == 1 else f"{path}_{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def remove_partial(folder: str | Path) -> None:
    """Delete the temporary files that killed programs left in a folder to which nobody else is writing."""
    for path in Path(folder).glob(".*.partial*"):
        path.unlink(missing_ok=True)


def is_current(made: Path, of: Iterable[Path]) -> bool:
    """Whether a file exists and is not older than those it is made of."""
    try:
        return made.stat().st_mtime >= max(path.stat().st_mtime for path in of)
    except FileNotFoundError:
        return False


def drop_cut_line(path: Path) -> bytes:
    """The content of a file to which lines are appended; a last one that a kill or a full disk cut off is taken away.

    b"" without such a file.
    """
    if not path.is_file():
        return b""
    whole, end, cut = path.read_bytes().rpartition(b"\n")
    if cut:
        with open(path, "r+b") as file:
            file.truncate(len(whole + end))
    return whole + end


def append_line(path: Path, text: str) -> None:
    """Append a line to a file, UTF-8 and on the disk; a write that fails half-way (a full disk) leaves it as it was.

    A file that is missing is made, its folder is not.
    """
    with naming(path), open(path, "ab", buffering=0) as file:
        size, rest = file.tell(), memoryview(f"{text}\n".encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically: indented, keys in the order given, ending in a newline; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: str | Path, frame: Any) -> None:
    """Write a pandas DataFrame as csv atomically, without its index."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)
