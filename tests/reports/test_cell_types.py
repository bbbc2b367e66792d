"""Cells of several folders whose cell types count differently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sartorius import report
from sartorius.data.competition.folder import Competition
from sartorius.reports.runs import read_run
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.reports.folders import POST, write_run


def test_cell_types_are_counted_differently_in_two_folders(tiny_competition: Path, tmp_path: Path) -> None:
    """The second folder's types are the first's, turned round: astro is 1 in both, the others change places."""
    first, second = (write_run(tmp_path / f"fold{k}", tiny_competition, []) for k in (0, 1))
    truth, names = Competition(tiny_competition), ["shsy5y", "astro", "cort"]
    for folder, own, image_id in ((first, names, "cort01"), (second, names[::-1], "shsy5y02")):
        written = DetectionsFolder(folder / "detections")
        written.write_meta(cell_types=own, mask_size=28, postprocess=POST)
        cells = truth.instances(image_id)
        found = Detections.from_instances(image_id, cells, np.full(len(cells), 0.9), cell_type_names=tuple(own))
        types = np.full(len(cells), own.index(truth.cell_type(image_id)))
        written.write(replace(found, cell_types=types))
    (tmp_path / "e" / ".hydra").mkdir(parents=True)
    (tmp_path / "e" / ".hydra" / "config.yaml").write_text(
        f"detections: [{first}/detections, {second}/detections]\nbootstrap: {{samples: 1}}\n"
        f"data: {{root: {tiny_competition}}}\n"
    )
    run = read_run(tmp_path / "e", "e")
    predicted = report.from_detections(run)
    for image_id in ("cort01", "shsy5y02"):
        cells, _ = predicted.cells(image_id)
        assert {predicted.type_names[k] for k in cells.cell_types.tolist()} == {truth.cell_type(image_id)}
