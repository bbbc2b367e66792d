from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from sartorius.data.annotation_rows import well_of
from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.structures import rle
from sartorius.synthetic.cells import COUNT_LEVELS, OUTLINES, POPULATIONS, Population, break_mask, draw_cell
from sartorius.synthetic.competition import COLUMNS, write_synthetic_competition
from sartorius.synthetic.image import Appearance, SyntheticImage, cells_to_runs, draw_image
from sartorius.synthetic.placement import place_cells, window

TYPES = ("cort", "shsy5y", "astro")
SMALL = {"height": 128, "width": 160}

# Measured on the annotations of 500 images of the competition (40,431 cells; train_annotations.csv.gz, the rows of
# train.csv): cells an image, mean and median area in pixels, share of cells that share a pixel with another cell of
# the image, share of covered pixels that are covered more than once.
# `test_targets_are_those_of_the_real_annotations` measures them again.
TARGETS = {
    "cort": {"cells": 33.6, "area": 240.5, "median_area": 207.0, "overlapping": 0.263, "overlapped": 0.0099},
    "shsy5y": {"cells": 310.7, "area": 228.8, "median_area": 194.0, "overlapping": 0.659, "overlapped": 0.0359},
    "astro": {"cells": 80.8, "area": 906.3, "median_area": 665.0, "overlapping": 0.874, "overlapped": 0.0258},
}
CELL_RANGE = {"cort": (4, 108), "shsy5y": (49, 790), "astro": (5, 594)}  # cells an image, in all 606
GREY_STD = {"cort": (9, 20), "shsy5y": (9, 17), "astro": (5, 13)}  # mean over images; the real images: 15, 13, 9


def statistics(runs_of: dict[str, list[rle.Runs]]) -> dict[str, dict[str, float]]:
    """The quantities of TARGETS for the images of each type."""
    result = {}
    for cell_type, images in runs_of.items():
        areas = np.concatenate([runs.areas for runs in images])
        touching = covered = twice = 0
        for runs in images:
            i, j, _ = rle.overlaps(runs)
            touching += len(np.unique(np.concatenate([i, j])))
            times = np.bincount(runs.pixels()[0])
            covered, twice = covered + int((times > 0).sum()), twice + int((times > 1).sum())
        result[cell_type] = {
            "cells": float(np.mean([runs.count for runs in images])),
            "area": float(areas.mean()),
            "median_area": float(np.median(areas)),
            "overlapping": touching / len(areas),
            "overlapped": twice / covered,
        }
    return result


def runs_by_type(table: pd.DataFrame) -> dict[str, list[rle.Runs]]:
    runs: dict[str, list[rle.Runs]] = {name: [] for name in TYPES}
    for (_, cell_type), rows in table.groupby(["id", "cell_type"]):
        runs[str(cell_type)].append(rle.parse(list(rows["annotation"]), rows["height"].iloc[0], rows["width"].iloc[0]))
    return runs


def draw(
    cell_type: str, number: int = 0, appearance: Appearance | None = None, size: tuple[int, int] = (200, 240)
) -> SyntheticImage:
    rng, well_rng = np.random.default_rng([7, number]), np.random.default_rng([3, number])
    appearance = replace(appearance or Appearance(), height=size[0], width=size[1])
    return draw_image(rng, well_rng, cell_type, (0.5, 0.5), appearance)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "competition"
    images = {"cort": 4, "shsy5y": 3, "astro": 3}
    return write_synthetic_competition(path, seed=0, images=images, test=4, unlabelled=9, **SMALL)


class TestLayout:
    def test_the_files_are_those_of_the_competition(self, folder: Path) -> None:
        table = pd.read_csv(folder / "train.csv")
        assert tuple(table.columns) == COLUMNS
        assert {path.stem for path in (folder / "train").iterdir()} == set(table["id"])
        assert table.groupby("cell_type")["id"].nunique().to_dict() == {"cort": 4, "shsy5y": 3, "astro": 3}
        assert all(re.fullmatch(r"[0-9a-f]{12}", name) for name in table["id"])
        assert set(table["height"]) == {128}
        assert set(table["width"]) == {160}
        assert not list(folder.rglob(".*"))

    def test_images_are_8_bit_grey(self, folder: Path) -> None:
        paths = list(folder.rglob("*.png"))
        assert len(paths) == 10 + 4 + 9
        for path in paths:
            with Image.open(path) as image:
                assert (image.mode, image.size) == ("L", (160, 128))

    def test_the_plate_columns_look_like_the_real_ones(self, folder: Path) -> None:
        first = pd.read_csv(folder / "train.csv").iloc[0]
        assert re.fullmatch(r"cort\[density\]_[A-H]\d{1,2}-\d_Vessel-\d{3}_Ph_\d", first["sample_id"])
        assert re.fullmatch(r"\d\dh\d\dm00s", first["plate_time"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["sample_date"])
        assert re.fullmatch(r"\d+ days \d\d:\d\d:00", first["elapsed_timedelta"])

    def test_the_sample_submission_names_the_test_images(self, folder: Path) -> None:
        lines = (folder / "sample_submission.csv").read_text().splitlines()
        assert lines[0] == "id,predicted"
        assert set(lines[1:]) == {f"{path.stem}," for path in (folder / "test").iterdir()}

    def test_truth_covers_test_and_unlabelled_images(self, folder: Path) -> None:
        truth = pd.read_csv(folder / "truth.csv")
        assert tuple(truth.columns) == COLUMNS
        stems = {path.stem for name in ("test", "train_semi_supervised") for path in (folder / name).iterdir()}
        assert set(truth["id"]) == stems
        assert set(truth["cell_type"]) == set(TYPES)

    def test_unlabelled_names(self, folder: Path) -> None:
        well, time = r"(cort\[density\]|shsy5y\[diff\]|astros\[cereb\])_[A-H]\d+", r"\d{4}-\d\d-\d\d_\d\dh\d\dm\d\ds"
        pattern = rf"{well}-\d_Vessel-\d+_{time}_Ph_\d"
        assert all(re.fullmatch(pattern, path.stem) for path in (folder / "train_semi_supervised").iterdir())

    def test_wells_are_shared_within_and_across_splits(self, folder: Path) -> None:
        table = pd.read_csv(folder / "train.csv").drop_duplicates("id")
        wells = table["sample_id"].map(well_of)
        assert wells.nunique() == 2 + 2 + 2  # two images a well
        unlabelled = {well_of(path.stem) for path in (folder / "train_semi_supervised").iterdir()}
        assert unlabelled & set(wells)
        assert unlabelled - set(wells)

    def test_it_reads_as_a_competition(self, folder: Path) -> None:
        competition = Competition(folder)
        competition.check()
        assert len(competition.ids) == 10
        assert len(competition.test_images()) == 4
        assert len(competition.unlabelled_images()) == 9

    def test_one_image_of_one_type_is_enough(self, tmp_path: Path) -> None:
        path = write_synthetic_competition(tmp_path / "one", 5, {"astro": 1, "cort": 0}, test=0, height=32, width=32)
        assert len(Competition(path).ids) == 1
        assert (path / "sample_submission.csv").read_text() == "id,predicted\n"
        assert len(pd.read_csv(path / "truth.csv")) == 0


class TestDeterminism:
    def test_the_same_seed_gives_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        images = {"astro": 3, "shsy5y": 3, "cort": 4}  # the order does not matter
        again = write_synthetic_competition(tmp_path / "again", 0, images, test=4, unlabelled=9, **SMALL)
        assert contents(again) == contents(folder)

    def test_more_images_do_not_change_the_others(self, folder: Path, tmp_path: Path) -> None:
        images = {"cort": 5, "shsy5y": 3, "astro": 4}
        more = contents(write_synthetic_competition(tmp_path / "more", 0, images, test=5, unlabelled=10, **SMALL))
        for name, data in contents(folder).items():
            if name.endswith(".png"):
                assert more[name] == data

    def test_another_seed_gives_other_images(self, folder: Path, tmp_path: Path) -> None:
        other = contents(write_synthetic_competition(tmp_path / "other", 1, {"cort": 4}, test=4, **SMALL))
        mine = contents(folder)
        assert not {name for name in other if name.endswith(".png")} & set(mine)


class TestOverwriting:
    ARGUMENTS = {"seed": 0, "images": {"cort": 1}, "test": 0, "height": 64, "width": 64}  # noqa: RUF012

    def test_the_same_arguments_are_a_no_op(self, tmp_path: Path) -> None:
        path = write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS)
        (path / "truth.csv").write_text("mark")
        assert write_synthetic_competition(str(path), **self.ARGUMENTS) == path
        assert (path / "truth.csv").read_text() == "mark"

    def test_other_arguments_replace_the_whole_folder(self, tmp_path: Path) -> None:
        path = write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS)
        write_synthetic_competition(path, **(self.ARGUMENTS | {"seed": 1}))
        assert len(list((path / "train").iterdir())) == 1
        assert json.loads((path / "synthetic.json").read_text())["seed"] == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["data"]

    def test_a_damaged_marker_is_replaced(self, tmp_path: Path) -> None:
        path = write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS)
        (path / "synthetic.json").write_text("{")
        write_synthetic_competition(path, **self.ARGUMENTS)
        assert json.loads((path / "synthetic.json").read_text())["seed"] == 0

    def test_an_empty_folder_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        assert (write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS) / "train.csv").is_file()

    def test_anything_else_is_left_alone(self, tmp_path: Path, own_competition: Path) -> None:
        before = contents(own_competition)
        (tmp_path / "file").write_text("x")
        for path in (own_competition, tmp_path / "file"):
            with pytest.raises(InputError, match="not a synthetic competition"):
                write_synthetic_competition(path, **self.ARGUMENTS)
        assert contents(own_competition) == before

    def test_a_stranger_in_a_synthetic_folder_stops_its_replacement(self, tmp_path: Path) -> None:
        path = write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS)
        (path / "notes.txt").write_text("mine")
        assert write_synthetic_competition(path, **self.ARGUMENTS) == path
        with pytest.raises(InputError, match=r"notes\.txt"):
            write_synthetic_competition(path, **(self.ARGUMENTS | {"seed": 1}))

    def test_a_failure_leaves_the_old_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_synthetic_competition(tmp_path / "data", **self.ARGUMENTS)
        before = contents(path)

        def full_disk(*_: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr("sartorius.synthetic.competition.write_csv", full_disk)
        with pytest.raises(OSError, match="no space"):
            write_synthetic_competition(path, **(self.ARGUMENTS | {"seed": 1}))
        assert contents(path) == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["data"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": {"neuron": 1}}, "images: expected one of cort, shsy5y, astro, got 'neuron'"),
            ({"images": {"cort": -1}}, "images.cort: .* got -1"),
            ({"images": {}}, "no labelled image"),
            ({"images": {"cort": 0}}, "no labelled image"),
            ({"seed": -1}, "seed: .* got -1"),
            ({"test": -1}, "test: .* got -1"),
            ({"height": 31}, "height: expected a number of at least 32, got 31"),
            ({"noise": float("nan")}, "noise: .* got nan"),
        ],
    )
    def test_bad_arguments(self, tmp_path: Path, change: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            write_synthetic_competition(tmp_path / "data", **(self.ARGUMENTS | change))  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir())


class TestCells:
    @pytest.mark.parametrize("shape", OUTLINES)
    @pytest.mark.parametrize("area", [120, 900])
    def test_a_cell_has_the_area_asked_for(self, shape: str, area: int) -> None:
        population = Population((1,) * len(COUNT_LEVELS), 1, 1, 0, 0, 0, 0, 1, {shape: 1.0})
        rng = np.random.default_rng(0)
        areas = [draw_cell(rng, population, area).mask.sum() for _ in range(20)]
        assert np.mean(areas) == pytest.approx(area, rel=0.1)

    def test_a_whole_mask_is_the_body(self) -> None:
        cell = draw_cell(np.random.default_rng(0), POPULATIONS["cort"], 200)
        assert (cell.mask == cell.body).all()
        assert ndimage.label(cell.mask)[1] == 1
        assert not cell.mask[[0, -1]].any()
        assert not cell.mask[:, [0, -1]].any()

    def test_broken_masks(self) -> None:
        body = np.zeros((60, 60), bool)
        body[20:40, 20:40] = True
        rng = np.random.default_rng(0)
        assert all((body & ~break_mask(rng, body, (1, 0, 0))).any() for _ in range(10))
        assert any((break_mask(rng, body, (0, 1, 0)) & ~body).any() for _ in range(10))
        assert any(ndimage.label(break_mask(rng, body, (0, 0, 1)))[1] > 1 for _ in range(10))

    @pytest.mark.parametrize("cell_type", TYPES)
    def test_counts_span_the_real_range_and_follow_the_area(self, cell_type: str) -> None:
        population = POPULATIONS[cell_type]
        assert (population.count(0, 520, 704), population.count(1, 520, 704)) == CELL_RANGE[cell_type]
        levels = (np.arange(1000) + 0.5) / 1000
        mean = np.mean([population.count(level, 520, 704) for level in levels])
        assert mean == pytest.approx(TARGETS[cell_type]["cells"], rel=0.1)
        assert population.count(0.5, 260, 352) == pytest.approx(population.count(0.5, 520, 704) / 4, abs=1)
        assert population.count(0, 32, 32) == 1


class TestPlacement:
    def test_runs_are_the_masks_cut_at_the_edge(self) -> None:
        rng = np.random.default_rng(1)
        cells = place_cells(rng, POPULATIONS["astro"], np.full(25, 700.0), 90, 120)
        assert len(cells) > 15
        expected = np.zeros((len(cells), 90, 120), bool)
        for mask, cell in zip(expected, cells, strict=True):
            drawn, crop = window(cell, 90, 120)
            mask[drawn] = cell.mask[crop]
        flat, owner = cells_to_runs(cells, 90, 120).pixels()
        found = np.zeros((len(cells), 90 * 120), bool)
        found[owner, flat] = True
        assert (found.reshape(expected.shape) == expected).all()

    def test_no_cells(self) -> None:
        assert place_cells(np.random.default_rng(0), POPULATIONS["cort"], np.zeros(0), 40, 40) == []
        assert cells_to_runs([], 40, 40).count == 0

    def test_a_image_too_small_for_its_cell_still_shows_it(self) -> None:
        for seed in range(20):
            cells = place_cells(np.random.default_rng(seed), POPULATIONS["astro"], np.array([5000.0]), 32, 32)
            assert cells_to_runs(cells, 32, 32).areas.tolist() != []
            assert cells_to_runs(cells, 32, 32).areas.min() > 0


class TestImage:
    @pytest.mark.parametrize("cell_type", TYPES)
    def test_grey_levels(self, cell_type: str) -> None:
        images = [draw(cell_type, k).image for k in range(4)]
        assert np.mean(images) == pytest.approx(128, abs=1)
        low, high = GREY_STD[cell_type]
        assert low < np.mean([image.std() for image in images]) < high

    def test_nothing_is_drawn_outside_the_masks_but_the_halo(self) -> None:
        quiet = Appearance(noise=0, unevenness=0, debris=0)  # astro has no neurites
        drawn = draw("astro", appearance=quiet)
        covered = np.zeros(drawn.image.shape, bool)
        covered.ravel()[drawn.runs.pixels()[0]] = True
        outside = ~ndimage.binary_dilation(covered, iterations=6)
        assert outside.mean() > 0.2
        assert drawn.image[outside].std() < 2 < 5 < drawn.image[covered].std()

    @pytest.mark.parametrize("cell_type", TYPES)
    def test_every_cell_shows_at_its_border(self, cell_type: str) -> None:
        """Darker 2 to 4 px inside its outline than on it, where the halo is: true of most masks, not of moved ones."""
        drawn = draw(cell_type, appearance=Appearance(debris=0))
        shown, moved = [], []
        image = drawn.image.astype(float)
        flat, owner = drawn.runs.pixels()
        for k in range(drawn.runs.count):
            mask = np.zeros(image.shape, bool)
            mask.ravel()[flat[owner == k]] = True
            depth = ndimage.distance_transform_edt(mask)
            rim = (depth >= 2) & (depth <= 4)
            ring = ndimage.binary_dilation(mask) & (depth < 2)
            if not rim.any():
                continue
            shown.append(image[ring].mean() - image[rim].mean())
            away = np.roll(image, (37, 53), (0, 1))
            moved.append(away[ring].mean() - away[rim].mean())
        assert np.mean(np.array(shown) > 3) > 0.7
        assert np.mean(np.array(moved) > 3) < 0.4

    def test_images_of_a_well_share_their_contrast(self) -> None:
        def noise_of(well: int) -> list[float]:
            quiet = Appearance(64, 64, debris=0, unevenness=0, noise=4)
            images = [
                draw_image(np.random.default_rng(k), np.random.default_rng(well), "astro", (0, 0), quiet).image
                for k in range(3)
            ]
            return [float(np.median(np.abs(image.astype(float) - np.median(image)))) for image in images]

        means = [np.mean(noise_of(well)) for well in range(6)]
        assert np.std(means) > 0.3


def test_areas_and_overlaps_are_about_right() -> None:
    """A small sample at half size, with wide bars; the full one is `test_statistics_of_a_full_competition`."""
    sizes = {"cort": 12, "shsy5y": 3, "astro": 6}
    runs = {name: [draw(name, k, size=(260, 352)).runs for k in range(number)] for name, number in sizes.items()}
    for cell_type, found in statistics(runs).items():
        target = TARGETS[cell_type]
        assert found["area"] == pytest.approx(target["area"], rel=0.4)
        assert found["median_area"] == pytest.approx(target["median_area"], rel=0.4)
        assert 0.4 < found["overlapping"] / target["overlapping"] < 1.6
        assert 0.3 < found["overlapped"] / target["overlapped"] < 2.5


@pytest.mark.slow
def test_statistics_of_a_full_competition(tmp_path: Path) -> None:
    images = {"cort": 24, "shsy5y": 12, "astro": 24}
    folder = write_synthetic_competition(tmp_path / "full", seed=0, images=images, test=0)
    runs = runs_by_type(pd.read_csv(folder / "train.csv"))
    for cell_type, found in statistics(runs).items():
        assert found == pytest.approx(TARGETS[cell_type], rel=0.25), cell_type
        low, high = CELL_RANGE[cell_type]
        assert all(0.8 * low <= drawn.count <= high for drawn in runs[cell_type])
    stds = [np.asarray(Image.open(path)).std() for path in (folder / "train").iterdir()]
    assert np.mean(stds) == pytest.approx(11.6, rel=0.25)  # of the images of the competition


@pytest.mark.slow
def test_targets_are_those_of_the_real_annotations(real_data: Path) -> None:
    table = pd.read_csv(real_data / "annotations" / "train_annotations.csv.gz")
    for cell_type, found in statistics(runs_by_type(table)).items():
        assert found == pytest.approx(TARGETS[cell_type], rel=0.01), cell_type
