from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sartorius import submit
from sartorius.errors import InputError
from sartorius.formats.submission import read_submission, validate_submission, write_submission
from sartorius.rescoring.saved import to_save
from sartorius.running import wiring
from sartorius.structures import rle
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.postprocess.pipelines import pipeline, saved
from tests.rescoring.size_filter import larger_than
from tests.rewritten import WRITTEN, discs, written

POST = pipeline(score=0.5, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)


def found(image_id: str, boxes: list[list[float]], height: int = 48, width: int = 64) -> Detections:
    n = len(boxes)
    return Detections(
        image_id, height, width, np.array(boxes, np.float32).reshape(n, 4), np.linspace(0.6, 0.9, n).astype(np.float32),
        np.zeros(n, np.int64), np.ones((n, 8, 8), np.float16),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written = DetectionsFolder(tmp_path / "detections")
    settings = saved(score=0.5, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
    written.write_meta(cell_types=["shsy5y", "astro", "cort"], mask_size=8, postprocess=settings)
    written.write(found("test00", [[2, 2, 12, 12], [8, 2, 18, 12]]))
    written.write(found("test01", []))
    return written.folder


@pytest.fixture
def run() -> Callable[..., None]:
    def program(*overrides: str) -> None:
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            submit.main(compose("submit", overrides=list(overrides)))

    return program


def test_detections_become_a_valid_submission(
    run: Callable[..., None], folder: Path, tiny_competition: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "submission.csv"
    run(f"detections={folder}", f"output={path}", f"data.root={tiny_competition}")
    rows = read_submission(path)
    assert list(rows) == ["test00", "test01"] and [len(texts) for texts in rows.values()] == [2, 0]
    assert validate_submission(path, {"test00": (48, 64), "test01": (48, 64)}) == []
    assert "2 cells in 2 images" in capsys.readouterr().out
    run(f"validate={path}", f"data.root={tiny_competition}")
    assert "a valid submission" in capsys.readouterr().out


def test_thresholds_can_be_changed(run: Callable[..., None], folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    run(f"detections={folder}", f"output={path}", "postprocess.score.threshold.default=0.7")
    assert [len(texts) for texts in read_submission(path).values()] == [1, 0]


def test_the_saved_filter_unless_another_or_none_is_asked_for(
    run: Callable[..., None], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two squares of 10 x 10 pixels the lower-scored one loses the 4 x 10 pixels that they share."""
    file, path = tmp_path / "filter.npz", tmp_path / "s.csv"
    larger_than(6 * 10).save(file)
    written = DetectionsFolder(folder)
    written.write_meta(**{**written.meta, "filter": to_save(str(file), CELL_TYPES)})
    larger_than(10 * 10).save(file)
    for override, cells in (("filter=saved", 1), ("filter=none", 2), ("filter=null", 2), (f"filter={file}", 0)):
        with nullcontext() if cells else pytest.warns(UserWarning, match="s.csv: no cell in any image; lower"):
            run(f"detections={folder}", f"output={path}", override)
        assert [len(texts) for texts in read_submission(path).values()] == [cells, 0], override
        said = f"its filter, {file}, drops false positives; filter=none leaves it out" in capsys.readouterr().out
        assert said == (override == "filter=saved")
    run(f"detections={folder}", f"output={path}")
    assert [len(texts) for texts in read_submission(path).values()] == [1, 0]


def test_a_missing_or_extra_image_writes_nothing(tmp_path: Path) -> None:
    sizes = {"a": (48, 64), "b": (48, 64)}
    for images, message in ((["a"], "missing id: image b"), (["a", "b", "c"], "unknown id: 'c'")):
        with pytest.raises(InputError, match=f"was not written: .*{message}"):
            submit.submit([found(p, [[2, 2, 9, 9]]) for p in images], POST, tmp_path / "s.csv", sizes)
    with pytest.raises(InputError, match="image b: detections of 64x48 pixels, the image has 30x20"):
        submit.submit([found("a", []), found("b", [])], POST, tmp_path / "s.csv", {"a": (48, 64), "b": (20, 30)})
    assert not (tmp_path / "s.csv").exists()


def test_images_of_any_size_without_a_data_folder(tmp_path: Path) -> None:
    large = found("big", [[900, 1000, 990, 1090]], 1200, 1000)
    assert submit.submit([large, found("small", [[1, 1, 5, 5]], 10, 10)], POST, tmp_path / "s.csv") == (2, 2)


def test_a_valid_file_that_is_hardly_meant_so_is_warned_of(run: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    write_submission(path, {"a": [], "b": []})
    with pytest.warns(UserWarning, match="no cell in any image"):
        run(f"validate={path}")
    cells = rle.parse(discs(520, 704), 520, 704)
    for how in WRITTEN:
        write_submission(path, {"a": written(cells, how), "b": []})
        with nullcontext() if how is None else pytest.warns(UserWarning, match=f"the masks seem to be {how} "):
            run(f"validate={path}")


def test_all_bad_images_are_named(run: Callable[..., None], folder: Path, own_competition: Path) -> None:
    for path in (own_competition / "test").iterdir():
        path.write_bytes(b"none")
    with pytest.raises(InputError, match="test00.png: not a readable image.*; .*test01.png: not a readable image"):
        run(f"detections={folder}", f"data.root={own_competition}")


def test_all_damaged_detections_are_named(run: Callable[..., None], folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.npz"):
        path.write_bytes(b"none")
    with pytest.raises(InputError, match="test00.npz: not a readable.*; .*test01.npz: not a readable"):
        run(f"detections={folder}", f"output={tmp_path / 's.csv'}")
    assert not (tmp_path / "s.csv").exists()


def test_the_command_lists_every_problem(tiny_competition: Path, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,predicted\ntest00,1 5\ntest00,5 1\ntest01,9 9 1\nother,\n")
    command = [sys.executable, "-m", "sartorius.submit", "validate=s.csv", f"data.root={tiny_competition}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert [line.split(": ")[1:3] for line in done.stdout.splitlines()] == [
        ["line 3", "overlap"], ["line 4", "bad mask"], ["line 5", "unknown id"],
    ]  # fmt: skip
    assert done.stderr.strip() == "error: s.csv: 3 problems; the competition would refuse it"
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"], "checking leaves nothing behind"


def test_one_of_detections_and_validate(run: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give detections=FOLDER"):
        run()
    with pytest.raises(InputError, match="no meta.json"):
        run(f"detections={tmp_path}")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="no images in it"):
        run("validate=x.csv", f"data.root={tmp_path}")
