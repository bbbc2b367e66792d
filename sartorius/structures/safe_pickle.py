"""Pickles of NumPy arrays, read without executing them.

A pickle is a program: it may call anything that can be imported. detectron2's model zoo comes as pickles, and so do
Cellpose's labels within a .npy file, so they are read by an Unpickler that knows stand-ins for the few calls which
arrays are made of, and refuses every other name. NumPy's own would not do: a pickle can change its dtypes, and with
them how bytes are read.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError

_NUMBERS = re.compile(r"[biuf][1248]")
_OBJECTS = ("O8", "O4", "O")
_PATHS = ("pathlib", "pathlib._local")


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of dicts, lists, tuples, text, numbers and NumPy arrays (numeric, native byte order).

    Old files of Python 2 are read as Latin-1, as NumPy wrote them. Raises InputError for a missing, truncated or other
    file, and for one that calls anything else: nothing of it is executed.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file, path).load(), {})
    except (InputError, OSError):
        raise
    except Exception as error:  # pickle raises a dozen kinds for files that are not its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a whole pickle of arrays ({reason}); fetch it again") from error


def read_npy(path: Path) -> Any:
    """Read a .npy file: its array or, of one that holds objects, those in a list; see `read_pickle`.

    Raises InputError for another file, one that calls anything but arrays, and an array larger than the file.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read_header[version](file)
            if dtype.hasobject:
                return _plain(_Reader(file, path, objects=True).load(), {})
            if len(content := file.read()) < math.prod(shape) * dtype.itemsize:
                raise ValueError("it ends within the array")
            content = content[: math.prod(shape) * dtype.itemsize]
            return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    except InputError:
        raise
    except Exception as error:  # of the header, of pickle; `no such file` too
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not a whole .npy file of labels ({reason}); save it again") from error


class _Dtype:
    """A numpy.dtype while it is read: of plain numbers, in a byte order that comes later."""

    def __init__(self, objects: bool, code: Any, *_: Any) -> None:
        self.code, self.order = code.decode("latin1") if isinstance(code, bytes) else str(code), "="
        if not (objects and self.code in _OBJECTS) and not _NUMBERS.fullmatch(self.code):
            raise ValueError(f"an array of kind '{self.code}', expected numbers")

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def array(self, data: Any, shape: Sequence[int] = (), order: Any = "C") -> NDArray[Any] | list[Any]:
        """Make the array of these bytes (text: bytes of Python 2 read as Latin-1); of objects, their list."""
        if self.code in _OBJECTS:
            if not isinstance(data, list):
                raise ValueError("an array of objects that are not listed")
            return data
        raw = data.encode("latin1") if isinstance(data, str) else data
        kind = np.dtype(self.order + self.code)
        return np.frombuffer(raw, kind).reshape(shape, order=order).astype(kind.newbyteorder("="), order="C")


class _Array:
    """A numpy.ndarray while it is read."""

    value: NDArray[Any] | list[Any] | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = dtype.array(data, shape, "F" if fortran else "C")


def _stand_ins(objects: bool) -> dict[tuple[str, str], Callable[..., Any]]:
    """Make functions by (module, name), anew for every use: a pickle can set attributes of one.

    objects: arrays may hold any, which become lists.
    """
    return {
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy._core.multiarray", "scalar"): lambda dtype, data: dtype.array(data),
        ("numpy._core.numeric", "_frombuffer"): lambda data, dtype, shape, order: dtype.array(data, shape, order),
        ("numpy", "ndarray"): lambda *_: _Array(),  # only ever an argument of _reconstruct, which ignores it
        ("numpy", "dtype"): lambda *arguments: _Dtype(objects, *arguments),
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        ("__builtin__", "bytes"): lambda: b"",
        **{
            (module, name): lambda *parts: "/".join(parts) for module in _PATHS for name in ("PosixPath", "WindowsPath")
        },
        ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
    }


class _Reader(pickle._Unpickler):  # in Python: that in C reserves memory for whatever number of objects a file claims
    def __init__(self, file: Any, path: str | Path, objects: bool = False) -> None:
        super().__init__(file, encoding="latin1")
        self.path, self.objects = path, objects

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; raises InputError for all others."""
        stand_in = _stand_ins(self.objects).get((module.replace("numpy.core", "numpy._core"), name))
        if stand_in is None:
            raise InputError(f"{self.path}: refused, it calls {module}.{name}; expected a pickle of arrays only")
        return stand_in


def _plain(node: Any, done: dict[int, Any]) -> Any:
    """Replace stand-ins by their arrays in plain containers; raises ValueError for anything else.

    done: the results by the id of the container, so that one which many others hold is copied once.
    """
    if isinstance(node, _Array) and node.value is not None:
        return _plain(node.value, done)
    if isinstance(node, dict | list | tuple):
        if id(node) not in done:
            values = node.values() if isinstance(node, dict) else node
            copies = [_plain(value, done) for value in values]
            done[id(node)] = dict(zip(node, copies, strict=True)) if isinstance(node, dict) else type(node)(copies)
        return done[id(node)]
    if node is None or isinstance(node, np.ndarray | str | bytes | int | float):
        return node
    raise ValueError(f"a {type(node).__name__} in it")
