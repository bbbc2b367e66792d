"""Pickles are read without being executed."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.structures.safe_pickle import read_pickle

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "big endian": np.arange(4, dtype=">i8"),
    "empty": np.zeros((0, 3), np.float16),
    "number": np.array(3),
    "scalar": np.float32(2.5),
    "bytes": np.arange(256, dtype=np.uint8),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_whatever_the_protocol(protocol: int, tmp_path: Path) -> None:
    content = {"model": OrderedDict(ARRAYS), "__author__": "somebody", "more": [1, (2.5, None, True)]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(tmp_path / "a.pkl")
    assert (found["__author__"], found["more"]) == ("somebody", [1, (2.5, None, True)])
    for name, wanted in ARRAYS.items():
        value = found["model"][name]
        assert value.dtype.isnative and value.shape == wanted.shape
        np.testing.assert_array_equal(value, wanted)
        value.fill(1)  # its own memory


def test_python_2_wrote_arrays_as_text(tmp_path: Path) -> None:
    """As cPickle of Python 2 and NumPy 1 did: protocol 2, byte strings, the old module's name."""
    data = np.array([1.0, -2.5], "<f4").tobytes()
    program = (
        b"\x80\x02}U\x06conv_w"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(data)]) + data + b"tbs."
    )
    (tmp_path / "a.pkl").write_bytes(program)
    np.testing.assert_array_equal(read_pickle(tmp_path / "a.pkl")["conv_w"], np.array([1.0, -2.5], np.float32))


class Calls:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", [os.system, exec, eval, getattr, os.remove])
def test_nothing_is_called(function: Any, protocol: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("alive")
    argument = str(victim) if function is os.remove else f"__import__('os').remove({str(victim)!r})"
    if function is os.system:
        argument = f"rm {victim}"
    content = {"model": {"a": np.zeros(2), "b": Calls(function, argument)}, "__author__": "x"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(InputError, match=rf"a\.pkl: refused, it calls \w+\.{function.__name__}; expected a pickle"):
        read_pickle(tmp_path / "a.pkl")
    assert victim.read_text() == "alive"


def test_names_inside_a_known_module_are_refused_too(tmp_path: Path) -> None:
    for module, name in (("numpy", "load"), ("numpy._core.multiarray", "_reconstruct.__call__"), ("_codecs", "lookup")):
        text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
        (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + text[0] + text[1] + b"\x93.")
        with pytest.raises(InputError, match="refused, it calls"):
            read_pickle(tmp_path / "a.pkl")


def test_what_is_known_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD sets attributes of what it is given: not of what stands for NumPy's functions."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cnumpy\ndtype\n(N}X\x08\x00\x00\x00__doc__aX\x01\x00\x00\x00xs\x86b.")
    with pytest.raises(InputError, match="not a whole pickle"):
        read_pickle(tmp_path / "a.pkl")
    before = pickle.dumps({"a": np.zeros(3)})
    (tmp_path / "b.pkl").write_bytes(before)
    assert read_pickle(tmp_path / "b.pkl")["a"].shape == (3,)


def test_damaged_files(tmp_path: Path) -> None:
    whole = pickle.dumps({"model": ARRAYS}, 4)
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.pkl: not a whole pickle of arrays"):
            read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_text("hello")
    with pytest.raises(InputError, match="not a whole pickle"):
        read_pickle(tmp_path / "a.pkl")
    with pytest.raises(InputError, match=r"b\.pkl: no such file"):
        read_pickle(tmp_path / "b.pkl")


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([{}], object), np.zeros(1, [("a", "f4")])])
def test_arrays_hold_numbers(array: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array}, 4))
    with pytest.raises(InputError, match="an array of kind '.*', expected numbers"):
        read_pickle(tmp_path / "a.pkl")
