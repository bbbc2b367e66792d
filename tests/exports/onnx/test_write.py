"""An ONNX package as its user has it: run.py with its cells, without this package and without torch."""

import csv
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sartorius.errors import InputError
from sartorius.exports.onnx import program, write
from sartorius.exports.onnx.graph import write_graph
from sartorius.exports.onnx.standalone.main import COLUMNS
from sartorius.exports.onnx.standalone.model import OnnxModel
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.tta import Augmented
from sartorius.inference.windows import FiveCrops, Tiles
from sartorius.postprocess.decoders import Components, OffsetVoting
from sartorius.running import exporting
from sartorius.structures import rle
from tests.bright_unet import blobs
from tests.exports.onnx.bright import bright_model, bright_module
from tests.postprocess.pipelines import saved

# what the program may not import; Pillow and tifffile it does without
BLOCKED = ("torch", "cv2", "skimage", "sartorius", "pandas", "PIL", "tifffile", "onnx", "timm")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A written package, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    write.write_onnx(bright_model(), folder / "bright.zip")
    with zipfile.ZipFile(folder / "bright.zip") as archive:
        assert sorted(archive.namelist()) == [
            f"bright/{name}"
            for name in (
                "README.md", "example/cells.csv", "example/image.png", "network.onnx", "run.py", "settings.json",
            )
        ]  # fmt: skip
        archive.extractall(folder)
    return folder / "bright"


def run(package, *arguments):
    """Run run.py in a Python where all but NumPy, SciPy and onnxruntime are missing."""
    block = f"import sys, runpy; sys.modules.update(dict.fromkeys({BLOCKED})); sys.argv = sys.argv[1:]; "
    command = f"{block}runpy.run_path(sys.argv[0], run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", command, str(package / "run.py"), *map(str, arguments)],
        capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"}, check=False, cwd=package,
    )  # fmt: skip


def test_check(package):
    done = run(package, "--check")
    assert done.returncode == 0, done.stderr
    expected = len(bright_model().find_cells(blobs(120, 150)))
    assert expected > 10
    assert f"{expected} cells of {expected} expected, IoU 1.0000 at least" in done.stdout

    changed = json.loads((package / "settings.json").read_text())
    other = package.parent / "other"
    other.mkdir()
    for name in ("run.py", "network.onnx", "example"):
        (other / name).symlink_to(package / name)
    changed["postprocess"]["mask"]["threshold"] = 0.9
    (other / "settings.json").write_text(json.dumps(changed))
    (other / "run.py").unlink()
    (other / "run.py").write_text((package / "run.py").read_text())
    done = run(other, "--check")
    assert done.returncode == 1
    assert done.stderr.startswith("run.py: the cells of the example are others here")
    changed["format_version"] = 2
    (other / "settings.json").write_text(json.dumps(changed))
    assert "expected sartorius-onnx of version 1; export the model again" in run(other, "--check").stderr


def zipped(package, target, **changes):
    with zipfile.ZipFile(target, "w") as archive:
        for file in ("network.onnx", "settings.json", "example/image.png", "example/cells.csv"):
            archive.writestr(f"any/{file}", changes.get(file.partition(".")[0], (package / file).read_bytes()))
        archive.writestr("any/run.py", "raise SystemExit('run')")
        archive.writestr("../outside.txt", "text")
    return str(target)


def test_validate(package, tmp_path):
    assert "cells of" in exporting.validate(zipped(package, tmp_path / "a.zip"))
    assert not (tmp_path.parent / "outside.txt").exists()
    settings = json.loads((package / "settings.json").read_text())
    bad = {"network": b"text", "settings": b"text", "example/image": b"text", "example/cells": b"a,b\n1,2\n"}
    messages = {
        "network": "network.onnx: not a network that onnxruntime reads",
        "settings": "settings.json: not the settings of a model",
        "example/image": "example/image.png: not a readable image",
        "example/cells": "damaged",
    }
    for name, content in bad.items():
        file = zipped(package, tmp_path / "bad.zip", **{name: content})
        with pytest.raises(InputError, match=rf"bad.zip: {messages[name]}"):
            exporting.validate(file)
    for decoder, message in (
        ({**settings["decoder"], "foreground_low": 0.9}, "others here"),
        ({"kind": "system"}, "not the settings of a model"),
    ):
        content = json.dumps({**settings, "decoder": decoder}).encode()
        with pytest.raises(InputError, match=message):
            exporting.validate(zipped(package, tmp_path / "bad.zip", settings=content))


def test_a_damaged_list_of_members(package, tmp_path):
    file = Path(zipped(package, tmp_path / "a.zip"))
    content = bytearray(file.read_bytes())
    content[content.rindex(b"PK\1\2")] = 0
    file.write_bytes(content)
    with pytest.raises(InputError, match="a.zip"):
        exporting.validate(str(file))


def test_a_check_without_the_runtime(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"a.zip: checking it needs ONNX Runtime: pip install onnxruntime"):
        exporting.validate(zipped(package, tmp_path / "a.zip"))


def test_how_alike_the_cells_must_be(package):
    assert run(package, "--check", "--least-iou=1").returncode == 0
    done = run(package, "--check", "--least-iou=1.01")
    assert done.returncode == 1 and "others here" in done.stderr


def test_images_to_cells(package, tmp_path):
    first, second = blobs(90, 131, 1), np.indices((40, 50), np.uint8).sum(axis=0, dtype=np.uint8) % 2 * 40 + 10
    (tmp_path / "images").mkdir()
    Image.fromarray(first).save(tmp_path / "images" / "first.png")
    np.save(tmp_path / "images" / "second.npy", second)
    output = tmp_path / "out"
    done = run(package, tmp_path / "images", "--output", output)
    assert done.returncode == 0, done.stderr
    cells = bright_model().find_cells(first)
    np.testing.assert_array_equal(np.asarray(Image.open(output / "first.png")), cells.labels)
    assert not np.asarray(Image.open(output / "second.png")).any()
    with open(output / "cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["annotation"] for row in rows[:-1]] == rle.format(cells.instances.to_runs())
    assert [row["type"] for row in rows[:-1]] == cells.types
    np.testing.assert_allclose([float(row["score"]) for row in rows[:-1]], cells.scores, atol=1e-5)
    assert rows[-1] == {"id": "second", "annotation": "", "score": "", "type": ""}


def test_bad_images(package, tmp_path):
    good = tmp_path / "good.npy"
    np.save(good, blobs(64, 64))
    bad = tmp_path / "bad.npy"
    np.save(bad, np.full((5, 5), np.nan))
    (tmp_path / "text.png").write_text("text")
    np.save(tmp_path / "three.npy", np.zeros((2, 3, 4, 5)))
    done = run(package, good, bad, tmp_path / "text.png", tmp_path / "three.npy", "--output", tmp_path / "o")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "bad.npy: 25 pixels are NaN or infinite" in lines[0]
    assert "text.png: needs pillow (pip install pillow), or save it" in lines[1]
    assert "three.npy: float64 (2, 3, 4, 5); expected numbers" in lines[2]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["cells.csv", "good.png"]
    for given, message in {
        (tmp_path / "absent.png",): "no such file or folder",
        (): "no images; python run.py IMAGES",
        (good, tmp_path): "good.npy: has the id of",
        (good, "--pixel-size", "-1"): "--pixel-size -1.0: expected micrometres above 0",
        (good, "--output", tmp_path, "--format", "npy"): "its label image would replace it; give another --output",
        (good, "--format", "tif", "--output", tmp_path / "t"): "--format tif needs tifffile",
    }.items():
        done = run(package, *given)
        assert message in done.stderr, message
        assert "Traceback" not in done.stderr


STEPS = {
    "default": {},
    "every step": {"largest_piece": True, "fill_holes": True, "reopen_holes": {"astro": 0.9, "default": 0.8},
                   "box_nms": 0.5, "mask_nms": {"cort": 0.1, "default": 0.3}, "types": "detection"},
    "another order": {"largest_piece": True, "fill_holes": True, "overlap": "iom", "mask_nms": 0.2,
                      "last": ("largest_piece", "fill_holes", "min_area", "overlaps", "reopen_holes")},
    "few": {"max_detections": 5},
}  # fmt: skip
TILES = Tiles(size=64, overlap=20, margin=4, batch=2, join_iou=0.5)
MODELS = {
    "watershed": {},
    "offset voting": {"decoder": OffsetVoting(0.3, 1.5, 0.3, 20, True)},
    "components": {"decoder": Components(0.5, 10)},
    "tiles": {"inference": TILES},
    "crops": {"inference": FiveCrops(height=90, width=100, margin=8, batch=5, join_iou=0.5)},
    "enlarged": {"inference": Enlarged(windows=TILES, factor=1.5), "decoder": OffsetVoting(0.3, 1.5, 0.3, 20, False)},
    "views": {
        "inference": Augmented(symmetries=["none", "turn_90", "up_down"], scales=[0.8, 1.0], fuse=None, windows=TILES),
        "decoder": OffsetVoting(0.3, 1.5, 0.3, 20, True),
    },
}


def same_cells(model, package, folder, image, **options):
    """Compare the cells of a model with those of settings.json for it, on the network of the package."""
    settings = write.settings_for(model.module, model.metadata, "test")
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    if not (folder / "network.onnx").exists():
        (folder / "network.onnx").symlink_to(package / "network.onnx")
    found, wanted = OnnxModel(folder, threads=1)(image, **options), model.find_cells(image)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    assert found.types == wanted.types
    return len(found)


@pytest.mark.parametrize("name", MODELS)
def test_decoders_and_windows(package, tmp_path, name):
    module = bright_module()
    for key, value in MODELS[name].items():
        setattr(module, key, value)
    assert same_cells(bright_model(module), package, tmp_path / "a", blobs(131, 150, 2)) > 10


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("decoder", [Components(0.3, 1), OffsetVoting(0.2, 1.0, 0.2, 5, False)])
def test_post_processing(package, tmp_path, name, decoder):
    module = bright_module()
    module.decoder = decoder
    model = bright_model(module, postprocess=saved(**{"score": 0.3, "mask": 0.5, "min_area": 10, **STEPS[name]}))
    assert same_cells(model, package, tmp_path / "a", blobs(131, 150, 3)) >= 5


def test_own_statistics_and_enlargement(tmp_path):
    module = bright_module(mean=None, std=None, scale=1.5)
    model = bright_model(module, model={})
    folder = tmp_path / "a"
    folder.mkdir()
    write_graph(module, folder / "network.onnx", activated=False)
    image = blobs(91, 113, 4)
    settled = np.rint((image - image.mean()) / image.std() * 11.58 + 128).clip(0, 255).astype(np.uint8)
    assert same_cells(model, folder, folder, settled) > 3


def test_scale_of_the_training(package, tmp_path):
    model = bright_model(pixel_size=1.0)
    image = blobs(120, 150)
    fine = np.asarray(Image.fromarray(image).resize((300, 240)))
    same_cells(model, package, tmp_path / "a", image, pixel_size=1.0)
    found = OnnxModel(tmp_path / "a")(fine, pixel_size=0.5)
    cells = OnnxModel(tmp_path / "a")(image)
    assert found.labels.shape == (240, 300)
    assert abs(len(found) - len(cells)) <= 2
    assert 3.4 < (found.labels > 0).sum() / (cells.labels > 0).sum() < 4.6


def test_grey_levels_are_brought_to_those_of_the_training(package):
    model, image = OnnxModel(package), blobs(120, 150)
    wanted = model(image)
    wide = np.repeat((image.astype(np.uint16) * 257)[..., None], 3, axis=2)
    for same in (wide, image / 255, image.astype(np.float32)):
        np.testing.assert_array_equal(model(same).labels, wanted.labels)
    assert len(model(image.astype(np.uint16) * 100 + 7)) > 10


def test_the_channel_of_the_training(package, tmp_path):
    model, image = bright_model(reading={"channel": 1, "pages": "max"}), blobs(120, 150)
    same_cells(model, package, tmp_path / "a", image)
    one, other = OnnxModel(tmp_path / "a"), np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    found = one(np.stack((other, image, other[::-1]), axis=-1))
    np.testing.assert_array_equal(found.labels, one(image).labels)
    assert len(found) > 10
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    (tmp_path / "a" / "settings.json").write_text(json.dumps(settings | {"channel": 3}))
    with pytest.raises(InputError, match="image: no channel 3, it has 3; give channel=0 to 2"):
        OnnxModel(tmp_path / "a")(np.stack((other, image, other), axis=-1))
    own = OnnxModel(tmp_path / "a", channel=0)(np.stack((image, other), axis=-1))
    np.testing.assert_array_equal(own.labels, found.labels)
    write.write_onnx(model, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as opened:
        assert "were read with channel=1, pages=max; channels" in opened.read("b/README.md").decode()


def test_the_channel_of_the_training_in_files(package, tmp_path):
    """Of two channels the second is taken, not dropped as alpha; another is told, none is guessed."""
    image = blobs(90, 131, 1)
    other = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    for name in ("run.py", "network.onnx"):
        (tmp_path / name).write_bytes((package / name).read_bytes())
    settings = json.loads((package / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"channel": 1}))
    np.save(tmp_path / "two.npy", np.dstack((other, image)))
    Image.fromarray(np.dstack((other, image, other))).save(tmp_path / "three.png")
    Image.fromarray(image).save(tmp_path / "one.png")
    given = [tmp_path / name for name in ("two.npy", "three.png", "one.png")]
    done = run(tmp_path, *given, "--output", tmp_path / "o")
    assert done.returncode == 3
    assert "one.png: no channel 1, it has 1; give channel=0" in done.stderr and done.stderr.count("skipped") == 1
    wanted = bright_model().find_cells(image).labels
    for name in ("two.png", "three.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o" / name)), wanted)
    done = run(tmp_path, tmp_path / "one.png", "--channel=0", "--output", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o" / "one.png")), wanted)
    assert "--channel -1: expected a number from 0" in run(tmp_path, tmp_path / "one.png", "--channel=-1").stderr


@pytest.mark.parametrize("levels", ["range", "standardise"])
def test_the_example_is_at_the_grey_levels_of_the_training(tmp_path, levels):
    model = bright_model(reading={"levels": {"levels": levels, "mean": 90.0, "std": 20.0}})
    write.write_onnx(model, tmp_path / "a.zip")
    assert "IoU 1.0000 at least" in exporting.validate(str(tmp_path / "a.zip"))
    assert len(model.find_cells(model.example)) > 10


def test_program_stands_alone():
    text = program.program()
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "--output-format", "concise", "-"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.stdout.startswith("All checks passed"), checked.stdout
    top = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert top - set(sys.stdlib_module_names) == {"numpy", "scipy"}
    defined = [line.split("(")[0] for line in text.splitlines() if line.startswith(("def ", "class "))]
    assert len(defined) == len(set(defined)) > 100
    assert text.startswith('"""Find cells in microscope images')


def test_refusals(tmp_path):
    from sartorius.modules.mask_rcnn import MaskRCNNModule

    class Other(torch.nn.Module):
        pass

    with pytest.raises(InputError, match="only one U-Net is; write format=bundle"):
        write.write_onnx(replace(bright_model(), module=Other()), tmp_path / "a.zip")
    with pytest.raises(InputError, match="proposals, and with it the shapes within the network, depend on the image"):
        write.write_onnx(replace(bright_model(), module=MaskRCNNModule.__new__(MaskRCNNModule)), tmp_path / "a.zip")
    with pytest.raises(InputError, match="run.py has no false-positive filter; give filter=none"):
        write.write_onnx(bright_model(filter={"file": "f.npz", "content": ""}), tmp_path / "a.zip")
    module = bright_module()
    module.decoder = lambda maps: None
    with pytest.raises(InputError, match="bright.ckpt: run.py has no function, only Components, OffsetVoting"):
        write.write_onnx(bright_model(module), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_program_that_finds_other_cells_is_not_written(tmp_path, monkeypatch):
    settings = write.settings_for
    monkeypatch.setattr(write, "settings_for", lambda *a: {**settings(*a), "offset_scale": 0, "mask_size": 2})
    with pytest.raises(InputError, match="a.zip: not written, its run.py fails here: run.py: the cells of the example"):
        write.write_onnx(bright_model(), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())
