"""Bundles read: damaged, changed and hostile ones end in one line; nothing is written, executed or filled."""

from __future__ import annotations

import io
import json
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from sartorius.errors import InputError
from sartorius.networks import bundles
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.networks.weight_files import read_weights
from sartorius.running import exporting
from sartorius.running.loading import load_module
from tests.bright_unet import write_checkpoint
from tests.exports.exporting import edit, members, rewrite, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_checkpoint(folder / "a.ckpt")
    return write_bundle(folder / "a.zip", folder / "a.ckpt")


def refused(path: Path, match: str) -> None:
    """Every reader refuses it, and nothing appears beside it."""
    before = sorted(path.parent.rglob("*"))
    for read in (read_checkpoint, load_module, read_weights):
        with pytest.raises(InputError, match=match) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


def test_a_bundle_is_read_like_its_checkpoint(bundle: Path) -> None:
    ours, theirs = (read_checkpoint(bundle.with_suffix(suffix)) for suffix in (".zip", ".ckpt"))
    assert bundles.is_bundle(bundle) and not bundles.is_bundle(bundle.with_suffix(".ckpt"))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    for key in ("format_version", "model", "cell_types"):
        assert ours[KEY][key] == theirs[KEY][key]
    assert ours[KEY]["card"]["name"] == "a" and ours[KEY]["filter"] is None
    assert read_weights(bundle).metadata == ours[KEY]


def test_a_bundle_zipped_again_by_hand_is_read(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("example/", b"")
        for name, data in sorted(members(bundle).items()):
            archive.writestr(name, data + b"my notes" * (name == "README.md"))
    assert read_checkpoint(tmp_path / "b.zip")[KEY] == read_checkpoint(bundle)[KEY]


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "C:\\evil.txt", "a/../../evil", "data.pkl", "x.py"])
def test_other_files_in_the_zip(bundle: Path, tmp_path: Path, name: str) -> None:
    refused(rewrite(bundle, tmp_path / "b.zip", **{name: b"x"}), "refused, it holds '")


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "builtins.eval", "torch.hub.load", "torch.load",
                                    "sartorius.files.write_text", "sartorius.files.make_new_folder"])  # fmt: skip
def test_a_call_of_anything(bundle: Path, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"_target_": target, "path": str(tmp_path / "written"), "text": "x"}
    for change in (
        lambda m: m["metadata"].update(model=call),
        lambda m: m["metadata"]["model"].update(inference=call),
        lambda m: m["metadata"]["model"].update(decoder={**call, "_partial_": True}),
    ):
        path = edit(bundle, tmp_path / "b.zip", change)
        with pytest.raises(InputError, match=f"b.zip: refused, it calls {target}"):
            load_module(path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


def test_another_step_of_postprocessing(bundle: Path, tmp_path: Path) -> None:
    from sartorius.running.model import Model

    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"]["postprocess"].update(a={"_target_": "os.system"}))
    with pytest.raises(InputError, match="refused, os.system is no step"):
        Model(path, device="cpu")
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"].update(filter={"content": "bm8="}))
    with pytest.raises(InputError, match="not a readable filter"):
        Model(path, device="cpu")
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"].update(filter=[1]))
    with pytest.raises(InputError, match="the filter saved with it cannot be read"):
        Model(path, device="cpu")


def test_bombs(bundle: Path, tmp_path: Path) -> None:
    """200 MB of zeros in 0.2 MB, where a bundle is large and where it is small."""
    zeros, before = bytes(2 * 10**8), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("weights", "README.md", "manifest", "example/image.png"):
        refused(rewrite(bundle, tmp_path / "b.zip", **{name: zeros}), r"refused, its .* unpacks to 200,000,000 bytes")
    deep = b"[" * 10**6
    refused(rewrite(bundle, tmp_path / "b.zip", manifest=deep), "not a bundle, or a damaged one")
    wide = {"x": [0] * 2_000_000}
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"].update(config=wide))
    with pytest.raises(InputError, match="refused, more than 1000000 values"):
        load_module(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 900_000  # KB; what the test itself makes


def test_declared_smaller_than_it_is(bundle: Path, tmp_path: Path) -> None:
    """A member whose header tells 100 bytes and that unpacks to 200 MB is read to 100."""
    path = rewrite(bundle, tmp_path / "b.zip", weights=bytes(2 * 10**8))
    data = bytearray(path.read_bytes())
    size = struct.pack("<L", 2 * 10**8)
    while (at := data.find(size)) >= 0:
        data[at : at + 4] = struct.pack("<L", 100)
    path.write_bytes(bytes(data))
    refused(path, "not a bundle, or a damaged one|another SHA-256")


def test_one_name_twice_and_parts_on_each_other(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, data in members(bundle).items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("bundle.json", b"{}")
    refused(tmp_path / "b.zip", "refused, it holds a file twice")
    data = bytearray(bundle.read_bytes())
    directory = data.rindex(b"PK\1\2", 0, data.rindex(b"PK\1\2"))
    first = data.index(b"PK\1\2")
    data[directory + 42 : directory + 46] = data[first + 42 : first + 46]  # the place of the first member
    (tmp_path / "c.zip").write_bytes(bytes(data))
    refused(tmp_path / "c.zip", "refused, its parts lie on each other")


def test_compressed_in_another_way(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_LZMA) as archive:
        for name, data in members(bundle).items():
            archive.writestr(name, data)
    refused(tmp_path / "b.zip", "compressed in another way")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bundle: Path, tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in read_checkpoint(bundle)["state_dict"].items()}
    next(iter(state.values())).view(-1)[0] = value
    refused(edit(bundle, tmp_path / "b.zip", lambda m: None, save(state)), "1 of 81 numbers of .* are NaN or infinite")


def test_another_sum(bundle: Path, tmp_path: Path) -> None:
    weights = bytearray(members(bundle)["weights.safetensors"])
    weights[-1] ^= 1
    refused(rewrite(bundle, tmp_path / "b.zip", weights=bytes(weights)), "has another SHA-256 than its bundle.json")
    for sum_ in (None, 1, ["a"]):
        path = edit(bundle, tmp_path / "b.zip", lambda m, sum_=sum_: m["weights"].update(sha256=sum_))
        refused(path, "has another SHA-256")


def header(content: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "nothing": b"",
    "no header": b"\xff" * 8,
    "a long header": struct.pack("<Q", 2**60) + b"{}",
    "more than there is": header({"w": tensor([2], 0, 4)}, bytes(4)),
    "far more": header({"w": tensor([10**9, 10**9], 0, 4)}, bytes(4)),
    "a size that overflows": header({"w": tensor([2**32, 2**32], 0, 0)}),
    "a hole": header({"w": tensor([1], 8, 12)}, bytes(12)),
    "two on one": header({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, bytes(4)),
    "a list": header([]),  # type: ignore[arg-type]
    "less than nothing": header({"w": tensor([-1], 0, 4)}, bytes(4)),
}


@pytest.mark.parametrize("weights", LIES.values(), ids=LIES)
def test_a_header_of_weights_that_lies(bundle: Path, tmp_path: Path, weights: bytes) -> None:
    refused(edit(bundle, tmp_path / "b.zip", lambda m: None, weights), "not a bundle, or a damaged one")


@pytest.mark.parametrize(("shape", "dtype", "size"), [
    ([1] * 100_000, "F32", 4), ([4], "F8_E5M2", 4), ([4], "F8_E4M3", 4), ([4], "C64", 32), ([4], "F4", 2),
    ([1], "PICKLE", 4),
])  # fmt: skip
def test_weights_of_no_model(bundle: Path, tmp_path: Path, shape: list[int], dtype: str, size: int) -> None:
    weights = header({"w\x1b[31m": tensor(shape, 0, size, dtype)}, bytes(size))
    refused(
        edit(bundle, tmp_path / "b.zip", lambda m: None, weights), f"refused, its 'w.*' is a {dtype} of .* dimension"
    )


def test_an_example_that_fills_the_memory(bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (2**12, 2**10 + 1)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 5000
    changed = {"example/image.png": buffer.getvalue(), "example/cells.png": buffer.getvalue()}
    with pytest.raises(InputError, match="b.zip: an image of its example cannot be read .4096 x 1025 pixels"):
        exporting.validate(str(rewrite(bundle, tmp_path / "b.zip", **changed)))


def test_functions_in_place_of_parts_and_minutes_of_smoothing(bundle: Path, tmp_path: Path) -> None:
    module = {"_target_": "sartorius.modules.unet.UNetModule", "_partial_": True}
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"]["model"].update(decoder=module))
    with pytest.raises(InputError, match="b.zip: refused, decoder: _partial_ is for optimizer and scheduler only"):
        load_module(path)
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"]["model"]["decoder"].update(smooth=1e5))
    with pytest.raises(InputError, match="model.decoder.smooth: expected a number from 0 to 1000, got 100000"):
        load_module(path)


def test_other_weights_than_the_model_s(bundle: Path, tmp_path: Path) -> None:
    path = edit(bundle, tmp_path / "b.zip", lambda m: None, save({"w": torch.zeros(3)}))
    with pytest.raises(InputError, match="the weights do not fit the model of its metadata"):
        load_module(path)


def test_cut_off_files_and_damaged_bytes(bundle: Path, tmp_path: Path) -> None:
    data, path = bundle.read_bytes(), tmp_path / "b.zip"
    for length in (1, 4, 40, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:length])
        refused(path, "not a bundle, or a damaged one|not a checkpoint or other file of PyTorch weights")
    damaged = bytearray(data)
    damaged[200] ^= 0xFF
    path.write_bytes(bytes(damaged))
    refused(path, "not a bundle, or a damaged one")


@pytest.mark.parametrize(("change", "match"), [
    (lambda m: m.update(format_version=2, sartorius="9.9"),
     "bundle of format version 2, written by sartorius 9.9, this program reads 1; update sartorius"),
    (lambda m: m.update(format_version=None), "format version None"),
    (lambda m: m.update(format="other"), "not a bundle"),
    (lambda m: [1], "not a bundle"),
    (lambda m: m.pop("weights") and None, "'weights' of its bundle.json is no mapping"),
    (lambda m: m.update(metadata=[]), "'metadata' of its bundle.json is no mapping"),
    (lambda m: m["metadata"].update(format_version=1), "format version 1, this program reads 2"),
    (lambda m: m["metadata"].pop("format_version") and None, "not a checkpoint of sartorius|expected|state dict"),
], ids=range(8))  # fmt: skip
def test_other_content(bundle: Path, tmp_path: Path, change: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_checkpoint(edit(bundle, tmp_path / "b.zip", change))


def test_a_missing_part(bundle: Path, tmp_path: Path) -> None:
    refused(rewrite(bundle, tmp_path / "b.zip", weights=None), "not a bundle, it holds no weights.safetensors")
    refused(rewrite(bundle, tmp_path / "b.zip", manifest=None), "refused, it unpacks to more than its size")
    path = rewrite(bundle, tmp_path / "b.zip", **{"example/cells.png": None})
    with pytest.raises(InputError, match=r"b\.zip: holds no example/cells\.png"):
        bundles.read_members(path, str(path), bundles.EXAMPLE_CELLS)


def test_views_that_fill_the_memory(bundle: Path, tmp_path: Path) -> None:
    views = {"_target_": "sartorius.inference.tta.Augmented", "symmetries": ["none"], "scales": [1000.0], "fuse": None}
    path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"]["model"].update(inference=views))
    with pytest.raises(InputError, match="scales: expected a number above 0, up to 16"):
        load_module(path)
