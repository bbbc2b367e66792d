"""Folds: wells stay together, types and cells are balanced, the same seed gives the same folds, files are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sartorius.data.competition.fold_assignment import assign_folds
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import check_leak, make_folds, read_folds
from sartorius.errors import InputError
from tests.conftest import write_competition


def like_the_competition(seed: int) -> tuple[list[str], list[str], list[int]]:
    """606 images: wells of 1 to 20 images of one type, cells as dense as each type's."""
    rng = np.random.default_rng(seed)
    wells, types, cells = [], [], []
    for cell_type, images, dense in (("cort", 320, 34), ("shsy5y", 155, 337), ("astro", 131, 80)):
        while images > 0:
            size = min(int(rng.integers(1, 21)), images)
            wells += [f"{cell_type}_{images}"] * size
            types += [cell_type] * size
            cells += rng.poisson(dense * rng.uniform(0.3, 2.0), size).tolist()
            images -= size
    return wells, types, cells


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_folds", [2, 5])
def test_wells_stay_together_and_types_and_cells_balance(seed: int, n_folds: int) -> None:
    wells, types, cells = like_the_competition(seed)
    fold = assign_folds(wells, types, cells, n_folds, seed)
    assert set(fold.tolist()) == set(range(n_folds))
    folds_of_well: dict[str, set[int]] = {}
    for well, f in zip(wells, fold.tolist(), strict=True):
        folds_of_well.setdefault(well, set()).add(f)
    assert all(len(folds) == 1 for folds in folds_of_well.values())
    for cell_type in set(types):
        chosen = np.array(types) == cell_type
        images = np.bincount(fold[chosen], minlength=n_folds) / chosen.sum()
        share = (
            np.bincount(fold[chosen], weights=np.array(cells)[chosen], minlength=n_folds)
            / np.array(cells)[chosen].sum()
        )
        assert np.abs(images - 1 / n_folds).max() < 0.05
        assert np.abs(share - 1 / n_folds).max() < 0.1


def test_single_image_wells_balance_to_one_image() -> None:
    types = ["cort"] * 21 + ["astro"] * 7
    fold = assign_folds([str(k) for k in range(28)], types, [10] * 28, 7, 0)
    assert np.bincount(fold).tolist() == [4] * 7
    assert np.bincount(fold[21:]).tolist() == [1] * 7


def test_deterministic_given_the_seed_and_independent_of_order(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    first = make_folds(competition, 4, seed=3).table
    assert first.equals(make_folds(competition, 4, seed=3).table)
    assert any(not first.equals(make_folds(competition, 4, seed=s).table) for s in range(4, 9))
    wells, types, cells = like_the_competition(0)
    assert assign_folds(wells, types, cells, 5, 1).tolist() == assign_folds(wells, types, cells, 5, 1).tolist()


def test_split_is_a_partition(tiny_competition: Path) -> None:
    competition = Competition(tiny_competition)
    folds = make_folds(competition, 4, seed=0)
    seen: list[str] = []
    for fold in range(4):
        train, val = folds.split(fold)
        assert sorted(train + val) == list(competition.ids)
        assert not {competition.wells[p] for p in train} & {competition.wells[p] for p in val}
        seen += val
    assert sorted(seen) == list(competition.ids)


@pytest.mark.parametrize("fold", [-1, 4, "1", 1.0, None, True])
def test_wrong_fold_names_the_valid_ones(tiny_competition: Path, fold: object) -> None:
    folds = make_folds(Competition(tiny_competition), 4, seed=0)
    with pytest.raises(InputError, match="there are folds 0 to 3"):
        folds.split(fold)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_folds", [0, 1, 13])
def test_too_few_or_too_many_folds(tiny_competition: Path, n_folds: int) -> None:
    with pytest.raises(InputError, match="expected 2 to 12 folds"):
        make_folds(Competition(tiny_competition), n_folds, seed=0)


def test_without_plate_columns_it_warns_and_stratifies(tmp_path: Path) -> None:
    competition = Competition(write_competition(tmp_path / "c", wells=False))
    with pytest.warns(UserWarning, match="plate wells are not known"):
        folds = make_folds(competition, 4, seed=0)
    assert (folds.table.groupby(["fold", "cell_type"]).size() == 1).all()
    assert (folds.table["well"] == "").all()


def test_file_reads_back(tiny_competition: Path, tmp_path: Path) -> None:
    competition = Competition(tiny_competition)
    folds = make_folds(competition, 3, seed=0)
    folds.write(tmp_path / "new" / "folds.csv")
    assert read_folds(tmp_path / "new" / "folds.csv", competition).table.equals(folds.table)


BAD_FILES = {
    "other images": (lambda lines: lines[:-1], r"lacks 1 images \(shsy5y03\)"),
    "unknown image": (lambda lines: [*lines, "ghost,0,cort,x"], r"also names 1 images \(ghost\)"),
    "twice": (lambda lines: [*lines, lines[1]], "row 14: image astro00 a second time"),
    "no number": (lambda lines: [lines[0], lines[1].replace(",", ",x", 1), *lines[2:]], "row 2: fold 'x"),
    "no column": (lambda lines: ["id,part", *[line.rsplit(",", 2)[0] for line in lines[1:]]], "no column fold"),
    "gap": (
        lambda lines: [lines[0]] + [f"{line.split(',')[0]},{9 * (k == 0)},," for k, line in enumerate(lines[1:])],
        "no image in fold 1",
    ),
    "empty": (lambda lines: [], "not a readable fold file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(tiny_competition: Path, tmp_path: Path, name: str) -> None:
    competition = Competition(tiny_competition)
    path = tmp_path / "folds.csv"
    make_folds(competition, 3, seed=0).write(path)
    change, message = BAD_FILES[name]
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=message):
        read_folds(path, competition)


def test_file_that_tears_a_well_is_refused(own_competition: Path, tmp_path: Path) -> None:
    text = (own_competition / "train.csv").read_text().replace("cort[x]_B2", "cort[x]_A1")
    (own_competition / "train.csv").write_text(text)
    competition = Competition(own_competition)
    lines = [f"{image_id},{int(image_id == 'cort01')},," for image_id in competition.ids]
    (tmp_path / "folds.csv").write_text("\n".join(["id,fold,cell_type,well", *lines]))
    with pytest.raises(
        InputError, match=r"cort00 \(fold 0\) and cort01 \(fold 1\) are of one plate well 'cort\[x\]_A1'"
    ) as told:
        read_folds(tmp_path / "folds.csv", competition)
    command = f"python -m sartorius.prepare data.root={own_competition} fold_file={tmp_path / 'folds.csv'}"
    assert f"write it with `{command}`" in str(told.value)
    with pytest.raises(InputError, match="no such fold file"):
        read_folds(tmp_path / "none.csv", competition)


def test_leak_guard() -> None:
    wells = {"a": "w1", "b": "w1", "c": "w2"}
    check_leak(["a", "b"], ["c"], wells)
    check_leak([], ["c"], wells)
    with pytest.raises(InputError, match="validation image b shares plate well 'w1' with a"):
        check_leak(["a"], ["b", "c"], wells)
    with pytest.raises(InputError, match="validation image a is also a training image"):
        check_leak(["a"], ["a"], wells)


@pytest.mark.parametrize("n_folds", [2, 5, 11, 12])
def test_no_fold_is_empty(tiny_competition: Path, n_folds: int) -> None:
    folds = make_folds(Competition(tiny_competition), n_folds, seed=0)
    assert folds.n_folds == n_folds
    sizes = folds.table["fold"].value_counts()
    assert len(sizes) == n_folds
    assert sizes.max() - sizes.min() <= 1
