"""A step is added by a class in a file of its own and a line of YAML, and nothing else."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import sartorius.postprocess
from sartorius.postprocess.saved import from_saved, to_saved
from sartorius.running import wiring
from sartorius.structures.cell_types import CELL_TYPES
from sartorius.tuning import SearchSpace
from sartorius.tuning.scorer import PipelineScorer, scorer_of
from sartorius.tuning.space import thresholds_of, with_thresholds
from tests.postprocess.shapes import detections
from tests.tuning.images import Images

CLASS = '''
from dataclasses import dataclass
from typing import ClassVar

from sartorius.postprocess import SearchRange, Step


@dataclass(frozen=True)
class AwayFromBorder(Step):
    """Drop detections whose box is nearer than `pixels` to the left border."""

    pixels: float
    searchable: ClassVar = {"pixels": SearchRange(0, 8, 1)}

    def __call__(self, candidates):
        limit = candidates.limits("away_from_border.pixels", self.pixels)
        return candidates.select(candidates.boxes[:, 0] >= limit)
'''
LINE = "away_from_border: {_target_: sartorius.postprocess.away_from_border.AwayFromBorder, pixels: 3}"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two files; returns the override that lets Hydra find the second."""
    (tmp_path / "away_from_border.py").write_text(CLASS)
    (tmp_path / "postprocess").mkdir()
    (tmp_path / "postprocess" / "mine.yaml").write_text(f"defaults: [default, _self_]\n{LINE}\n")
    monkeypatch.setattr(sartorius.postprocess, "__path__", [*sartorius.postprocess.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    return f"hydra.searchpath=[file://{tmp_path}]"


def test_a_step_is_one_file_and_one_line(written: str) -> None:
    found = detections([[0, 5, 20, 25], [4, 5, 24, 25], [30, 5, 50, 25]], [0.9, 0.8, 0.7])
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", [written, "postprocess=mine", "postprocess.box_nms=null", "postprocess.mask_nms=null"])
        changed = compose("evaluate", ["postprocess.away_from_border.pixels.cort=20"])
    settings = OmegaConf.to_container(cfg.postprocess, resolve=True)
    post = wiring.instantiate(cfg.postprocess)
    assert post(found).source.tolist() == [1, 2]
    saved = from_saved(settings, None, "checkpoint")  # type: ignore[arg-type]
    assert saved == post and to_saved(from_saved(to_saved(post), None, "meta.json")) == to_saved(post)
    changes = wiring.plain(changed.postprocess)
    kept = from_saved(to_saved(post), changes, "here", CELL_TYPES)(found)
    assert kept.source.tolist() == [1, 2], "shsy5y keeps its 3 pixels"
    tables = Images(1).tables(post, dict.fromkeys(post.searchable, 0.0))
    assert isinstance(scorer_of(tables, tables.images), PipelineScorer)
    grids = SearchSpace().grids(post)
    assert grids["away_from_border.pixels"].last == 8
    start = thresholds_of(post, found.cell_type_names)
    start["away_from_border.pixels"][:] = 5
    assert with_thresholds(post, found.cell_type_names, start)(found).source.tolist() == [2]
