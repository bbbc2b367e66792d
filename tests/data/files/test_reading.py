"""How images are read, told by files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartorius.data.competition.about import About, read_about
from sartorius.data.files.reading import Reading, common_size, grey_levels, note_of_sizes
from sartorius.data.levels import Levels
from sartorius.errors import InputError

RANGE = Levels(levels="range", mean=40.0, std=3.0)


def test_what_it_tells_is_read_again() -> None:
    for reading in (Reading(), Reading(2, "max", RANGE)):
        assert Reading.parse(json.loads(json.dumps(reading.plain())), "a") == reading
    assert Reading.parse(None, "a") == Reading.parse({}, "a") == Reading.parse({"levels": None}, "a") == Reading()
    assert Reading.parse({"scale": 3, "pixel_size": 0.5, "channel": 1}, "a") == Reading(1)


@pytest.mark.parametrize(
    "told",
    [{"channel": -1}, {"channel": "red"}, {"channel": True}, {"pages": "all"}, {"levels": 3}, {"levels": {"gamma": 2}},
     {"levels": {"levels": "bright"}}, {"levels": {"std_factor": "a"}}],
)  # fmt: skip
def test_what_cannot_be_used(told: dict[str, Any], tmp_path: Path) -> None:
    About(("a",), reading=told).write(tmp_path)
    with pytest.raises(InputError, match="dataset.json: cannot read images as it tells, with .*" + next(iter(told))):
        read_about(tmp_path)


def test_that_of_a_training() -> None:
    network = {"model": {"network": {"mean": 100, "std": 20.5}}}
    of_network = Levels(mean=100.0, std=20.5)
    assert Reading.of_training({}) == Reading()
    assert Reading.of_training(network) == Reading(levels=of_network)
    told = network | {"reading": Reading(1, "mean", RANGE).plain()}
    assert Reading.of_training(told) == Reading.of_training(told, "range") == Reading(1, "mean", RANGE)
    assert Reading.of_training(told, "exact") == Reading(1, "mean", Levels(levels="exact", mean=100.0, std=20.5))
    with pytest.raises(InputError, match="the model's training: cannot read images as it tells, with .*gamma"):
        Reading.of_training({"reading": {"levels": {"gamma": 2}}})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"network": {"mean": 100, "std": 20.5}}, {"mean": 100.0, "std": 20.5}),
        ({"network": {"mean": None, "std": None}}, {}),  # each image's own
        ({"first": {"network": {"mean": 1.0, "std": 2.0}}, "second": {}}, {"mean": 1.0, "std": 2.0}),
        ({"first": None, "second": {"network": {"mean": 1.0, "std": 2.0}}}, {}),
        ({}, {}),
        (None, {}),
    ],
)
def test_grey_levels_of_the_training(model: Any, expected: dict[str, float]) -> None:
    assert grey_levels({"model": model}) == expected


def test_the_pixel_size_that_images_have_in_common() -> None:
    assert common_size([0.65, 0.650003, 0.65]) == 0.65 and common_size([0.5]) == 0.5
    assert common_size([]) is None and common_size([None, None]) is None
    assert common_size([0.5, None]) is None and common_size([None, 0.5]) is None and common_size([0.5, 0.51]) is None
    assert note_of_sizes([]) == note_of_sizes([None, None]) == note_of_sizes([0.65, 0.650003]) == []
    assert note_of_sizes([0.5, None])[0].startswith("pixel sizes differ (0.5, None): none is kept")
