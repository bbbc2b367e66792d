"""Files from anywhere: damaged ones, and such that would fill the memory."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sartorius.errors import InputError
from sartorius.structures.detections import Detections, DetectionsFolder
from sartorius.structures.reading import read_arrays, read_json, read_yaml


def archive(path: Path, compress: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compress) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(shape: str, data: bytes = b"", descr: str = "|u1") -> bytes:
    """An array whose header says what it likes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(12.0).reshape(3, 4), "b": np.array(["x", "yz"]), "c": np.array(7)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for source in (tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes()):
        for name, array in read_arrays(source, 2000).items():
            np.testing.assert_array_equal(array, arrays[name])
    assert list(read_arrays(tmp_path / "a.npz", 400, ("c", "absent"))) == ["c"]
    with pytest.raises(ValueError, match="it unpacks to .* bytes, expected 100 at most"):
        read_arrays(tmp_path / "a.npz", 100)


@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_byte_is_found(tmp_path: Path, compress: int) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 256, 3000, np.uint8))
    path = archive(tmp_path / "a.npz", compress, a=buffer.getvalue())
    whole = path.read_bytes()
    for place in range(200, 2000, 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((zipfile.BadZipFile, ValueError, OSError, Exception), match=r"CRC|invalid|error|bytes"):
            read_arrays(path, 10**6)


HOSTILE = """
import resource, sys
from pathlib import Path
from sartorius.errors import InputError
from sartorius.structures.detections import Detections
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).glob("*.npz")):
    try:
        Detections.load(path)
        print(path.name, "READ")
    except InputError as error:
        print(path.name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, str(error)[:200])
"""


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    good = Detections.empty("a", 20, 20).save(tmp_path)
    with zipfile.ZipFile(good) as file:
        members = {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}
    good.unlink()
    zeros = bytes(3 * 10**8)
    bombs = {
        "declared": {"masks": npy("(300000000,)", zeros)},
        "shape": {"masks": npy("(4000000000000,)", b"x")},
        "shapes": {"masks": npy("(4000000000, 4000000000, 4000000000)", b"x")},
        "negative": {"masks": npy("(-5, 3, 3)", b"x")},
        "text": {"cell_type_names": npy("(1,)", b"x", "<U1000000000")},
        "object": {"masks": npy("(1,)", b"x", "|O")},
        "size": {"size": npy("(300000000,)", zeros)},
        "deep": {"size": npy("(" * 4000 + ")" * 4000)},
    }
    for name, changes in bombs.items():
        archive(tmp_path / f"{name}.npz", **{**members, **changes})
    hidden = archive(tmp_path / "hidden.npz", **{**members, "masks": npy("(300000000,)", zeros)})
    content = hidden.read_bytes()  # the archive declares a small member where a large one is
    hidden.write_bytes(content.replace((3 * 10**8 + 128).to_bytes(4, "little"), (5000).to_bytes(4, "little")))
    archive(tmp_path / "lzma.npz", zipfile.ZIP_LZMA, **members)
    run = subprocess.run([sys.executable, "-c", HOSTILE, str(tmp_path)], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert len(lines) == len(bombs) + 2, run.stdout + run.stderr
    for line in lines:
        _, megabytes, problem = line.split(" ", 2)
        assert megabytes != "READ" and int(megabytes) < 80 and ".npz: not a readable detections file" in problem, line


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1", "\xff", "1" * 10_000])
def test_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meta.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match="meta.json: not valid JSON .*; copy it again"):
        read_json(path, "copy it again")
    with pytest.raises(InputError, match="meta.json: not valid JSON .*; predict again"):
        _ = DetectionsFolder(tmp_path).meta


def test_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    aliases = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 31))
    for text, problem in (
        ("[" * 3000, "not valid YAML"),
        (aliases, "refused, more than 100000 values"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("a: &a [*a]", "refused, more than 32 levels"),
        ("a: 2020-01-01", "refused, a date in its settings"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"here: {problem}"):
            read_yaml(path, "here", "write it again")
    path.write_text("a: [1, {b: null}]")
    assert read_yaml(path, "here", "") == {"a": [1, {"b": None}]}
