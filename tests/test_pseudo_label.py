"""Detections become a file that training reads as it was meant: sure, doubtful, and nothing below."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from sartorius import pseudo_label
from sartorius.data.pseudo_labels.settings import PseudoLabels
from sartorius.data.pseudo_labels.source import PseudoLabelled
from sartorius.errors import InputError
from sartorius.metrics.pseudo_labels import Report
from sartorius.running import wiring
from sartorius.structures.cell_types import CELL_TYPES, DOUBTFUL
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.conftest import HEIGHT, WIDTH
from tests.data.pseudo_folder import PLAIN, write_images
from tests.postprocess.pipelines import saved

Run = Callable[..., Report]
NAMES = ("cort[x]_C6-1_Vessel-1_Ph_4", "new", "empty")
CUTS = {
    "min_score": {"shsy5y": 0.5, "astro": 0.6, "cort": 0.7},
    "doubtful_score": {"shsy5y": 0.2, "astro": 0.3, "cort": 0.4},
}


def found(
    image_id: str, scores: Sequence[float], types: Sequence[int] | int = 2, agreement: Sequence[float] | None = None
) -> Detections:
    """Squares of 10 x 10 pixels side by side."""
    n = len(scores)
    kinds = np.broadcast_to(np.array(types, np.int64), n).copy()
    boxes = np.array([[12 * k, 5, 12 * k + 10, 15] for k in range(n)], np.float32).reshape(n, 4)
    return Detections(
        image_id, HEIGHT, WIDTH, boxes, np.array(scores, np.float32), kinds,
        np.ones((n, 8, 8), np.float16), CELL_TYPES, None if agreement is None else np.array(agreement, np.float32),
    )  # fmt: skip


def write(folder: Path, *detections: Detections) -> Path:
    written = DetectionsFolder(folder)
    settings = saved(score=0.6, mask=0.5, box_nms=0.9, mask_nms=0.5, min_area=0)
    written.write_meta(cell_types=list(CELL_TYPES), mask_size=8, postprocess=settings)
    for one in detections:
        written.write(one)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images: three sure, doubtful and dropped cells; two of another type; none."""
    write_images(tmp_path / "images", NAMES)
    return write(
        tmp_path / "detections",
        found(NAMES[0], [0.9, 0.7, 0.5, 0.39]),
        found(NAMES[1], [0.62, 0.58], types=1),
        found(NAMES[2], []),
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def program(folder: Path, *overrides: str) -> Report:
        cuts = [f"pseudo_labels.{key}.{name}={value}" for key, own in CUTS.items() for name, value in own.items()]
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            fixed = [f"detections={folder}", f"output={tmp_path / 'p.csv'}", *cuts]
            report: Report = pseudo_label.main(compose("pseudo_label", [*fixed, *overrides]))
            return report

    return program


def table(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "p.csv", dtype=str, keep_default_na=False)


def test_sure_doubtful_and_dropped(run: Run, folder: Path, tmp_path: Path) -> None:
    report = run(folder, f"images={tmp_path / 'images'}")
    rows = table(tmp_path)
    assert rows["id"].tolist() == [NAMES[0]] * 3 + ["new"] * 2
    assert rows["score"].tolist() == ["0.9", "0.7", "0.5", "0.62", "0.58"]
    assert rows["ignore"].tolist() == ["false", "false", "true", "false", "true"]
    assert rows["cell_type"].tolist() == ["cort"] * 3 + ["astro"] * 2
    assert rows["sample_id"].tolist() == [NAMES[0]] * 3 + [""] * 2, "where the name has a plate well"
    assert "agreement" not in rows
    assert rows["annotation"][0].split()[:2] == [str(5 * WIDTH + 1), "10"]
    cort = report.counts["cort"]
    assert (cort.images, cort.kept, cort.doubtful, cort.dropped) == (1, 2, 1, 1)
    assert report.empty == ["empty"]


def test_training_reads_it_as_it_was_meant(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder)
    settings = PseudoLabels(file=tmp_path / "p.csv", folder=tmp_path / "images", **{**PLAIN, **CUTS})
    read = PseudoLabelled(settings, CELL_TYPES)
    read.check(read.ids)
    assert read.ids == tuple(sorted(NAMES[:2]))
    assert read.instances(NAMES[0]).cell_types.tolist() == [2, 2, DOUBTFUL]
    assert read.instances("new").cell_types.tolist() == [1, DOUBTFUL]
    assert read.record(NAMES[0]).well == "cort[x]_C6"


def test_the_prevailing_type_is_that_of_all_cells(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", found("a", [0.9, 0.8, 0.75], types=[1, 2, 2]))
    run(folder)
    assert set(table(tmp_path)["cell_type"]) == {"cort"}, "0.8 + 0.75 against 0.9"


def test_little_agreement_makes_doubtful(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", found("a", [0.9, 0.8], agreement=[0.5, 0.25]))
    run(folder, "pseudo_labels.min_agreement=0.5")
    rows = table(tmp_path)
    assert rows["agreement"].tolist() == ["0.5", "0.25"] and rows["ignore"].tolist() == ["false", "true"]
    read = PseudoLabels(file=tmp_path / "p.csv", folder=tmp_path, **{**PLAIN, **CUTS, "min_agreement": 0.5})
    write_images(tmp_path, ["a"])
    assert PseudoLabelled(read, CELL_TYPES).instances("a").cell_types.tolist() == [2, DOUBTFUL]


def test_agreement_that_is_not_known(run: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no agreement, which pseudo_labels.min_agreement=0.5 asks for; set it"):
        run(folder, "pseudo_labels.min_agreement=0.5")
    mixed = write(tmp_path / "d", found("a", [0.9], agreement=[0.5]), found("b", [0.9]))
    with pytest.raises(InputError, match="some images have an agreement and some have none"):
        run(mixed)


def test_a_stopped_run_goes_on(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder)
    whole = (tmp_path / "p.csv").read_bytes()
    (tmp_path / "p.csv").unlink()
    asked: list[str] = []
    load = DetectionsFolder.load

    def stopping(self: DetectionsFolder, image_id: str) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(image_id)
        return load(self, image_id)

    monkeypatch.setattr(DetectionsFolder, "load", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert not (tmp_path / "p.csv").exists()
    monkeypatch.setattr(DetectionsFolder, "load", lambda self, image_id: asked.append(image_id) or load(self, image_id))
    run(folder)
    assert sorted(asked) == sorted(NAMES), "no image twice"
    assert (tmp_path / "p.csv").read_bytes() == whole
    assert not list(tmp_path.glob(".*"))


def test_parts_older_than_their_detections_are_made_again(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "new.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable"):
        run(folder)
    part = next((tmp_path / ".p.csv.parts").glob("cort*"))
    write(folder, found(NAMES[0], [0.95]), found(NAMES[1], []))
    later = part.stat().st_mtime + 10
    os.utime(folder / f"{NAMES[0]}.npz", (later, later))
    run(folder)
    assert table(tmp_path)["score"].tolist() == ["0.95"]


def test_parts_of_unknown_settings_are_made_again(run: Run, folder: Path, tmp_path: Path) -> None:
    """A program killed while it deleted the parts leaves some of them, perhaps without their settings."""
    (folder / "new.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable"):
        run(folder)
    (tmp_path / ".p.csv.parts" / "settings.json").unlink()
    run(folder, "on_error=skip", "pseudo_labels.min_score.cort=0.8")
    assert table(tmp_path)["ignore"].tolist() == ["false", "true", "true"], "0.9, 0.7, 0.5"


def test_a_corrupt_file_is_named_or_counted(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "new.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"new\.npz: not a readable detections file"):
        run(folder)
    report = run(folder, "on_error=skip")
    assert list(report.bad) == ["new"] and set(table(tmp_path)["id"]) == {NAMES[0]}


def test_images_that_do_not_fit(run: Run, folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "more", [*NAMES, "other"])
    assert run(folder, f"images={tmp_path / 'more'}").unpredicted == ["other"]
    (tmp_path / "more" / "new.png").unlink()
    with pytest.raises(
        InputError, match="image new, of which there are detections, is not in images=; give their folder"
    ):
        run(folder, f"images={tmp_path / 'more'}")


def test_another_size(run: Run, tmp_path: Path) -> None:
    one = found("a", [0.9])
    folder = write(tmp_path / "d", Detections("a", 50, 64, one.boxes, one.scores, one.cell_types, one.masks))
    write_images(tmp_path / "images", ["a"])
    with pytest.raises(InputError, match=r"a\.png: 64x48 pixels, its detections are of 64x50; predict it again"):
        run(folder, f"images={tmp_path / 'images'}")


def test_nothing_to_write(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no detections in it; `ensemble` and `predict` write them"):
        run(write(tmp_path / "none"))
    with pytest.raises(InputError, match=r"of 2 images none has a cell from pseudo_labels.doubtful_score=.* lower it"):
        run(write(tmp_path / "d", found("a", []), found("b", [0.1])))
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "p.csv").exists()


def test_against_the_truth(run: Run, folder: Path, tmp_path: Path) -> None:
    """Of the image of cort the first and the third cell are true, and one that nobody saw."""
    run(folder)
    rows = table(tmp_path)
    true = [rows["annotation"][0], rows["annotation"][2], f"{40 * WIDTH + 1} 20"]
    lines = [f"{NAMES[0]},{text}" for text in true] + ["new,", "empty,"]
    (tmp_path / "truth.csv").write_text("\n".join(["id,annotation", *lines]) + "\n")
    report = run(folder, f"truth={tmp_path / 'truth.csv'}")
    cort, astro = report.counts["cort"], report.counts["astro"]
    assert (cort.cells, cort.matched, cort.matched_or_doubtful) == (3, 1, 2)
    assert (astro.kept, astro.cells, astro.matched) == (1, 0, 0)
    region = f"{NAMES[0]},{rows['annotation'][0]},unlabelled"  # of the first cell nobody knows
    lines = [f"{NAMES[0]},{text},cort" for text in true[1:]] + [region, "new,,astro", "empty,,astro"]
    (tmp_path / "truth.csv").write_text("\n".join(["id,annotation,cell_type", *lines]) + "\n")
    partly = run(folder, f"truth={tmp_path / 'truth.csv'}").counts["cort"]
    assert (partly.kept, partly.judged) == (cort.kept, cort.judged - 1)
    assert (partly.cells, partly.matched, partly.matched_or_doubtful) == (2, 0, 1)
    (tmp_path / "truth.csv").write_text("id,annotation\nnew,\nempty,\n")
    with pytest.raises(InputError, match=r"truth=: no row for 1 of 3 images \(cort"):
        run(folder, f"truth={tmp_path / 'truth.csv'}")
    (tmp_path / "truth.csv").write_text(f"id,annotation\nnew,0 5\nempty,\n{NAMES[0]},\n")
    with pytest.raises(InputError, match="truth=: image new:"):
        run(folder, f"truth={tmp_path / 'truth.csv'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "pseudo_labels.doubtful_score=0.8",
            "doubtful_score.shsy5y: expected a number up to .*min_score, 0.5, got 0.8",
        ),
        ("pseudo_labels.doubtful_score.cort=0.71", "doubtful_score.cort: expected a number up to .*, 0.7, got 0.71"),
        ("pseudo_labels.min_score=0.1", "doubtful_score.shsy5y: expected a number up to .*, 0.1, got 0.2"),
    ],
)
def test_no_cell_is_sure_below_a_doubtful_one(run: Run, folder: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(folder, override)


def test_changed_thresholds_do_not_mix_with_parts(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "new.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable"):
        run(folder)
    with pytest.raises(InputError, match="made with another min_score; delete that folder"):
        run(folder, "pseudo_labels.min_score.cort=0.8")


def test_workers_share_the_images_and_write_the_same_file(run: Run, tmp_path: Path) -> None:
    names = [f"p{number:02d}" for number in range(20)]  # more than one portion for each
    rng = np.random.default_rng(0)
    folder = write(tmp_path / "d", *(found(name, rng.random(4).tolist()) for name in names))
    run(folder)
    one = (tmp_path / "p.csv").read_bytes()
    run(folder, "workers=2")
    assert (tmp_path / "p.csv").read_bytes() == one and one.count(b"\n") > 20

    for name in ("p17", "p04"):
        (folder / f"{name}.npz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"p04\.npz.*p17\.npz"):  # in their order, whoever is faster
        run(folder, "workers=2")
    report = run(folder, "workers=2", "on_error=skip")  # goes on from what is done
    assert list(report.bad) == ["p04", "p17"]
    kept = [line for line in one.splitlines() if not line.startswith((b"p04", b"p17"))]
    assert (tmp_path / "p.csv").read_bytes().splitlines() == kept
    with pytest.raises(InputError, match="workers: expected a whole number of at least 1, got 0"):
        run(folder, "workers=0")
