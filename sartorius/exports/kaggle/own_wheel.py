"""A wheel of this package, made of its own files: neither a build tool nor a network is needed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from sartorius.files import write_zip

_LEFT_OUT = ("__pycache__", "plugin", "conf")  # plugin: Hydra's sweepers, of multiruns


def write_own_wheel(folder: Path, package: Path, conf: Path, version: str, requirements: Sequence[str]) -> Path:
    """Write the wheel of the package that is running, with its configs; returns its path.

    package, conf: the folders of its modules and of its configs, which go into the package. version, requirements: as
    in its metadata. The same files give the same bytes.
    """
    content = _files(package, "sartorius", _LEFT_OUT) | _files(conf, "sartorius/conf", ("__pycache__",))
    info = f"sartorius-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requirements)
    about = f"Metadata-Version: 2.1\nName: sartorius\nVersion: {version}\n{needs}"
    content[f"{info}/METADATA"] = about.encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: sartorius\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"sartorius-{version}-py3-none-any.whl"
    write_zip(path, content)
    return path


def _files(folder: Path, name: str, left_out: Sequence[str]) -> dict[str, bytes]:
    """Read all files below a folder, by their names in the wheel, sorted."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    chosen = [path for path in paths if not set(path.parts) & set(left_out)]
    return {f"{name}/{path.as_posix()}": (folder / path).read_bytes() for path in chosen}


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
