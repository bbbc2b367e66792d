"""What a checkpoint may call, tried with all that it might want to."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn, optim

import sartorius
from sartorius.errors import InputError
from sartorius.inference.windows import FiveCrops, Whole
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.unet import UNet
from sartorius.structures import constructible
from sartorius.structures.constructible import build, check_calls
from tests.doubles import ToyModule

WHOLE = {"_target_": "sartorius.inference.windows.Whole"}


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "sartorius.postprocess.saved.to_file",  # writes any file
        "sartorius.postprocess.saved.read_file",
        "sartorius.rescoring.filter.FalsePositiveFilter",
        "sartorius.rescoring.filter.FalsePositiveFilter.save",
        "sartorius.files.write_text",
        "sartorius.tuning.checkpoint.store",
        "sartorius.networks.checkpoints.read_checkpoint",
        "sartorius.networks.weights.load_weights",
        "sartorius.networks.weight_files.read_weights",
        "sartorius.structures.safe_pickle.read_pickle",
        "sartorius.networks.backbones.get_model",  # downloads
        "sartorius.networks.encoders.timm",
        "sartorius.networks.encoders.timm.create_model",
        "sartorius.networks.encoders.Encoder",  # a protocol
        "sartorius.networks.encoders.TimmEncoder.forward",
        "sartorius.networks.encoders.TimmEncoder.__init__",
        "sartorius.networks.encoders.ANY_SIZE",
        "sartorius.networks.anchors.torch.os.system",  # a module holds what it imports
        "sartorius.networks.anchors.torch.hub.load",
        "sartorius.networks.mask_rcnn.nn.Linear",
        "sartorius.modules.base.SegmentationModule.load_from_checkpoint",
        "sartorius.modules.schedules._WithMomentum",
        "sartorius.structures.constructible.partial",
        "sartorius.train.main",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Linear",
        "torch.nn.Module.__class__",
        "torch.nn.modules.module.functools.partial",
        "torch.nn.utils.skip_init",
        "torch.optim.Optimizer",
        "torch.optim.swa_utils.update_bn",
        "timm.create_model",
        "hydra.utils.instantiate",
        "pathlib.Path",
        "",
        ".",
        "sartorius",
        "sartorius.",
        "sartorius.networks",
        "sartorius..networks.UNet",
        "sartorius.networks.unet.UNet\0",
        "sartorius.networks.unet .UNet",
        "sartorius/networks/unet.UNet",
        None,
        7,
        True,
        ["sartorius.networks.unet.UNet"],
        {"_target_": "sartorius.inference.windows.Whole"},
    ],
)
def test_nothing_but_marked_parts_is_called(target: Any) -> None:
    for config in (
        {"_target_": target},
        {"a": [[{"_target_": target, "_partial_": True}]]},
        {**WHOLE, "a": {"_target_": target}},
    ):
        for call in (check_calls, build):
            with pytest.raises(InputError, match=r"^a: (refused, it calls|there is no)"):
                call(config, "a")


def test_nothing_is_called_before_all_of_it_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        constructible, "_marked", {*constructible._marked, record := lambda **given: called.append(given)}
    )
    monkeypatch.setattr("sartorius.inference.windows.record", record, raising=False)
    marked = {"_target_": "sartorius.inference.windows.record"}
    with pytest.raises(InputError, match="it calls os.system"):
        build([marked, {"_target_": "os.system"}], "a")
    assert not called
    build([marked], "a")
    assert called == [{}]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ({"_args_": ["/etc/passwd"]}, "a model's config has no _args_"),
        ({"_recursive_": False}, "a model's config has no _recursive_"),
        ({"_convert_": "object"}, "a model's config has no _convert_"),
        ({"_execution_whitelist_": None}, "has no _execution_whitelist_"),
        ({"_partial_": "yes"}, "_partial_: expected true or false, got 'yes'"),
        ({"a": {"_partial_": True}}, "_partial_ without _target_"),
        ({"a": ["${oc.env:HOME}"]}, "is not a resolved value"),
        ({"a": {"b": "${oc.create:{_target_:os.system}}"}}, "is not a resolved value"),
        ({"a": 1e9}, "a=1000000000.0: expected at most 1000000"),
        ({"a": [-(10**7)]}, "a=-10000000: expected at most 1000000"),
        ({"a": float("nan")}, "a=nan: expected at most"),
        ({"a": float("inf")}, "a=inf: expected at most"),
        ({"a": {None: 1, (1,): 2}}, "a key None in its settings"),
        ({"a": {1, 2}}, "a set in its settings"),
        ({"a": print}, "a builtin_function_or_method in its settings"),
        ({"a": Path("x")}, "a PosixPath in its settings"),
        ({"a": b"x"}, "a bytes in its settings"),
    ],
)
def test_tricks_of_a_config_are_refused(extra: dict[Any, Any], problem: str) -> None:
    for call in (check_calls, build):
        with pytest.raises(InputError, match=f"^a: refused, .*{problem}"):
            call({**WHOLE, **extra}, "a")


def test_deep_and_repeated_lists_are_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    wide: Any = ["x"] * 10
    for _ in range(40):  # a pickle of 400 references, 10^40 values once it is walked
        wide = [wide] * 10
    own: list[Any] = []
    own.append(own)
    for node in (deep, wide[0][0][0], own):
        with pytest.raises(InputError, match="a: refused, more than .* (levels|values) of settings"):
            check_calls({**WHOLE, "a": node}, "a")


def test_a_config_is_built_as_hydra_would() -> None:
    layout = {"_target_": "sartorius.networks.cell_maps.MapLayout", "types": 3}
    encoder = {"_target_": "sartorius.networks.encoders.PlainEncoder", "filters": 4, "blocks": 2, "norm": "none"}
    config = {
        "network": {
            "_target_": "sartorius.networks.unet.UNet",
            "encoder": encoder,
            "outputs": layout,
            "channels": [8, 4],
            "norm": "none",
            "mean": None,
            "std": 1.0,
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5},
        "windows": [
            WHOLE,
            {"_target_": "sartorius.inference.windows.FiveCrops", "height": 64, "width": 48, "margin": 4, "batch": 1,
             "join_iou": 0.5},
        ],
        "seed": 2**40,
        "activation": {"_target_": "torch.nn.ReLU"},
    }  # fmt: skip
    built = build(config, "a")
    assert isinstance(built["network"], UNet) and built["network"].head.out_channels == MapLayout(3).channels
    assert built["windows"] == [Whole(), FiveCrops(height=64, width=48, margin=4, batch=1, join_iou=0.5)]
    assert isinstance(built["optimizer"], partial) and built["optimizer"].func is optim.AdamW
    assert built["optimizer"].keywords == {"lr": 0.5} and built["seed"] == 2**40
    assert isinstance(built["activation"], nn.ReLU)


def test_arguments_that_do_not_fit_are_one_line() -> None:
    for arguments in ({"filters": "x"}, {"filters": 4, "blocks": 2, "norm": "none", "path": "/etc"}, {}):
        config = {"_target_": "sartorius.networks.encoders.PlainEncoder", **arguments}
        with pytest.raises(InputError, match="^a: its metadata do not build a model: .*PlainEncoder"):
            build(config, "a")


def test_a_class_outside_the_package_is_known_once_it_is_imported() -> None:
    check_calls({"_target_": f"{ToyModule.__module__}.ToyModule"}, "a")
    with pytest.raises(InputError, match="it calls tests.networks.detectron2_reference"):
        check_calls({"_target_": "tests.networks.detectron2_reference.x"}, "a")


def test_what_is_marked_takes_no_path() -> None:
    for module in pkgutil.walk_packages(sartorius.__path__, "sartorius."):
        if not module.name.startswith(("sartorius.sweeps", "sartorius.napari_plugin")):  # what they need may be absent
            importlib.import_module(module.name)
    marked = {part.__qualname__: part for part in constructible._marked if part.__module__.startswith("sartorius.")}
    assert {"MaskRCNNModule", "UNet", "mask_rcnn", "one_cycle", "Watershed", "Tiles", "TimmEncoder"} < {*marked}
    arguments = {name for part in marked.values() for name in inspect.signature(part).parameters}
    assert not arguments & {"path", "file", "folder", "output", "checkpoint", "root", "url", "cache_dir"}, "of files"
    assert not {"FalsePositiveFilter", "to_file", "Postprocess"} & {*marked}
