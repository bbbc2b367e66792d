"""Groups of own images: pseudo-labels of a validation group are left out, whatever tells the group."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from sartorius.data.competition.about import About
from sartorius.data.competition.audit import audit
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.groups import groups_of, places_of, save_groups, saved_groups
from sartorius.data.competition.labelled_writer import Labelled, write_labelled
from sartorius.data.files.named_image import NamedImage
from sartorius.data.provenance import check_start, trained_on
from sartorius.errors import InputError
from sartorius.structures.instances import Instances
from tests.conftest import HEIGHT, WIDTH
from tests.data.pseudo_folder import CELLS, row, settings, write_file, write_images

TYPES = ("cort",)


def own_folder(root: Path, pattern: str | None, **groups: str) -> None:
    """Images of noise, each with two cells, labelled in these groups."""
    cells = Instances.from_rles(CELLS[:2], [0, 0], HEIGHT, WIDTH)
    grey = np.random.default_rng(0).integers(100, 150, (len(groups), HEIGHT, WIDTH)).astype(np.uint8)
    labelled = [Labelled(name, grey[k], cells, group=groups[name]) for k, name in enumerate(groups)]
    write_labelled(root, About(TYPES, group=pattern), labelled)


def module_of(root: Path, fold: int, *pseudo: str) -> SupervisedDataModule:
    write_images(root / "train_semi_supervised", pseudo)
    file = write_file(root, [row(name, CELLS[0], 0.9) for name in pseudo])
    labels = settings(file, root / "train_semi_supervised")
    module = SupervisedDataModule(root, n_folds=2, fold=fold, cell_type_names=TYPES, pseudo_labels=labels)
    module.setup()
    return module


@pytest.mark.parametrize(
    ("pattern", "group", "left"),
    [
        (r"(?P<group>p\d)", "p1", ["p2_A3_f7"]),  # all of the plate
        (None, "p1_A3", ["p1_B4_f3", "p2_A3_f7"]),  # the well
        (r"(?P<group>f\d)", "f1", ["p1_B4_f3", "p2_A3_f7"]),  # of another field, the well all the same
        (None, "", ["p1_B4_f3", "p2_A3_f7"]),  # of a table that tells none
    ],
)
def test_pseudo_labels_of_a_validation_group_are_left_out(
    tmp_path: Path, pattern: str | None, group: str, left: list[str]
) -> None:
    own_folder(tmp_path, pattern, p1_A3_f1=group, p3_A1_f5="p3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = module_of(tmp_path, 0, "p1_A3_f2", "p1_B4_f3", "p2_A3_f7")
    assert module.val_images == ["p1_A3_f1"] and module.pseudo_images == left


def test_groups_that_the_folder_keeps_of_images_without_labels(tmp_path: Path) -> None:
    """They are told apart from those whose group nobody knows; weights that were trained on them keep their group."""
    own_folder(tmp_path, None, film_t000="film.tif", movie_t000="movie.tif")
    save_groups(tmp_path, {"film_t001": "film.tif", "movie_t001": "movie.tif"})
    save_groups(tmp_path, {"x": ""})
    assert saved_groups(tmp_path) == {
        "film_t000": "film.tif", "film_t001": "film.tif", "movie_t000": "movie.tif", "movie_t001": "movie.tif", "x": "",
    }  # fmt: skip
    with pytest.warns(UserWarning, match=r"1 images of .* have no known group \(x\): .* share groups with validation"):
        module = module_of(tmp_path, 0, "film_t001", "movie_t001", "x")
    assert module.pseudo_images == ["movie_t001", "x"]
    trained = trained_on(module)
    assert trained == {"movie_t000": "movie.tif", "movie_t001": "movie.tif", "x": "x"}
    other = module_of(tmp_path, 1, "film_t001")
    with pytest.raises(InputError, match=r"was trained on 1 of the 1 validation images .*'movie\.tif'"):
        check_start({"movie_t001": trained["movie_t001"]}, other, "last.ckpt")
    competition = Competition(tmp_path, TYPES)
    assert any(
        "groups that labelled and unlabelled images share (a leak to guard): 2" in n for n in audit(competition).notes
    )


def test_groups_by_pattern_name_and_stack() -> None:
    paths = {"a__x": "a/x.tif", "pl_C7_2": "pl_C7_2.tif", "s_t000": "b/s.tif", "s_t001": "b/s.tif"}
    images = [NamedImage.within(Path("/raw"), name, Path("/raw/y/..", path)) for name, path in paths.items()]
    assert groups_of([], None, {}) == {} and places_of(Path("/none"), None, {}) == {}

    def named(pattern: str | None, known: dict[str, str], *optional: str) -> list[str]:
        groups = groups_of(images, pattern, known, optional)
        return [groups.get(name, "unknown") for name in paths]

    assert named(None, {}) == ["", "pl_C7", "b/s.tif", "b/s.tif"]
    assert named(None, {"pl_C7_1": "dish", "s_t001": "film"}) == ["", "dish", "film", "film"]
    assert named("(?P<group>.)[.]tif", {"a__x": "k"}) == ["k", "2", "s", "s"]
    assert named("^(?P<group>[ab])/", {}, "pl_C7_2") == ["a", "unknown", "b", "b"]
    with pytest.raises(InputError, match=r"pl_C7_2\.tif: group=\(\?P<group>a\)/ finds nothing in .*; .*s\.tif: group="):
        groups_of(images, "(?P<group>a)/", {"s_t000": "film"})
    assert places_of(Path("/none"), About(TYPES, group="(?P<group>a)/x.png"), {"a__x": Path("a__x.png")}) == {
        "a__x": ["a"]
    }
