from __future__ import annotations

from pathlib import Path

import half_labels
import numpy as np

from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds, read_folds


def test_half_of_each_image_is_labelled(tiny_competition: Path, tmp_path: Path) -> None:
    half_labels.main(str(tiny_competition), str(tmp_path))
    full, ignored, dense = (
        Competition(tiny_competition),
        Competition(tmp_path / "ignored"),
        Competition(tmp_path / "dense"),
    )
    assert full.ids == ignored.ids == dense.ids and full.wells == ignored.wells == dense.wells
    sides = set()
    for image_id in full.ids:
        record = full.record(image_id)
        labelled = half_labels.half(record.height, record.width, image_id, 0)
        sides.add((bool(labelled[0, 0]), bool(labelled[0, -1]), bool(labelled[-1, 0])))
        assert abs(labelled.mean() - 0.5) < 0.02
        cells, kept = full.instances(image_id), ignored.instances(image_id)
        inside = np.array([(labelled & (cells.layers == k + 1).any(axis=0)).sum() for k in range(len(cells))])
        assert {*kept.to_rles()} <= {text for text, area, part in zip(cells.to_rles(), cells.areas, inside, strict=True)
                                     if 2 * part >= area}  # fmt: skip
        unknown = ignored.ignored(image_id)
        assert unknown is not None and unknown[~labelled & ~kept.foreground()].all()
        assert not (cells.foreground() & ~kept.foreground() & ~unknown).any(), "no cell is background"
        assert dense.instances(image_id).to_rles() == kept.to_rles() and dense.ignored(image_id) is None
        np.testing.assert_array_equal(dense.image(image_id), full.image(image_id))
    assert len(sides) > 1
    folds = make_folds(full, 2, 0)
    folds.write(tmp_path / "folds.csv")
    for made in (ignored, dense):
        assert read_folds(tmp_path / "folds.csv", made).split(0) == folds.split(0)
