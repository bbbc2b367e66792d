from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from sartorius.callbacks.out_of_memory import OutOfMemory
from sartorius.errors import InputError
from sartorius.formats import coco, tables
from sartorius.formats.cells import Cells
from sartorius.formats.folder import FORMATS
from sartorius.inference.windows import Whole
from sartorius.networks import checkpoints
from sartorius.predict import main
from sartorius.rescoring.saved import postprocess_of
from sartorius.running import building, wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.callbacks.test_out_of_memory import CPU
from tests.data.files.test_source import KINDS
from tests.doubles import ToyModule, toy_config
from tests.rescoring.size_filter import larger_than

Compose = Callable[..., DictConfig]


@pytest.fixture
def config(tmp_path: Path, tiny_competition: Path) -> Iterator[Compose]:
    """The predict config for a checkpoint of the toy module and the tiny test images."""
    module = building.build_module(toy_config())
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "a.ckpt")

    def build(*overrides: str) -> DictConfig:
        fixed = [
            f"checkpoint={tmp_path / 'a.ckpt'}",
            f"images={tiny_competition / 'test'}",
            f"output={tmp_path / 'out'}",
        ]
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            return compose("predict", [*fixed, "trainer.accelerator=cpu", "data.num_workers=0", *overrides])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield build


def test_detections_and_overlays_of_a_folder(config: Compose, tmp_path: Path) -> None:
    main(config())
    folder = DetectionsFolder(tmp_path / "out" / "detections")
    assert folder.image_ids() == ["test00", "test01"]
    assert folder.meta["checkpoint"] == str(tmp_path / "a.ckpt")
    assert sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir()) == ["test00.png", "test01.png"]
    with Image.open(tmp_path / "out" / "overlays" / "test00.png") as image:
        assert (image.mode, image.size) == ("RGB", (2 * 64, 2 * 48))


def test_cells_in_all_formats(config: Compose, tmp_path: Path) -> None:
    """The one cell of each image, a box of 15 x 6 pixels, in every file."""
    main(config(f"write=[{','.join(FORMATS)}]"))
    out = tmp_path / "out"
    for file in ("labels/{}.tif", "outlines/{}.txt", "rois/{}.zip", "geojson/{}.geojson"):
        for name in ("test00", "test01"):
            assert Cells.load(out / file.format(name), 48, 64).instances.areas.tolist() == [90], file
    table = tables.read_table(out / "tables" / "cells.csv")
    assert table["image"].tolist() == ["test00", "test01"] and table["area"].tolist() == [90, 90]
    assert table["intensity_mean"].notna().all()
    assert tables.read_table(out / "tables" / "images.csv")["confluence"].tolist() == [round(90 / 48 / 64, 6)] * 2
    assert [len(image["scores"]) for image in coco.read_all(out / "coco.json")] == [1, 1]


def test_detections_alone(config: Compose, tmp_path: Path) -> None:
    main(config("write=[]"))
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["detections"]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_one_image_of_any_size(config: Compose, tmp_path: Path, name: str) -> None:
    Image.fromarray(np.full((30, 50), 128, np.uint8)).save(tmp_path / name)
    main(config(f"images={tmp_path / name}"))
    found = DetectionsFolder(tmp_path / "out" / "detections").load("a")
    assert (found.height, found.width) == (30, 50)


def test_thresholds_are_the_checkpoints_unless_set(config: Compose, tmp_path: Path) -> None:
    main(config("postprocess.score.threshold.default=0.99"))
    with Image.open(tmp_path / "out" / "overlays" / "test00.png") as image:
        pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()  # no cell is left to colour
    main(config(f"output={tmp_path / 'coloured'}"))
    with Image.open(tmp_path / "coloured" / "overlays" / "test00.png") as image:
        pixels = np.asarray(image)
    assert (pixels != pixels[..., :1]).any()


def test_a_filter_is_drawn_and_saved(config: Compose, tmp_path: Path) -> None:
    """The one cell of each image has 15 x 6 pixels."""
    for area, coloured in ((15 * 6, False), (15 * 6 - 1, True)):
        file, output = tmp_path / f"{area}.npz", tmp_path / f"of_{area}"
        larger_than(area).save(file)
        main(config(f"filter={file}", f"output={output}", "postprocess.min_area.pixels.default=3"))
        with Image.open(output / "overlays" / "test00.png") as image:
            pixels = np.asarray(image)
        assert (pixels != pixels[..., :1]).any() == coloured
        folder = DetectionsFolder(output / "detections")
        assert len(folder.load("test00")) == 1 and folder.meta["filter"]["file"] == str(file)
        assert folder.meta["postprocess"]["min_area"]["pixels"]["default"] == 3
        assert len(postprocess_of(folder.meta, None, "saved", "here")(folder.load("test00"))) == coloured
    larger_than(1, ("a",)).save(tmp_path / "foreign.npz")
    with pytest.raises(InputError, match="the filter was trained on a"):
        main(config(f"filter={tmp_path / 'foreign.npz'}"))


def test_windows_are_handed_to_the_module(config: Compose) -> None:
    with pytest.raises(InputError, match="a ToyModule takes whole images only"):
        main(config("inference=tiles"))


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the toy module windows, so that it can be asked for views."""

    def detect(self: ToyModule, image: torch.Tensor, image_id: str) -> Detections:
        return self.inference.detect(lambda crop: plain(self, crop, image_id), image, image_id)  # type: ignore[operator, union-attr]

    plain = ToyModule._detect
    monkeypatch.setattr(ToyModule, "inference", Whole(), raising=False)
    monkeypatch.setattr(ToyModule, "_detect", detect)


@pytest.mark.usefixtures("looking")
def test_views_are_joined(config: Compose, tmp_path: Path) -> None:
    """The toy sees one and the same box whatever the view: four boxes in the image, each in one view of four."""
    main(config("tta=flips"))
    folder = DetectionsFolder(tmp_path / "out" / "detections")
    found, score = folder.load("test00"), 1 / (1 + np.exp(0.0))
    assert sorted(found.boxes.tolist()) == sorted([[5, 4, 20, 10], [44, 4, 59, 10], [5, 38, 20, 44], [44, 38, 59, 44]])
    np.testing.assert_allclose(found.scores, score / 4, rtol=1e-5)
    assert found.agreement is not None and found.agreement.tolist() == [1 / 4] * 4
    assert folder.meta["tta"]["symmetries"] == ["none", "left_right", "up_down", "turn_180"]


@pytest.mark.usefixtures("looking")
def test_views_in_folders_of_their_own(config: Compose, tmp_path: Path) -> None:
    main(config("tta=scales", "tta.symmetries=[none,turn_90]", "tta.scales=[1,2]", "tta.fuse=null"))
    names = ["none", "none_x2", "turn_90", "turn_90_x2"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*/")) == [f"detections_{name}" for name in names]
    turned = DetectionsFolder(tmp_path / "out" / "detections_turn_90")
    assert turned.image_ids() == ["test00", "test01"] and turned.meta["view"] == "turn_90"
    # counterclockwise: what is 5 from the left of the view is 5 from the top, and what is at its top is at the right
    assert turned.load("test00").boxes.tolist() == [[64 - 10, 5, 64 - 4, 20]]
    with pytest.raises(InputError, match="detections_[a-z0-9_]+: holds detections already"):
        main(config("tta=flips"))


def test_views_need_a_network(config: Compose) -> None:
    with pytest.raises(InputError, match=r"a\.ckpt: tta= is for a network, not for a ToyModule"):
        main(config("tta=d4"))


def test_a_bad_image_is_named(config: Compose, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "broken.png").write_text("no image")
    with pytest.raises(InputError, match=r"broken\.png"):
        main(config(f"images={tmp_path / 'mixed'}"))
    with pytest.raises(InputError, match="nowhere"):
        main(config(f"images={tmp_path / 'nowhere'}"))


def test_images_of_sub_folders_and_of_a_glob(config: Compose, tmp_path: Path) -> None:
    (tmp_path / "images" / "x.png").mkdir(parents=True)
    image = Image.fromarray(np.full((30, 50), 128, np.uint8))
    image.save(tmp_path / "images" / "x.png" / "b.png")
    image.save(tmp_path / "images" / "a.tif")
    main(config(f"images={tmp_path / 'images'}"))
    assert DetectionsFolder(tmp_path / "out" / "detections").image_ids() == ["a", "x.png__b"]
    main(config(f"images='{tmp_path}/images/**/*.png'", f"output={tmp_path / 'globbed'}"))
    assert DetectionsFolder(tmp_path / "globbed" / "detections").image_ids() == ["x.png__b"]


def test_results_of_other_settings_are_not_mixed(config: Compose, tmp_path: Path, tiny_competition: Path) -> None:
    main(config())
    other = tmp_path / "b.ckpt"
    content = torch.load(tmp_path / "a.ckpt", weights_only=False)
    torch.save({**content, "state_dict": {name: value + 1 for name, value in content["state_dict"].items()}}, other)
    for changes, what in (
        ([f"checkpoint={other}"], "checkpoint"),
        (["postprocess.score.threshold.default=0.99"], "postprocess"),
        (["data.levels=range"], "reading"),
        (["pixel_size=0.5", "scale=2"], "reading"),
    ):
        with pytest.raises(InputError, match=f"detections: was predicted with another {what}; give another output="):
            main(config(*changes))
    with pytest.raises(InputError, match=r"holds detections of 1 images that are not among these 1 \(test01, ...\)"):
        main(config(f"images={tiny_competition / 'test' / 'test00.png'}"))
    shutil.move(tmp_path / "a.ckpt", tmp_path / "moved.ckpt")
    main(config(f"checkpoint={tmp_path / 'moved.ckpt'}"))
    shutil.rmtree(tmp_path / "out" / "detections")
    with pytest.raises(InputError, match="overlays: holds overlays already; delete them or give another output="):
        main(config(f"checkpoint={tmp_path / 'moved.ckpt'}"))


def test_the_same_command_predicts_nothing_twice(
    config: Compose, tmp_path: Path, tiny_competition: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(config())
    seen: list[str] = []
    detect = ToyModule._detect
    monkeypatch.setattr(ToyModule, "_detect", lambda self, image, name: seen.append(name) or detect(self, image, name))
    main(config())
    assert seen == []
    (tmp_path / "out" / "detections" / "test01.npz").unlink()
    (tmp_path / "out" / "detections" / ".test01.99.partial.npz").write_bytes(b"cut off")
    later = (tmp_path / "out" / "detections" / "test00.npz").stat().st_mtime + 10
    main(config())
    assert seen == ["test01"] and not list((tmp_path / "out").rglob("*.partial*"))
    os.utime(tiny_competition / "test" / "test00.png", (later, later))
    main(config())
    assert seen == ["test01", "test00"], "its file is newer"


def test_one_damaged_file_among_a_hundred(config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the same command again, with the file mended, predicts that one alone."""
    (tmp_path / "many").mkdir()
    image = Image.fromarray(np.random.default_rng(0).normal(128, 12, (20, 24)).astype(np.uint8))
    for number in range(100):
        image.save(tmp_path / "many" / f"{number:02d}.png")
    whole = (tmp_path / "many" / "17.png").read_bytes()
    (tmp_path / "many" / "17.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "many" / "53.png").write_text("no image")
    given = (f"images={tmp_path / 'many'}", "write=[]")
    with pytest.raises(InputError, match=r"53\.png: not a readable image.*; .*17\.png: cut off or damaged") as error:
        main(config(*given))
    assert "\n" not in str(error.value)
    (tmp_path / "many" / "53.png").write_bytes(whole)
    assert list(main(config(*given, "on_error=skip"))) == ["17"]
    out = capsys.readouterr().out
    assert "skipped: " in out and "17.png: cut off" in out
    assert "99 images and 1 skipped: detections" in out
    folder = DetectionsFolder(tmp_path / "out" / "detections")
    assert len(folder.image_ids()) == 99 and list(folder.meta["skipped"]) == ["17"]
    assert len(main(config(*given, "on_error=skip"))) == 1
    (tmp_path / "many" / "17.png").write_bytes(whole)
    assert main(config(*given, "on_error=skip")) == {} == folder.meta["skipped"]
    assert len(folder.image_ids()) == 100 and "100 images, 99 of them by an earlier run" in capsys.readouterr().out


def test_bad_images_that_are_skipped_end_in_exit_code_3(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((30, 50), 128, np.uint8)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "bad.tif").write_bytes(b"II*\0")
    given = [f"checkpoint={tmp_path / 'a.ckpt'}", f"images={tmp_path / 'images'}", f"output={tmp_path / 'out'}"]
    for more, code in (("on_error=skip", 3), ("on_error=stop", 1)):
        monkeypatch.setattr(sys, "argv", ["predict", *given, "data.num_workers=0", "trainer.accelerator=cpu", more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    out, err = capsys.readouterr()
    assert "2 images and 1 skipped" in out and "bad.tif: not a readable" in out
    assert "error: " in err and "bad.tif: not a readable" in err.splitlines()[-1]
    table = tables.read_table(tmp_path / "out" / "tables" / "images.csv")
    assert table.set_index("image")["status"].to_dict() == {"a": "ok", "b": "ok", "bad": "bad"}


def see(self: ToyModule, image: torch.Tensor, image_id: str) -> Detections:
    """Detect one box, whose score depends on every pixel."""
    weights = torch.arange(image.numel()).reshape(image.shape) % 97
    score = float((image.double() * weights).sum() / (255 * weights).sum())
    return replace(DETECT(self, image, image_id), scores=np.array([score], np.float32))


DETECT = ToyModule._detect


def test_ten_kinds_of_file_of_one_image_give_the_same_cells(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyModule, "_detect", see)
    (tmp_path / "kinds").mkdir()
    for name, (write, pixels) in KINDS.items():
        write(tmp_path / "kinds" / f"{name.replace('.', '_', 1)}{Path(name).suffix}", pixels)
    main(config(f"images={tmp_path / 'kinds'}", "write=[]"))
    found = list(DetectionsFolder(tmp_path / "out" / "detections"))
    assert len(found) == len(KINDS) > 10
    assert {detections.scores.tobytes() for detections in found} == {found[0].scores.tobytes()}
    assert len({(detections.height, detections.width) for detections in found}) == 1


def test_images_are_brought_to_the_scale_of_the_training(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The toy's box, 5 4 20 10 of what it sees, is twice as large in a file that is seen at half its size."""
    content = torch.load(tmp_path / "a.ckpt", weights_only=False)
    content[checkpoints.KEY]["pixel_size"] = 1.3
    torch.save(content, tmp_path / "known.ckpt")
    image = np.random.default_rng(0).normal(128, 12, (41, 60)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "fine.tif", image, imagej=True, resolution=(1 / 0.65,) * 2, metadata={"unit": "um"})
    Image.fromarray(image).save(tmp_path / "unknown.png")
    given = (f"images=[{tmp_path / 'fine.tif'},{tmp_path / 'unknown.png'}]", "write=[]")
    seen = set[tuple[int, ...]]()
    detect = ToyModule._detect
    monkeypatch.setattr(
        ToyModule, "_detect", lambda self, image, name: seen.add(tuple(image.shape)) or detect(self, image, name)
    )
    with caplog.at_level(logging.INFO):
        main(config(*given, f"checkpoint={tmp_path / 'known.ckpt'}"))
    assert seen == {(1, 20, 30), (1, 41, 60)}
    fine, unknown = DetectionsFolder(tmp_path / "out" / "detections")
    assert (fine.height, fine.width, fine.pixel_size, unknown.pixel_size) == (41, 60, 0.65, None)
    np.testing.assert_allclose(fine.boxes, [[10, 4 * 41 / 20, 40, 10 * 41 / 20]], rtol=1e-6)
    assert unknown.boxes.tolist() == [[5, 4, 20, 10]]
    assert "scale: 1 of 2 images are resized by 0.5 for the network" in caplog.text
    assert "without the pixel size of 1 of 2 images (pixel_size=0.65 gives it)" in caplog.text
    for options, sizes, pixel_size in (
        (["pixel_size=2.6"], {(1, 82, 120)}, 2.6),
        (["scale=1.0"], {(1, 41, 60)}, 0.65),
        (["scale=3"], {(1, 123, 180)}, 0.65),
    ):
        seen.clear()
        output = tmp_path / options[0]
        main(config(*given, f"checkpoint={tmp_path / 'known.ckpt'}", f"output='{output}'", *options))
        assert seen == sizes and DetectionsFolder(output / "detections").load("fine").pixel_size == pixel_size
    caplog.clear()
    with caplog.at_level(logging.INFO):
        main(config(*given, f"output={tmp_path / 'plain'}"))
    assert "without the pixel size of the network's training (data.pixel_size of a training)" in caplog.text


def test_trained_images_are_known_in_any_folder(
    config: Compose, tmp_path: Path, tiny_competition: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = torch.load(tmp_path / "a.ckpt", weights_only=False)
    content[checkpoints.KEY]["trained_on"] = {"test01": "well", "elsewhere": "well"}
    torch.save(content, tmp_path / "seen.ckpt")
    shutil.copytree(tiny_competition / "test", tmp_path / "deep" / "test")
    main(config(f"images={tmp_path / 'deep'}", f"checkpoint={tmp_path / 'seen.ckpt'}", "write=[]"))
    assert "was trained on 1 of these 2 images (test__test01, ...)" in caplog.text
    assert DetectionsFolder(tmp_path / "out" / "detections").meta["trained_on"] == {"test__test01": "well"}


def test_the_log_says_what_becomes_of_grey_levels(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "many").mkdir()
    image = np.random.default_rng(0).normal(128, 12, (30, 40)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "many" / "a.png")
    Image.fromarray(image.astype(np.uint16) * 9).save(tmp_path / "many" / "b.png")
    Image.fromarray(image - 60).save(tmp_path / "many" / "c.png")
    with caplog.at_level(logging.INFO):
        main(config(f"images={tmp_path / 'many'}", "write=[]"))
    assert (
        "grey levels: 2 of 3 images are standardised to mean 128 and deviation 11.58, the others stay as they are "
        "(1 uint16, 1 another mean or deviation)"
    ) in caplog.text


@pytest.mark.parametrize(
    "overrides",
    [["checkpoint=null"], ["model=two_stage"], ["checkpoint=null", "model=two_stage", "model.first=a.ckpt"]],
)
def test_one_source_is_needed(config: Compose, overrides: list[str]) -> None:
    with pytest.raises(InputError, match="give either checkpoint=.* or model=two_stage with model.first="):
        main(config(*overrides))


@pytest.mark.parametrize("where", ["network", "overlays"])
def test_an_image_too_large_for_the_memory(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def starve(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB") if where == "overlays" else RuntimeError(CPU)

    if where == "network":
        monkeypatch.setattr(ToyModule, "_detect", starve)
    else:
        monkeypatch.setattr("sartorius.visualise.overlays.cv2.imencode", starve)
    Image.fromarray(np.full((30, 50), 128, np.uint8)).save(tmp_path / "huge.png")
    expected = r"memory ran out in prediction on huge \(batch of 1, 30x50 pixels, .*9.*: inference=tiles"
    with pytest.raises(InputError, match=expected):
        main(config(f"images={tmp_path / 'huge.png'}"))


@pytest.mark.usefixtures("looking")
def test_a_large_image_in_one_piece_is_named_before_it_is_tried(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutOfMemory.__init__, "__defaults__", (64 * 48 - 1,))
    with pytest.warns(match=r"test00 \(batch of 1, 48x64 pixels, .*if memory runs out: inference=tiles") as caught:
        main(config())
    assert sum("inference=tiles" in str(warning.message) for warning in caught) == 1
