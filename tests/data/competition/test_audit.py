"""The audit of a folder whose faults are known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartorius.data.cleaning import Cleaning
from sartorius.data.competition.about import About
from sartorius.data.competition.audit import audit
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.structures.instances import Instances


def annotate(root: Path, image_id: str, masks: list[np.ndarray]) -> None:
    """Replace the cells of an image in train.csv."""
    lines = (root / "train.csv").read_text().splitlines()
    old = next(line for line in lines if line.startswith(image_id)).split(",")
    texts = Instances.from_masks(np.array(masks), np.zeros(len(masks))).to_rles()
    new = [",".join([image_id, text, *old[2:]]) for text in texts]
    kept = [line for line in lines if not line.startswith(image_id)]
    (root / "train.csv").write_text("\n".join(kept + new) + "\n")


def drawn(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] ^= True
    return mask


def test_counts_of_a_faultless_folder(tiny_competition: Path) -> None:
    found = audit(Competition(tiny_competition))
    assert found.problems == []
    table = found.images.set_index("id")
    assert list(table.index) == sorted(table.index)
    assert len(table) == 12
    assert table["cells"].sum() == 11 + 11 + 7
    row = table.loc["shsy5y00"]
    assert (row["cells"], row["layers"], row["overlapping_pairs"], row["overlapping"]) == (2, 2, 1, 2)
    assert row["shared_pixels"] == 3 * 10  # rows 7 to 9, columns 10 to 19
    assert row["area_sum"] == 90 + 96
    assert row["covered"] == pytest.approx((90 + 96 - 30) / (48 * 64), abs=1e-4)
    assert table.loc["cort03", ["cells", "layers", "area_min", "area_max", "area_median"]].tolist() == [0, 1, 0, 0, 0]
    assert not table[["empty", "with_holes", "in_pieces", "with_spikes", "annotated_twice"]].to_numpy().any()
    assert any("images without cells: 1 (cort03)" in note for note in found.notes)
    assert any("share (a leak to guard): 1 (astro[x]_A1)" in note for note in found.notes)


def test_broken_masks_are_counted(own_competition: Path) -> None:
    ring = drawn((2, 14, 2, 14), (4, 12, 4, 12))
    pieces = drawn((20, 26, 2, 10), (20, 26, 11, 14))
    spike = drawn((30, 36, 2, 10), (33, 34, 10, 24))
    short = drawn((38, 44, 2, 10), (40, 41, 10, 15))
    twice = drawn((2, 12, 30, 40))
    almost = drawn((2, 12, 30, 40), (2, 3, 30, 34))
    annotate(own_competition, "astro01", [ring, pieces, spike, short, twice, almost])
    found = audit(Competition(own_competition), Cleaning(piece_share=0.4, min_area=60))
    row = found.images.set_index("id").loc["astro01"]
    assert row[["with_holes", "in_pieces", "with_spikes", "annotated_twice", "empty"]].tolist() == [1, 1, 1, 1, 0]
    assert found.cleaning is not None
    assert found.cleaning.frame().loc["astro", ["holes_filled", "pixels_filled", "pieces_dropped"]].tolist() == [
        1,
        64,
        1,
    ]
    assert found.cleaning.frame().loc["astro", "cells_dropped"] == 2  # of 48 and 53 pixels
    assert "annotated twice (IoU > 0.9): 1 (astro01)" in found.text()


def test_duplicates_and_leaks_between_folders(own_competition: Path) -> None:
    shutil.copy(own_competition / "train" / "astro01.png", own_competition / "train" / "cort02.png")
    shutil.copy(own_competition / "train" / "astro01.png", own_competition / "test" / "test00.png")
    pixels = np.array(Image.open(own_competition / "train" / "shsy5y01.png"))
    Image.fromarray(pixels).save(
        own_competition / "train_semi_supervised" / "copy.png", compress_level=1
    )  # other bytes
    found = audit(Competition(own_competition))
    assert found.images.set_index("id").loc["cort02", "duplicate_of"] == "astro01"
    notes = "\n".join(found.notes)
    assert "image cort02 has the same pixels as astro01" in notes
    assert "test/test00.png has the same pixels as labelled image astro01" in notes
    assert "train_semi_supervised/copy.png has the same pixels as labelled image shsy5y01" in notes


def test_problems_are_listed_and_the_rest_is_audited(own_competition: Path) -> None:
    (own_competition / "train" / "astro01.png").unlink()
    path = own_competition / "train" / "cort02.png"
    path.write_bytes(path.read_bytes()[:-200])
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(own_competition / "test" / "deep.png")
    found = audit(Competition(own_competition, keep_going=True))
    assert len(found.problems) == 3
    assert len(found.images) == 10
    assert "Problems (their images are not used): 3" in found.text()


def test_page_names_every_section(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    text = audit(competition, Cleaning(drop_images=["ghost"])).text(make_folds(competition, 3, 0))
    for part in (
        "12 labelled images, 29 cells, 2 unlabelled, 2 test",
        "By cell type",
        "Folds",
        "changes",
        "none",
        "ghost",
    ):
        assert part in text


def test_real_folder(real_data: Path) -> None:
    table = audit(Competition(real_data / "sartorius")).images
    assert table.groupby("cell_type")["cells"].sum().to_dict() == {"astro": 741, "cort": 576, "shsy5y": 1377}
    assert table.set_index("id").loc["5d066f4c3eef", "layers"] == 3
    assert table["layers"].max() <= 6


def test_labels_shifted_by_a_pixel_are_noted(tmp_path: Path) -> None:
    """Cells that the border cuts lie along it; shifted to the right and down, none does at the left and top."""
    cells = np.zeros((12, 48, 64), bool)
    for k in range(6):
        cells[k, 5 + 7 * k : 10 + 7 * k, :6] = cells[6 + k, :5, 2 + 10 * k : 8 + 10 * k] = True
    image = np.arange(48 * 64).reshape(48, 64).astype(np.uint8)
    for name, shift in (("whole", 0), ("shifted", 1)):
        masks = np.roll(cells, (shift, shift), axis=(1, 2))
        one = Labelled("x", image, Instances.from_masks(masks, np.zeros(12, int)))
        write_labelled(tmp_path / name, About(("cell",)), [one])
    notes = audit(Competition(tmp_path / "shifted", ["cell"])).notes
    assert [note.partition(":")[0] for note in notes if "shifted" in note] == [
        "6 cells end one pixel from the left of their image and 0 at it",
        "6 cells end one pixel from the top of their image and 0 at it",
    ]
    assert not any("shifted" in note for note in audit(Competition(tmp_path / "whole", ["cell"])).notes)


def test_labels_given_twice_and_labelled_background_are_noted(own_competition: Path) -> None:
    annotate(
        own_competition, "astro00", [drawn((2, 8, 2, 10), (2, 8, 20, 28)), drawn((20, 26, 2, 10), (20, 26, 12, 16))]
    )
    annotate(own_competition, "astro01", [drawn((0, 48, 0, 64), (10, 20, 10, 20)), drawn((10, 20, 10, 20))])
    found = audit(Competition(own_competition))
    assert found.images.set_index("id")["far_apart"].loc[["astro00", "astro01"]].tolist() == [1, 0]
    assert "images with cells whose pieces lie far apart, as of a label given twice: 1 (astro00)" in found.notes
    assert "images with a cell that covers most of them, as a background with a label would: 1 (astro01)" in found.notes
