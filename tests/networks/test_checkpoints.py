from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from sartorius.errors import InputError
from sartorius.inference.windows import Tiles, Whole
from sartorius.networks import checkpoints
from sartorius.running import building, loading, wiring
from sartorius.structures.constructible import check_calls, constructible
from tests.doubles import ToyModule, toy_config


def save(path: Path, **changes: Any) -> Path:
    module = building.build_module(toy_config())
    torch.save({"state_dict": module.state_dict(), "epoch": 3, checkpoints.KEY: {**module.hparams, **changes}}, path)
    return path


def test_a_module_comes_back_with_its_weights(tmp_path: Path) -> None:
    module = building.build_module(toy_config())
    module.level.data[:] = 4.0
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "a.ckpt")
    loaded = loading.load_module(tmp_path / "a.ckpt")
    assert isinstance(loaded, ToyModule)
    assert loaded.level.item() == 4.0
    assert not loaded.training
    assert loaded.hparams == module.hparams


@constructible
class Windowed(ToyModule):
    """A module that predicts through windows."""

    def __init__(self, inference: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.inference = inference or Whole()


@pytest.mark.parametrize("before", [{}, {"inference": {"_target_": "sartorius.inference.windows.Whole"}}])
def test_windows_of_a_checkpoint_can_be_replaced(before: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", model={"_target_": f"{__name__}.Windowed", **before})
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        saved, tiles = (compose("predict", [f"inference={name}"]).inference for name in ("saved", "tiles"))
    for unchanged in (None, saved):
        module = loading.load_module(path, unchanged)
        assert module.inference == Whole()
        assert module.hparams["model"] == {"_target_": f"{__name__}.Windowed", **before}
    module = loading.load_module(path, tiles)
    assert module.inference == Tiles(256, 64, margin=16, batch=4, join_iou=0.5)
    assert module.hparams["model"]["inference"] == wiring.plain(tiles)


def test_windows_for_a_module_that_takes_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.ckpt: a ToyModule takes whole images only; leave out inference="):
        loading.load_module(save(tmp_path / "a.ckpt"), {"_target_": "sartorius.inference.windows.Whole"})


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.ckpt: no such checkpoint"):
        checkpoints.read_checkpoint(tmp_path / "no.ckpt")
    for content in (b"", b"hello", b"PK\x03\x04half a zip"):
        (tmp_path / "text.ckpt").write_bytes(content)
        with pytest.raises(InputError, match=r"text\.ckpt: not a checkpoint"):
            checkpoints.read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of sartorius"):
        checkpoints.read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="format version 99"):
        checkpoints.read_checkpoint(save(tmp_path / "new.ckpt", format_version=99))
    torch.save({"state_dict": {}, "sartorius": {"format_version": 1}}, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match=r"old\.ckpt: format version 1, this program reads 2; train it again"):
        checkpoints.read_checkpoint(tmp_path / "old.ckpt")


def test_a_checkpoint_cannot_call_what_it_likes(tmp_path: Path) -> None:
    for model in (
        {"_target_": "os.system", "command": "true"},
        {
            "_target_": "sartorius.modules.mask_rcnn.MaskRCNNModule",
            "network": {"deep": [{"_target_": "torch.hub.load"}]},
        },
    ):
        with pytest.raises(InputError, match="a.ckpt: refused, it calls (os.system|torch.hub.load)"):
            loading.load_module(save(tmp_path / "a.ckpt", model=model))


@pytest.mark.parametrize("experiment", ["maskrcnn_r50", "demo"])
@pytest.mark.parametrize("choice", ["optimizer=sgd", "scheduler=warmup_steps", "model=maskrcnn_r50"])
def test_the_shipped_models_are_trusted(experiment: str, choice: str) -> None:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        model = compose("train", [f"experiment={experiment}", choice]).model
    check_calls(wiring.plain(model), "model")


def test_a_part_of_a_larger_encoder_is_read_again(tmp_path: Path) -> None:
    """Of the ResNet-18 that timm builds a fraction is kept."""
    module = building.build_module(wiring.compose("train", ["experiment=demo", "model.network.channels=[4,4]"]))
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "a.ckpt")
    assert type(loading.load_module(tmp_path / "a.ckpt")) is type(module)


@pytest.mark.parametrize("choice", ["whole", "tiles", "five_crops"])
def test_the_shipped_windows_are_trusted(choice: str) -> None:
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        windows = compose("predict", [f"inference={choice}"]).inference
    check_calls({"_target_": "torch.nn.Identity", "inference": wiring.plain(windows)}, "model")


@pytest.mark.parametrize("changes", [{"model": [1]}, {"config": "x"}, {"cell_types": 3}, {"trained_on": [1]},
                                     {"images": {"a": 1}}, {"postprocess": [1]}, {"data": 1}, {"pixel_size": 0},
                                     {"pixel_size": "a"}])  # fmt: skip
def test_metadata_of_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"a.ckpt: .*'{next(iter(changes))}' of its metadata is another kind of value"):
        checkpoints.read_checkpoint(save(tmp_path / "a.ckpt", **changes))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    whole = {"_target_": "sartorius.inference.windows.Whole"}
    for model, kind in (({}, "dict"), (whole, "Whole")):
        with pytest.raises(InputError, match=f"a.ckpt: refused, its metadata describe a {kind}, which is no model"):
            loading.load_module(save(tmp_path / "a.ckpt", model=model))


def test_pretrained_weights_of_the_metadata_are_not_fetched() -> None:
    model = {"_target_": "tests.doubles.ToyModule", "weights": "coco", "a": [{"weights": "x"}]}
    assert checkpoints.without_weights(model) == {**model, "weights": None, "a": [{"weights": None}]}


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    changed = {"_target_": "tests.doubles.ToyModule", "width": 3}
    with pytest.raises(InputError, match="the weights do not fit"):
        loading.load_module(save(tmp_path / "a.ckpt", model=changed))


def test_the_pixel_size_of_the_training_is_kept() -> None:
    cfg = toy_config()
    assert building.build_module(cfg).hparams["pixel_size"] is None
    cfg.data.pixel_size = 0.65
    assert building.build_module(cfg).hparams["pixel_size"] == 0.65
