"""The second stage of run.py against that of torch."""

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sartorius.errors import InputError
from sartorius.exports.onnx import write
from sartorius.exports.onnx.graph import write_crop_graph, write_graph
from sartorius.exports.onnx.standalone import second
from sartorius.exports.onnx.standalone.model import NETWORK, SECOND, SETTINGS, OnnxModel, _normalised
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.networks import cell_crops
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.running import exporting
from sartorius.structures.detections import Detections
from tests.bright_unet import blobs
from tests.exports.onnx.bright import bright_model, bright_module, crop_module, two_stages
from tests.exports.onnx.test_write import run

HEIGHT, WIDTH = 61, 83
EMPTY = np.indices((40, 50), np.uint8).sum(axis=0, dtype=np.uint8) % 2 * 40 + 10  # no cells in it
EXTREME = [
    [0, 0, 5, 7],
    [WIDTH - 6, HEIGHT - 4, WIDTH, HEIGHT],
    [40, 30, 41, 31],
    [0, 0, 1, 1],
    [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT],
    [0, 0, WIDTH, HEIGHT],
    [-1, -1, WIDTH + 1, HEIGHT + 1],
    [-500, -300, 600, 700],
    [10, 20, 10, 20],
    [3, 0, 4, HEIGHT],
    [0.5, 0.25, 80.125, 3],
    [1000, 2000, 1010, 2020],
]


def boxes(rng, count=40):
    """Extreme and random boxes float32 [N, 4]."""
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * [WIDTH, HEIGHT]
    return np.concatenate((np.array(EXTREME), corners.reshape(count, 4))).astype(np.float32)


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


@pytest.mark.parametrize("seed", range(3))
def test_squares_and_prompts(seed):
    given = boxes(np.random.default_rng(seed))
    for margin, min_side in ((0.25, 24.0), (0.0, 1.0)):
        regions = second.squares(given, margin, min_side)
        assert regions.dtype == np.float32
        np.testing.assert_array_equal(regions, cell_crops.squares(*tensors(given), margin, min_side))
        drawn = second.draw_boxes(given, regions, 32)
        assert drawn.dtype == np.float32
        np.testing.assert_allclose(drawn, cell_crops.draw_boxes(*tensors(given, regions), 32)[:, 0], atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, 1), (1, 30), (20, 1)])
def test_crops_of_an_image(size, shape):
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, shape).astype(np.float32)
    for min_side in (24.0, 0.3):
        regions = second.squares(boxes(rng), 0.25, min_side)
        wanted = cell_crops.crop(*tensors(image[None], regions), size)[:, 0].numpy()
        found = np.stack([second.sampled(image, region, size) for region in regions])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        outside = regions[:, 0] > shape[1] + 1
        assert outside.any() and not found[outside].any()


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_other_boxes(seed):
    rng = np.random.default_rng(seed)
    old = boxes(rng)
    new = old[rng.permutation(len(old))]
    new[::2] = old[::2] + rng.uniform(-2, 2, old[::2].shape).astype(np.float32)
    masks = rng.random((len(old), 14, 14), np.float32)
    for size in (1, 14, 28):
        wanted = cell_crops.resample(*tensors(masks, old, new), size).numpy()
        found = second.resample(masks, old, new, size)
        assert found.dtype == np.float32
        wide = (old[:, 2:] - old[:, :2]).min(axis=1) >= 1
        np.testing.assert_allclose(found[wide], wanted[wide], atol=2e-4)
        np.testing.assert_allclose(found, wanted, atol=1e-2)  # hardly any extent: places far from 0, in float32
    assert second.resample(masks[:0], old[:0], new[:0], 28).shape == (0, 28, 28)


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.5, 1])
def test_boxes_around_probabilities(share):
    rng = np.random.default_rng(0)
    given = boxes(rng)
    regions = second.squares(given, 0.25, 12.0)
    probability = (rng.random((len(given), 24, 24), np.float32) < share) * rng.random((len(given), 24, 24), np.float32)
    for around in (given, regions):
        found = second.tighten(probability, around, 0.1, HEIGHT, WIDTH)
        wanted = cell_crops.tighten(*tensors(probability, around), 0.1, HEIGHT, WIDTH)
        assert found[0].dtype == np.float32
        np.testing.assert_allclose(found[0], wanted[0], atol=1e-4)
        np.testing.assert_array_equal(found[1], wanted[1])


def detections(rng, count=40):
    given = boxes(rng, count)[: count + len(EXTREME)] if count else np.zeros((0, 4), np.float32)
    n = len(given)
    masks = (rng.random((n, 28, 28)) * rng.choice([0.3, 1], (n, 1, 1))).astype(np.float16)
    scores = rng.random(n).astype(np.float32)
    return Detections("a", HEIGHT, WIDTH, given, scores, np.zeros(n, np.int64), masks, ("x",))


STAGES = {
    "default": {},
    "replace": {"combine": "replace"},
    "own boxes": {"box_probability": None},
    "masks as they are": {"mask_size": 28, "min_score": 0.7},
    "all": {"min_score": 0.0},
    "none": {"min_score": 2.0, "mask_size": 28},
}
CROPS = {"prompt": {}, "image alone": {"prompt": False}, "own statistics": {"mean": None, "std": None}}


def stage_of(stages):
    """The second stage of run.py on the network of torch."""

    def network(crops):
        with torch.no_grad():
            return stages.second.network(torch.from_numpy(crops)).numpy()

    return second.SecondStage(network=network, **write.second_settings(stages))


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize("count", [40, 0])
def test_detections(name, crops, count):
    body = torch.nn.Conv2d(1, 2, 3, padding=1) if crops == "image alone" else None
    stages = two_stages(second=crop_module(body, **CROPS[crops]), **STAGES[name])
    rng = np.random.default_rng(1)
    given, image = detections(rng, count), rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    with torch.inference_mode():
        wanted = stages._segment(torch.from_numpy(image)[None], given)
    stage = stage_of(stages)
    found = stage(_normalised(image.astype(np.float32), stage.mean, stage.std), given)

    assert (found.boxes.dtype, found.masks.dtype) == (np.float32, np.float16)
    assert found.masks.shape == wanted.masks.shape
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.masks.astype(float), wanted.masks.astype(float), atol=2e-3)
    np.testing.assert_array_equal(found.scores, given.scores)
    assert (found.boxes != given.boxes).any() == (count > 0 and name != "none")


def test_output_that_is_no_number():
    stage = stage_of(two_stages())
    broken = second.SecondStage(**{**vars(stage), "network": lambda crops: np.full((len(crops), 2, 24, 24), np.nan)})
    with pytest.raises(InputError, match="a: the network gives values that are not finite"):
        broken(np.zeros((HEIGHT, WIDTH), np.float32), detections(np.random.default_rng(0)))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A written package of two stages, unpacked."""
    folder = tmp_path_factory.mktemp("two")
    write.write_onnx(bright_model(two_stages()), folder / "two.zip")
    with zipfile.ZipFile(folder / "two.zip") as archive:
        archive.extractall(folder)
    return folder / "two"


def test_program(package, tmp_path):
    files = ["README.md", "network.onnx", "run.py", "second.onnx", "settings.json"]
    assert sorted(path.name for path in package.iterdir() if path.is_file()) == files
    assert "float32 [B, 2, 24, 24], grey\nlevels normalised, and the box, and" in (package / "README.md").read_text()
    done = run(package, "--check")
    assert done.returncode == 0, done.stderr
    count = len(bright_model(two_stages()).find_cells(blobs(120, 150)))
    assert count > 10
    assert f"{count} cells of {count} expected, IoU 1.0000 at least" in done.stdout

    zipped = package.parent / "two.zip"
    assert "cells of" in exporting.validate(str(zipped))
    with zipfile.ZipFile(zipped) as archive, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        for name in archive.namelist():
            if not name.endswith(SECOND):
                bad.writestr(name, archive.read(name))
    with pytest.raises(InputError, match=r"bad.zip: second.onnx: not a network that onnxruntime reads"):
        exporting.validate(str(tmp_path / "bad.zip"))


@pytest.mark.parametrize("name", STAGES)
def test_cells_are_those_of_the_module(package, tmp_path, name):
    stages = two_stages(**STAGES[name])
    settings = json.loads((package / SETTINGS).read_text()) | {"second": write.second_settings(stages)}
    (tmp_path / SETTINGS).write_text(json.dumps(settings))
    for file in (NETWORK, SECOND):
        (tmp_path / file).symlink_to(package / file)
    ours, model = OnnxModel(tmp_path, threads=1), bright_model(stages)
    changed = False
    for image in (blobs(131, 150, 2), EMPTY, blobs(30, 200, 3)):
        found, wanted = ours(image), model.find_cells(image)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
        assert found.types == wanted.types
        first = bright_model().find_cells(image)
        changed |= len(first) != len(wanted) or bool((first.labels != wanted.labels).any())
    assert changed == (name != "none")


def test_scale_of_the_training(package):
    settings = json.loads((package / SETTINGS).read_text())
    ours = OnnxModel(package, threads=1)
    ours.settings = settings | {"pixel_size": 1.0}
    image = np.asarray(np.repeat(np.repeat(blobs(120, 150), 2, axis=0), 2, axis=1))
    target = SimpleNamespace(image_id="a", scale=0.5, pixel_size=0.5)
    batch = SimpleNamespace(images=[torch.from_numpy(image)[None]], targets=[target])
    model = bright_model(two_stages())
    with torch.inference_mode():
        (detected,) = model.module.predict_step(batch, 0)
    final = ours.postprocess(detected)
    found = ours(image, pixel_size=0.5)
    assert len(found) > 3
    np.testing.assert_array_equal(found.labels, final.instances.layers[0])


def test_bad_settings(package, tmp_path):
    for file in (NETWORK, SECOND):
        (tmp_path / file).symlink_to(package / file)
    settings = json.loads((package / SETTINGS).read_text())
    for bad in ({**settings["second"], "more": 1}, {"size": 3}, 5, []):
        (tmp_path / SETTINGS).write_text(json.dumps({**settings, "second": bad}))
        with pytest.raises(InputError, match=r"settings.json: not the settings of a (second stage|model)"):
            OnnxModel(tmp_path)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"a crop segmenter finds no cells by itself; .*model.second=<this one>"):
        write.write_onnx(bright_model(crop_module()), tmp_path / "a.zip")
    stages = two_stages()
    stages.first = MaskRCNNModule.__new__(MaskRCNNModule)
    with pytest.raises(InputError, match="a Mask R-CNN is not written as ONNX"):
        write.write_onnx(bright_model(stages), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_unet_of_the_crops(tmp_path):
    torch.manual_seed(0)
    body = UNet(PlainEncoder(4, 2, "batch", in_channels=2), 2, channels=[8], norm="batch", mean=0.0, std=1.0)
    stages = two_stages(second=crop_module(body))
    write_graph(bright_module(), tmp_path / NETWORK, activated=False)
    write_crop_graph(stages.second, tmp_path / SECOND)
    settings = write.settings_for(stages.first, bright_model(stages).metadata, "test")
    (tmp_path / SETTINGS).write_text(json.dumps({**settings, "second": write.second_settings(stages)}))
    found, wanted = OnnxModel(tmp_path)(blobs(90, 100)), bright_model(stages).find_cells(blobs(90, 100))
    np.testing.assert_array_equal(found.labels, wanted.labels)
