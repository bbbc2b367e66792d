"""Pickles of NumPy arrays, read without executing them.

A pickle is a program: it may call anything that can be imported. detectron2's model zoo comes as pickles, so they are
read by an unpickler that knows stand-ins for the few calls which arrays are made of, and refuses every other name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartorius.errors import InputError

_NUMBERS = re.compile(r"[biuf][1248]")


def read_pickle(path: str | Path) -> Any:
    """What a pickle holds: dicts, lists, tuples, text, numbers and NumPy arrays (numeric, native byte order).

    Old files of Python 2 are read as Latin-1, as NumPy wrote them. Raises InputError for a missing, truncated or other
    file, and for one that calls anything else: nothing of it is executed.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        with open(path, "rb") as file:
            return _plain(_Reader(file, path).load())
    except (InputError, OSError):
        raise
    except Exception as error:  # pickle raises a dozen kinds for files that are not its own
        raise InputError(f"{path}: not a whole pickle of arrays ({_first_line(error)}); fetch it again") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, path: str | Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; raises InputError for all others."""
        if (found := _KNOWN.get((module.replace("numpy.core", "numpy._core"), name))) is None:
            raise InputError(f"{self.path}: refused, it calls {module}.{name}; a pickle of weights holds arrays only")
        return found


class _Kind:
    """Stands for a numpy.dtype while it is read."""

    def __init__(self, code: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else str(code)
        if not _NUMBERS.fullmatch(code):
            raise ValueError(f"an array of kind '{code}', expected numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = str(state[1])
        self.order = order if order in "<>" else "="

    def array(self, data: Any, shape: Sequence[int], order: Any = "C") -> NDArray[Any]:
        """The array of these bytes (text: bytes of Python 2 read as Latin-1)."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        kind = np.dtype(self.order + self.code)
        shaped = np.frombuffer(raw, kind).reshape(shape, order=order)
        return shaped.astype(kind.newbyteorder("="), order="C")


class _Array:
    """Stands for a numpy.ndarray while it is read."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, fortran, data = state
        self.value = kind.array(data, shape, "F" if fortran else "C")


class _StandIns:
    """Called in place of NumPy's own. Bound methods, since a pickle can set attributes of a class or a function."""

    __slots__ = ()

    def reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def kind(self, code: Any, *_: Any) -> _Kind:
        return _Kind(code)

    def scalar(self, kind: _Kind, data: Any) -> NDArray[Any]:
        return kind.array(data, ())

    def from_buffer(self, data: Any, kind: _Kind, shape: Sequence[int], order: Any) -> NDArray[Any]:
        return kind.array(data, shape, order)

    def encode(self, text: str, _: str) -> bytes:
        return text.encode("latin1")

    def no_bytes(self) -> bytes:
        return b""

    def ordered(self, pairs: Sequence[Any] = ()) -> dict[Any, Any]:
        return dict(pairs)


_OURS = _StandIns()
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy._core.multiarray", "_reconstruct"): _OURS.reconstruct,
    ("numpy._core.multiarray", "scalar"): _OURS.scalar,
    ("numpy._core.numeric", "_frombuffer"): _OURS.from_buffer,
    ("numpy", "ndarray"): _OURS.reconstruct,  # only ever an argument of _reconstruct, which does not look at it
    ("numpy", "dtype"): _OURS.kind,
    ("_codecs", "encode"): _OURS.encode,
    ("__builtin__", "bytes"): _OURS.no_bytes,
    ("collections", "OrderedDict"): _OURS.ordered,
}


def _plain(node: Any) -> Any:
    """The same containers with arrays in place of their stand-ins."""
    if isinstance(node, _Array):
        if node.value is None:
            raise ValueError("an array without content")
        return node.value
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_plain(value) for value in node)
    return node
