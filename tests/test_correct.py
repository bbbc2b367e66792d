"""`sartorius.correct` on a tiny folder: what it opens, through Fiji, and what it refuses in a line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import roifile
import tifffile
from hydra import compose, initialize_config_dir
from PIL import Image

from sartorius import correct
from sartorius.data.competition.about import About, read_about
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.levels import Levels
from sartorius.errors import InputError
from sartorius.labelling.correction.session import CorrectionSession
from sartorius.running import wiring
from sartorius.running.correcting import build_session
from sartorius.structures.instances import Instances
from tests.labelling.correction.test_fiji import polygon, rewrite
from tests.test_submit import folder

__all__ = ["folder"]  # a fixture


@pytest.fixture
def run(folder: Path, tiny_competition: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run the command on the two test images, of which the first has two cells; returns its output."""

    def program(*overrides: str) -> Path:
        fixed = [f"images={tiny_competition / 'test'}", f"detections={folder}", f"output={tmp_path / 'mine'}"]
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            correct.main(compose("correct", overrides=[*fixed, *overrides]))
        return tmp_path / "mine"

    return program


def test_through_fiji_and_back(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = run("tool=fiji", "waiting=1")
    printed = capsys.readouterr().out
    assert "1 images in" in printed and "test01" in printed and "1 shsy5y, 2 astro, 3 cort" in printed
    assert printed.endswith(f"0 of 2 images are checked; labels in {out}\n")
    run("tool=fiji", "waiting=2")
    rois = roifile.roiread(out / "to_correct" / "test00.zip")
    rois[0].group = 3
    rewrite(out / "to_correct" / "test00.zip", rois[:1])
    capsys.readouterr()
    run("tool=fiji")
    printed = capsys.readouterr().out
    assert "as they were written before: test01; delete ID.zip to have the cells of ID anew" in printed
    assert "test00: checked, 1 cells" in printed and "1 of 2 images are checked" in printed
    assert "next:" not in printed, "a training needs another image to validate on"
    labelled = Competition(out)
    labelled.check()
    assert labelled.ids == ("test00",) and labelled.cell_type("test00") == "cort"
    assert labelled.instances("test00").areas.tolist() == [100]


def test_a_training_begins_with_the_weights_of_the_detections(
    run: Callable[..., Path], folder: Path, tiny_competition: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run("tool=fiji")
    assert "cell types are those of the detections, shsy5y, astro, cort; cell_types=" in capsys.readouterr().out
    for name in ("test00", "test01"):
        whole = [polygon([[0, 0], [64, 0], [64, 48], [0, 48]], "checked")]
        rewrite(out / "to_correct" / f"{name}.zip", whole)
    written = json.loads((folder / "meta.json").read_text())
    for source, options in (
        (None, "experiment=unet_cpu"),
        ("builtin", "experiment=unet_cpu model.weights=builtin"),
        ("runs/a/best.ckpt", "experiment=EXPERIMENT model.weights=runs/a/best.ckpt"),
    ):
        (folder / "meta.json").write_text(json.dumps({**written, "checkpoint": source}))
        run("tool=fiji")
        printed = capsys.readouterr().out
        own = f"data.root={out} 'cell_types=[shsy5y,astro,cort]'"
        assert printed.endswith(f"next: python -m sartorius.train {options} {own}\n")


def test_a_broken_zip_does_not_stop_the_others(run: Callable[..., Path]) -> None:
    out = run("tool=fiji")
    (out / "to_correct" / "test01.zip").write_bytes(b"")
    rewrite(out / "to_correct" / "test00.zip", [])
    with pytest.raises(InputError, match=r"test01\.zip: not a readable ROI zip"):
        run("tool=fiji")
    assert Competition(out).ids == ("test00",)


def test_an_order(run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "review.csv").write_text("rank,id\n1,test00\n2,elsewhere\n")
    out = run("tool=fiji", "waiting=1", f"order={tmp_path / 'review.csv'}")
    assert sorted(path.name for path in (out / "to_correct").glob("*.zip")) == ["test00.zip"]
    assert f"order: 1 of the 2 ids in {tmp_path / 'review.csv'} are among images=" in capsys.readouterr().out
    (tmp_path / "review.csv").write_text("rank,id\n2,elsewhere\n")
    with pytest.raises(InputError, match="none of its 1 ids is among images="):
        run("tool=fiji", f"order={tmp_path / 'review.csv'}")


def test_from_nothing_and_once_more(run: Callable[..., Path], tiny_competition: Path) -> None:
    """Without detections, and the images of a folder of labels."""
    out = run("tool=fiji", "detections=null", "cell_types=[neuron]")
    assert roifile.roiread(out / "to_correct" / "test00.zip") == []
    rewrite(out / "to_correct" / "test00.zip", [polygon([[0, 0], [64, 0], [64, 48], [0, 48]], "checked")])
    run("tool=fiji", "detections=null", "cell_types=[neuron,glia]", f"images={tiny_competition / 'test'}")
    assert Competition(out, ("neuron", "glia")).cell_type("test00") == "", "no cells, so of no type"
    cfg = wiring.compose("correct", [f"images={out / 'train'}", f"output={out}"])
    session = build_session(cfg)
    assert session.queue == ["test00"] and session.about.cell_types == ("neuron", "glia")
    assert Competition(out, ("neuron", "glia")).ignored("test00") is None, "all of it is checked"
    assert session.status("test00") == "checked" and session.open("test00", (48, 64)).cells == {}


def test_images_of_the_folder_itself_stay_as_they_are(tmp_path: Path) -> None:
    """However the originals were read: another channel, other grey levels."""
    dark = np.arange(100, dtype=np.uint8).reshape(10, 10)
    about = About(("a",), 0.5, {"channel": 1, "levels": {"levels": "standardise"}})
    write_labelled(tmp_path / "mine", about, [Labelled("x", dark, Instances.empty(10, 10))])
    Image.fromarray(dark[::-1]).save(tmp_path / "mine" / "train" / "new.png")
    cfg = wiring.compose("correct", [f"images={tmp_path / 'mine' / 'train'}", f"output={tmp_path / 'mine'}"])
    session = build_session(cfg)
    assert (session.image("x") == dark).all() and (session.image("new") == dark[::-1]).all()
    session.save("new", session.image("new"), session.open("new", (10, 10)))
    assert read_about(tmp_path / "mine") == about


def test_an_output_within_the_images_gives_no_images(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "mine" / "to_correct").mkdir(parents=True)
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    for path in (raw / "x.png", raw / "mine" / "to_correct" / "x.png"):
        Image.fromarray(grey).save(path)
    write_labelled(raw / "mine", About(("a",)), [Labelled("y", grey, Instances.empty(10, 10))])
    for images in (str(raw), f"'{raw}/**/*.png'"):
        assert build_session(wiring.compose("correct", [f"images={images}", f"output={raw / 'mine'}"])).queue == ["x"]
    own = wiring.compose("correct", [f"images={raw / 'mine' / 'train'}", f"output={raw / 'mine'}"])
    assert build_session(own).queue == ["y"]


def test_images_of_one_folder_are_read_in_one_way(folder: Path, tmp_path: Path) -> None:
    """By detections, by dataset.json and by options."""
    (tmp_path / "raw").mkdir()
    stack = np.arange(2 * 48 * 64, dtype=np.uint16).reshape(2, 48, 64)
    tifffile.imwrite(tmp_path / "raw" / "test00.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    fixed = [f"images={tmp_path / 'raw'}", f"output={tmp_path / 'mine'}"]
    written = json.loads((folder / "meta.json").read_text())
    reading = {"channel": None, "pages": "max", "levels": asdict(Levels())}
    (folder / "meta.json").write_text(json.dumps({**written, "reading": reading}))
    predicted = [*fixed, f"detections={folder}"]
    assert build_session(wiring.compose("correct", predicted)).queue == ["test00"]
    with pytest.raises(InputError, match=r"pages=each: that of .*detections is max; leave pages= out"):
        build_session(wiring.compose("correct", [*predicted, "pages=each"]))
    About(("shsy5y",), None, {**reading, "pages": "each"}).write(tmp_path / "mine")
    with pytest.raises(InputError, match=r"dataset\.json: its images have pages each, these max; .*predict"):
        build_session(wiring.compose("correct", predicted))
    (folder / "meta.json").write_text(json.dumps(written))
    for options in (predicted[:2], [*fixed, "pages=each"]):
        assert build_session(wiring.compose("correct", options)).images.ids == ("test00_z000", "test00_z001")
    for option, now in (("pages=max", "each"), ("channel=1", "null")):
        with pytest.raises(InputError, match=rf"{option}: that of .*dataset\.json is {now}; leave"):
            build_session(wiring.compose("correct", [*fixed, option]))


def test_pixel_sizes_of_one_folder_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the files, which a folder keeps; of files that tell none, those of the folder."""
    (tmp_path / "raw").mkdir()
    grey, mine = np.arange(100, dtype=np.uint8).reshape(10, 10), tmp_path / "mine"

    def tiff(name: str, size: float) -> None:
        resolution = (10_000 / size, 10_000 / size)
        tifffile.imwrite(tmp_path / "raw" / name, grey, resolution=resolution, resolutionunit="CENTIMETER")

    def opened(*options: str, output: Path = mine) -> CorrectionSession:
        return build_session(wiring.compose("correct", [f"images={tmp_path / 'raw'}", f"output={output}", *options]))

    tiff("a.tif", 0.65)
    session = opened()
    session.save("a", session.image("a"), session.open("a", (10, 10)))
    about = read_about(mine)
    assert about is not None and about.pixel_size == pytest.approx(0.65, rel=1e-3)
    tifffile.imwrite(tmp_path / "raw" / "b.ome.tif", grey, metadata={"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65})
    Image.fromarray(grey).save(tmp_path / "raw" / "c.png")
    session = opened()
    session.save("c", session.image("c"), session.open("c", (10, 10)))
    assert read_about(mine) == about
    with pytest.raises(InputError, match=r"have pixel_size 0\.65.*, these 0\.5; .*: give pixel_size=0\.65.* where"):
        opened("pixel_size=0.5")
    tiff("d.tif", 0.25)
    with pytest.raises(InputError, match=r"dataset\.json: its images have pixel_size 0\.65.*, these 0\.25, 0\.65"):
        opened()
    assert opened("pixel_size=0.65").queue == ["a", "b", "c", "d"], "where the files are wrong"
    capsys.readouterr()
    assert opened(output=tmp_path / "other").about.pixel_size is None
    assert "pixel sizes differ (0.25, 0.65" in capsys.readouterr().out
    About(("cell",)).write(tmp_path / "unknown")
    assert opened(output=tmp_path / "unknown").about.pixel_size is None
    with pytest.raises(InputError, match="have pixel_size None, these 0.5; .*: leave pixel_size= out"):
        opened("pixel_size=0.5", output=tmp_path / "unknown")


def test_what_does_not_fit_is_one_line(run: Callable[..., Path], tiny_competition: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no detections of these images; give the images that were predicted"):
        run(f"images={tiny_competition / 'train'}")
    (tmp_path / "x.csv").write_text("name\na\n")
    with pytest.raises(InputError, match=r"x\.csv: no column id"):
        run(f"order={tmp_path / 'x.csv'}")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.tif").write_bytes(b"II*")
    with pytest.raises(InputError, match=r"bad/a\.tif"):
        run(f"images={tmp_path / 'bad'}", "detections=null")


def test_without_napari(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(InputError, match=r"pip install 'sartorius\[napari\]'.*or give tool=fiji"):
        run()


def test_without_a_display(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Qt would end the process."""
    monkeypatch.setitem(sys.modules, "napari", ModuleType("napari"))
    window = ModuleType("sartorius.napari_plugin.window")
    monkeypatch.setitem(sys.modules, window.__name__, window)
    monkeypatch.setattr(window, "CorrectionWindow", None, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="there is no display to open a window on; .*or give tool=fiji"):
        run()


def test_no_torch(folder: Path, tiny_competition: Path, tmp_path: Path) -> None:
    """Torch and the software OpenGL that may draw the window crash in one process."""
    arguments = [f"images={tiny_competition / 'test'}", f"detections={folder}", f"output={tmp_path / 'm'}", "tool=fiji"]
    program = (
        f"import sys; sys.argv[1:] = {arguments}; import sartorius.correct as c; c.main(); import skimage.morphology;"
        "import skimage.segmentation; sys.exit(str(sorted({'torch', 'triton'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.strip() == "[]", done.stderr
