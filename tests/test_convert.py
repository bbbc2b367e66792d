from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sartorius import convert
from sartorius.errors import InputError
from sartorius.formats import tables
from sartorius.formats.cells import Cells
from sartorius.running import wiring
from sartorius.structures.detections import DetectionsFolder
from tests.test_submit import folder, found

__all__ = ["folder"]  # a fixture


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    def program(*overrides: str) -> Path:
        fixed = [f"detections={folder}", f"output={tmp_path / 'out'}"]
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            convert.main(compose("convert", overrides=[*fixed, *overrides]))
        return tmp_path / "out"

    return program


def test_labels_and_tables(run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Two squares of 10 x 10 pixels that share 4 x 10, and an image without cells."""
    out = run()
    assert "2 cells in 2 images: labels, table in" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["labels", "tables"]
    cells = tables.read_table(out / "tables" / "cells.csv")
    assert cells["area"].tolist() == [100, 60] and cells["intensity_mean"].isna().all()
    assert Cells.load(out / "labels" / "test00.tif").labels.shape == (48, 64)
    images = tables.read_table(out / "tables" / "images.csv")
    assert images["cells_shsy5y"].tolist() == [2, 0] and images["status"].tolist() == ["ok", "empty"]


def test_overlaps_are_kept(run: Callable[..., Path]) -> None:
    formats = ("labels", "rois", "geojson", "outlines")
    out = run("overlaps=keep", f"write=[{','.join(formats)},coco,table]")
    assert tables.read_table(out / "tables" / "cells.csv")["area"].tolist() == [100, 100]
    assert Cells.load(out / "labels" / "test00.tif").labels.shape == (2, 48, 64)
    for name, suffix in zip(formats, ("tif", "zip", "geojson", "txt"), strict=True):
        cells = Cells.load(out / name / f"test00.{suffix}", 48, 64)
        assert cells.instances.areas.tolist() == [100, 100], name


def test_images_give_grey_levels_and_overlays(run: Callable[..., Path], tiny_competition: Path) -> None:
    out = run(f"images={tiny_competition / 'test'}", "write=[table,overlay]")
    grey = cv2.imread(str(tiny_competition / "test" / "test00.png"), cv2.IMREAD_GRAYSCALE)
    mean = tables.read_table(out / "tables" / "cells.csv")["intensity_mean"]
    assert mean[0] == pytest.approx(grey[2:12, 8:18].mean())
    assert cv2.imread(str(out / "overlays" / "test01.png")).shape == (2 * 48, 2 * 64, 3)


def test_other_thresholds_and_folders(run: Callable[..., Path], folder: Path) -> None:
    other = folder.parent / "second"
    DetectionsFolder(other).write_meta(**DetectionsFolder(folder).meta)
    DetectionsFolder(other).write(found("more", [[1, 1, 9, 9]]))
    out = run(f"detections=[{folder},{other}]", "postprocess.score.threshold.default=0.7")
    assert tables.read_table(out / "tables" / "images.csv")["cells"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("problems", ["no image", ["no", "image"]])
def test_images_that_were_skipped_have_their_rows(run: Callable[..., Path], folder: Path, problems: object) -> None:
    """Of a prediction, and of an ensemble, which names the files of each member."""
    written = DetectionsFolder(folder)
    written.write_meta(**{**written.meta, "skipped": {"bad": problems, "test00": problems}})
    table = tables.read_table(run() / "tables" / "images.csv")
    assert table["image"].tolist() == ["bad", "test00", "test01"] and table["status"].tolist() == ["bad", "ok", "empty"]
    assert table["problem"].tolist() == [problems if isinstance(problems, str) else "no; image", "", ""]


def test_again_into_the_same_folder(run: Callable[..., Path], folder: Path) -> None:
    """Other thresholds replace every file; files of other images would be mixed with them."""
    run()
    out = run("postprocess.score.threshold.default=0.7")
    assert tables.read_table(out / "tables" / "images.csv")["cells"].tolist() == [1, 0]
    assert len(Cells.load(out / "labels" / "test00.tif")) == 1
    (folder / "test01.npz").unlink()
    with pytest.raises(InputError, match=r"labels: holds files of 1 other images \(test01, ...\); delete them"):
        run()


def test_what_does_not_fit_is_named(
    run: Callable[..., Path], folder: Path, tiny_competition: Path, own_competition: Path
) -> None:
    with pytest.raises(InputError, match="draws over the images: give images=FOLDER"):
        run("write=[overlay]")
    with pytest.raises(InputError, match="of 2 predicted images 2 are missing: test00"):
        run(f"images={tiny_competition / 'train'}")
    cv2.imwrite(str(own_competition / "test" / "test00.png"), np.zeros((10, 20), np.uint8))
    with pytest.raises(InputError, match="image test00: detections of 64x48 pixels, the image has 20x10"):
        run(f"images={own_competition / 'test'}")
    DetectionsFolder(own_competition / "none").write_meta(**DetectionsFolder(folder).meta)
    with pytest.raises(InputError, match="no detections in it; `predict` writes them"):
        run(f"detections={own_competition / 'none'}")


def test_no_torch(folder: Path, tmp_path: Path) -> None:
    """Neither torch nor what trainings need is imported, let alone a network built."""
    arguments = [
        f"detections={folder}",
        f"output={tmp_path / 'out'}",
        "write=[labels,outlines,rois,geojson,coco,table]",
    ]
    program = (
        f"import sys; sys.argv[1:] = {arguments}; import sartorius.convert as c; c.main();"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'matplotlib', 'sklearn', 'albumentations', 'optuna'};"
        "sys.exit(str(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr.strip() == "[]", done.stderr
    assert (tmp_path / "out" / "labels" / "test00.tif").is_file()
