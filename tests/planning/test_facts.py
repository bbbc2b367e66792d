"""What is measured of a folder, against drawings of known size."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from sartorius.data.competition.about import About, cell_types_of
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.errors import InputError
from sartorius.planning.facts import read_facts, sizes_text
from sartorius.planning.machine import memory_megabytes, read_machine
from sartorius.structures.instances import Instances


def two_bars() -> tuple[np.ndarray, Instances]:
    """Bars of 30x4 and 8x20 px that share 4x4 px; the image is 40 wide and 50 high, grey 100 and, half of it, 140."""
    masks = np.zeros((2, 50, 40), bool)
    masks[0, 10:14, 5:35] = True
    masks[1, 5:25, 10:18] = True
    image = np.full((50, 40), 100, np.uint8)
    image[25:] = 140
    return image, Instances.from_masks(masks, [0, 1])


def test_cells_and_images_are_measured_exactly(tmp_path: Path) -> None:
    image, cells = two_bars()
    ignored = np.zeros((50, 40), bool)
    ignored[30:] = True  # 800 of 2,000 pixels
    empty = Instances.empty(60, 20)
    write_labelled(
        tmp_path,
        About(("long", "tall", "none"), pixel_size=0.5),
        [
            Labelled("a", image, cells, group="g", ignored=ignored),
            Labelled("b", image, cells, group="g"),
            Labelled("c", np.full((60, 20), 120, np.uint8), empty),
        ],
    )
    facts = read_facts(tmp_path, 300)
    assert (facts.images, facts.groups, facts.folds, facts.cells, facts.pixel_size) == (3, 2, None, 4, 0.5)
    assert facts.cell_types == ("long", "tall", "none")
    assert {name: areas.tolist() for name, areas in facts.areas.items()} == {
        "long": [120, 120], "tall": [160, 160], "none": [],
    }  # fmt: skip
    assert facts.sizes.tolist() == [[50, 40], [50, 40], [60, 20]] and facts.counts.tolist() == [2, 2, 0]
    assert (facts.pixels, facts.largest) == (5200, 2000)
    assert facts.boxes.tolist() == [[30, 4], [8, 20]] * 2 and facts.length(1.0) == 30
    np.testing.assert_allclose(facts.shared, [32 / 120, 32 / 160] * 2)
    np.testing.assert_allclose(facts.diameter, np.sqrt(4 * 140 / np.pi))
    covered = 120 + 160 - 32
    assert facts.foreground == pytest.approx(2 * covered / (1200 + 2000 + 1200))
    assert facts.densest == pytest.approx(2 / 1200)
    assert facts.grey_mean == 120 and facts.grey_std == pytest.approx(np.sqrt(2 / 3 * 20**2))


def test_of_many_images_some_are_read(tmp_path: Path) -> None:
    image, cells = two_bars()
    write_labelled(tmp_path, About(("a", "b")), [Labelled(f"i{k}", image, cells) for k in range(7)])
    facts = read_facts(tmp_path, 3)
    assert facts.images == len(facts.sizes) == 7 and facts.counts.tolist() == [2, 2, 2] and facts.groups == 7


def test_types_are_the_folders(tiny_competition: Path, tmp_path: Path) -> None:
    assert cell_types_of(tiny_competition) == ("shsy5y", "astro", "cort")
    image, cells = two_bars()
    write_labelled(tmp_path, About(("z", "b")), [Labelled("a", image, cells)])
    assert cell_types_of(tmp_path) == ("z", "b")
    (tmp_path / "dataset.json").unlink()
    assert cell_types_of(tmp_path) == ("b", "z")
    facts = read_facts(tiny_competition, 300)
    assert facts.groups == facts.images == 12


def test_a_folder_that_keeps_its_folds(tmp_path: Path) -> None:
    image, cells = two_bars()
    write_labelled(tmp_path, About(("a", "b")), [Labelled(f"i{k}", image, cells) for k in range(6)])
    rows = "\n".join(f"i{k},{k % 3},a," for k in range(6))
    (tmp_path / "folds.csv").write_text(f"id,fold,cell_type,well\n{rows}\n")
    assert read_facts(tmp_path, 300).folds == 3


def test_a_folder_without_cells_or_labels(tmp_path: Path, own_competition: Path) -> None:
    write_labelled(tmp_path, About(("a",)), [Labelled("x", np.zeros((9, 9), np.uint8), Instances.empty(9, 9))])
    with pytest.raises(InputError, match="no image has a cell"):
        read_facts(tmp_path, 300)
    with pytest.raises(InputError, match="not found"):
        read_facts(tmp_path / "nothing", 300)
    shutil.rmtree(own_competition / "train")
    with pytest.raises(InputError, match="train: not found"):
        read_facts(own_competition, 300)


def test_sizes_are_described() -> None:
    assert sizes_text([(520, 704)] * 3) == "704x520"
    assert sizes_text([(520, 704), (10, 20), (100, 100)]) == "20x10 to 704x520"


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("512000000\n")
    assert memory_megabytes((limit,)) == 512
    limit.write_text("max\n")
    assert memory_megabytes((limit, tmp_path / "none")) > 512
    machine = read_machine("cpu")
    assert machine.gpu == "" and machine.memory == machine.ram and machine.threads >= 1
