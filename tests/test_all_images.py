"""A training on all labelled images (`data.fold=all`), from the command line to a submission, and what it refuses."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from sartorius import evaluate, report
from sartorius.errors import InputError
from sartorius.networks.checkpoints import KEY
from sartorius.running import loading, wiring
from sartorius.structures.detections import DetectionsFolder
from sartorius.train import main
from tests.data import pseudo_folder
from tests.distributed.test_commands import TWO, UNET, run

TINY = [
    *(option for option in UNET if "early_stopping" not in option), "data.batch_size=4", "data.train_repeats=2",
    "averaging=ema", "trainer.max_epochs=2", "data.fold=all",
]  # fmt: skip
CROPS = [
    "experiment=cropseg_cpu", "model.network.body.encoder.name=resnet10t", "model.network.body.encoder.levels=3",
    "model.network.body.encoder.weights=none", "model.network.size=32", "trainer.precision=32-true",
    "trainer.max_epochs=1", "data.fold=all",
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_a_person_calls_it() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty.*")
        yield
    HydraConfig.instance().cfg = None


def config(root: Path, folder: Path, *overrides: str, command: str = "train") -> DictConfig:
    places = [f"run_dir={folder}", f"leaderboard={folder.parent / 'board.csv'}"] if command == "train" else []
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose(command, [f"data.root={root}", *places, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def checkpoint(folder: Path, name: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return state


@pytest.fixture(scope="module")
def trained(tiny_competition: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run, and what it printed, by the command line."""
    folder = tmp_path_factory.mktemp("all")
    return folder, run(folder, "train", *TINY, f"data.root={tiny_competition}")


def test_from_all_images_to_a_submission(trained: tuple[Path, str], tiny_competition: Path, tmp_path: Path) -> None:
    folder, printed = trained
    (place,) = (path for path in (folder / "runs").iterdir() if path.is_dir())
    assert place.name.endswith("_unet_effb0_foldall_seed0")
    assert (
        printed.count("data.fold=all: all labelled images are trained on, none is left to score; switched off: ") == 1
    )
    assert "validation, early stopping, the choice of the best epoch by val/map" in printed
    assert "no score, since all labelled images were trained on" in printed
    assert "val/" not in printed.replace("by val/map", "") and "warning" not in printed.lower()

    best, last = (checkpoint(place, name) for name in ("best", "last"))
    assert "optimizer_states" not in best and best["epoch"] == last["epoch"] == 1
    assert all(torch.equal(value, last["state_dict"][name]) for name, value in best["state_dict"].items())
    about, weights = best[KEY], last["averaging"]["weights"]
    assert not all(torch.equal(weights[name], best["state_dict"][name]) for name in weights), "the average"
    assert about["config"]["data"]["fold"] == "all" and about["images"]["validation"] == []
    assert len(about["images"]["training"]) == len(about["trained_on"]) == 12
    assert about["config"]["monitor"] is None and about["config"]["callbacks"]["early_stopping"] is None

    assert not (place / "per_image.csv").exists() and not (place / "detections").exists()
    numbers = json.loads((place / "metrics.json").read_text())
    assert numbers["competition_map"] is None and numbers["epochs"] == 2
    line = pd.read_csv(folder / "runs" / "leaderboard.csv", dtype=str).iloc[0]
    assert line.fold == "all" and line.experiment == "unet_effb0" and pd.isna(line["map"])
    assert not [name for name in pd.read_csv(place / "metrics.csv") if name.startswith("val/")]

    path = place / "checkpoints" / "best.ckpt"
    options = (f"checkpoint={path}", f"images={tiny_competition / 'test'}", "output=found", "data.num_workers=0")
    assert "was trained on" not in run(tmp_path, "predict", *options)
    data = (f"data.root={tiny_competition}", "output=submission.csv")
    run(tmp_path, "submit", "detections=found/detections", *data)
    assert set(pd.read_csv(tmp_path / "submission.csv").id) == {"test00", "test01"}
    found = run(tmp_path, "evaluate", f"checkpoint={path}", "output=score", code=1)
    assert f"error: {path}: was trained on all labelled images (data.fold=all), none is left to score" in found
    found = run(tmp_path, "evaluate", f"checkpoint={path}", "data.fold=0", "output=score", code=1)
    assert "was trained on 3 of the 3 validation images" in found and "Leave out data.fold=" in found


def test_its_report_shows_no_score(trained: tuple[Path, str], tiny_competition: Path, tmp_path: Path) -> None:
    (place,) = (path for path in (trained[0] / "runs").iterdir() if path.is_dir())
    for runs in ([str(place)], [str(place), str(place / "copy")]):
        if len(runs) > 1:
            shutil.copytree(place, runs[1])
        cfg = config(tiny_competition, tmp_path, "run=[]", f"output={tmp_path / 'page.html'}", command="report")
        cfg.run = runs
        page = Path(report.main(cfg)).read_text()
        assert "no score: all labelled images were trained on (data.fold=all)" in page
        assert "mAP, mean over images" not in page and ">0.000<" not in page


def test_detections_of_trained_images_are_warned_of(
    trained: tuple[Path, str], tiny_competition: Path, tmp_path: Path
) -> None:
    (place,) = (path for path in (trained[0] / "runs").iterdir() if path.is_dir())
    best = f"checkpoint={place / 'checkpoints' / 'best.ckpt'}"
    options = (f"images={tiny_competition / 'train'}", "output=found", "data.num_workers=0", "write=[]")
    assert "was trained on 12 of these 12 images (astro00, ...)" in run(tmp_path, "predict", best, *options)
    found = DetectionsFolder(tmp_path / "found" / "detections")
    assert len(found.meta["trained_on"]) == 12 == found.meta["train_images"]
    cfg = config(tiny_competition, tmp_path, f"detections=[{found.folder}]", "output=score", command="evaluate")
    cfg.output = str(tmp_path / "score")
    with pytest.warns(UserWarning, match="was trained on 12 of its 12 images"):
        evaluate.main(cfg)


@pytest.mark.parametrize("kind", ["plain", "copy_paste", "pseudo_labelled"])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    kind: str, own_competition: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"plain": ["~averaging"], "copy_paste": ["data=copy_paste", "copy_paste.epochs=2"], "pseudo_labelled": []}[
        kind
    ]
    if kind == "pseudo_labelled":
        pseudo_folder.write_images(tmp_path / "more", ["new_B2-1", "cort[x]_A1-9_Vessel-1_Ph_4"])
        rows = [
            pseudo_folder.row(name, pseudo_folder.CELLS[0], 0.9) for name in ("new_B2-1", "cort[x]_A1-9_Vessel-1_Ph_4")
        ]
        file = pseudo_folder.write_file(tmp_path, rows)
        more = ["data=pseudo_labelled", f"pseudo_labels.file={file}", f"pseudo_labels.folder={tmp_path / 'more'}"]
    options = [*TINY, "scheduler=warmup_constant", *more]
    whole, part = tmp_path / "whole", tmp_path / "part"
    with caplog.at_level(logging.INFO):
        assert main(config(own_competition, whole, *options)) != 0  # NaN
    main(config(own_competition, part, *options, "trainer.max_epochs=1"))
    last = part / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match=r"was trained with .*data\.fold=all.*, resumed with .*data\.fold=0"):
        main(config(own_competition, part, *options, f"ckpt_path={last}", "data.fold=0"))
    main(config(own_competition, part, *options, f"ckpt_path={last}"))
    for name in ("best", "last"):
        ends = [checkpoint(folder, name) for folder in (whole, part)]
        for key, value in ends[0]["state_dict"].items():
            assert torch.equal(value, ends[1]["state_dict"][key]), (name, key)
    losses = [pd.read_csv(folder / "batches.csv") for folder in (whole, part)]
    pd.testing.assert_frame_equal(*losses, check_exact=True)
    images = checkpoint(part, "best")[KEY]["images"]
    assert len(images["training"]) == 12 and len(images["pseudo-labelled"]) == 2 * (kind == "pseudo_labelled")
    if kind == "pseudo_labelled":
        assert "2 of 2 images are trained on" in caplog.text  # one is of a labelled image's well


def test_crops_are_trained_on_all_images(own_competition: Path, tmp_path: Path) -> None:
    main(config(own_competition, tmp_path / "run", *CROPS, "cleaning.drop_images=[cort01]"))
    loading.load_module(tmp_path / "run" / "checkpoints" / "best.ckpt")
    trained_on = checkpoint(tmp_path / "run", "best")[KEY]["trained_on"]
    assert len(trained_on) == 11 and "cort01" not in trained_on


def test_two_batches_run(own_competition: Path, tmp_path: Path) -> None:
    main(config(own_competition, tmp_path / "run", *TINY, "debug=fast"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["best.ckpt"]
    main(config(own_competition, tmp_path / "other", *TINY, "debug=fast", "callbacks.early_stopping=null"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor=val/loss"], "^monitor=val/loss: data.fold=all trains on all labelled images, and nothing is valid"),
        (["callbacks.early_stopping.patience=3"], "^callbacks.early_stopping.patience=3: data.fold=all trains on all"),
        (["callbacks.best_checkpoint.save_top_k=2"], "^callbacks.best_checkpoint.save_top_k=2: data.fold=all trains"),
        (["data.val_images=[cort01]"], r"^data.val_images=\['cort01'\]: data.fold=all trains on all labelled images"),
        (["data.images=3"], "^data.images=3: data.fold=all trains on all labelled images and validates none; leave"),
        (["debug=overfit"], "^data.images=1: data.fold=all trains on all"),
        (["+callbacks.p={_target_: sartorius.callbacks.pruning.Pruning}"], "^data.fold=all: nothing is validated, and"),
        (["test=true"], "^test=true: .* has no annotated test images"),
    ],
)
def test_what_needs_validation_images_is_refused(
    overrides: list[str], message: str, tiny_competition: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        main(config(tiny_competition, tmp_path / "run", *TINY, *overrides))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_another_word_is_refused_by_its_key(tiny_competition: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.fold: expected a whole number from 0 .*, or all, or null, got 'al'"):
        wiring.compose("train", ["data.fold=al", f"data.root={tiny_competition}"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_and_two_processes(tiny_competition: Path, tmp_path: Path) -> None:
    options = [*TINY, "trainer.max_epochs=1", f"data.root={tiny_competition}"]
    printed = run(tmp_path, "train", "-m", *options, "data.fold=0,all", "hydra.sweep.dir=sweep")
    rows = pd.read_csv(tmp_path / "sweep" / "sweep.csv", dtype=str).set_index("data.fold")
    assert set(rows.status) == {"finished"} and pd.isna(rows.score["all"]) and float(rows.score["0"]) >= 0
    (mean,) = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["folds"]
    assert mean["scored"] == 1 and mean["members"] == 2 and mean["mean"] == float(rows.score["0"])
    assert "mean and standard deviation over folds" in printed

    run(tmp_path, "train", *options, *TWO, "hydra.run.dir=both")
    assert len(checkpoint(tmp_path / "both", "best")[KEY]["trained_on"]) == 12
    assert json.loads((tmp_path / "both" / "metrics.json").read_text())["competition_map"] is None
