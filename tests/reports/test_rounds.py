"""The curve over rounds of labelling: which images count, their order and intervals, and where there is none."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from sartorius import report
from sartorius.data.provenance import COUNT
from sartorius.metrics.bootstrap import bootstrap_interval
from sartorius.metrics.report import read_per_image
from sartorius.running import wiring
from tests.reports.elements import Page
from tests.reports.folders import write_run, write_scores
from tests.test_report import rows_of

SHARED = ["astro01", "astro02", "cort01", "shsy5y02"]


def write(folder: Path, root: Path, images: list[str], trained: int | None, seed: int) -> Path:
    write_run(folder, root, images, seed=seed)
    rows, types = rows_of(folder, root, images)
    write_scores(folder, rows, images, types)
    if trained is not None:
        meta = json.loads((folder / "detections" / "meta.json").read_text())
        (folder / "detections" / "meta.json").write_text(json.dumps({**meta, COUNT: trained}))
    return folder


def page_of(folders: list[Path], output: Path) -> Page:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"), warnings.catch_warnings():
        cfg = compose("report", [f"run=[{','.join(map(str, folders))}]", "bootstrap.samples=300", f"output={output}"])
        return Page(Path(report.main(cfg)))


def test_the_score_over_rounds_on_the_images_of_all(tiny_competition: Path, tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "round1", tiny_competition, [*SHARED, "cort02"], 12, 1),
        write(tmp_path / "round0", tiny_competition, SHARED, 4, 0),
        write(tmp_path / "round2", tiny_competition, ["astro03", *SHARED, "cort02"], 20, 2),
    ]
    page = page_of(folders, tmp_path / "report.html")
    head, note = "Score and training images", "mAP on the 4 images that all runs scored"
    lines = ["run", "training images", "mAP", "interval"]
    for folder, count in ((folders[1], 4), (folders[0], 12), (folders[2], 20)):
        table = report_table(folder)
        found = bootstrap_interval(np.array([table[i] for i in sorted(SHARED)]), samples=300)
        lines += [folder.name, str(count), f"{found.mean:.3f}", f"{found.low:.3f} to {found.high:.3f}"]
    assert "".join(lines) in page.text[page.text.index(head) : page.text.index(note)].replace("\n", "")
    assert (tmp_path / "plots" / "rounds.png").stat().st_size > 5000


def report_table(folder: Path) -> dict[str, float]:
    table = read_per_image(folder)
    return dict(zip(table.image_id, table.average_precision, strict=True))


@pytest.mark.parametrize("trained", [(4, 4), (4, None)])
def test_no_curve_of_as_many_images_or_unknown_ones(
    tiny_competition: Path, tmp_path: Path, trained: tuple[int, int | None]
) -> None:
    folders = [write(tmp_path / str(k), tiny_competition, SHARED, count, k) for k, count in enumerate(trained)]
    page_of(folders, tmp_path / "report.html")
    assert not (tmp_path / "plots" / "rounds.png").exists()
