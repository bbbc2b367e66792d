"""Grey levels of the samples of every transform: those of the images, which have one mean whatever is on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sartorius.data.competition.folder import Competition
from sartorius.data.levels import GREY_STD
from sartorius.running import wiring
from sartorius.structures.arrays import GreyImage
from sartorius.structures.instances import Instances
from sartorius.synthetic.image import Appearance, draw_image

TRANSFORMS = sorted(path.stem for path in (wiring.CONF_DIR / "transform").glob("*.yaml"))
SAMPLES = 12


def check(name: str, images: list[tuple[GreyImage, Instances]]) -> None:
    transform = wiring.instantiate(wiring.compose("train", [f"transform={name}"]).transform)
    rng = np.random.default_rng(0)
    for image, cells in images:
        for _ in range(SAMPLES):
            sample = transform(image, cells, rng).image
            assert abs(sample.mean() - image.mean()) < GREY_STD
            assert 1 < sample.std() < 35  # whole real images: 6 to 20
            assert np.isin(sample, (0, 255)).mean() < 0.02


@pytest.fixture(scope="module")
def drawn() -> list[tuple[GreyImage, Instances]]:
    images = []
    for cell_type in ("cort", "astro", "shsy5y"):
        image = draw_image(np.random.default_rng(0), np.random.default_rng(1), cell_type, (0.5, 0.5), Appearance())
        images.append((image.image, Instances.from_runs(image.runs, np.zeros(image.runs.count, np.int64))))
    return images


@pytest.mark.parametrize("name", TRANSFORMS)
def test_samples_of_drawn_images(name: str, drawn: list[tuple[GreyImage, Instances]]) -> None:
    check(name, drawn)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_samples_of_real_images(name: str, real_data: Path) -> None:
    data = Competition(real_data / "sartorius")
    check(name, [(data.image(image_id), data.instances(image_id)) for image_id in data.ids[::8]])
