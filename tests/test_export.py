"""The export command: a bundle predicts what its checkpoint does; its card, its example and its check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sartorius
from sartorius import evaluate, export, predict
from sartorius.data import provenance
from sartorius.errors import InputError
from sartorius.exports.bundle import write
from sartorius.formats.cells import Cells
from sartorius.inference.tta import Augmented
from sartorius.inference.windows import Tiles
from sartorius.networks import checkpoints
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.running import exporting, wiring
from sartorius.structures.detections import DetectionsFolder
from sartorius.tuning.checkpoint import check_store
from tests.bright_unet import blobs, write_checkpoint
from tests.exports.exporting import SMALL, edit, members, rewrite, write_bundle
from tests.rescoring.size_filter import larger_than
from tests.smoke.test_unet_family import UNET
from tests.test_views_of_models import MODELS

CPU: dict[str, Any] = {"device": "cpu"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bright") / "best.ckpt"
    write_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def random_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with random weights, trained on two images, as far as its metadata tell."""
    torch.manual_seed(0)
    module = sartorius.running.building.build_module(wiring.compose("train", [*UNET]), pretrained=False)
    path = tmp_path_factory.mktemp("unet") / "best.ckpt"
    seen = {provenance.KEY: {"a": "well", "b": "b"}, "images": {"training": ["a", "b"], "validation": ["c"]}}
    torch.save({"state_dict": module.state_dict(), KEY: {**module.hparams, **seen}}, path)
    return path


def same(ours: Cells, theirs: Cells) -> bool:
    assert len(theirs) > 5
    pairs = ((ours.labels, theirs.labels), (ours.scores, theirs.scores))
    return all(np.array_equal(a, b) for a, b in pairs) and ours.types == theirs.types


@pytest.mark.parametrize("options", [[], ["tta=flips"], ["inference=whole", "postprocess.score.threshold.default=0.8"]],
                         ids=["plain", "views", "windows"])  # fmt: skip
def test_the_cells_are_the_checkpoint_s(checkpoint: Path, tmp_path: Path, options: list[str]) -> None:
    path = write_bundle(tmp_path / "a.zip", checkpoint, *options)
    assert same(sartorius.load(path, **CPU)(SMALL), sartorius.load(checkpoint, *options, **CPU)(SMALL))
    assert exporting.validate(str(path)).endswith("cells, each pixel as expected")
    again = write_bundle(tmp_path / "b.zip", path)
    assert read_checkpoint(again)[KEY] == read_checkpoint(path)[KEY] | {"card": read_checkpoint(again)[KEY]["card"]}


def test_the_same_model_gives_the_same_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = (write_bundle(tmp_path / name / "a.zip", checkpoint) for name in ("", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_views_of_a_bundle_are_replaced_and_left_out(checkpoint: Path, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "a.zip", checkpoint, "tta=flips")
    kept = sartorius.load(path, "inference=tiles", **CPU).module.inference
    assert isinstance(kept, Augmented) and len(kept.views) == 4
    assert kept.windows == Tiles(256, 64, margin=16, batch=4, join_iou=0.5)
    others = sartorius.load(path, "tta=d4", **CPU).module.inference
    assert isinstance(others, Augmented) and len(others.views) == 8 and isinstance(others.windows, Tiles)
    none = sartorius.load(path, "tta=none", **CPU)
    assert isinstance(none.module.inference, Tiles)
    assert same(none(SMALL), sartorius.load(checkpoint, **CPU)(SMALL))
    assert same(sartorius.load(checkpoint, "tta=none", **CPU)(SMALL), sartorius.load(checkpoint, **CPU)(SMALL))
    with pytest.raises(InputError, match=r"tta\.fuse=null joins no views"):
        write_bundle(tmp_path / "b.zip", checkpoint, "tta=flips", "tta.fuse=null")
    assert not (tmp_path / "b.zip").exists()


def test_a_filter_and_tuned_thresholds_come_along(checkpoint: Path, tmp_path: Path) -> None:
    whole = sartorius.load(checkpoint, **CPU)(SMALL)
    larger_than(int(np.median(whole.instances.areas))).save(tmp_path / "size.npz")
    path = write_bundle(tmp_path / "a.zip", checkpoint, f"filter={tmp_path / 'size.npz'}")
    assert 0 < len(sartorius.load(path, **CPU)(SMALL)) < len(whole)
    assert same(sartorius.load(path, "filter=none", **CPU)(SMALL), whole)
    assert json.loads(members(path)["bundle.json"])["metadata"]["filter"]["file"] == "size.npz", "no path of a machine"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(members(path)["example/image.png"])
    fixed = [f"images={tmp_path / 'images'}", "trainer.accelerator=cpu", "data.num_workers=0", "write=[]"]
    predict.main(wiring.compose("predict", [f"checkpoint={path}", f"output={tmp_path / 'out'}", *fixed]))
    meta = DetectionsFolder(tmp_path / "out" / "detections").meta
    assert meta["filter"]["file"] == "size.npz" and meta["tta"] is None
    with pytest.raises(InputError, match=r"a\.zip: a bundle keeps the thresholds"):
        check_store(path)
    check_store(checkpoint)


def test_half_precision_rounds_and_comes_back_as_float32(random_unet: Path, tmp_path: Path) -> None:
    whole, half = (write_bundle(tmp_path / f"{n}.zip", random_unet, f"weights={n}") for n in ("float32", "float16"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    before, after = read_checkpoint(random_unet)["state_dict"], read_checkpoint(half)["state_dict"]
    for name, value in before.items():
        expected = value.half().float() if value.ndim > 1 else value
        assert after[name].dtype == value.dtype and torch.equal(after[name], expected)
    assert exporting.validate(str(half)).endswith("each pixel as expected")
    state = torch.load(random_unet, weights_only=True)
    state["state_dict"]["network.head.weight"][0, 0, 0, 0] = 1e5
    torch.save(state, tmp_path / "large.ckpt")
    with pytest.raises(InputError, match=r"large\.ckpt: 'network.head.weight' holds 100000, float16 holds 65504"):
        write_bundle(tmp_path / "large.zip", tmp_path / "large.ckpt", "weights=float16")
    assert not (tmp_path / "large.zip").exists()
    with pytest.raises(InputError, match="weights=float16: goes with format=bundle"):
        write_bundle(tmp_path / "large.zip", random_unet, "weights=float16", "format=onnx")


def test_a_bundle_is_a_start_for_a_training(random_unet: Path, tmp_path: Path) -> None:
    """Its tensors, and the images that it was trained on."""
    path = write_bundle(tmp_path / "a.zip", random_unet)
    options = [*UNET, f"model.weights={path}"]
    module: Any = sartorius.running.building.build_module(wiring.compose("train", options))
    state = read_checkpoint(random_unet)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert provenance.noted(module.started_from.metadata, "a.zip") == {"a": "well", "b": "b"}


def test_nothing_of_this_machine_comes_along(random_unet: Path, tmp_path: Path) -> None:
    state = torch.load(random_unet, weights_only=True)
    files = {"fold_file": str(tmp_path / "folds.csv"), "annotation_files": {"val": str(tmp_path / "b" / "val.json")}}
    state[KEY]["config"]["data"].update(files)
    torch.save(state, tmp_path / "best.ckpt")
    path = write_bundle(tmp_path / "a.zip", tmp_path / "best.ckpt")
    metadata = json.loads(members(path)["bundle.json"])["metadata"]
    assert metadata["config"]["data"]["fold_file"] == "folds.csv"
    assert metadata["config"]["data"]["annotation_files"] == {"val": "val.json"}
    command = [f"checkpoint={path}", f"output={tmp_path / 'scored'}", f"data.root={tmp_path}", "data.num_workers=0"]
    with pytest.raises(
        InputError, match=r"a\.zip: its validation images are those of a fold of folds\.csv, .* give it"
    ):
        evaluate.main(wiring.compose("evaluate", command))
    assert str(random_unet.parent) not in json.dumps(metadata) and str(tmp_path) not in json.dumps(metadata)
    assert set(metadata["config"]) == {"data"} and "root" not in metadata["config"]["data"]
    assert metadata["config"]["data"]["fold"] == 0


def test_the_card(random_unet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scored").mkdir()
    numbers = {"competition_map": 0.25, "competition_map_interval": [0.2, 0.31], "images": 11, "cells": 3}
    (tmp_path / "scored" / "metrics.json").write_text(json.dumps(numbers))
    given = ["name=mine", "license=CC-BY-4.0", 'authors=["Ada B","Cé D"]', f"score={tmp_path / 'scored'}", "cite=doi:1"]
    path = write_bundle(tmp_path / "a.zip", random_unet, *given)
    usage = members(path)["README.md"].decode().partition("## How to use it")[2]
    assert "mine" not in usage and usage.count("FILE.zip") == 3
    card = sartorius.load(path, **CPU).card
    assert card is not None and card["score"] == {key: numbers[key] for key in list(numbers)[:3]}
    assert (card["trained_on"], card["weights"], card["license"]) == (2, "float32", "CC-BY-4.0")
    assert card["networks"] == ["UNet (resnet10t)"] and card["authors"] == ["Ada B", "Cé D"]
    assert sartorius.load(random_unet, **CPU).card is None
    capsys.readouterr()
    export.main(wiring.compose("export", [f"show={path}"]))
    shown = capsys.readouterr().out
    for part in ("# mine", "| Trained on | 2 images of the data set", "0.250 (0.200 to 0.310, bootstrap over 11 ima",
                 "## What it is not for", "Ada B, Cé D", "| Licence | CC-BY-4.0 |"):  # fmt: skip
        assert part in shown
    begun = edit(path, tmp_path / "e.zip", lambda m: m["metadata"]["trained_on"].update(x="x"))
    begun = write_bundle(tmp_path / "f.zip", begun)
    assert "2 images of the data set" in exporting.read_card(str(begun)) and "and 1 others" in exporting.read_card(
        str(begun)
    )
    again = write_bundle(tmp_path / "b.zip", path, "weights=float16")
    assert read_checkpoint(again)[KEY]["card"]["score"] == card["score"], "of the same cells, up to rounding"
    other = write_bundle(tmp_path / "c.zip", path, "tta=flips", "license=MIT")
    card = read_checkpoint(other)[KEY]["card"]
    assert (card["score"], card["license"], card["authors"], card["name"]) == (None, "MIT", ["Ada B", "Cé D"], "c")
    for content, match in (("{}", "no competition_map with an interval"), ("[", "not valid JSON")):
        (tmp_path / "scored" / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=match):
            write_bundle(tmp_path / "d.zip", random_unet, f"score={tmp_path / 'scored'}")
    with pytest.raises(InputError, match="no metrics.json in it"):
        write_bundle(tmp_path / "d.zip", random_unet, f"score={tmp_path}")


def test_a_bar_in_a_card_does_not_end_a_cell_of_its_table(checkpoint: Path, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "a.zip", checkpoint, "authors=['Ada | Co']", "cite='A|B'")
    lines = exporting.read_card(str(path)).splitlines()
    assert "| Authors | Ada \\| Co |" in lines and "| Cite | A\\|B |" in lines


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["show=a.zip", "validate=b.zip"], "show=a.zip takes that file as it is; leave out validate="),
        (["show=a.zip", "checkpoint=c.ckpt", "tta=flips"], "show=a.zip takes .*; leave out checkpoint, tta="),
        (["validate=b.zip", "model=joined"], "validate=b.zip takes that file as it is; leave out model="),
        (["validate=b.zip", "name=x", "inference=whole"], "leave out inference, name="),
    ],
)
def test_a_file_is_shown_or_checked_alone(options: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        export.main(wiring.compose("export", options))


def test_float16_rounds_the_weights_alone(random_unet: Path, tmp_path: Path) -> None:
    """A whole number that float32 cannot hold stays, in the module and in the file."""
    cfg = wiring.compose("export", [f"checkpoint={random_unet}", f"output={tmp_path / 'a.zip'}"])
    model = exporting.build_trained(cfg)
    model.module.register_buffer("seen", torch.tensor([2**24 + 1]))
    weight = model.module.state_dict()["network.head.weight"].clone()
    write.write_bundle(model, tmp_path / "a.zip", "float16")
    assert model.module.state_dict()["seen"].tolist() == [2**24 + 1]
    assert torch.equal(model.module.state_dict()["network.head.weight"], weight.half().float())


def test_a_card_that_lies_to_a_terminal_and_to_an_export(checkpoint: Path, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "a.zip", checkpoint)
    path = rewrite(path, tmp_path / "b.zip", **{"README.md": b"# a\n\x1b]0;evil\x07\x9b2J\xff"})
    assert not set(exporting.read_card(str(path))) & {"\x1b", "\x07", "\x9b"}
    wrong = {"score": {"competition_map": "x"}, "authors": 3, "license": ["MIT"], "cite": {"a": 1}}
    path = write_bundle(tmp_path / "d.zip", edit(path, tmp_path / "c.zip", lambda m: m["card"].update(wrong)))
    card = read_checkpoint(path)[KEY]["card"]
    assert (card["score"], card["authors"], card["license"], card["cite"]) == (None, [], None, None)


def test_the_check_of_the_example(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_bundle(tmp_path / "a.zip", checkpoint)
    capsys.readouterr()
    export.main(wiring.compose("export", [f"validate={path}", f"output={tmp_path / 'none.zip'}"]))
    assert "cells, each pixel as expected" in capsys.readouterr().out and not (tmp_path / "none.zip").exists()
    high = {"_target_": "sartorius.postprocess.Score", "threshold": 1.0}
    changed = edit(path, tmp_path / "b.zip", lambda m: m["metadata"]["postprocess"].update(score=high))
    with pytest.raises(
        InputError, match=r"b\.zip: its example gives other cells here: \d+ of \d+ expected cells found"
    ):
        exporting.validate(str(changed))
    types = edit(path, tmp_path / "b.zip", lambda m: m["example"].update(cell_types=["x"] * 3))
    with pytest.raises(InputError, match="its example is damaged"):
        exporting.validate(str(types))
    for content in (b"", b"GIF89a", members(path)["example/cells.png"][:50]):
        with pytest.raises(InputError, match=r"b\.zip: an image of its example cannot be read"):
            exporting.validate(str(rewrite(path, tmp_path / "b.zip", **{"example/image.png": content})))
    with pytest.raises(InputError, match=r"validate=.*best\.ckpt: not a bundle"):
        exporting.validate(str(checkpoint))
    with pytest.raises(InputError, match=r"show=.*nothing\.zip: no such file"):
        exporting.read_card(str(tmp_path / "nothing.zip"))


def test_an_example_without_cells_is_told(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from PIL import Image

    Image.fromarray(SMALL[:20, :30]).save(tmp_path / "small.png")
    strict = ["postprocess.score.threshold.default=1.0", f"example={tmp_path / 'small.png'}"]
    with caplog.at_level("WARNING"):
        path = write_bundle(tmp_path / "a.zip", checkpoint, *strict)
    assert "the model finds no cell in the example" in caplog.text
    assert exporting.validate(str(path)).startswith("0 cells")
    with pytest.raises(InputError, match="example=.*: expected a file of one image|no such"):
        write_bundle(tmp_path / "b.zip", checkpoint, f"example={tmp_path / 'nothing.png'}")


def test_sixteen_bits_and_a_generated_example(checkpoint: Path, tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", blobs(90, 100).astype(np.uint16) * 257)
    path = write_bundle(tmp_path / "a.zip", checkpoint, f"example={tmp_path / 'deep.tif'}")
    assert exporting.validate(str(path)).endswith("each pixel as expected")
    given = wiring.compose("export", [f"checkpoint={checkpoint}", f"output={tmp_path / 'b.zip'}"])
    export.main(given)
    assert json.loads(members(tmp_path / "b.zip")["bundle.json"])["example"]["name"] == "generated.png"
    assert exporting.validate(str(tmp_path / "b.zip")).endswith("each pixel as expected")


def test_an_example_is_read_as_the_images_of_the_training(tmp_path: Path) -> None:
    import tifffile

    grey, other = blobs(90, 100), np.zeros((90, 100), np.uint8)
    tifffile.imwrite(tmp_path / "two.tif", np.stack((other, grey)), imagej=True, metadata={"axes": "CYX"})
    levels = {"levels": "exact"}
    read, _ = exporting._example(str(tmp_path / "two.tif"), {"reading": {"channel": 1, "levels": levels}})
    np.testing.assert_array_equal(read, grey)
    with pytest.raises(InputError, match="example=.*: expected a file of one image, got .*2 channels; give channel=0"):
        exporting._example(str(tmp_path / "two.tif"), {"reading": {"levels": levels}})


@pytest.mark.parametrize("levels", ["range", "standardise"])
def test_a_generated_example_is_at_the_grey_levels_of_the_training(
    checkpoint: Path, tmp_path: Path, levels: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.load(checkpoint, weights_only=False)
    state[KEY]["reading"] = {"levels": {"levels": levels, "mean": 120.0, "std": 20.0}}
    torch.save(state, tmp_path / "own.ckpt")
    image, name = exporting._example(None, state[KEY])
    assert name == "generated.png" and image.dtype == np.uint8
    if levels == "range":
        assert (image.min(), image.max()) == (0, 255)
    else:
        assert abs(image.mean() - 120) < 1 and abs(image.std() - 20) < 2
    export.main(wiring.compose("export", [f"checkpoint={tmp_path / 'own.ckpt'}", f"output={tmp_path / 'a.zip'}"]))
    caplog.clear()
    assert exporting.validate(str(tmp_path / "a.zip")).endswith("cells, each pixel as expected")
    assert not caplog.text


def test_a_mask_rcnn_with_joined_views(tiny_competition: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cfg = wiring.compose("train", [*MODELS["mask_rcnn"], f"data.root={tiny_competition}"])
    module = sartorius.running.building.build_module(cfg, pretrained=False)
    torch.save({"state_dict": module.state_dict(), KEY: dict(module.hparams)}, tmp_path / "best.ckpt")
    options = ["tta=flips", "fusion@tta.fuse.method=nms", "postprocess.score=null", "postprocess.min_area=null"]
    path = write_bundle(tmp_path / "a.zip", tmp_path / "best.ckpt", *options)
    ours, theirs = (sartorius.load(*given, **CPU) for given in ((path,), (tmp_path / "best.ckpt", *options)))
    assert ours.module.inference == theirs.module.inference
    a, b = ours(SMALL), theirs(SMALL)
    assert len(b) and np.array_equal(a.labels, b.labels) and np.array_equal(a.scores, b.scores)


def test_a_checkpoint_and_stages_at_once(checkpoint: Path, tmp_path: Path) -> None:
    assert checkpoints.FORMAT_VERSION == 2
    with pytest.raises(InputError, match="give either checkpoint="):
        write_bundle(tmp_path / "a.zip", None)
    with pytest.raises(InputError, match="no such checkpoint"):
        write_bundle(tmp_path / "a.zip", tmp_path / "none.ckpt")
