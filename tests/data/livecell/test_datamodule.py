"""The data module of LIVECell: which images, and that loaders are those of every other data module."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import hydra
import pytest

from sartorius.data.augmentation.layers import CellCrop, LayerTransform
from sartorius.data.livecell.datamodule import LiveCellDataModule, evenly
from sartorius.data.livecell.folder import CELL_LINES, field_of
from sartorius.errors import InputError
from sartorius.running import wiring
from tests.data.livecell.livecell_folder import HEIGHT, NAMES, WIDTH, edit, write_livecell


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_livecell(tmp_path_factory.mktemp("live") / "livecell")


def module_of(root: Path, stage: str | None = None, **options: Any) -> LiveCellDataModule:
    datamodule = LiveCellDataModule(root, **options)
    datamodule.setup(stage)
    return datamodule


def test_published_splits(root: Path) -> None:
    datamodule = module_of(root, batch_size=2, train_repeats=2, train_transform=LayerTransform(crop=CellCrop(16, 16)))
    assert datamodule.train_images == sorted(NAMES["train"])
    assert datamodule.cell_type_names == CELL_LINES
    batches = list(datamodule.train_dataloader())
    assert sum(len(batch) for batch in batches) == 2 * 8
    assert batches[0].images[0].shape == (1, 16, 16)
    for loader, split in ((datamodule.val_dataloader(), "val"), (datamodule.test_dataloader(), "test")):
        assert [batch.targets[0].image_id for batch in loader] == getattr(datamodule, f"{split}_images")
        assert [batch.images[0].shape for batch in loader] == [(1, HEIGHT, WIDTH)] * 2
    target = next(iter(datamodule.test_dataloader())).targets[0]
    assert (target.image_id, target.cell_type, len(target)) == (NAMES["test"][0], "BV2", 0)
    assert [batch.targets[0].image_id for batch in datamodule.predict_dataloader()] == datamodule.val_images


def test_each_stage_reads_what_it_needs(tmp_path: Path) -> None:
    root = write_livecell(tmp_path)
    (root / "livecell_coco_test.json").unlink()
    datamodule = module_of(root, "fit")
    assert datamodule.test_images == []
    with pytest.raises(RuntimeError, match=r"call setup\(\)"):
        datamodule.test_dataloader()
    with pytest.raises(InputError, match=r"no livecell_coco_test\.json"):
        datamodule.setup("test")
    write_livecell(root)
    (root / "livecell_coco_train.json").unlink()
    only_test = module_of(root, "test")
    assert only_test.test_images == sorted(NAMES["test"])
    with pytest.raises(InputError, match=r"no livecell_coco_train\.json"):
        only_test.setup("fit")


def test_damage_is_said_before_training(tmp_path: Path) -> None:
    root = write_livecell(tmp_path)
    edit(root, lambda content: content["annotations"][9].update(segmentation=[[1, 1, 5]]))
    with pytest.raises(InputError, match=r"annotation 10 of image .*a polygon of 3 coordinates"):
        module_of(root, "fit")


def test_shared_fields_are_left_out_whatever_the_limits(root: Path) -> None:
    kept = module_of(root, "fit", drop_shared=True, limits={"val": 1}).train_images
    assert sorted(NAMES["train"])[1:] == kept  # A172_Phase_A1_1_00d00h00m_1 is of the field of a validation image
    assert not {field_of(p) for p in kept} & {field_of(p) for split in ("val", "test") for p in NAMES[split]}


def test_nothing_left_without_shared_fields(tmp_path: Path) -> None:
    root = write_livecell(tmp_path)
    (root / "livecell_coco_val.json").write_text((root / "livecell_coco_train.json").read_text())
    with pytest.raises(InputError, match=r"drop_shared=true: every field of view of .*train\.json is also"):
        module_of(root, "fit", drop_shared=True)


def test_limits(root: Path) -> None:
    datamodule = module_of(root, limits={"train": 4, "val": 1, "test": None})
    assert Counter(p.split("_")[0] for p in datamodule.train_images) == {"A172": 2, "BV2": 2}
    assert (len(datamodule.val_images), len(datamodule.test_images)) == (1, 2)
    assert set(module_of(root, limits={"train": 2}).train_images) < set(datamodule.train_images)
    assert module_of(root, limits={"train": 4}, seed=5).train_images == datamodule.train_images
    chosen = {tuple(module_of(root, "fit", limits={"train": 4}, limit_seed=seed).train_images) for seed in range(5)}
    assert len(chosen) > 1
    assert module_of(root, limits={"train": 1000}).train_images == sorted(NAMES["train"])


def test_evenly_over_lines() -> None:
    lines = ["a"] * 50 + ["b"] * 3 + ["c"] * 20
    ids = [f"{line}{k:02d}" for k, line in enumerate(lines)]
    for limit, counts in ((9, (3, 3, 3)), (10, None), (23, (10, 3, 10)), (60, (37, 3, 20)), (100, (50, 3, 20))):
        chosen = evenly(ids, lines, limit, 0)
        assert chosen == sorted(set(chosen))
        found = Counter(p[0] for p in chosen)
        assert sum(found.values()) == min(limit, len(ids))
        if counts is not None:
            assert tuple(found[line] for line in "abc") == counts
    assert evenly(ids, lines, None, 0) == sorted(ids)
    assert evenly(ids[::-1], lines[::-1], 17, 3) == evenly(ids, lines, 17, 3)
    fewer = [(p, line) for p, line in zip(ids, lines, strict=True) if p not in evenly(ids, lines, 3, 3)]
    assert set(evenly(*zip(*fewer, strict=True), 14, 3)) == set(evenly(ids, lines, 17, 3)) - set(
        evenly(ids, lines, 3, 3)
    )
    assert evenly([], [], 5, 0) == []


BAD = {
    "fold": ({"fold": 0}, r"data\.fold=0: LIVECell comes in published splits"),
    "limit": ({"limits": {"train": 0}}, r"data\.limits\.train=0: expected at least 1"),
    "limits": ({"limits": {"dev": 3}}, r"data\.limits names split dev"),
    "batch": ({"batch_size": 50, "drop_last": True}, "do not fill one batch of 50"),
    "lines": ({"cell_type_names": ["A172", "BV2"], "limits": {}}, r"SKOV3.*is of no known cell line"),
    "image_id": ({"images": ["ghost"]}, "no image 'ghost'"),
    "images": ({"images": 8}, r"data\.images=8: .*train\.json has 7 training images with cells"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_named(root: Path, name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        module_of(root, **options)


def test_overfitting_on_chosen_images(root: Path) -> None:
    with pytest.warns(UserWarning, match="scores mean memory"):
        datamodule = module_of(root, images=2)
    assert datamodule.train_images == datamodule.val_images == sorted(NAMES["train"])[1:3]  # the first has no cells
    with pytest.warns(UserWarning, match="scores mean memory"):
        assert module_of(root, images=NAMES["train"][:1]).val_images == NAMES["train"][:1]


@pytest.mark.parametrize("data", ["livecell", "synthetic_livecell"])
def test_the_shipped_configs_build(root: Path, data: str) -> None:
    with hydra.initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = hydra.compose(
            "train", [f"data={data}", f"data.root={root}", "data.num_workers=0", "data.drop_shared=true"]
        )
        overfit = hydra.compose("train", [f"data={data}", f"data.root={root}", "debug=overfit"])
    assert cfg.data.name == data
    assert cfg.model.cell_type_names == list(CELL_LINES)
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup()
    assert (len(datamodule.train_images), len(datamodule.val_images), len(datamodule.test_images)) == (7, 2, 2)
    assert next(iter(datamodule.train_dataloader())).images[0].shape == (1, 384, 384)
    with pytest.warns(UserWarning, match="scores mean memory"):
        wiring.instantiate(overfit.data).setup("fit")
