"""Several models as one: the detections of `predict` with each, and `ensemble`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sartorius
from sartorius import ensemble, predict
from sartorius.errors import InputError
from sartorius.inference.tta import Augmented
from sartorius.inference.windows import Tiles, Whole
from sartorius.networks.checkpoints import KEY, read_checkpoint
from sartorius.running import building, exporting, loading, wiring
from sartorius.structures.detections import Detections, DetectionsFolder
from tests.bright_unet import blobs, write_checkpoint
from tests.doubles import toy_config
from tests.exports.exporting import SMALL, edit, write_bundle
from tests.rescoring.size_filter import larger_than
from tests.test_views_of_models import MODELS

CPU: dict[str, Any] = {"device": "cpu"}
ARRAYS = ("boxes", "scores", "cell_types", "masks", "agreement")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two U-Nets that differ in their thresholds, decoder and windows, a crop segmenter, and three images."""
    path = tmp_path_factory.mktemp("members")
    write_checkpoint(path / "a.ckpt")
    state = torch.load(path / "a.ckpt", weights_only=True)
    state["state_dict"]["network.kernel"] = state["state_dict"]["network.kernel"].roll(1, 2) * 1.1
    model, post = state[KEY]["model"], state[KEY]["postprocess"]
    state[KEY]["model"] = {**model, "mask_size": 40, "inference": None}
    state[KEY]["postprocess"] = {**post, "mask": {**post["mask"], "threshold": 0.45}}
    torch.save(state, path / "b.ckpt")
    torch.manual_seed(0)
    crops = building.build_module(wiring.compose("train", MODELS["crops"]), pretrained=False)
    torch.save({"state_dict": crops.state_dict(), KEY: dict(crops.hparams)}, path / "crops.ckpt")
    (path / "images").mkdir()
    for number, (height, width) in enumerate([(120, 150), (97, 64), (30, 30)]):
        Image.fromarray(blobs(height, width, number)).save(path / "images" / f"{number}.png")
    return path


def run_predict(folder: Path, output: Path, *options: str) -> DetectionsFolder:
    fixed = [f"images={folder / 'images'}", f"output={output}", "trainer.accelerator=cpu", "data.num_workers=0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Lightning: few workers
        predict.main(wiring.compose("predict", [*fixed, "write=[]", *options]))
    return DetectionsFolder(output / "detections")


def same(ours: DetectionsFolder, theirs: DetectionsFolder) -> int:
    assert ours.image_ids() == theirs.image_ids() == ["0", "1", "2"]
    for one, other in zip(ours, theirs, strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(vars(one)[name], vars(other)[name], err_msg=name)
        assert one.cell_type_names == other.cell_type_names
    return sum(len(one) for one in ours)


def members(folder: Path, **more: str) -> str:
    return f"model.members={{a: {folder / 'a.ckpt'}, b: {folder / 'b.ckpt'}}}"


FUSIONS = [
    ([], []),
    (["fusion@model.method=vote", "model.member_weights=[1,0.5]"], ["fusion=vote", "weights=[1,0.5]"]),
    (["fusion@model.method=nms", "model.calibrate=false", "model.min_score=0.6"],
     ["fusion=nms", "calibrate=false", "min_score=0.6"]),
    (["model.image_type=majority", "model.member_weights={b: {astro: 2, default: 0.1}}"],
     ["image_type=majority", "weights={b: {astro: 2, default: 0.1}}"]),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), FUSIONS, ids=["wbf", "vote", "nms", "majority"])
def test_the_detections_are_the_ensemble_s(folder: Path, tmp_path: Path, ours: list[str], theirs: list[str]) -> None:
    for name in "ab":
        run_predict(folder, tmp_path / name, f"checkpoint={folder / name}.ckpt", "tta=flips")
    listed = f"members={{a: {tmp_path / 'a/detections'}, b: {tmp_path / 'b/detections'}}}"
    ensemble.main(wiring.compose("ensemble", [listed, f"output={tmp_path / 'joined'}", *theirs]))
    joined = DetectionsFolder(tmp_path / "joined" / "detections")
    bundle = write_bundle(tmp_path / "m.zip", None, "model=joined", members(folder), "tta=flips", *ours)
    found = run_predict(folder, tmp_path / "found", f"checkpoint={bundle}")
    assert same(found, joined) > 20
    assert found.meta["postprocess"] == joined.meta["postprocess"]
    assert exporting.validate(str(bundle)).endswith("each pixel as expected")


def test_without_a_bundle_and_at_another_scale(folder: Path, tmp_path: Path) -> None:
    for name in "ab":
        run_predict(folder, tmp_path / name, f"checkpoint={folder / name}.ckpt", "scale=1.5")
    listed = f"members=[{tmp_path / 'a/detections'},{tmp_path / 'b/detections'}]"
    ensemble.main(wiring.compose("ensemble", [listed, f"output={tmp_path / 'joined'}"]))
    found = run_predict(folder, tmp_path / "found", "model=joined", members(folder), "scale=1.5")
    assert same(found, DetectionsFolder(tmp_path / "joined" / "detections")) > 20
    assert found.meta["checkpoint"] == f"{folder / 'a.ckpt'} + {folder / 'b.ckpt'}"


def test_two_stages_whose_first_are_several(folder: Path, tmp_path: Path) -> None:
    """Down to the detections of `predict` by each, `ensemble`, and `predict` by the second stage."""
    joined = write_bundle(tmp_path / "joined.zip", None, "model=joined", members(folder))
    crops = write_bundle(tmp_path / "crops.zip", folder / "crops.ckpt")
    with pytest.raises(InputError, match=r"crops\.zip: holds no example, a crop segmenter finds"):
        exporting.validate(str(crops))
    stages = ["model=two_stage", f"model.first={joined}", f"model.second={crops}"]
    both = write_bundle(tmp_path / "both.zip", None, *stages, "weights=float32")
    found = run_predict(folder, tmp_path / "found", f"checkpoint={both}")
    first = run_predict(folder, tmp_path / "first", f"checkpoint={joined}")
    by_hand = run_predict(folder, tmp_path / "by_hand", "model=two_stage", f"model.first={first.folder}",
                          f"model.second={folder / 'crops.ckpt'}")  # fmt: skip
    assert same(found, by_hand) > 20 and found.meta["mask_size"] == 56
    model = sartorius.load(both, **CPU)
    assert model.card is not None
    assert model.card["networks"] == ["a: Brightness", "b: Brightness", "second: CropNetwork (resnet10t)"]
    with pytest.raises(InputError, match=r"model\.first=.*: a folder of detections; an export holds the model itself"):
        write_bundle(
            tmp_path / "c.zip", None, "model=two_stage", f"model.first={first.folder}", f"model.second={crops}"
        )
    with pytest.raises(InputError, match=r"crops\.ckpt is a crop segmenter; give it as model\.second="):
        listed = f"model.members=[{folder / 'a.ckpt'},{folder / 'crops.ckpt'}]"
        write_bundle(tmp_path / "c.zip", None, "model=joined", listed)


def test_windows_and_views_of_every_member(folder: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m.zip", None, "model=joined", members(folder), "tta=flips")

    def windows(*options: str) -> list[Any]:
        return [member.inference for member in sartorius.load(bundle, *options, **CPU).module.members]  # type: ignore

    views = windows()
    assert all(isinstance(one, Augmented) and len(one.views) == 4 for one in views)
    assert [type(one.windows) for one in views] == [Tiles, Whole], "each member's own"
    assert [type(one) for one in windows("tta=none")] == [Tiles, Whole]
    assert [len(one.views) for one in windows("tta=d4")] == [8, 8]
    assert [type(one.windows) for one in windows("inference=whole")] == [Whole, Whole]


def test_a_filter_of_a_member_is_left_out_and_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger_than(10**6).save(tmp_path / "none.npz")
    one = write_bundle(tmp_path / "one.zip", folder / "a.ckpt", f"filter={tmp_path / 'none.npz'}")
    assert len(sartorius.load(one, **CPU)(SMALL)) == 0
    listed = f"model.members={{a: {one}, b: {folder / 'b.ckpt'}}}"
    with caplog.at_level("WARNING"):
        model = sartorius.load(None, "model=joined", listed, **CPU)
    assert len(model(SMALL)) > 5 and "one.zip: its filter is of its own cells" in caplog.text


def test_a_filter_of_a_stage_is_left_out_and_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger_than(10**6).save(tmp_path / "none.npz")
    one = write_bundle(tmp_path / "one.zip", folder / "a.ckpt", f"filter={tmp_path / 'none.npz'}")
    found = run_predict(folder, tmp_path / "first", f"checkpoint={one}").folder
    for first in (one, found):
        caplog.clear()
        stages = ["model=two_stage", f"model.first={first}", f"model.second={folder / 'crops.ckpt'}"]
        with caplog.at_level("WARNING"):
            both = run_predict(folder, tmp_path / f"of_{first.name}", *stages)
        assert f"{first}: its filter is of its own cells, and is left out of the two-stage model" in caplog.text
        assert both.meta["filter"] is None


def test_members_that_cannot_be_joined(folder: Path, tmp_path: Path) -> None:
    def changed(name: str, **changes: Any) -> Path:
        state = torch.load(folder / "a.ckpt", weights_only=True)
        torch.save({**state, KEY: {**state[KEY], **changes}}, tmp_path / name)
        return tmp_path / name

    def load(*files: Path, options: tuple[str, ...] = ()) -> None:
        sartorius.load(None, "model=joined", f"model.members=[{','.join(map(str, files))}]", *options, **CPU)

    first = folder / "a.ckpt"
    with pytest.raises(InputError, match=r"trained on different pixel sizes \(0: None, 1: 0.65\); predict with each"):
        load(first, changed("b.ckpt", pixel_size=0.65))
    network = {**read_checkpoint(first)[KEY]["model"]["network"], "mean": 100.0, "std": 20.0}
    model = {**read_checkpoint(first)[KEY]["model"], "network": network}
    with pytest.raises(InputError, match="do not build a model"):
        load(first, changed("b.ckpt", model=model))  # Brightness takes no mean
    with pytest.raises(InputError, match=r"model\.member_weights: 1 for 2 members"):
        load(first, folder / "b.ckpt", options=("model.member_weights=[1]",))
    with pytest.raises(InputError, match=r"model\.member_weights: no member is called c"):
        load(first, folder / "b.ckpt", options=("model.member_weights={c: 1}",))
    with pytest.raises(InputError, match="give either checkpoint="):
        sartorius.load(None, "model=joined", **CPU)
    with pytest.raises(InputError, match="give either checkpoint="):
        sartorius.load(first, "model=joined", f"model.members=[{first}]", **CPU)
    with pytest.raises(InputError, match="a joined model is put together for predict and export"):
        building.build_module(wiring.compose("train", ["model=joined"]))


def test_members_of_other_grey_levels(tmp_path: Path) -> None:
    files = []
    for mean in (128.0, 90.0):
        torch.manual_seed(0)
        cfg = wiring.compose("train", [*MODELS["unet"], f"model.network.mean={mean}"])
        module = building.build_module(cfg, pretrained=False)
        torch.save({"state_dict": module.state_dict(), KEY: dict(module.hparams)}, tmp_path / f"{mean}.ckpt")
        files.append(str(tmp_path / f"{mean}.ckpt"))
    with pytest.raises(InputError, match=r"different grey levels \(0: mean 128, deviation 11.58, 1: mean 90"):
        sartorius.load(None, "model=joined", f"model.members=[{','.join(files)}]", **CPU)


def test_a_bundle_of_several_is_no_start_of_a_training_and_hostile_ones_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "m.zip", None, "model=joined", members(folder))
    with pytest.raises(InputError, match=r"m\.zip: holds several models \(members\); give the checkpoint or bundle of"):
        building.build_module(wiring.compose("train", [*MODELS["unet"], f"model.weights={bundle}"]))

    def refuse(match: str, **changes: Any) -> None:
        path = edit(bundle, tmp_path / "b.zip", lambda m: m["metadata"]["model"].update(changes))
        with pytest.raises(InputError, match=match):
            loading.load_module(path)

    refuse("a joined model is put together", members={})
    refuse(r"model\.members\.x: a str, expected a model", members={"x": "os.system"})
    refuse("expected a weight and a mask threshold for each of 3", member_weights={"a": [1], "b": [1, 1, 1]})
    refuse("member_weights.*: expected a number", member_weights={"a": [-1, 1, 1], "b": [1, 1, 1]})
    refuse("refused, it calls os.system", method={"_target_": "os.system", "command": "true"})
    refuse("image_type: expected one of", image_type="any")


def test_members_that_find_nothing_and_other_types(tmp_path: Path) -> None:
    """Toys find one box; a member with a type less, in another order."""
    for name, types in (("a", ("shsy5y", "astro", "cort")), ("b", ("cort", "shsy5y"))):
        module: Any = building.build_module(toy_config(cell_type_names=list(types)))
        torch.save({"state_dict": module.state_dict(), KEY: dict(module.hparams)}, tmp_path / f"{name}.ckpt")
    listed = f"model.members={{a: {tmp_path / 'a.ckpt'}, b: {tmp_path / 'b.ckpt'}}}"
    module = sartorius.load(None, "model=joined", listed, **CPU).module
    assert module.cell_type_names == ("shsy5y", "astro", "cort") and json.dumps(module.hparams["model"])
    assert module.weights[1].tolist() == [1, 0, 1]
    from tests.modules.test_two_stage import batch

    with torch.inference_mode():
        (found,) = module.predict_step(batch("a"), 0)
    assert len(found) == 1 and found.cell_types.tolist() == [0] and found.agreement is not None
    for member in module.members:
        member.detect = lambda batch: [Detections.empty("a", 60, 80, 4, ("cort",)) for _ in batch.images]
    (found,) = module.predict_step(batch("a"), 0)
    assert len(found) == 0 and found.agreement is not None and found.cell_type_names == module.cell_type_names
    with pytest.raises(InputError, match="a ToyModule takes whole images only"):
        module.change_windows(lambda windows: windows)
    with pytest.raises(InputError, match="tta= is for a network"):
        sartorius.load(None, "model=joined", listed, "tta=flips", **CPU)


def test_a_stopped_prediction_is_continued_with_the_same_names_only(folder: Path, tmp_path: Path) -> None:
    def command(first: str, second: str) -> tuple[str, ...]:
        listed = f"model.members={{{first}: {folder / 'a.ckpt'}, {second}: {folder / 'b.ckpt'}}}"
        return "model=joined", listed, "model.member_weights={a: 2}"

    found = run_predict(folder, tmp_path / "out", *command("a", "b")).folder
    before = {path.name: path.read_bytes() for path in found.glob("*.npz")}
    (found / "1.npz").unlink()
    with pytest.raises(InputError, match="detections: was predicted with another checkpoint; give another"):
        run_predict(folder, tmp_path / "out", *command("b", "a"))
    assert not (found / "1.npz").exists()
    run_predict(folder, tmp_path / "out", *command("a", "b"))
    assert {path.name: path.read_bytes() for path in found.glob("*.npz")} == before


def test_a_single_view_is_seen_through_the_windows_of_each_member(folder: Path, tmp_path: Path) -> None:
    """Which the members do not share: `Tiles` and `Whole`."""
    both, view = ["model=joined", members(folder)], ["tta=flips", "tta.symmetries=[up_down]"]
    joined = run_predict(folder, tmp_path / "one", *both, *view)
    run_predict(folder, tmp_path / "apart", *both, *view, "tta.fuse=null")
    apart = DetectionsFolder(tmp_path / "apart" / "detections_up_down")
    assert same(apart, joined) > 20 and apart.meta["export_settings"] == joined.meta["export_settings"]
    module = sartorius.load(None, *both, **CPU).module
    from sartorius.predict import predict as predict_views
    from sartorius.running.predicting import Prediction

    given = Augmented(symmetries=["up_down"], scales=[1.0], fuse=None, windows=Whole())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sartorius.predict.run_left", lambda *_: None)
        predict_views(module, None, [Prediction(tmp_path, None, given)])  # type: ignore[arg-type]
    found = [member.inference for member in module.members]  # type: ignore[union-attr]
    assert [type(one.windows) for one in found] == [Tiles, Whole]  # type: ignore[union-attr]
    assert all(one.symmetries == ["up_down"] for one in found)  # type: ignore[union-attr]


def test_the_views_that_were_used_are_recorded(folder: Path, tmp_path: Path) -> None:
    a, b = folder / "a.ckpt", folder / "b.ckpt"
    bundle = write_bundle(tmp_path / "m.zip", a, "tta=flips")
    plain = run_predict(folder, tmp_path / "plain", f"checkpoint={a}", "tta=none")
    assert plain.meta["tta"] is None
    run_predict(folder, tmp_path / "plain", f"checkpoint={a}")  # the same: it is continued
    baked = run_predict(folder, tmp_path / "baked", f"checkpoint={bundle}")
    assert baked.meta["tta"]["symmetries"] == ["none", "left_right", "up_down", "turn_180"]
    run_predict(folder, tmp_path / "baked", f"checkpoint={bundle}", "tta=flips")
    with pytest.raises(InputError, match="was predicted with another tta; give another output="):
        run_predict(folder, tmp_path / "baked", f"checkpoint={bundle}", "tta=none")
    with pytest.raises(InputError, match="was predicted with another tta; give another output="):
        run_predict(folder, tmp_path / "baked", f"checkpoint={bundle}", "views=2")
    with pytest.raises(InputError, match="was predicted with another inference; give another output="):
        run_predict(folder, tmp_path / "baked", f"checkpoint={bundle}", "inference=whole")
    mixed = run_predict(folder, tmp_path / "mixed", "model=joined", f"model.members=[{bundle},{b}]")
    assert [views and len(views["symmetries"]) for views in mixed.meta["tta"]] == [4, None]
