"""Fixtures that more than one test file uses: the real data folder, and a handwritten competition folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from PIL import Image

from sartorius.structures.instances import Instances

HEIGHT, WIDTH = 48, 64

# A busy machine is not a bug, and a test must fail for everybody or for nobody.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take back what a command sets up in this process, since Hydra configures the logging of the tests after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data (holding sartorius/train.csv), from SARTORIUS_REAL_DATA or ../shared/data; else skips."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SARTORIUS_REAL_DATA", default))
    if not (folder / "sartorius" / "train.csv").is_file():
        pytest.skip("needs the real data folder (SARTORIUS_REAL_DATA)")
    return folder


def write_competition(root: Path, wells: bool = True) -> Path:
    """A folder of 12 labelled images of 64x48 pixels, 4 of each type in 4 wells, with 0 to 4 rectangular cells each.

    Each type's first image has two cells that overlap; cort's last has no cells. 2 test and 2 unlabelled images.
    """
    rng = np.random.default_rng(0)
    rows = []
    for folder in ("train", "test", "train_semi_supervised"):
        (root / folder).mkdir(parents=True)
    for type_index, cell_type in enumerate(("shsy5y", "astro", "cort")):
        for number in range(4):
            image_id = f"{cell_type}{number:02d}"
            count = 0 if image_id == "cort03" else 1 + number
            masks = np.zeros((count + (number == 0), HEIGHT, WIDTH), bool)
            for k in range(count):
                masks[k, 4 + 10 * k : 10 + 10 * k, 5 + type_index : 20 + type_index] = True
            if number == 0:
                masks[1, 7:13, 10:26] = True
            image = rng.integers(118, 139, (HEIGHT, WIDTH)).astype(np.uint8)
            image[masks.any(axis=0)] += 60
            Image.fromarray(image).save(root / "train" / f"{image_id}.png")
            texts = Instances.from_masks(masks, np.full(len(masks), type_index)).to_rles() or [""]
            well = f"{cell_type}[x]_{'ABCD'[number]}{number + 1}-1_Vessel-1_Ph_4"
            rows += [(image_id, text, WIDTH, HEIGHT, cell_type, "09h", "2020-01-01", well, "0 days") for text in texts]
    columns = [
        "id",
        "annotation",
        "width",
        "height",
        "cell_type",
        "plate_time",
        "sample_date",
        "sample_id",
        "elapsed_timedelta",
    ]
    pd.DataFrame(rows, columns=columns).iloc[:, : 9 if wells else 5].to_csv(root / "train.csv", index=False)
    for name in (
        "test/test00",
        "test/test01",
        "train_semi_supervised/astro[x]_A1-2_Vessel-1_Ph_4",
        "train_semi_supervised/new_B2-1",
    ):
        Image.fromarray(rng.integers(118, 139, (HEIGHT, WIDTH)).astype(np.uint8)).save(root / f"{name}.png")
    (root / "sample_submission.csv").write_text("id,predicted\ntest00,\ntest01,\n")
    return root


@pytest.fixture(scope="session")
def tiny_competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`write_competition` with the plate columns; do not change it (copy it with shutil.copytree)."""
    return write_competition(tmp_path_factory.mktemp("tiny") / "sartorius")


@pytest.fixture
def own_competition(tmp_path: Path) -> Path:
    """A competition folder of the test's own, to be damaged."""
    return write_competition(tmp_path / "sartorius")
