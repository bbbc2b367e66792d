"""DataModules: what is trained on, no leaks, samples that depend on nothing but (seed, epoch, image)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import hydra
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.cleaning import Cleaning
from sartorius.data.competition.datamodule import SupervisedDataModule, validation_data
from sartorius.data.competition.folder import Competition
from sartorius.data.competition.folds import make_folds
from sartorius.data.dataset import Batch
from sartorius.data.loading.images import ImagesDataModule
from sartorius.errors import InputError
from sartorius.running import wiring
from tests.conftest import write_competition


def module_of(root: Path, **options: Any) -> SupervisedDataModule:
    options = {"n_folds": 4, "train_transform": LayerTransform([A.D4(p=1.0)], CellCrop(24, 24, 0.5)), **options}
    datamodule = SupervisedDataModule(root, **options)
    datamodule.setup("fit")
    return datamodule


def prints(batches: Iterator[Batch]) -> list[str]:
    """A fingerprint of every sample, with its image."""
    return [
        target.image_id
        + " "
        + hashlib.sha256(image.numpy().tobytes() + target.layers.numpy().tobytes()).hexdigest()[:12]
        for batch in batches
        for image, target in zip(batch.images, batch.targets, strict=True)
    ]


def test_one_fold(tiny_competition: Path) -> None:
    datamodule = module_of(tiny_competition, fold=1, batch_size=2, train_repeats=3)
    wells = datamodule.competition.wells
    assert len(datamodule.train_images) == 9
    assert len(datamodule.val_images) == 3
    assert not {wells[p] for p in datamodule.train_images} & {wells[p] for p in datamodule.val_images}
    batches = list(datamodule.train_dataloader())
    assert sum(len(batch) for batch in batches) == 27
    assert batches[0].images[0].shape == (1, 24, 24)
    val = list(datamodule.val_dataloader())
    assert [batch.targets[0].image_id for batch in val] == datamodule.val_images
    assert val[0].images[0].shape == (1, 48, 64)


@pytest.mark.parametrize("seed", range(4))
def test_validation_wells_are_never_trained_on(tiny_competition: Path, seed: int) -> None:
    for fold in range(3):
        datamodule = module_of(tiny_competition, fold=fold, n_folds=3, fold_seed=seed)
        wells = datamodule.competition.wells
        assert {wells[p] for p in datamodule.train_images}.isdisjoint(wells[p] for p in datamodule.val_images)
        assert datamodule.train_images
        assert datamodule.val_images


@pytest.mark.filterwarnings("ignore:.*rows that repeat another one")
def test_validation_truth_is_as_annotated_and_training_truth_cleaned(own_competition: Path) -> None:
    ring = "5 20 69 1 88 1 133 20"  # 20 x 3 with a hole of 18
    text = (own_competition / "train.csv").read_text().splitlines()
    rows = [line if not line.startswith("cort01") else line.replace(line.split(",")[1], ring, 1) for line in text]
    (own_competition / "train.csv").write_text("\n".join(rows) + "\n")
    competition = Competition(own_competition)
    for fold in range(4):
        datamodule = module_of(
            own_competition, fold=fold, cleaning=Cleaning(holes=True, drop_images=["astro00"]), train_transform=None
        )
        assert "astro00" not in datamodule.train_images
        truth = {t.image_id: t for batch in datamodule.val_dataloader() for t in batch.targets}
        trained = {t.image_id: t for batch in datamodule.train_dataloader() for t in batch.targets}
        for image_id, target in truth.items():
            np.testing.assert_array_equal(target.layers.numpy(), competition.instances(image_id).layers)
        if "cort01" in trained:
            assert int((trained["cort01"].layers > 0).any(dim=0).sum()) == 60
        else:
            assert int((truth["cort01"].layers > 0).any(dim=0).sum()) == 42
    assert "astro00" in module_of(own_competition, fold=_fold_of(own_competition, "astro00")).val_images


def _fold_of(root: Path, image_id: str) -> int:
    table = make_folds(Competition(root), 4, 0).table
    return int(table["fold"][table["id"] == image_id].iloc[0])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_do_not_depend_on_workers(tiny_competition: Path, workers: int) -> None:
    def epochs(num_workers: int, cache_mb: int) -> list[list[str]]:
        loader = module_of(
            tiny_competition, num_workers=num_workers, cache_mb=cache_mb, batch_size=2
        ).train_dataloader()
        seen = []
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            seen.append(prints(iter(loader)))
        return seen

    first, second = epochs(workers, 1)
    assert [first, second] == epochs(0, 0)
    assert first != second
    assert sorted(p.split()[0] for p in first) == sorted(p.split()[0] for p in second)


class Recorder(pl.LightningModule):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[str]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(prints(iter([batch])))
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val/map", 0.0, batch_size=len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(root: Path, folder: Path, epochs: int, workers: int = 0, resume: str | None = None) -> dict[int, list[str]]:
    module = Recorder()
    checkpoints = pl.callbacks.ModelCheckpoint(folder, save_top_k=-1, save_last=True, every_n_epochs=1)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, callbacks=[checkpoints], num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, module_of(root, num_workers=workers, batch_size=2, drop_last=True), ckpt_path=resume)
    return module.seen


@pytest.mark.filterwarnings(
    "ignore:.*num_workers.*", "ignore:.*Checkpoint directory.*", "ignore:.*does not have many workers.*"
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    tiny_competition: Path, tmp_path: Path, workers: int
) -> None:
    whole = fit(tiny_competition, tmp_path / "whole", 4, workers)
    assert len({tuple(epoch) for epoch in whole.values()}) == 4
    first = fit(tiny_competition, tmp_path / "part", 2, workers)
    rest = fit(tiny_competition, tmp_path / "part", 4, workers, resume=str(tmp_path / "part" / "last.ckpt"))
    assert first == {epoch: whole[epoch] for epoch in (0, 1)}
    assert rest == {epoch: whole[epoch] for epoch in (2, 3)}


def test_overfitting_on_chosen_images(tiny_competition: Path) -> None:
    with pytest.warns(UserWarning, match="scores mean memory"):
        datamodule = module_of(tiny_competition, images=["astro01", "cort00"])
    assert datamodule.train_images == datamodule.val_images == ["astro01", "cort00"]
    with pytest.warns(UserWarning, match="scores mean memory"):
        datamodule = module_of(tiny_competition, images=1)
    assert len(datamodule.train_images) == 1
    with pytest.raises(InputError, match=r"data\.images=100: fold 0 has \d training images"):
        module_of(tiny_competition, images=100)
    with pytest.raises(InputError, match="no labelled image 'ghost'"):
        module_of(tiny_competition, images=["ghost"])


def test_chosen_validation_images_may_not_leak(tiny_competition: Path) -> None:
    datamodule = module_of(tiny_competition, images=["astro01"], val_images=["cort00"])
    assert (datamodule.train_images, datamodule.val_images) == (["astro01"], ["cort00"])
    with pytest.raises(InputError, match="validation image astro01 is also a training image"):
        module_of(tiny_competition, images=["astro01"], val_images=["astro01"])


def test_fold_file_is_used(tiny_competition: Path, tmp_path: Path) -> None:
    folds = make_folds(Competition(tiny_competition), 6, seed=9)
    folds.write(tmp_path / "folds.csv")
    datamodule = module_of(tiny_competition, fold=5, fold_file=tmp_path / "folds.csv")
    assert (datamodule.train_images, datamodule.val_images) == folds.split(5)


def test_changing_the_training_seed_leaves_validation_alone(tiny_competition: Path) -> None:
    assert module_of(tiny_competition, seed=1).val_images == module_of(tiny_competition, seed=2).val_images


BAD = {
    "fold": ({"fold": 4}, "there are folds 0 to 3"),
    "folds": ({"n_folds": 40}, "expected 2 to 12 folds"),
    "batch": ({"batch_size": 50, "drop_last": True}, "do not fill one batch of 50"),
    "all dropped": (
        {"cleaning": Cleaning(drop_images=[f"{t}{n:02d}" for t in ("shsy5y", "astro", "cort") for n in range(4)])},
        "0 training",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named_in_setup(tiny_competition: Path, name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        module_of(tiny_competition, **options)


def test_damaged_image_is_named_before_training(own_competition: Path) -> None:
    path = own_competition / "train" / "astro01.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"astro01\.png: cut off"):
        module_of(own_competition)


def test_without_plate_columns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="plate wells are not known"):
        datamodule = module_of(write_competition(tmp_path / "c", wells=False))
    assert len(datamodule.val_images) == 3


def test_predicts_the_validation_images(tiny_competition: Path) -> None:
    datamodule = SupervisedDataModule(tiny_competition, n_folds=4)
    datamodule.setup("predict")
    assert [batch.targets[0].image_id for batch in datamodule.predict_dataloader()] == datamodule.val_images


def test_validation_data_of_a_saved_config(tiny_competition: Path) -> None:
    saved = {
        "_target_": "sartorius.data.competition.datamodule.SupervisedDataModule",
        "root": "elsewhere", "n_folds": 4, "fold": 1,
        "train_transform": {"_target_": "os.system"},
        "cleaning": {"_target_": "os.system", "drop_images": ["astro01"]},
        "option_of_another_version": 1,
    }  # fmt: skip
    datamodule = validation_data(saved, "a.ckpt", root=tiny_competition)
    datamodule.setup("predict")
    assert datamodule.val_images == module_of(tiny_competition, fold=1).val_images
    assert "astro01" not in datamodule.train_images
    for target in ("sartorius.data.loading.images.ImagesDataModule", "os.system", None):
        with pytest.raises(InputError, match=f"a.ckpt: was trained on {target}"):
            validation_data({**saved, "_target_": target}, "a.ckpt")


def test_folder_of_images(tmp_path: Path) -> None:
    grey = np.arange(60, dtype=np.uint8).reshape(6, 10)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "b.png")
    Image.fromarray(grey).save(tmp_path / "a.tif")
    datamodule = ImagesDataModule(tmp_path)
    datamodule.setup("predict")
    batches = list(datamodule.predict_dataloader())
    assert datamodule.images == [batch.targets[0].image_id for batch in batches] == ["a", "b"]
    assert torch.equal(batches[0].images[0], batches[1].images[0])
    single = ImagesDataModule(tmp_path / "b.png")
    single.setup()
    assert single.images == ["b"]
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "c.png")
    datamodule.setup("predict")  # as Lightning does once more: nothing is read again
    assert datamodule.images == ["a", "b"]
    with pytest.raises(InputError, match="no images in it"):
        (tmp_path / "empty").mkdir()
        ImagesDataModule(tmp_path / "empty").setup()


def test_images_of_other_depths_and_odd_sizes(tmp_path: Path) -> None:
    deep = (np.arange(37 * 51).reshape(37, 51) * 30).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.tif")
    Image.fromarray((deep[:20, :9] // 300).astype(np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(
        InputError, match=r"a\.tif: uint16 values from 0 to 56580, expected grey levels 0 to 255; leave"
    ):
        ImagesDataModule(tmp_path, levels="exact").setup("predict")
    datamodule = ImagesDataModule(tmp_path)
    datamodule.setup("predict")
    images = [batch.images[0] for batch in datamodule.predict_dataloader()]
    assert [image.shape for image in images] == [(1, 37, 51), (1, 20, 9)]
    assert [float(image.float().mean()) for image in images] == [pytest.approx(128, abs=0.3)] * 2
    with pytest.raises(InputError, match=r"data\.levels: expected one of .*, got 'best'"):
        ImagesDataModule(tmp_path, levels="best").setup()


def test_the_shipped_config_of_images_builds(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "a.png")
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = hydra.compose("predict", [f"images={tmp_path}", "checkpoint=none", "data.levels=range", "output=out"])
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("predict")
    assert (datamodule.images, datamodule.settings["levels"]["levels"]) == (["a"], "range")


@pytest.mark.parametrize("transform", ["none", "light", "default"])
@pytest.mark.parametrize("cleaning", ["~cleaning", "cleaning=default"])
def test_the_shipped_configs_build(tiny_competition: Path, transform: str, cleaning: str) -> None:
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        chosen = [
            f"transform={transform}",
            cleaning,
            f"data.root={tiny_competition}",
            "data.num_workers=0",
        ]
        cfg = hydra.compose("train", [*chosen, "+transform.transforms.turn=null"] if transform == "none" else chosen)
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("fit")
    images = [image for batch in datamodule.train_dataloader() for image in batch.images]
    assert all(image.shape == (1, 384, 384) for image in images) == (transform == "default")
    assert len(images) >= len(datamodule.train_images)


def test_rows_that_repeat_another_are_warned_of(own_competition: Path) -> None:
    lines = (own_competition / "train.csv").read_text().splitlines()
    (own_competition / "train.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.warns(UserWarning, match=r"rows that repeat another one: 1 \(row 32 is row 2 again\)"):
        module_of(own_competition)
