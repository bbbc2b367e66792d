"""Where the weights of a module come from: loaded, noted in the metadata, refused after held back images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sartorius.data.provenance import KEY
from sartorius.errors import InputError
from sartorius.modules.unet import UNetModule
from sartorius.networks import checkpoints
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Components
from tests.doubles import Split

LINES = ("A172", "SHSY5Y", "BV2", "SkBr3")


def module(types: tuple[str, ...] = ("shsy5y", "astro", "cort"), maps: bool = True, **options: Any) -> UNetModule:
    layout = MapLayout(types=len(types) if maps else 0, border=2)
    network = UNet(PlainEncoder(4, 1, "none"), layout, channels=[4], norm="none", mean=128, std=11.58)
    decoder = Components(threshold=0.5, min_area=1)
    return UNetModule(network, layout, decoder, torch.optim.AdamW, cell_type_names=types, **options)


def saved(path: Path, source: UNetModule, **note: Any) -> str:
    metadata = {"format_version": checkpoints.FORMAT_VERSION, "cell_types": list(source.cell_type_names), **note}
    torch.save({"state_dict": source.state_dict(), checkpoints.KEY: metadata}, path)
    return str(path)


def fit_on(started: UNetModule, train: list[str], val: list[str]) -> None:
    """What Lightning does before a fit."""
    started.trainer = SimpleNamespace(datamodule=Split(train, val))  # type: ignore[assignment]
    started.setup("fit")


def test_a_unet_starts_from_one_of_other_cell_types(tmp_path: Path) -> None:
    source = module(LINES)
    path = saved(tmp_path / "a.ckpt", source, **{KEY: {}})
    started = module(weights=path, class_mapping={"shsy5y": "SHSY5Y"})
    assert started.started_from is not None
    assert started.started_from.missing == started.started_from.reshaped == ()
    theirs, ours = source.network.head.bias, started.network.head.bias
    assert torch.equal(ours[:3], theirs[:3])  # foreground, border, centre
    assert ours[3] == theirs[3 + 1]
    torch.testing.assert_close(ours[4:], theirs[3:].mean().repeat(2))
    plain = module(maps=False, weights=saved(tmp_path / "b.ckpt", module(LINES, maps=False), **{KEY: {}}))
    assert plain.started_from is not None and plain.started_from.reshaped == ()


def test_the_metadata_note_all_images_and_a_resumed_run_keeps_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ckpt", module(LINES), **{KEY: {"x": "field"}})
    started = module(weights=path)
    fit_on(started, ["a", "b"], ["c"])
    assert started.hparams[KEY] == {"x": "field", "a": "a", "b": "b"}
    checkpoint = {checkpoints.KEY: dict(started.hparams)}
    resumed = module()  # a resumed run loads no pretrained weights
    fit_on(resumed, ["a", "b"], ["c"])
    assert resumed.hparams[KEY] == {"a": "a", "b": "b"}
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.hparams[KEY] == {"x": "field", "a": "a", "b": "b"}
    resumed.on_load_checkpoint({})


def test_weights_that_have_seen_validation_images_are_refused(tmp_path: Path) -> None:
    started = module(weights=saved(tmp_path / "a.ckpt", module(), **{KEY: {"c": "c", "x": "x"}}))
    with pytest.raises(InputError, match=r"a\.ckpt: was trained on 1 of the 2 validation images"):
        fit_on(started, ["a"], ["c", "d"])
    with pytest.raises(InputError, match="does not say which images it was trained on"):
        fit_on(module(weights=saved(tmp_path / "b.ckpt", module())), ["a"], ["c"])


def test_a_detector_is_no_unet(tmp_path: Path) -> None:
    torch.save({"backbone.body.conv1.weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="none of its 1 tensors has a name and shape of this model"):
        module(weights=str(tmp_path / "a.pth"))
    with pytest.raises(InputError, match=r"model\.weights=coco: torchvision has none for this model"):
        module(weights="coco")
