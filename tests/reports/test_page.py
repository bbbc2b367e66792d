"""The files of the page are in the package; the gallery is small; tables are what the cells say."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from sartorius.data.competition.folder import Competition
from sartorius.errors import InputError
from sartorius.postprocess.saved import from_saved
from sartorius.reports import numbers
from sartorius.reports.document import FILES, shown
from sartorius.reports.explanation import Explanation, MissedCell
from sartorius.reports.gallery import Card, Style, card, chosen
from sartorius.reports.image_cells import Predicted, compare_images, table_of
from sartorius.reports.instance_table import instance_table
from sartorius.reports.runs import read_run
from sartorius.reports.unscored import count_images
from sartorius.reports.views import Entry, RunView, pooled
from sartorius.structures.instances import Instances
from tests.reports.folders import POST, imperfect, write_run

STYLE = Style(images=60, unscored=300, best=0.25, width=704, quality=70)


def view_of(root: Path, folder: Path, images: list[str]) -> RunView:
    truth, post = Competition(root), from_saved(POST, None, "test")

    def cells(image_id: str) -> tuple[Instances, np.ndarray]:
        final = post(imperfect(truth, image_id))
        return final.instances, final.scores

    predicted = Predicted(images, cells, truth.cell_type_names)
    compared = compare_images(predicted, truth, images)
    entry = Entry(read_run(write_run(folder, root, images), "toy"), predicted, truth, True)
    return RunView("toy", table_of(compared), compared, dict.fromkeys(images, entry))


@pytest.fixture(scope="module")
def view(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return view_of(tiny_competition, tmp_path_factory.mktemp("r") / "a", ["astro00", "astro02", "cort01", "cort03"])


def test_the_files_are_in_the_package() -> None:
    for name in FILES:
        assert resources.files("sartorius.reports").joinpath(name).is_file()


def test_by_type(view: RunView) -> None:
    """astro00: 2 cells, 1 found; astro02: 3, 2 found; cort01: 2, 1 found; cort03: none; each with a false alarm."""
    table = numbers.by_type(view, ["astro", "cort"], {})
    assert [line[:7] for line in table.rows] == [
        ["astro", 2, 5, 5, 3, 2, 2], ["cort", 2, 2, 3, 1, 1, 2], ["all", 4, 7, 8, 4, 3, 4],
    ]  # fmt: skip
    assert table.numeric[:7] == [False, *[True] * 6]


def test_confusion(view: RunView) -> None:
    """Found cells of images with 3 cells are of the type after their own; the false alarm is of the first type."""
    table = numbers.confusion(view, ["astro", "cort"])
    assert table is not None and list(table.columns) == ["annotated", "as astro", "as cort", "as shsy5y", "missed"]
    assert [list(line) for line in table.rows] == [
        ["astro", 1, 2, 0, 2], ["cort", 0, 1, 0, 1], ["nothing (false alarms)", 0, 0, 4, None],
    ]  # fmt: skip
    assert table.shares[0] == [None, 1 / 5, 2 / 5, 0, 2 / 5]


def test_by_threshold(view: RunView) -> None:
    table = numbers.by_threshold(view, ["astro", "cort", "shsy5y"])
    assert [line[0] for line in table.rows] == ["astro", "cort", "all"], "no image is of the third"
    assert table.rows[1][1] == pytest.approx((1 / 3 + 0) / 2)
    assert table.rows[0][1] == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_the_fields_scores(view: RunView) -> None:
    """Found, missed and false alarms as in `test_by_type`: F1 of astro02 is 2 x 2 / (2 x 2 + 1 + 1)."""
    written = {"mask_ap": 0.25, "mask_ap_astro": 0.5, "mask_ap_cort": None, "box_ap": None}
    table = instance_table(view, ["astro", "cort", "shsy5y"], written, {"samples": 50, "seed": 0, "level": 0.95})
    assert table is not None and list(table.columns[:5]) == ["score", "astro", "cort", "shsy5y", "all"]
    lines = {line[0]: line[1:5] for line in table.rows}
    assert lines["F1"] == pytest.approx([(2 / 4 + 4 / 6) / 2, (2 / 4 + 0) / 2, None, (2 / 4 + 4 / 6 + 2 / 4 + 0) / 4])
    assert lines["precision"][1] == pytest.approx((1 / 2 + 0) / 2)
    assert lines["mask AP"] == [0.5, None, None, 0.25] and not {"mask AP50", "box AP"} & {*lines}
    assert {"PQ", "SQ", "AJI", "AJI+"} < {*lines} and all(line[-1] for line in table.rows)
    assert view.table is not None
    assert instance_table(replace(view, table=view.table.drop(columns="pq")), [], {}, {}) is None


def test_worst_first(view: RunView) -> None:
    table = numbers.per_image([view])
    assert table is not None and table.rows[0][0] == "cort03"
    assert list(table.rows[0][3:]) == [0, 0, 1, 0, 0, 0] and list(table.columns[-3:]) == ["F1", "PQ", "AJI"]
    assert chosen([view], STYLE)[0] == "cort03" and len(chosen([view], STYLE)) == 4
    of_three = chosen([view], Style(images=3, unscored=3, best=0.34, width=704, quality=70))
    best = max(view.scores, key=lambda image_id: view.scores[image_id])
    assert of_three[0] == "cort03" and of_three[-1] == best and len(of_three) == 3


def test_layers_of_a_card(view: RunView) -> None:
    """Two runs of which the second finds nothing: cells that the first finds are missed by the other only."""
    source = view.sources["astro02"]
    none = Predicted(["astro02"], lambda _: (Instances.empty(48, 64), np.zeros(0, np.float32)), ("astro",))
    other = Entry(source.run, none, source.images, True)
    assert source.images is not None
    compared = compare_images(none, source.images, ["astro02"])
    empty = RunView("empty", table_of(compared), compared, {"astro02": other})
    made = card("astro02", [view, empty], STYLE)
    assert {layer.classes: layer.path.count("M") for layer in made.layers} == {
        "truth m0 m1": 1, "truth m1": 2, "hit r0": 2, "false r0": 1,
    }  # fmt: skip
    assert all(layer.cells.count(";") + 1 == layer.path.count("M") for layer in made.layers)
    assert made.counts == [(2, 1, 1), (0, 3, 0)] and made.scores[1] == 0 and made.image.startswith("data:image/webp")


def test_a_card_shows_the_steps_and_why_a_cell_is_missed(view: RunView) -> None:
    source = view.sources["astro02"]
    assert source.predicted is not None
    missed = MissedCell(0, 5.0, 5.0, 40, 3, 0.2, 0.75, "score", 0.0)
    told = Explanation("astro02", 812, (("score", 143), ("mask", 143), ("box_nms", 120)), 3, (missed,))
    explained = replace(source, predicted=replace(source.predicted, explain=lambda image_id, truth: told))
    made = card("astro02", [replace(view, sources={"astro02": explained})], STYLE)
    assert made.steps == ["812 -> score 143 -> box_nms 120"]
    texts = [text for layer in made.layers if "truth" in layer.classes for text in layer.cells.split(";")]
    reasons = [text.partition("|")[2] for text in texts]
    assert [reason for reason in reasons if reason] == ["candidate of IoU 0.75, score 0.20: dropped by score"]
    assert card("astro02", [view], STYLE).steps == [""]


def test_images_wider_than_asked_are_shrunk(view: RunView) -> None:
    small = card("astro00", [view], Style(images=1, unscored=1, best=0, width=16, quality=50))
    assert len(small.image) < len(card("astro00", [view], STYLE).image) and (small.width, small.height) == (64, 48)
    with pytest.raises(InputError, match="gallery.width=8"):
        Style(images=1, unscored=1, best=0, width=8, quality=50)


def test_views_of_folds_are_one(view: RunView) -> None:
    other = RunView("b", view.table, {"x": view.compared["cort01"]}, {})
    together = pooled([view, other])
    assert together.table is not None and len(together.table) == 8 and list(together.compared)[-1] == "x"


def crowded_image() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    label_map, distance = np.zeros((520, 704), np.uint16), np.hypot(*np.mgrid[-8:9, -8:9])
    for k in range(600):
        y, x = 10 + 20 * (k // 30), 12 + 23 * (k % 30)
        label_map[y - 8 : y + 9, x - 8 : x + 9][distance < random.uniform(5, 8)] = k + 1
    noise = ndimage.gaussian_filter(random.normal(size=(520, 704)), 1.5)
    image = (128 + 6 * noise / noise.std() + 30 * (label_map > 0)).astype(np.uint8)
    return label_map, image


def test_60_crowded_images_are_below_15_megabytes() -> None:
    """600 cells in each, annotated and predicted, at the competition's size and with noise of 6 grey levels."""
    label_map, image = crowded_image()
    cells = Instances.from_label_map(label_map, np.zeros(600, np.int64))
    crowd = SimpleNamespace(
        ids=("a",), image=lambda _: image, instances=lambda _: cells, ignored=lambda _: None,
        cell_type=lambda _: "shsy5y",
    )  # fmt: skip
    predicted = Predicted(["a"], lambda _: (cells, np.full(600, 0.5, np.float32)), ("shsy5y",))
    compared = compare_images(predicted, crowd, ["a"])
    entry = Entry(SimpleNamespace(name="a"), predicted, crowd, True)  # type: ignore[arg-type]
    made = card("a", [RunView("a", table_of(compared), compared, {"a": entry})], STYLE)
    assert sum(layer.path.count("M") for layer in made.layers) == 1200
    assert 60 * size_of(made) < 14e6


def test_300_crowded_images_without_truth_are_below_20_megabytes() -> None:
    label_map, image = crowded_image()
    cells = Instances.from_label_map(label_map, np.zeros(600, np.int64))
    crowd = SimpleNamespace(ids=("a",), image=lambda _: image)
    predicted = Predicted(["a"], lambda _: (cells, np.full(600, 0.5, np.float32)), ("shsy5y",))
    entry = Entry(SimpleNamespace(name="a"), predicted, crowd, False)  # type: ignore[arg-type]
    seen = RunView("a", None, {}, {"a": entry}, count_images(predicted, ["a"], {}, "counting"))
    sizes = {}
    for count in (60, 200, 300):
        made = card("a", [seen], STYLE.for_images(count))
        sizes[count] = count * size_of(made)
        assert made.layers[0].path.count("M") == 600 and made.numbers["cells"] == 600
    assert sizes[60] < sizes[200] < 16e6 and sizes[300] < 20e6


def test_60_of_the_densest_real_image_are_below_15_megabytes(real_data: Path) -> None:
    truth = Competition(real_data / "sartorius")
    densest = max(truth.ids, key=lambda image_id: len(truth.record(image_id)))
    cells = truth.instances(densest)
    predicted = Predicted([densest], lambda _: (cells, np.full(len(cells), 0.5, np.float32)), truth.cell_type_names)
    compared = compare_images(predicted, truth, [densest])
    entry = Entry(SimpleNamespace(name="a"), predicted, truth, True)  # type: ignore[arg-type]
    made = card(densest, [RunView("a", table_of(compared), compared, {densest: entry})], STYLE)
    assert 60 * size_of(made) < 14e6


def size_of(made: Card) -> int:
    """Characters of a card, its words left out."""
    return len(made.image) + sum(len(layer.path) + len(layer.cells) for layer in made.layers)


def test_values_as_they_are_shown() -> None:
    assert [shown(v) for v in (None, float("nan"), 0.12345, 583.14, 1204.0, 7, "a")] == [
        "-", "-", "0.123", "583.1", "1204", "7", "a",
    ]  # fmt: skip
    assert numbers.between([-0.01, 0.02], signed=True) == "-0.0100 to +0.0200" and numbers.between(None) == ""


def test_what_an_annotated_cell_says_stands_in_the_place_of_its_view(view: RunView) -> None:
    """Of three runs the first has not predicted the image."""
    nothing = RunView("none", None, {}, {})
    layers = [layer for layer in card("cort01", [nothing, view, view], STYLE).layers if "truth" in layer.classes]
    texts = [text.split("/") for layer in layers for text in layer.cells.split(";")]
    found = view.compared["cort01"].matches.cell_iou
    assert sorted(texts) == sorted([["", f"{100 * iou:.0f}", f"{100 * iou:.0f}"] for iou in found])
    assert {layer.classes for layer in layers} == {"truth", "truth m1 m2"}
