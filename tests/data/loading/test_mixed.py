"""Labelled and pseudo-labelled images in one epoch: which ones, how often, and never those of validation."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from PIL import Image

from sartorius.data.annotation_rows import well_of
from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.competition.cell_chunks import CellsDataModule
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import InstanceDataset, Target
from sartorius.data.loading.labelled import LabelledDataModule
from sartorius.data.loading.mixed import MixedDataset
from sartorius.data.provenance import trained_on
from sartorius.errors import InputError
from sartorius.running import wiring
from tests.conftest import write_competition
from tests.data.pseudo_folder import CELLS, row, settings, write_file, write_images

CROP = LayerTransform(crop=CellCrop(24, 24, 0.5))
TYPES = ("shsy5y", "astro", "cort")
WELLS = [f"{name}[x]_{letter}{k + 1}" for name in TYPES for k, letter in enumerate("ABCD")]  # those of train.csv
# One image of each well of train.csv, and of six others
UNLABELLED = [f"{well}-2_Vessel-9_2020_Ph_4" for well in WELLS] + [
    f"{name}[x]_P{k}-1" for name in TYPES for k in (7, 8)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny competition folder with `UNLABELLED` images and pseudo.csv, a cell and a doubtful one in each."""
    root = write_competition(tmp_path_factory.mktemp("pseudo") / "sartorius")
    write_images(root / "train_semi_supervised", UNLABELLED)
    rows = [
        row(name, text, score, name.split("[")[0])
        for name in UNLABELLED
        for text, score in ((CELLS[0], 0.9), (CELLS[2], 0.4))
    ]
    write_file(root, rows)
    return root


def module_of(root: Path, kind: type[SupervisedDataModule] = SupervisedDataModule, **options: Any) -> Any:
    file = options.pop("file", root / "pseudo.csv")
    labels = settings(file, root / "train_semi_supervised", **options.pop("labels", {}))
    built = kind(root, **{"n_folds": 4, "train_transform": CROP, "pseudo_labels": labels, **options})
    built.setup("fit")
    return built


def epoch_of(datamodule: SupervisedDataModule, epoch: int) -> Iterator[tuple[torch.Tensor, Target]]:
    loader = datamodule.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    for batch in loader:
        yield from zip(batch.images, batch.targets, strict=True)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.3])
def test_every_pseudo_labelled_image_comes_equally_often(folder: Path, ratio: float) -> None:
    datamodule = module_of(folder, labels={"ratio": ratio}, fold=1, train_repeats=2)
    labelled, count = Counter(2 * datamodule.train_images), round(ratio * 18)
    seen: Counter[str] = Counter()
    images: set[bytes] = set()
    for epoch in range(7):
        samples = list(epoch_of(datamodule, epoch))
        names = Counter(target.image_id for _, target in samples)
        pseudo = Counter({name: number for name, number in names.items() if name in UNLABELLED})
        assert names - pseudo == labelled
        assert pseudo.total() == count
        seen += pseudo
        pixels = [image.numpy().tobytes() + target.image_id.encode() for image, target in samples]
        images |= set(pixels)
    assert set(seen) <= set(datamodule.pseudo_images)
    assert len(datamodule.pseudo_images) == 15
    every = [seen[image_id] for image_id in datamodule.pseudo_images]
    assert max(every) - min(every) <= 1
    assert sum(every) == 7 * count


def test_an_epoch_is_a_function_of_seed_and_epoch(folder: Path) -> None:
    def prints(datamodule: SupervisedDataModule, epoch: int) -> list[tuple[str, bytes]]:
        return [(target.image_id, image.numpy().tobytes()) for image, target in epoch_of(datamodule, epoch)]

    first = module_of(folder, fold=1)
    epochs = [prints(first, epoch) for epoch in (0, 1, 2)]
    assert prints(module_of(folder, fold=1), 2) == epochs[2]  # nothing before it was asked for
    assert prints(module_of(folder, fold=1, num_workers=1), 1) == epochs[1]
    assert prints(module_of(folder, fold=1, labels={"cache_mb": 8}, cache_mb=8), 1) == epochs[1]
    pseudo = [{name for name, _ in epoch if name in UNLABELLED} for epoch in epochs]
    assert pseudo[0] != pseudo[1] != pseudo[2]
    assert {name for name, _ in prints(module_of(folder, fold=1, seed=1), 0) if name in UNLABELLED} != pseudo[0]
    # an image that comes twice in an epoch is drawn anew
    often = [
        sample for sample in prints(module_of(folder, fold=1, labels={"ratio": 9.0}), 0) if sample[0] in UNLABELLED
    ]
    assert len(set(often)) > 0.9 * len(often) > 60


def test_weights_and_doubtful_cells(folder: Path) -> None:
    for _, target in epoch_of(module_of(folder, train_transform=None), 0):
        pseudo = target.image_id in UNLABELLED
        assert target.weight == (0.5 if pseudo else 1.0)
        assert (target.ignored is not None) == pseudo
        if target.ignored is not None:
            assert (len(target), int(target.ignored.sum())) == (1, 60)
    for batch in module_of(folder).val_dataloader():
        assert all(target.ignored is None and target.weight == 1 for target in batch.targets)


@pytest.mark.parametrize("fold", range(4))
def test_nothing_of_a_validation_fold_reaches_training(
    folder: Path, fold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through folds, donors of copy-paste (all that its dataset loads) and pseudo-labels."""
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        chosen = ["data=pseudo_labelled", "copy_paste=default", "copy_paste.probability=1", f"data.fold={fold}"]
        places = [f"data.root={folder}", f"pseudo_labels.file={folder}/pseudo.csv", "data.num_workers=0"]
        cfg = hydra.compose("train", [*chosen, *places, "data.n_folds=4", "data.cache_mb=0", "transform=none"])
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("fit")
    wells = {datamodule.competition.wells[image_id] for image_id in datamodule.val_images}
    assert len(wells) == 3
    left_out = {image_id for image_id in UNLABELLED if well_of(image_id) in wells}
    assert len(left_out) == 3
    assert set(datamodule.pseudo_images) == set(UNLABELLED) - left_out
    loaded: Counter[str] = Counter()
    load = InstanceDataset.load
    monkeypatch.setattr(InstanceDataset, "load", lambda self, name: (loaded.update([name]), load(self, name))[1])
    samples = [target for epoch in (0, 1) for _, target in epoch_of(datamodule, epoch)]
    trained = {target.image_id for target in samples} | set(loaded)
    assert loaded.total() > 1.5 * len(samples)  # donors too
    assert trained >= set(datamodule.train_images)
    assert trained & set(UNLABELLED)
    assert {datamodule.place_of(image_id) for image_id in trained}.isdisjoint(wells)
    assert set(trained_on(datamodule)) == {*datamodule.train_images, *datamodule.pseudo_images}
    assert set(trained_on(datamodule).values()).isdisjoint(wells)


def test_chosen_validation_images_are_kept_out_too(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sartorius.data.competition.leaks"):
        datamodule = module_of(folder, images=["astro00", "cort03"], val_images=["cort01"])
    assert set(UNLABELLED) - set(datamodule.pseudo_images) == {"cort[x]_B2-2_Vessel-9_2020_Ph_4"}
    assert len(caplog.messages) == 1
    assert "17 of 18 images are trained on; left out are 0 labelled ones and 1 that share a plate well" in caplog.text


def test_labelled_images_and_copies_of_them_are_left_out(folder: Path, tmp_path: Path) -> None:
    """Whether they are validated on or trained on, by their name or by their pixels."""
    root = tmp_path / "sartorius"
    shutil.copytree(folder, root)
    images = root / "train_semi_supervised"
    probe = module_of(root)
    trained, held = probe.train_images[0], probe.val_images[0]
    for source, name in ((trained, trained), (held, held), (trained, "x[y]_K1-1"), (held, "x[y]_K2-1")):
        shutil.copy(root / "train" / f"{source}.png", images / f"{name}.png")
    rows = [row(name, CELLS[0], 0.9) for name in (trained, held, "x[y]_K1-1", "x[y]_K2-1", UNLABELLED[-1])]
    assert module_of(root, file=write_file(root, rows, "more.csv")).pseudo_images == [UNLABELLED[-1]]
    none = write_file(root, rows[:-1], "none.csv")
    with pytest.raises(InputError, match=r"none\.csv: 0 of 4 images are trained on; left out are 4 labelled ones"):
        module_of(root, file=none)


def test_unknown_wells_are_warned_of_once(folder: Path, tmp_path: Path) -> None:
    root = write_competition(tmp_path / "sartorius", wells=False)
    write_images(root / "train_semi_supervised", UNLABELLED[:3])
    file = write_file(root, [row(name, CELLS[0], 0.9) for name in UNLABELLED[:3]])
    with pytest.warns(UserWarning, match="no column sample_id") as warned:
        assert len(module_of(root, file=file).pseudo_images) == 3
    said = [str(warning.message) for warning in warned if "pseudo-labelled" in str(warning.message)]
    assert len(said) == 1
    assert "no column sample_id: whether pseudo-labelled images share plate wells" in said[0]

    root = tmp_path / "copy"
    shutil.copytree(folder, root)
    write_images(root / "train_semi_supervised", ["mine"])
    file = write_file(root, [row(name, CELLS[0], 0.9) for name in ("mine", UNLABELLED[-1])])
    with pytest.warns(UserWarning, match=r"1 images of .* have no plate well in their names \(mine\)"):
        assert module_of(root, file=file).pseudo_images == [UNLABELLED[-1], "mine"]


def test_damaged_images_and_overlaps_are_said_in_setup(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "sartorius"
    shutil.copytree(folder, root)
    name = UNLABELLED[-1]
    file = write_file(root, [row(name, CELLS[0], 0.9), row(name, CELLS[0], 0.9)], "twice.csv")
    with pytest.raises(InputError, match=r"twice\.csv rows 2 and 3: two cells of image .* share 60 pixels"):
        module_of(root, file=file)
    path = root / "train_semi_supervised" / f"{name}.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cort\[x\]_P8-1\.png: cut off or damaged"):
        module_of(root)


def test_cells_one_by_one(folder: Path) -> None:
    """Chunks of pseudo-labelled cells join those of the labelled ones; doubtful cells are in none."""
    datamodule = module_of(folder, CellsDataModule, train_transform=None, cells_per_sample=2, labels={"ratio": 2.0})
    labelled = sum(-(-len(datamodule.competition.record(p)) // 2) for p in datamodule.train_images)
    samples = [target for _, target in epoch_of(datamodule, 0)]
    pseudo = [target for target in samples if target.image_id in UNLABELLED]
    assert (len(pseudo), len(samples)) == (2 * labelled, 3 * labelled)
    for target in pseudo:
        assert target.chosen is not None
        assert target.chosen.tolist() == [0]
        assert target.weight == 0.5
    nothing = write_file(folder, [row(UNLABELLED[-1], CELLS[0], 0.4, "cort")], "doubtful.csv")
    with pytest.raises(InputError, match=r"doubtful\.csv: its 1 training images have no cells"):
        module_of(folder, CellsDataModule, cells_per_sample=2, file=nothing)


@pytest.mark.parametrize(
    "chosen",
    [
        ["data=pseudo_labelled"],
        ["data=pseudo_labelled", "copy_paste=default"],
        ["data=synthetic", "pseudo_labels=default"],
        ["experiment=cropseg_cpu", "pseudo_labels=default"],
        ["experiment=unet_cpu", "data=pseudo_labelled"],
    ],
)
def test_the_shipped_configs_build(folder: Path, chosen: list[str]) -> None:
    places = [f"data.root={folder}", f"pseudo_labels.file={folder}/pseudo.csv", "data.num_workers=0"]
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("train", [*chosen, *places, "data.n_folds=4", "pseudo_labels.min_score=0.5"])
        without = hydra.compose("train", [*chosen, "~pseudo_labels", *places[::2], "data.n_folds=4"])
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("fit")
    assert {target.image_id for _, target in epoch_of(datamodule, 0)} & set(UNLABELLED)
    plain = wiring.instantiate(without.data)
    plain.setup("fit")
    assert plain.pseudo_images == []
    assert plain.train_images == datamodule.train_images


def test_a_config_without_a_file_or_for_other_data_says_what_to_do(folder: Path) -> None:
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        unset = hydra.compose("train", ["data=pseudo_labelled"])
    with pytest.raises(InputError, match="give pseudo_labels.file=FILE, a csv"):
        wiring.instantiate(unset.data)
    labels = settings(folder / "pseudo.csv", folder / "train_semi_supervised")
    other = LabelledDataModule(name="other", cell_type_names=TYPES, pseudo_labels=labels)
    with pytest.raises(InputError, match="LabelledDataModule takes none.*set pseudo_labels=null"):
        other._build(Competition(folder), Competition(folder))


def test_beyond_the_last_sample(folder: Path) -> None:
    dataset = InstanceDataset(Competition(folder), ["astro00"])
    mixed = MixedDataset(dataset, dataset, 2, 0)
    assert len(mixed) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"sample {index} of 3"):
            mixed[index]


def test_real_images(real_data: Path, tmp_path: Path) -> None:
    """Rows of real cells in real unlabelled images: the samples have them, at full size."""
    root = real_data / "sartorius"
    names = sorted(path.stem for path in (root / "train_semi_supervised").glob("*.png"))
    record = next(record for record in Competition(root).images.values() if len(record) > 20)
    rows = [
        {**row(name, text, 0.9, record.cell_type), "width": 704, "height": 520}
        for name in names
        for text in record.annotations[:1]
    ]
    file = write_file(tmp_path, rows)
    with pytest.warns(UserWarning, match="no column sample_id"):
        datamodule = module_of(root, file=file, train_transform=None, images=2, val_images=[record.id])
    assert set(datamodule.pseudo_images) == set(names)
    with Image.open(root / "train_semi_supervised" / f"{names[0]}.png") as image:
        assert image.size == (704, 520)
    for image_id, target in epoch_of(datamodule, 0):
        assert image_id.shape == (1, 520, 704)
        if target.image_id in names:
            assert len(target) == 1
