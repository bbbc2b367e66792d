"""The model that comes along: small, checked by its own example, and useful on images that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sartorius
from sartorius.errors import InputError
from sartorius.metrics.functional import Intersections
from sartorius.networks import bundles
from sartorius.networks.builtin import NAME, located
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.running import building, continued, exporting, wiring
from sartorius.synthetic.image import Appearance, draw_image
from sartorius.tuning.checkpoint import check_store


def test_its_file_is_small_and_its_card_open() -> None:
    path = located(NAME)
    assert path.stat().st_size < 10e6
    manifest, _ = bundles.read_members(path, str(path))
    assert manifest["card"]["license"] == "Apache-2.0"
    assert manifest["card"]["data"] == "synthetic" and manifest["card"]["trained_on"] == 234


def test_a_file_keeps_its_own_name() -> None:
    assert located("builtin.zip") == Path("builtin.zip")
    assert located(Path("runs/builtin")) == Path("runs/builtin")


def test_it_finds_the_cells_of_its_example() -> None:
    assert "expected" in exporting.validate(NAME)


def test_it_finds_most_cells_of_an_image_that_was_drawn_otherwise() -> None:
    rng, well = np.random.default_rng(987), np.random.default_rng(654)
    drawn = draw_image(rng, well, "cort", (0.5, 0.5), Appearance(height=320, width=384))
    cells = sartorius.load(NAME, device="cpu")(drawn.image)
    iou = Intersections.of(cells.labels, drawn.runs).iou
    assert drawn.runs.count > 5
    assert int((iou > 0.5).sum()) >= 0.6 * drawn.runs.count
    assert set(cells.types) <= {"cort", "astro", "shsy5y"}


def test_a_training_begins_with_all_of_it() -> None:
    cfg = wiring.compose("train", ["experiment=unet_cpu", f"model.weights={NAME}", "data.root=unused"])
    module = building.build_module(cfg)
    started = module.started_from
    assert started is not None and not started.missing and not started.unused and not started.reshaped
    assert started.metadata is not None and len(started.metadata["trained_on"]) == 234
    weights = read_checkpoint(NAME)["state_dict"]
    assert all(np.array_equal(value.numpy(), weights[name].numpy()) for name, value in module.state_dict().items())


def test_it_is_told_from_others_by_its_content() -> None:
    assert continued.fingerprint(NAME) == continued.fingerprint(located(NAME))
    assert read_checkpoint(NAME)[KEY]["cell_types"] == ["shsy5y", "astro", "cort"]


def test_it_is_not_written_to() -> None:
    with pytest.raises(InputError, match="keeps the thresholds"):
        check_store(NAME)
