"""Files that `torch.save` wrote, read without running code from them, whole or not at all.

torch.load with `weights_only` calls nothing of the file's, but checks no sums, so that zeroed bytes become weights, and
still makes whatever size of array a file of a few bytes asks for.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sartorius.errors import InputError

# What tensors, their containers and the state of a training are made of. Others that torch would call make arrays of a
# size that the file names, such as bytearray, or tensors without data.
_CALLED = {"collections OrderedDict", "builtins set", "__builtin__ set", "torch Size", "torch device"}
_CALLED |= {f"torch._utils _rebuild_{kind}" for kind in ("tensor", "tensor_v2", "parameter")}


class UnsafeFileError(InputError):
    """A file that holds more than tensors and plain values."""


def read_torch(path: Path, source: str) -> Any:
    """Read the content of a file of torch, its tensors on the CPU.

    Raises InputError, naming `source`, for a damaged file (its checksums are verified) and another kind of file;
    UnsafeFileError for one that calls what weights do not need.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\3\4":
                _check_archive(file)
            elif start.startswith(b"\x80"):
                _check_pickles(file)
            else:
                raise ValueError("no zip archive, no pickle")
        return torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        raise type(error)(f"{source}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{source}: does not fit into the memory, or is damaged") from error
    except Exception as error:  # torch, pickle and zipfile raise a dozen kinds for files that are not theirs
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "Unsupported" in reason or "Weights only" in reason:
            raise UnsafeFileError(f"{source}: refused, it holds more than tensors, which could run code") from error
        raise InputError(
            f"{source}: not a checkpoint or other file of PyTorch weights, or a damaged one ({reason})"
        ) from error


def _check_archive(file: IO[bytes]) -> None:
    """Raise InputError for members that are compressed, overlap or do not have their sum, and for unsafe calls."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise InputError("refused, it unpacks to more than its size; torch writes files as large as their content")
        if (damaged := archive.testzip()) is not None:
            raise InputError(f"damaged, its part {damaged} does not have the sum it was written with; copy it again")
        for member in members:
            if member.filename.endswith("/data.pkl"):
                _check_calls(archive.read(member))


def _check_pickles(file: IO[bytes]) -> None:
    """Check a file of torch before 1.6: four pickles (a mark, a version, the system, the content), then the data."""
    for _ in range(4):
        _check_calls(file)


def _check_calls(pickled: bytes | IO[bytes]) -> None:
    for opcode, name, _ in pickletools.genops(pickled):
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise UnsafeFileError(f"refused, it holds {opcode.name}, which no file of weights needs")
        if opcode.name == "GLOBAL" and not _is_safe(str(name)):
            raise UnsafeFileError(f"refused, it calls {name}; a file of weights holds tensors and plain values only")


def _is_safe(name: str) -> bool:
    """Whether `module name` may be called: `_CALLED`, and torch's dtypes and storages."""
    module, _, called = name.partition(" ")
    plain = called.endswith("Storage") or isinstance(vars(torch).get(called), torch.dtype)
    return name in _CALLED or (module in ("torch", "torch.storage") and plain)


def check_tensors(state: Mapping[str, Any], source: str) -> None:
    """Raise InputError, naming `source` and the tensor, unless all are plain tensors of finite numbers."""
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise InputError(f"{source}: expected a state dict (tensors by name), but '{name}' is a {_kind(value)}")
        if value.is_quantized or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{source}: refused, '{name}' of shape {tuple(value.shape)} is not all in the file")
        if value.is_floating_point() and not torch.isfinite(value).all():
            broken = int((~torch.isfinite(value)).sum())
            raise InputError(
                f"{source}: {broken} of {value.numel()} numbers of '{name}' are NaN or infinite, so it predicts "
                "nothing; take a checkpoint from before the training broke"
            )


def _kind(value: Any) -> str:
    return type(value).__name__ if not isinstance(value, Tensor) else f"{value.layout} tensor on {value.device}"
