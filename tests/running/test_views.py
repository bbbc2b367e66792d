"""Fewer views than a model came with, of networks on their own and within others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sartorius
from sartorius.running.views import count_views, limit_views
from tests.test_light_install import save_checkpoint

IMAGE = np.random.default_rng(0).integers(100, 150, (48, 64)).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    save_checkpoint(path)
    return path


def test_one_view_is_the_image_as_it_is(checkpoint: Path) -> None:
    plain = sartorius.load(checkpoint, "tta=none", device="cpu")
    limited = sartorius.load(checkpoint, "tta=d4", "views=1", device="cpu")
    assert (count_views(plain.module), count_views(limited.module)) == (1, 1)
    np.testing.assert_array_equal(plain(IMAGE).labels, limited(IMAGE).labels)
    four = sartorius.load(checkpoint, "tta=d4", "views=4", device="cpu").module.inference
    assert four == sartorius.load(checkpoint, "tta=flips", device="cpu").module.inference


@pytest.mark.parametrize(("most", "views"), [(1, 1), (3, 3), (8, 8), (15, 8), (16, 16), (99, 24)])
def test_numbers_of_views(checkpoint: Path, most: int, views: int) -> None:
    module = sartorius.load(checkpoint, "tta=d4", "tta.scales=[0.8,1,1.25]", device="cpu").module
    assert count_views(module) == 24
    limit_views(module, most)
    assert count_views(module) == views
    assert module.inference.views[0].name == "none"  # the image as it is comes first
