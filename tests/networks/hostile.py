"""`python -m tests.networks.hostile FOLDER`: files of weights that would fill the memory; prints the peak of each."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from sartorius.errors import InputError
from sartorius.networks.checkpoints import FORMAT_VERSION, KEY
from sartorius.networks.weight_files import read_weights
from sartorius.running.loading import load_module

UNET = {
    "_target_": "sartorius.modules.unet.UNetModule",
    "layout": {"_target_": "sartorius.networks.cell_maps.MapLayout", "types": 0, "centre": False},
    "decoder": {"_target_": "sartorius.postprocess.decoders.Components", "threshold": 0.5, "min_area": 1},
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
}


def unet(encoder: dict[str, Any] | None = None, **network: Any) -> dict[str, Any]:
    plain = {"_target_": "sartorius.networks.encoders.PlainEncoder", "filters": 4, "blocks": 2, "norm": "none"}
    parts = {"encoder": {**plain, **(encoder or {})}, "outputs": 1, "channels": [8, 4], "norm": "none"}
    return {
        **UNET,
        "network": {"_target_": "sartorius.networks.unet.UNet", **parts, "mean": 0.0, "std": 1.0, **network},
    }


MODELS: dict[str, dict[str, Any]] = {
    "a million channels": unet({"filters": 10**6}),
    "a million layers": unet({"blocks": 10**6}),
    "a thousand layers": unet({"blocks": 1000}),
    "a million outputs": unet(outputs=10**6),
    "a million types": {**unet(), "network": {**unet()["network"], "outputs": {**UNET["layout"], "types": 10**6}}},
    "many blocks": unet(channels=[8] * 90_000),
    "wide blocks": unet(channels=[10**6, 10**6]),
    "a giant": unet({}) | {"network": {**unet()["network"], "encoder": {
        "_target_": "sartorius.networks.encoders.TimmEncoder", "name": "vit_giant_patch14_dinov2"}}},
    "an enlarged image": unet(scale=10**6),
    "huge masks": {**unet(), "mask_size": 10**6},
    "anchors": {"_target_": "sartorius.networks.anchors.AnchorGrid", "sizes": [[1] * 40_000], "ratios": [1] * 40_000},
}  # fmt: skip


def save(path: Path, model: dict[str, Any]) -> Path:
    torch.save({"state_dict": {"w": torch.zeros(3)}, KEY: {"format_version": FORMAT_VERSION, "model": model}}, path)
    return path


class Reduce:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def pickled(path: Path, content: Any, compress: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """A file as torch.save writes it, with a pickle of our own."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("a/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, 2))
        for name, data in {"version": b"3\n", **members}.items():
            archive.writestr(f"a/{name}", data)
    return path


def legacy(path: Path, content: Any) -> Path:
    """A file as torch wrote it before 1.6."""
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, []):
            file.write(pickle.dumps(part, 2))
    return path


def overlapping(path: Path) -> Path:
    """An archive whose directory names one member of 10 MB a hundred times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(10**7))
    whole = buffer.getvalue()
    start = whole.rindex(b"PK\1\2")
    end = whole.index(b"PK\5\6", start)
    entry, directory = whole[start:end], whole.index(b"PK\1\2")
    entries = whole[directory:start] + b"".join(entry.replace(b"a/data/0", b"a/dat%03d" % k) for k in range(100))
    path.write_bytes(
        whole[:directory] + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 101, 101, len(entries), directory, 0)
    )
    return path


def files(folder: Path) -> dict[str, Path]:
    wide: Any = ["x"] * 10
    for _ in range(40):
        wide = [wide] * 10
    many = OrderedDict((f"w{k}", torch.zeros(1).expand(10**6, 10**6)) for k in range(2))
    metadata = {KEY: {"format_version": FORMAT_VERSION, "model": {}}}
    stored = pickled(folder / "bomb.ckpt", {}, zipfile.ZIP_DEFLATED, **{"data/0": bytes(2 * 10**8)})
    expanded = folder / "expanded.ckpt"
    torch.save({"state_dict": many, **metadata}, expanded)
    widened = folder / "wide.ckpt"
    torch.save({"state_dict": {}, KEY: {"format_version": FORMAT_VERSION, "model": wide}}, widened)
    sparse = folder / "sparse.ckpt"
    value = torch.sparse_coo_tensor(torch.zeros((2, 1), dtype=torch.int64), torch.ones(1), (10**5, 10**5))
    torch.save({"state_dict": {"w": value}, **metadata}, sparse)
    return {
        "deflated": stored,
        "overlapping": overlapping(folder / "overlapping.ckpt"),
        "expanded": expanded,
        "wide": widened,
        "sparse": sparse,
        "bytearray": pickled(folder / "bytes.ckpt", {"a": Reduce(bytearray, (2 * 10**9,))}),
        "bytearray, legacy": legacy(folder / "legacy.ckpt", {"a": Reduce(bytearray, (2 * 10**9,))}),
        "tensor": pickled(folder / "tensor.ckpt", {"a": Reduce(torch.FloatTensor, (10**9,))}),
        "deep": pickled(folder / "deep.ckpt", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
        "memo.pkl": _bytes(folder / "memo.pkl", b"\x80\x02]r\xff\xff\xff\x3f."),
        "wide.pkl": _bytes(folder / "wide.pkl", pickle.dumps(wide)),
        "deep.pkl": _bytes(folder / "deep.pkl", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
    }


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def peak() -> int:
    """The most memory that this process ever took, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(folder: Path) -> None:
    made = files(folder)
    attempt("nothing", load_module, save(folder / "model.ckpt", unet()))
    for name, model in MODELS.items():
        attempt(name, load_module, save(folder / "model.ckpt", model))
    for name, path in made.items():
        if path.suffix == ".ckpt":
            attempt(name, load_module, path)
        attempt(f"{name} as weights", read_weights, path)


def attempt(name: str, read: Any, path: Path) -> None:
    before, start = peak(), time.monotonic()
    try:
        read(path)
        print(f"{name}: READ")
    except InputError as error:
        print(f"{name}: {peak() - before} MB, {time.monotonic() - start:.2f} s: {str(error)[:250]}", flush=True)


if __name__ == "__main__":
    sys.setrecursionlimit(1000)
    main(Path(sys.argv[1]))
