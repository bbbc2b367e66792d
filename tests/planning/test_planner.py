"""The rules: what follows from the size of the cells, their number, the images and the machine."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from sartorius.planning.costs import StepCost, fits
from sartorius.planning.numbers import BaseSettings
from sartorius.planning.planner import choose_model
from sartorius.running import wiring
from sartorius.running.wiring import CONF_DIR
from tests.planning.drawn import CPU, GPU, choices, facts, planner, values

LENGTHS = {"model.layout.border": 2, "model.layout.offset_scale": 16.0, "model.decoder.smooth": 0.7}
AREAS = {"model.decoder.min_area": 20, "transform.min_area": 16, "cleaning.min_area": 30}


@pytest.mark.parametrize(
    ("diameter", "scale"), [(20, 1), (15, 1), (27, 1), (10, 2), (13, 2), (40, 0.5), (5, 4), (400, 0.25)]
)
def test_the_network_sees_cells_of_the_size_that_it_was_tuned_for(diameter: float, scale: float) -> None:
    found = values(planner(facts(diameter, sides=(1040, 1408))))
    assert found["model.network.scale"] == scale
    if scale == 1:
        assert not found.keys() & {*LENGTHS, *AREAS}
        return
    for key, value in LENGTHS.items():
        expected = max(1, round(value / scale)) if isinstance(value, int) else round(value / scale, 3)
        assert found[key] == expected
    for key, value in AREAS.items():
        assert found[key] == max(1, round(value / scale**2))


def test_settings_of_cells_as_in_the_competition_are_those_made_by_hand() -> None:
    found = values(planner(facts()))
    assert (found["model.network.scale"], found["transform.crop.height"], found["transform.crop.width"]) == (
        1,
        128,
        128,
    )
    assert (found["data.batch_size"], found["/inference"], found["model.weights"]) == (8, "whole", "none")
    assert found["data.n_folds"] == 5 and found["data.num_workers"] == 0
    assert "/transform" not in found and "model.network.mean" not in found
    assert found["cell_types"] == ["cell"] and found["data.root"] == "/data/mine"


@pytest.mark.parametrize(("diameter", "crop"), [(10, 64), (20, 128), (40, 256)])
def test_a_crop_holds_as_many_cells_whatever_their_size(diameter: float, crop: int) -> None:
    found = values(planner(facts(diameter, sides=(1040, 1408))))
    assert found["transform.crop.height"] == crop and found["data.batch_size"] == 8


def test_long_cells_have_larger_crops_and_small_images_smaller_ones() -> None:
    long = np.tile([150.0, 10.0], (60 * 32, 1))
    found = values(planner(facts(boxes=long)))
    assert found["transform.crop.height"] == 192  # 1.25 x 150, a multiple of 32
    assert found["data.batch_size"] == 3  # as many pixels as 8 of 128 x 128
    assert values(planner(facts(sides=(70, 90))))["transform.crop.height"] == 96
    assert values(planner(facts(10, sides=(40, 40))))["transform.crop.height"] == 48


def test_every_setting_in_pixels_follows_the_size_of_the_cells_or_is_known_not_to() -> None:
    """The comments of conf/ name the unit of each; a new one is classified here."""
    of_plan = {
        "model/unet_effb0 border", "model/unet_effb0 offset_scale", "experiment/unet_cpu layout",
        "decoder/watershed smooth", "decoder/watershed min_area", "cleaning/default min_area",
        "transform/default height", "transform/default min_area",
        "transform/rotated height", "transform/rotated min_area",
        "inference/tiles size", "inference/tiles overlap", "inference/tiles margin",
        "postprocess/default pixels", "data/supervised pixel_size",
        # pixels of the network
        "model/maskrcnn_r50 sizes", "model/maskrcnn_r50 min_size", "model/maskrcnn_r50 box_align",
    }  # fmt: skip
    independent = {
        "postprocess/default area",  # of an image: `count` is stated for it
        # weights, shares and probabilities of pixels
        "model/unet_effb0 border_weight", "model/unet_effb0 foreground", "model/maskrcnn_r50 rerank",
        "decoder/watershed foreground_low", "cleaning/default piece_share",
        "postprocess/unet mask", "postprocess/default threshold", "postprocess/default overlap",
    }  # fmt: skip
    files = ("model/unet_effb0", "model/maskrcnn_r50", "decoder/watershed", "transform/default", "transform/light",
             "transform/rotated", "cleaning/default", "postprocess/default", "postprocess/unet", "inference/tiles",
             "encoder/timm", "experiment/unet_cpu", "experiment/unet_effb0", "experiment/maskrcnn_r50",
             "experiment/maskrcnn_r50_cpu", "data/supervised")  # fmt: skip
    named = {
        f"{file} {match[1]}"
        for file in files
        for line in (CONF_DIR / f"{file}.yaml").read_text().splitlines()
        if (match := re.match(r"\s*([\w.]+):.*#.*\bpixels?\b", line))
    }
    assert named - of_plan - independent == set()
    plan = yaml.safe_load((CONF_DIR / "plan.yaml").read_text())["models"]["unet"]
    assert {*plan["lengths"]} == {*LENGTHS} and {*plan["areas"]} == {*AREAS}


def test_smallest_areas_are_those_of_each_type() -> None:
    areas = {"small": np.arange(1.0, 101.0), "large": np.arange(1000.0, 2000.0), "absent": np.zeros(0)}
    found = values(planner(facts(areas=areas, cell_types=("small", "large", "absent"))))
    assert found["postprocess.min_area.pixels"] == {"small": 3, "large": 749, "absent": 0}
    assert values(planner(facts()))["postprocess.min_area.pixels"] == {"cell": 157}  # half of all that are alike


def test_large_images_are_tiled_by_the_memory_and_their_crops_warped() -> None:
    long = np.tile([90.0, 10.0], (60 * 32, 1))
    found = values(planner(facts(sides=(6000, 6000), boxes=long)))
    assert (found["/inference"], found["/transform"]) == ("tiles", "rotated")
    assert (found["inference.size"], found["inference.overlap"], found["inference.margin"]) == (384, 96, 16)
    middle = facts(sides=(2000, 2000))
    assert values(planner(middle))["/inference"] == "whole"
    assert values(planner(middle, replace(CPU, memory=8000.0)))["/inference"] == "tiles"
    assert values(planner(middle, replace(CPU, memory=None)))["/inference"] == "whole"
    half = values(planner(facts(10, sides=(6000, 6000))))
    assert (half["inference.size"], half["inference.overlap"], half["inference.margin"]) == (128, 32, 8)


def test_a_crowd_is_not_cut_off() -> None:
    found = values(planner(facts(counts=np.array([5, 4000]), densest=4000 / 366_080)))
    assert found["postprocess.max_detections.count"] == found["callbacks.competition_score.max_detections"] == 6000
    found = values(planner(facts(counts=np.array([5, 900])), GPU, "maskrcnn"))
    assert found["model.network.roi_heads.detections"] == 1400
    assert "postprocess.max_detections.count" not in found


def test_other_grey_levels_are_told_to_the_network() -> None:
    found = values(planner(facts(grey_mean=40.0, grey_std=30.0)))
    assert (found["model.network.mean"], found["model.network.std"]) == (40.0, 30.0)
    assert found["transform.crop.fill"] == found["transform.transforms.affine.fill"] == 40
    assert found["transform.transforms.brightness.brightness"] == [0.625, 1.375]
    black = values(planner(facts(grey_mean=0.0, grey_std=0.0, sides=(2000, 2000))))
    assert black["model.network.std"] == 0.1 and black["transform.after.brightness.brightness"] == [0.95, 1.05]


def test_anchors_get_other_ratios_for_long_cells() -> None:
    round_cells = values(planner(facts(), GPU, "maskrcnn"))
    assert round_cells["model.network.anchors.ratios"] == [0.5, 1.0, 2.0]
    long = np.tile([80.0, 20.0], (60 * 32, 1))
    choice = choices(planner(facts(boxes=long), GPU, "maskrcnn"))["model.network.anchors.ratios"]
    assert choice.value == [0.25, 0.5, 1.0, 2.0, 4.0] and "100% with these" in choice.reason


@pytest.mark.parametrize(("machine", "model"), [(CPU, "unet"), (GPU, "maskrcnn")])
def test_overlaps_and_the_machine_decide_on_the_model(machine: object, model: str) -> None:
    numbers = planner(facts()).numbers
    apart, crossing = facts(), facts(shared=np.repeat([0.0, 0.5], [960, 960]))
    assert choose_model(apart, machine, numbers, "auto")[0] == "unet"
    chosen, why = choose_model(crossing, machine, numbers, "auto")
    assert chosen == model and why.startswith("50% of the cells share more than 20% of their pixels")
    assert choose_model(crossing, machine, numbers, "unet")[0] == "unet"
    assert choose_model(apart, CPU, numbers, "maskrcnn")[0] == "maskrcnn_cpu"


@pytest.mark.parametrize(
    ("images", "groups", "folds", "weights"), [(32, 32, 5, "none"), (5, 5, 5, "builtin"), (9, 2, 2, "builtin")]
)
def test_few_images(images: int, groups: int, folds: int, weights: str) -> None:
    found = values(planner(facts(images=images, groups=groups)))
    assert found["data.n_folds"] == folds and found["model.weights"] == weights


def test_images_that_all_belong_together_have_no_score() -> None:
    found = values(planner(facts(images=3, groups=1)))
    assert found["data.fold"] == "all" and "data.n_folds" not in found
    assert values(planner(facts(folds=3)))["data.n_folds"] == 3


def test_the_batch_is_lowered_until_it_fits_and_steps_keep_their_images() -> None:
    small = replace(CPU, memory=3000.0)  # 1,200 MB of it
    found = values(planner(facts(), small))
    assert found["data.batch_size"] == 2 and found["trainer.accumulate_grad_batches"] == 4
    assert values(planner(facts(), replace(CPU, memory=1.0)))["data.batch_size"] == 1
    assert values(planner(facts(), replace(CPU, memory=None)))["data.batch_size"] == 8
    assert not fits(StepCost(None, np.inf, True), CPU, planner(facts()).numbers)


@pytest.mark.parametrize(
    ("images", "minutes"), [(1, 20), (3, 20), (5, 1), (26, 20), (32, 0.01), (32, 600), (700, 20), (200_000, 20)]
)
def test_steps_keep_to_the_minutes_and_to_what_is_of_use(images: int, minutes: float) -> None:
    of = planner(facts(images=images, groups=max(images, 1)), minutes=minutes)
    found = values(of)
    cost = of.estimate(of.first_batches())
    trained = int(of.train_images)
    of_epoch = min(
        trained * found["data.train_repeats"] // found["data.batch_size"], found.get("trainer.limit_train_batches", 1e9)
    )
    assert of_epoch >= 1
    steps = of_epoch * found["trainer.max_epochs"]
    of_pass = of.train_images * 520 * 704 / (8 * 128**2)
    wanted = min(minutes * 60 / cost.seconds, max(100 * of_pass, 200))
    assert wanted * 0.7 - 1 <= steps <= wanted * 1.3 + of_epoch
    assert 1 <= found["scheduler.warmup_steps"] <= min(100, max(1, steps * 0.06))
    assert found["trainer.check_val_every_n_epoch"] == found["trainer.max_epochs"]


def test_a_gpu_is_fed_by_processes_and_its_time_must_be_measured() -> None:
    found = choices(planner(facts(), GPU))
    assert found["data.num_workers"].value == 7 and found["data.pin_memory"].value is True
    assert "time not known" in found["trainer.max_epochs"].reason


def test_decoded_images_take_a_share_of_the_memory() -> None:
    assert values(planner(facts()))["data.cache_mb"] == 94
    assert values(planner(facts(images=10_000, sides=(2000, 2000))))["data.cache_mb"] == 4000


def test_notes_tell_of_the_second_stage_in_sizes_of_the_cells() -> None:
    notes = "\n".join(planner(facts(10)).notes("plan", "train experiment=mine", "32-true"))
    assert "model.network.min_side=12.0 transform.min_area=4 cleaning.min_area=8" in notes
    assert "32 images, 60 to 60 cells in one" in notes and "Train: train experiment=mine (" in notes
    assert "two_stage" not in "\n".join(planner(facts(), GPU, "maskrcnn").notes("plan", "train", "16-mixed"))
    of = planner(facts(10))
    assert of.base.second is not None
    other = {**of.base.second.tree, "transform": {"min_area": 40}}
    changed = replace(of, base=replace(of.base, second=BaseSettings(other)))
    assert "transform.min_area=10" in "\n".join(changed.notes("plan", "train", "32-true"))


def test_the_advised_command_is_read_as_it_is_meant() -> None:
    """By a shell, then by Hydra."""
    areas = {"Größe": np.full(1920, 314.0), "1: a": np.zeros(0)}
    of = planner(facts(root=Path("/data/meine Zellen (1)"), cell_types=("Größe", "1: a"), areas=areas))
    line = next(note for note in of.notes("plan", "train", "32-true") if "two_stage" in note)
    words = shlex.split(line[line.index("python -m") : line.index(" and then")])[3:]
    cfg = wiring.compose("train", words)
    assert cfg.data.root == "/data/meine Zellen (1)" and cfg.cell_types == ["Größe", "1: a"]


@pytest.mark.parametrize(
    ("diameter", "told"), [(9.9, ""), (40.1, ""), (2.6, ""), (157, ""), (2.4, "by 8.3"), (392, "px measure 98 inside")]
)
def test_cells_beyond_all_scales_are_doubted(diameter: float, told: str) -> None:
    doubts = [note for note in planner(facts(diameter)).notes("plan", "train", "32-true") if "Doubtful" in note]
    assert len(doubts) == bool(told) and told in "".join(doubts)


def test_tiles_follow_the_settings_of_the_base() -> None:
    of = planner(facts(sides=(6000, 6000)))
    other = {**of.base.tree, "inference": {"size": 512, "overlap": 64, "margin": 20}}
    found = values(replace(of, base=BaseSettings(other)))
    assert (found["inference.size"], found["inference.overlap"], found["inference.margin"]) == (512, 64, 20)
    few = replace(of, numbers=replace(of.numbers, stride=48, foreground=(0.2, 0.5)))
    assert values(few)["model.network.foreground"] == 0.2 and values(few)["inference.size"] == 384
