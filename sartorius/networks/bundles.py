"""Bundles: trained models as zip files without pickle, read whole or not at all; nothing is unpacked to the disk.

A bundle holds `bundle.json`, `weights.safetensors`, `README.md` (the model card) and `example/` (see LIMITS). In
bundle.json: `format`, `format_version`, `sartorius` (version of the program that wrote it), `metadata` (those of a
checkpoint, see `checkpoints`), `weights` (`sha256` and `dtype`), `card` and `example` (`cell_types`, one name a cell).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, FORMAT_VERSION = "sartorius bundle", 1
MANIFEST, WEIGHTS, CARD = "bundle.json", "weights.safetensors", "README.md"
EXAMPLE, EXAMPLE_CELLS = "example/image.png", "example/cells.png"
CARD_KEY = "card"  # of the metadata that come from a bundle
LIMITS = {MANIFEST: 2**24, WEIGHTS: 2**40, CARD: 2**20, EXAMPLE: 2**27, EXAMPLE_CELLS: 2**27, "example/": 0}  # bytes
DTYPES = ("F32", "F16", "F64", "I64", "I32", "U8", "BOOL")  # of weights and buffers, as safetensors calls them
DIMENSIONS = 8
RATIO = 4  # weights hardly shrink: a member that unpacks to more than this many times the file, and ...
SPARE = 2**24  # ... this many bytes, fills the memory


@dataclass(frozen=True)
class Bundle:
    """The model of a bundle: metadata as in a checkpoint, and weights by name, on the CPU, float32 where they are
    float16 in the file."""

    metadata: dict[str, Any]
    state: dict[str, Tensor]


def is_bundle(path: Path) -> bool:
    """Whether a file is a bundle, or the beginning of one."""
    try:
        with open(path, "rb") as file:
            start = file.read(30 + len(MANIFEST))
            if start[:4] != b"PK\3\4":
                return False
            return start[30:] == MANIFEST.encode() or MANIFEST in zipfile.ZipFile(file).namelist()
    except Exception:  # zipfile raises a dozen kinds for files that are not its own
        return False


def read_bundle(path: Path, source: str) -> Bundle:
    """Read the model of a bundle; no code is run.

    Raises InputError, naming `source`, for a damaged or hostile file, one of another format version, weights whose
    sum is not that of bundle.json, and as `check_tensors`.
    """
    from safetensors.torch import load

    from sartorius.networks.torch_files import check_tensors

    with _opened(path, source) as archive:
        manifest = _read_manifest(archive, source)
        content = _read(archive, WEIGHTS)
        if hashlib.sha256(content).hexdigest() != manifest["weights"].get("sha256"):
            raise InputError(f"{source}: {WEIGHTS} has another SHA-256 than its {MANIFEST} tells; fetch the file again")
        _check_header(content, source)
        state = load(content)
        check_tensors(state, source)
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return Bundle({**manifest["metadata"], CARD_KEY: manifest[CARD_KEY]}, state)


def read_members(path: Path, source: str, *names: str) -> tuple[dict[str, Any], list[bytes]]:
    """Read bundle.json and these members, such as EXAMPLE; raises InputError as `read_bundle`, and where one lacks."""
    with _opened(path, source) as archive:
        manifest = _read_manifest(archive, source)
        if missing := sorted({*names} - {*archive.namelist()}):
            raise InputError(f"{source}: holds no {missing[0]}; write the bundle again")
        return manifest, [_read(archive, name) for name in names]


@contextmanager
def _opened(path: Path, source: str) -> Iterator[zipfile.ZipFile]:
    """Open a checked archive; whatever zipfile, json and safetensors raise in the block becomes an InputError."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            _check(archive.infolist(), os.fstat(file.fileno()).st_size, source)
            yield archive
    except (InputError, FileNotFoundError):
        raise
    except MemoryError as error:
        raise InputError(f"{source}: does not fit into the memory, or is damaged") from error
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise InputError(f"{source}: not a bundle, or a damaged one ({reason}); fetch or export it again") from error


def _check(members: list[zipfile.ZipInfo], size: int, source: str) -> None:
    """Raise InputError for members that no bundle has, one name twice, sizes that fill the memory, and overlaps."""
    names = [member.filename for member in members]
    if unknown := [name for name in names if name not in LIMITS]:
        raise InputError(f"{source}: refused, it holds '{unknown[0][:100]}'; a bundle holds {', '.join(LIMITS)} only")
    if len(set(names)) < len(names):
        raise InputError(f"{source}: refused, it holds a file twice: {', '.join(sorted(names))}")
    if missing := [name for name in (MANIFEST, WEIGHTS) if name not in names]:
        raise InputError(f"{source}: not a bundle, it holds no {missing[0]}")
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise InputError(f"{source}: refused, its parts lie on each other")
        end = member.header_offset + 30 + len(member.filename.encode()) + member.compress_size
        if member.file_size > min(LIMITS[member.filename], RATIO * size + SPARE):
            raise InputError(f"{source}: refused, its {member.filename} unpacks to {member.file_size:,} bytes")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{source}: refused, its {member.filename} is compressed in another way than by deflate")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member whole, its checksum verified, and never more than it declares."""
    member = archive.getinfo(name)
    with archive.open(member) as file:
        content = file.read(member.file_size)
    if len(content) != member.file_size:
        raise ValueError(f"{name} ends early")
    return content


def _check_header(content: bytes, source: str) -> None:
    """Raise InputError for tensors of other types than torch's modules have, and of more dimensions: safetensors reads
    each byte of a type as a number of some kind, and takes minutes over a shape of a million ones."""
    if (length := int.from_bytes(content[:8], "little")) > LIMITS[MANIFEST]:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(content[8 : 8 + length])
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        if tensor["dtype"] not in DTYPES or len(tensor["shape"]) > DIMENSIONS:
            kind = f"{str(tensor['dtype'])[:20]} of {len(tensor['shape'])} dimensions"
            raise InputError(
                f"{source}: refused, its '{name[:100]}' is a {kind}; expected one of {', '.join(DTYPES)} and "
                f"{DIMENSIONS} dimensions at most"
            )


def _read_manifest(archive: zipfile.ZipFile, source: str) -> dict[str, Any]:
    """Read bundle.json; raises InputError for another version and values of other kinds."""
    manifest = json.loads(_read(archive, MANIFEST).decode("utf-8"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{source}: not a bundle, its {MANIFEST} is of another format")
    if (version := manifest.get("format_version")) != FORMAT_VERSION:
        written = f", written by sartorius {str(manifest.get('sartorius'))[:20]}"
        raise InputError(
            f"{source}: bundle of format version {version!r}{written}, this program reads {FORMAT_VERSION}; update "
            "sartorius, or export it again"
        )
    for key in ("metadata", "weights", "card", "example"):
        if not isinstance(manifest.get(key), dict):
            raise InputError(f"{source}: not a bundle, '{key}' of its {MANIFEST} is no mapping")
    return manifest
