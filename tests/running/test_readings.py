"""Files are read as those of a model's training, where no option tells another way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sartorius.data.competition.about import About
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.levels import Levels
from sartorius.running import building, predicting, wiring
from sartorius.structures.instances import Instances
from tests.doubles import toy_config

READING = {"channel": 1, "pages": "max", "levels": {"levels": "range"}}


def images_of(reading: dict[str, Any] | None, images: Path, *options: str) -> Any:
    module = building.build_module(toy_config())
    if reading is not None:
        module.hparams["reading"] = reading
    cfg = wiring.compose("predict", [f"images={images}", "checkpoint=x", "output=y", *options])
    return predicting.build_images(cfg, module)


def test_channel_pages_and_levels_of_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stack = np.random.default_rng(0).integers(100, 900, (3, 2, 20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with caplog.at_level(logging.INFO):
        images = images_of(READING, tmp_path / "a.tif")
    assert (
        "as those of the training, where no option tells another way: channel=1, pages=max, levels=range" in caplog.text
    )
    grey = images.source.image("a")
    joined = stack[:, 1].max(axis=0).astype(float)
    assert np.array_equal(grey, np.rint((joined - joined.min()) * 255 / np.ptp(joined)).astype(np.uint8))
    caplog.clear()
    assert images_of(READING, tmp_path / "a.tif", "data.levels=auto").levels.levels == "auto"
    assert "levels=auto in place of levels=range" in caplog.text
    caplog.clear()
    other = images_of(READING, tmp_path / "a.tif", "channel=0", "pages=each", "data.levels=standardise")
    assert other.source.ids == ("a_z000", "a_z001", "a_z002") and other.levels.levels == "standardise"
    assert "in another way than those of the training: channel=0 in place of channel=1, pages=each" in caplog.text


def test_levels_of_the_training_are_not_the_normalisation_of_the_network(tmp_path: Path) -> None:
    levels = {"levels": "standardise", "mean_tolerance": 3.0, "std_factor": 1.5, "mean": 128.0, "std": 11.58}
    grey = np.random.default_rng(0).integers(100, 900, (20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", grey)
    module = building.build_module(toy_config())
    module.hparams.update(
        reading={"channel": None, "pages": "each", "levels": levels},
        model={"_target_": "x", "network": {"mean": 40.0, "std": 30.0}},
    )

    def settings(*options: str) -> dict[str, Any]:
        cfg = wiring.compose("predict", [f"images={tmp_path}/a.tif", "checkpoint=x", "output=y", *options])
        images = predicting.build_images(cfg, module)
        expected = Levels(**images.settings["levels"])(grey)
        assert np.array_equal(images.source.image("a"), expected)
        return images.settings["levels"]

    assert settings() == levels
    assert settings("data.mean_tolerance=7") == {**levels, "mean_tolerance": 7}
    told = settings("data.levels=range")
    assert told == {"levels": "range", "mean_tolerance": 10, "std_factor": 4, "mean": 40, "std": 30}
    module.hparams["reading"] = {}
    assert settings() == {**told, "levels": "auto"}


def test_models_without_a_reading_read_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for reading in (None, {}):
        images = images_of(reading, tmp_path)
        assert (
            images.reading == {"channel": None, "pages": "each", "pixel_size": None} and images.levels.levels == "auto"
        )
    assert "training" not in caplog.text
    assert images_of({}, tmp_path, "channel=2", "pages=first").reading["channel"] == 2


def test_a_training_keeps_how_its_images_were_read(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(118, 139, (40, 50)).astype(np.uint8)
    cells = Instances.from_masks(np.ones((1, 40, 50), bool), [0])
    write_labelled(tmp_path / "mine", About(("cell",), 0.65, READING), [Labelled(name, image, cells) for name in "ab"])
    cfg = wiring.compose(
        "train",
        ["experiment=demo", f"data.root={tmp_path}/mine", "cell_types=[cell]", "data.n_folds=2", "data=supervised"],
    )
    hparams = building.build_training(cfg).module.hparams
    assert hparams["pixel_size"] == 0.65 and hparams["reading"] == READING


def test_images_of_the_training_are_known_by_id_and_by_file(tmp_path: Path) -> None:
    """A stack's planes and files of one name in several folders have ids that are no file's name."""
    for name in ("a/1.png", "b/1.png", "c/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((2, 8, 9), np.uint8), imagej=True, metadata={"axes": "TYX"})
    images = images_of(None, tmp_path).source
    assert images.ids == ("a__1", "b__1", "c__2", "s_t000", "s_t001")
    for trained, seen in (
        ({"s_t001": "w", "a__1": "x"}, {"s_t001": "w", "a__1": "x"}),
        ({"1": "w", "s": "y", "b": "z"}, {"a__1": "w", "b__1": "w", "s_t000": "y", "s_t001": "y"}),
        ({}, {}),
    ):
        module = building.build_module(toy_config())
        module.hparams["trained_on"] = trained
        assert predicting._trained_on(module, images, "a.ckpt") == seen
