"""No run is scored on images that the weights it starts from have seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.livecell.datamodule import LiveCellDataModule
from sartorius.data.provenance import KEY, check_start, note, noted, trained_on
from sartorius.errors import InputError
from tests.conftest import write_competition
from tests.data.livecell.livecell_folder import write_livecell
from tests.doubles import Split

FOLDS = 4


def fold(root: Path, number: int, **options: Any) -> SupervisedDataModule:
    datamodule = SupervisedDataModule(root, fold=number, n_folds=FOLDS, **options)
    datamodule.setup()
    return datamodule


def test_the_note_names_images_and_wells(tiny_competition: Path, tmp_path: Path) -> None:
    datamodule = fold(tiny_competition, 0)
    found = trained_on(datamodule)
    assert list(found) == datamodule.train_images and len(found) == 12 - 3
    assert all(found[image_id] == datamodule.competition.wells[image_id] != image_id for image_id in found)
    live = LiveCellDataModule(write_livecell(tmp_path))
    live.setup("fit")
    assert trained_on(live)["A172_Phase_A1_1_00d00h00m_1"] == "A172_Phase_A1_1_00d00h00m"
    metadata: dict[str, Any] = {}
    note(metadata, SimpleNamespace(), None, None)
    assert metadata == {KEY: {}}
    assert trained_on(Split(["a"], pseudo=["b"])) == {"a": "a", "b": "b"}


def test_no_validation_image_of_any_fold_comes_in_through_weights(tiny_competition: Path) -> None:
    """Weights of fold f may start fold f only: those of every other fold have seen all its validation images."""
    notes = [trained_on(fold(tiny_competition, number)) for number in range(FOLDS)]
    for number in range(FOLDS):
        here = fold(tiny_competition, number)
        for other in range(FOLDS):
            if other == number:
                check_start(notes[other], here, "a.ckpt")
                assert not {*notes[other], *notes[other].values()} & {
                    *here.val_images, *(here.place_of(p) for p in here.val_images)
                }  # fmt: skip
            else:
                with pytest.raises(InputError, match=r"model\.weights=a\.ckpt: was trained on 3 of the 3 validation"):
                    check_start(notes[other], here, "a.ckpt")


def test_a_well_is_enough(tiny_competition: Path) -> None:
    here = fold(tiny_competition, 0)
    well = here.place_of(here.val_images[0])
    with pytest.raises(InputError, match=r"1 of the 3 validation images.*shares with another"):
        check_start({"another": well}, here, "a.ckpt")
    check_start({"another": "elsewhere"}, here, "a.ckpt")


def test_a_generated_image_is_of_no_real_well(own_competition: Path, tmp_path: Path) -> None:
    """The generator draws names of real wells; the same seed is the same well, another is not."""
    real = fold(own_competition, 0)
    seeds = []
    for seed in (3, 4):
        folder = tmp_path / f"seed{seed}"
        shutil.copytree(own_competition, folder)
        (folder / "synthetic.json").write_text(json.dumps({"seed": seed}))
        seeds.append(fold(folder, 0))
    places = [{datamodule.place_of(image_id) for image_id in datamodule.val_images} for datamodule in (real, *seeds)]
    assert places[1] == {f"generated with seed 3: {well}" for well in places[0]}
    assert not places[1] & places[2]
    other_images = {f"drawn{number}": place for number, place in enumerate(places[1])}
    check_start(other_images, real, "builtin")
    check_start(other_images, seeds[1], "builtin")
    with pytest.raises(InputError, match="generated with seed 3: "):
        check_start(other_images, seeds[0], "builtin")
    (tmp_path / "seed4" / "synthetic.json").write_text("{")
    with pytest.raises(InputError, match="synthetic.json: not valid JSON"):
        fold(tmp_path / "seed4", 0).place_of("a")


def test_without_wells_images_are_compared(tmp_path: Path) -> None:
    root = write_competition(tmp_path / "plain", wells=False)
    with pytest.warns(UserWarning, match="sample_id"):
        here, other = fold(root, 0), fold(root, 1)
    check_start(trained_on(here), here, "a")
    with pytest.raises(InputError, match="validation images or their neighbours"):
        check_start(trained_on(other), here, "a")


def test_livecell_before_the_competition(tiny_competition: Path, tmp_path: Path) -> None:
    live = LiveCellDataModule(write_livecell(tmp_path), drop_shared=True)
    live.setup()
    for number in range(FOLDS):
        check_start(trained_on(live), fold(tiny_competition, number), "a")
    check_start(trained_on(live), live, "a")
    shared = LiveCellDataModule(tmp_path)
    shared.setup()
    with pytest.raises(InputError, match=r"1 of the 2 validation images.*A172_Phase_A1_1_00d00h00m.*drop_shared=true"):
        check_start(trained_on(shared), live, "a")


def test_test_images_are_held_back_too(tmp_path: Path) -> None:
    live = LiveCellDataModule(write_livecell(tmp_path), drop_shared=True)
    live.setup()
    with pytest.raises(InputError, match="1 of the 2 test images"):
        check_start({live.test_images[0]: "x"}, live, "a")


def test_overfitting_on_purpose_is_not_checked(tiny_competition: Path) -> None:
    with pytest.warns(UserWarning, match="scores mean memory"):
        here = fold(tiny_competition, 0, images=2)
    check_start(trained_on(here), here, "a")


def test_the_note_adds_up(tiny_competition: Path) -> None:
    here, metadata = fold(tiny_competition, 0), {"model": {}}
    note(metadata, here, None, None)
    assert metadata[KEY] == trained_on(here)
    note(metadata, here, {KEY: {"before": "elsewhere"}}, "a.ckpt")
    assert metadata[KEY] == {"before": "elsewhere", **trained_on(here)}
    note(metadata, here, None, "coco")  # weights of others: nothing is known
    assert metadata[KEY] == trained_on(here)
    with pytest.raises(InputError, match="validation"):
        note(metadata, here, {KEY: trained_on(fold(tiny_competition, 1))}, "a.ckpt")


def test_a_checkpoint_without_a_note_is_refused() -> None:
    assert noted(None, "a") == {}
    for metadata in ({}, {KEY: None}, {KEY: ["a"]}):
        with pytest.raises(InputError, match=r"a\.ckpt: the checkpoint does not say which images.*train it again"):
            noted(metadata, "a.ckpt")
