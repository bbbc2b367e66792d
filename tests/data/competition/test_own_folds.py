"""Folds of a folder of own labels: images keep theirs while others are added, over rounds of training too."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sartorius.data.competition.about import About
from sartorius.data.competition.datamodule import SupervisedDataModule, validation_data
from sartorius.data.competition.fold_assignment import assign_folds
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import FILE, Folds, choose_folds, make_folds, read_folds, update_folds
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.provenance import KEY, check_start, note
from sartorius.errors import InputError
from sartorius.structures.instances import Instances
from tests.test_prepare import run

ABOUT = About(("round", "long"))


def add(root: Path, names: list[str], groups: dict[str, str] | None = None) -> None:
    """Images of 1 to 4 cells, by the number at the end of their names; odd ones have long cells."""
    images = []
    for name in names:
        number = int(name[1:])
        masks = np.zeros((number % 4 + 1, 32, 40), bool)
        for k, mask in enumerate(masks):
            mask[1 + 7 * k : 6 + 7 * k, 3:20] = True
        cells = Instances.from_masks(masks, np.full(len(masks), number % 2))
        grey = (100 + 90 * masks.any(axis=0)).astype(np.uint8)
        images.append(Labelled(name, grey, cells, group=(groups or {}).get(name, "")))
    write_labelled(root, ABOUT, images)


def fold_of(folds: Folds) -> dict[str, int]:
    return dict(zip(folds.table["id"], folds.table["fold"], strict=True))


def test_images_keep_their_folds_and_folds_grow_with_the_wells(tmp_path: Path) -> None:
    add(tmp_path, ["a0"])
    known = fold_of(update_folds(tmp_path, 4))
    assert known == {"a0": 0}
    for count, folds in ((2, 2), (3, 3), (7, 4), (16, 4)):
        add(tmp_path, [f"a{n}" for n in range(count)])
        now = update_folds(tmp_path, 4)
        assert now.n_folds == folds and {key: fold_of(now)[key] for key in known} == known
        assert read_folds(tmp_path / FILE, Competition(tmp_path, ABOUT.cell_types)).table.equals(now.table)
        known = fold_of(now)
    assert np.bincount(list(known.values())).tolist() == [4, 4, 4, 4]
    assert fold_of(update_folds(tmp_path, 2)) == known == fold_of(update_folds(tmp_path, 9))
    assert fold_of(update_folds(tmp_path, 4, seed=5)) == known


def test_a_new_image_joins_its_group_and_those_that_are_gone_leave(tmp_path: Path) -> None:
    add(tmp_path, [f"a{n}" for n in range(6)], {f"a{n}": f"dish{n // 2}" for n in range(6)})
    before = fold_of(update_folds(tmp_path, 3))
    add(tmp_path, ["b6", "b7", "b8"], {"b6": "dish1", "b7": "dish1", "b8": "dish1"})
    after = fold_of(update_folds(tmp_path, 3))
    assert after == {**before, **dict.fromkeys(("b6", "b7", "b8"), before["a2"])}
    rows = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(row for row in rows if not row.startswith(("a0,", "a1,"))) + "\n")
    with pytest.warns(UserWarning, match="without a row"):
        folds = update_folds(tmp_path, 3)
    assert fold_of(folds) == {key: fold for key, fold in after.items() if key not in ("a0", "a1")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = SupervisedDataModule(tmp_path, fold=before["a0"], cell_type_names=ABOUT.cell_types)
        with pytest.raises(InputError, match="there are folds 0 to 1|and 0 validation images are left"):
            data.setup()
        add(tmp_path, ["b9"])  # the fold without images gets the next ones
        assert fold_of(update_folds(tmp_path, 3))["b9"] == before["a0"]


def test_a_well_goes_where_the_sum_of_squared_shares_stays_smallest() -> None:
    """Against every choice tried out, for one new well among images that have folds."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(4, 30))
        types, cells = rng.choice(["x", "y", "z"], n), rng.integers(0, 50, n)
        before = {str(k): int(rng.integers(3)) for k in range(n - 1)}
        found = assign_folds([str(k) for k in range(n)], list(types), cells.tolist(), 3, 0, before)
        assert found[:-1].tolist() == list(before.values())

        def imbalance(fold: int, known: Any = found, types: Any = types, cells: Any = cells) -> float:
            of, total = np.append(known[:-1], fold), 0.0
            for kind in np.unique(types):
                for weight, load in ((1.0, types == kind), (0.5, (types == kind) * cells)):
                    total += sum((weight * load[of == f].sum() / max(load.sum(), 1)) ** 2 for f in range(3))
            return total + sum((0.5 * np.mean(of == f)) ** 2 for f in range(3))

        assert imbalance(int(found[-1])) == pytest.approx(min(map(imbalance, range(3))))


def test_many_new_images_balance_beside_those_that_stay() -> None:
    wells = [str(k) for k in range(60)]
    types = ["x" if k % 3 else "y" for k in range(60)]
    fold = assign_folds(wells, types, [10] * 60, 5, 0, {str(k): 0 for k in range(12)})
    assert set(fold[:12].tolist()) == {0} and np.bincount(fold).tolist() == [12] * 5
    assert np.bincount(fold[np.array(types) == "y"]).tolist() == [4] * 5


def test_the_file_of_own_labels_is_used_but_none_beside_the_competition(tmp_path: Path, own_competition: Path) -> None:
    add(tmp_path / "mine", [f"a{n}" for n in range(6)])
    own = update_folds(tmp_path / "mine", 3, seed=3)
    for fold in range(3):
        data = SupervisedDataModule(tmp_path / "mine", fold=fold, n_folds=5, cell_type_names=ABOUT.cell_types)
        data.setup()
        assert (data.train_images, data.val_images) == own.split(fold)
    make_folds(Competition(own_competition), 6, seed=9).write(own_competition / FILE)
    data = SupervisedDataModule(own_competition, n_folds=4)
    data.setup()
    assert data.val_images == make_folds(Competition(own_competition), 4, 0).split(0)[1]
    with pytest.raises(InputError, match=r"no dataset\.json in it; only folders of own labels keep folds"):
        update_folds(own_competition, 4)


def test_a_file_older_than_the_images_is_refused_and_prepare_brings_it_up_to_date(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    add(root, ["a0", "a1", "a2", "a3"])
    before = fold_of(update_folds(root, 4))
    add(root, ["a4", "a5"])
    data = SupervisedDataModule(root, cell_type_names=ABOUT.cell_types)
    with pytest.raises(InputError, match=r"lacks 2 images \(a4, a5\).*sartorius\.prepare data\.root=.*mine"):
        data.setup()
    done = run(tmp_path, f"data.root={root}")  # its cell types are those of the folder
    assert done.returncode == 0, done.stderr
    data.setup()
    folds = read_folds(root / FILE, data.competition)
    assert {key: fold_of(folds)[key] for key in before} == before and len(folds.table) == 6
    assert folds.n_folds == 5  # as four wells were four folds, the default of prepare made a fifth


def test_a_slip_in_the_file_is_named_and_a_fold_that_lost_its_images_is_none(tmp_path: Path) -> None:
    add(tmp_path, [f"a{n}" for n in range(8)])
    before = update_folds(tmp_path, 4)
    text = (tmp_path / FILE).read_text()
    assert text.startswith("id,fold,cell_type,well,of\n") and text.count(",4\n") == 8
    competition = Competition(tmp_path, ABOUT.cell_types)
    slip = text.replace(f"a3,{fold_of(before)['a3']},", "a3,22,")
    for changed, message in (
        (slip, "row 5: fold 22, but there are folds 0 to 3; correct it"),
        (slip.replace(",4\n", "\n").replace(",of\n", "\n"), "no image in fold 4; folds count from 0 without gaps"),
        (text.replace(",4\n", ",5\n", 1), "column of holds 4, 5; expected the number of folds"),
        (text.replace(",4\n", ",x\n"), "column of holds x; expected the number of folds"),
    ):
        (tmp_path / FILE).write_text(changed)
        for action in (lambda: read_folds(tmp_path / FILE, competition), lambda: update_folds(tmp_path, 4)):
            with pytest.raises(InputError, match=message):
                action()
    (tmp_path / FILE).write_text(text)
    last = [name for name, fold in fold_of(before).items() if fold == 3]
    rows = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(row for row in rows if row.split(",")[0] not in last) + "\n")
    with pytest.warns(UserWarning, match="without a row"):
        assert update_folds(tmp_path, 4).n_folds == 4
    for name in last:
        (tmp_path / "train" / f"{name}.png").unlink()
    add(tmp_path, ["b9"])
    assert fold_of(update_folds(tmp_path, 4))["b9"] == 3


def test_another_number_of_folds_than_the_folder_s_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(tmp_path, [f"a{n}" for n in range(4)])
    update_folds(tmp_path, 5)
    competition = Competition(tmp_path, ABOUT.cell_types)
    assert choose_folds(competition, 5, 0, None).n_folds == 4 and not caplog.text, "for want of images"
    add(tmp_path, [f"a{n}" for n in range(6)])
    update_folds(tmp_path, 5)
    competition = Competition(tmp_path, ABOUT.cell_types)
    assert choose_folds(competition, 5, 0, None).n_folds == 5 and not caplog.text
    assert choose_folds(competition, 3, 0, None).n_folds == 5
    assert "folds.csv has 5 folds, data.n_folds=3 is not applied" in caplog.text


def test_groups_that_join_two_folds_are_refused(tmp_path: Path) -> None:
    add(tmp_path, ["a0", "a1"])
    update_folds(tmp_path, 2)
    add(tmp_path, ["a0", "a1"], {"a0": "dish", "a1": "dish"})
    with pytest.raises(
        InputError, match=r"of one group 'dish'.*correct the groups in train.csv, or delete the f"
    ) as told:
        update_folds(tmp_path, 2)
    assert f"write it with `python -m sartorius.prepare data.root={tmp_path}` and train" in str(told.value)


def round_of(root: Path, fold: int) -> SupervisedDataModule:
    data = SupervisedDataModule(root, fold=fold, cell_type_names=ABOUT.cell_types)
    data.setup()
    return data


def test_three_rounds_never_train_on_what_an_earlier_round_of_the_fold_validated(tmp_path: Path) -> None:
    weights: dict[int, dict[str, Any]] = {0: {}, 1: {}, 2: {}}
    trained: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    validated: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    groups = {f"a{n}": f"dish{n // 2}" for n in range(20)}
    for number, names in enumerate((range(6), range(6, 9), range(9, 14))):
        add(tmp_path, [f"a{n}" for n in names], groups)
        update_folds(tmp_path, 3, seed=number)
        datas = {fold: round_of(tmp_path, fold) for fold in weights}
        for fold, data in datas.items():
            for other, metadata in weights.items() if number else ():
                if other != fold:
                    with pytest.raises(InputError, match=r"best\.ckpt: was trained on .* validation images or their"):
                        check_start(metadata[KEY], data, "best.ckpt")
        for fold, data in datas.items():
            before, metadata = weights[fold], {}
            note(metadata, data, before or None, "best.ckpt" if before else None)
            trained[fold] |= {*data.train_images}
            validated[fold] |= {*data.val_images}
            assert {*metadata[KEY]} == trained[fold] and not trained[fold] & validated[fold]
            weights[fold] = metadata
    assert all(len(images) + len(validated[fold]) == 14 for fold, images in trained.items())


def test_evaluate_finds_the_same_validation_images(tmp_path: Path) -> None:
    add(tmp_path, [f"a{n}" for n in range(8)])
    folds = update_folds(tmp_path, 4, seed=2)
    saved = {"_target_": f"{SupervisedDataModule.__module__}.SupervisedDataModule", "root": str(tmp_path), "fold": 2}
    data = validation_data(saved, "a.ckpt", cell_type_names=ABOUT.cell_types)
    data.setup()
    assert data.val_images == folds.split(2)[1]
