from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from pytorch_lightning.callbacks import ModelCheckpoint

from sartorius.callbacks.checkpoints import LastCheckpoint, best_checkpoint
from sartorius.callbacks.pixel_report import PixelReport
from sartorius.errors import InputError
from sartorius.networks import checkpoints
from sartorius.running import loading, precision, wiring
from sartorius.train import (
    check_test,
    finish_logging,
    last_checkpoint,
    main,
    resume_hint,
    score_of,
    train,
)
from tests.doubles import ToyModule
from tests.toy_segmenter import TestedData, ToySegmenter


class Config:
    """Composes the train config with a toy model for a folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.fixed = [
            "trainer.accelerator=cpu", "trainer.max_epochs=1", "transform=none", "data.num_workers=0", "data.n_folds=4",
            f"data.root={root}", f"run_dir={folder}", f"leaderboard={folder / 'leaderboard.csv'}",
        ]  # fmt: skip

    def __call__(self, *overrides: str) -> DictConfig:
        with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
            cfg = compose("train", [*self.fixed, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            cfg.model = {"_target_": "tests.doubles.ToyModule", "lr": 0.1}
            del cfg["hydra"]
        return cfg


@pytest.fixture
def config(tiny_competition: Path, tmp_path: Path) -> Iterator[Config]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield Config(tiny_competition, tmp_path)
    HydraConfig.instance().cfg = None


def test_main_trains_and_returns_the_score(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = main(config())
    assert isinstance(score, float)
    assert f"val/map {score:.4f} in {tmp_path}" in capsys.readouterr().out
    for name in (
        "checkpoints/best.ckpt",
        "detections/meta.json",
        "metrics.json",
        "metrics.csv",
        "leaderboard.csv",
        "plots/curves.png",
    ):
        assert (tmp_path / name).is_file()


def test_two_runs_are_the_same(config: Config, tmp_path: Path) -> None:
    levels = []
    for name in ("a", "b"):
        cfg = config(f"run_dir={tmp_path / name}")
        main(cfg)
        table = pd.read_csv(tmp_path / name / "metrics.csv")
        levels.append(table.drop(columns=[column for column in table if column.startswith("throughput/")]))
    pd.testing.assert_frame_equal(levels[0], levels[1], check_exact=True)
    losses = [(tmp_path / name / "batches.csv").read_text() for name in ("a", "b")]
    assert losses[0] == losses[1]


def test_a_folder_of_another_run_is_refused(config: Config, tmp_path: Path) -> None:
    main(config())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match=f"{tmp_path}: holds another run; continue it with ckpt_path={last}, or give"):
        main(config("seed=1"))
    with pytest.raises(InputError, match="holds another run"):
        main(config(f"ckpt_path={tmp_path / 'other' / 'checkpoints' / 'last.ckpt'}"))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    main(config(f"ckpt_path={last}", "trainer.max_epochs=2"))
    assert pd.read_csv(tmp_path / "metrics.csv")["val/map"].count() == 2
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds another run; give another hydra.run.dir="):
        main(config())
    (tmp_path / "metrics.json").unlink()
    main(config())  # one that was killed before its first checkpoint


def test_a_wrong_checkpoint_is_refused_before_training(config: Config, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    for path, message in ((tmp_path / "no.ckpt", "no such checkpoint"), (tmp_path / "text.ckpt", "not a checkpoint")):
        with pytest.raises(InputError, match=message):
            main(config(f"ckpt_path={path}"))
    assert not (tmp_path / "checkpoints").exists()


def test_a_model_that_predict_would_refuse_is_not_trained(config: Config, tmp_path: Path) -> None:
    cfg = config()
    cfg.model = {"_target_": "tests.doubles.Split"}
    with pytest.raises(InputError, match="model: refused, it calls tests.doubles.Split"):
        main(cfg)
    assert not tmp_path.exists(), "nothing is left of a refused run"


def test_a_step_that_predict_would_refuse_is_not_trained_with(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="postprocess.score: refused, tests.doubles.Score is no step of sartorius"):
        main(config("postprocess.score._target_=tests.doubles.Score"))
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_is_resumed_with_its_own_split_and_no_pretrained_weights(config: Config, tmp_path: Path) -> None:
    main(config())
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match="with data.fold=0, resumed with data.fold=1"):
        main(config(f"ckpt_path={last}", "data.fold=1"))
    assert isinstance(main(config(f"ckpt_path={last}", "trainer.max_epochs=2")), float)


def test_an_averaged_run_saves_the_average_and_is_resumed_with_it(config: Config, tmp_path: Path) -> None:
    options = ["averaging=ema", "averaging.warmup=4", "trainer.accumulate_grad_batches=2"]
    main(config(*options))
    last, best = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    state = checkpoints.read_checkpoint(last)
    module = loading.load_module(best)
    assert module.level.item() == state["state_dict"]["level"].item()
    assert module.level.item() != state["averaging"]["weights"]["level"].item()
    with pytest.raises(InputError, match="trained with averaging=EMA, resumed with averaging=null"):
        main(config(f"ckpt_path={last}", "trainer.max_epochs=2", *options[2:]))
    main(config(f"ckpt_path={last}", "trainer.max_epochs=2", *options))


def test_half_precision_without_a_gpu_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trainer.precision=16-mixed: fp16 needs a GPU"):
        main(config("trainer.precision=16-mixed"))
    assert not tmp_path.exists(), "nothing is left of a refused run"


def test_the_run_records_the_precision_that_auto_stands_for(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "read_hardware", lambda: precision.Hardware(amx_bf16=True))
    with caplog.at_level("INFO"):
        main(config())
    assert "trainer.precision=bf16-mixed (auto: CPU with AMX)" in caplog.messages
    last = tmp_path / "checkpoints" / "last.ckpt"
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for written in (saved, checkpoints.read_checkpoint(last)[checkpoints.KEY]["config"]):
        assert written["trainer"]["precision"] == "bf16-mixed"
    caplog.clear()
    main(config(f"ckpt_path={last}", "trainer.max_epochs=2"))
    assert not [message for message in caplog.messages if "precision" in message]
    monkeypatch.setattr(precision, "read_hardware", precision.Hardware)
    main(config(f"ckpt_path={last}", "trainer.max_epochs=3"))
    (warning,) = [message for message in caplog.messages if "precision" in message]
    assert "trained with trainer.precision=bf16-mixed, resumed with trainer.precision=32-true" in warning


def test_bad_data_comes_out_as_it_is(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        main(config(f"data.root={tmp_path / 'nowhere'}"))


def test_nothing_validated_is_no_score(config: Config, tiny_competition: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    metrics = train(ToyModule(), wiring.instantiate(config().data), trainer)
    assert metrics == {}
    assert score_of(metrics, "val/map") != score_of(metrics, "val/map")  # NaN


def test_a_fit_that_could_write_no_checkpoint_fails(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"best\.ckpt: no checkpoint could be written \(No space left on device\)"):
        main(config())
    assert not (tmp_path / "metrics.json").exists()


def test_a_fit_of_no_epochs_fails(config: Config) -> None:
    with pytest.raises(InputError, match="nothing was trained, there is no checkpoint"):
        main(config("trainer.max_epochs=0"))


def trained(root: Path, folder: Path, test: bool, **options: Any) -> dict[str, float]:
    trainer = pl.Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        callbacks=[PixelReport(folder), LastCheckpoint(folder)], **options,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        module = ToySegmenter()
        module.hparams.update(format_version=checkpoints.FORMAT_VERSION)
        return train(module, TestedData(root, batch_size=3, n_folds=4), trainer, test=test)


def test_the_test_split_is_run_when_asked_for(tiny_competition: Path, tmp_path: Path) -> None:
    metrics = trained(tiny_competition, tmp_path, test=True)
    assert metrics["val/iou"] == metrics["test/iou"] == 1
    tested, validated = (pd.read_csv(tmp_path / f"pixels_{stage}.csv") for stage in ("test", "val"))
    assert (len(tested), len(validated)) == (2, 3)


def test_without_being_asked_nothing_is_tested(tiny_competition: Path, tmp_path: Path) -> None:
    metrics = trained(tiny_competition, tmp_path, test=False)
    assert {name.split("/")[0] for name in metrics} == {"val"}
    assert not (tmp_path / "pixels_test.csv").exists()


def test_limits_hold_for_the_test_split(tiny_competition: Path, tmp_path: Path) -> None:
    trained(tiny_competition, tmp_path, test=True, limit_test_batches=1)
    assert len(pd.read_csv(tmp_path / "pixels_test.csv")) == 1


def test_a_test_that_cannot_be_done_is_said_before_training(config: Config, tiny_competition: Path) -> None:
    data = wiring.instantiate(config().data)
    with pytest.raises(InputError, match="ToyModule has no test_step"):
        check_test(ToyModule(), data)
    with pytest.raises(InputError, match="SupervisedDataModule has no annotated test images; set test=false"):
        check_test(ToySegmenter(), data)
    check_test(ToySegmenter(), TestedData(tiny_competition, n_folds=4))
    with pytest.raises(InputError, match="ToyModule has no test_step"):
        main(config("test=true"))


def test_a_fit_that_ended_before_its_first_validation_is_scored_by_its_last_checkpoint(tmp_path: Path) -> None:
    last = LastCheckpoint(tmp_path)
    trainer = SimpleNamespace(checkpoint_callbacks=[SimpleNamespace(best_model_path=""), last])
    assert last_checkpoint(trainer) == ""  # type: ignore[arg-type]
    (tmp_path / "last.ckpt").touch()
    assert last_checkpoint(trainer) == str(tmp_path / "last.ckpt")  # type: ignore[arg-type]


def test_the_best_checkpoint_is_that_of_the_callback_that_scores(tmp_path: Path) -> None:
    last, best = LastCheckpoint(tmp_path), ModelCheckpoint(tmp_path)
    best.best_model_path = str(tmp_path / "best.ckpt")
    trainer = SimpleNamespace(checkpoint_callbacks=[last, best])
    assert best_checkpoint(trainer) == ""  # type: ignore[arg-type]  # the disk was full
    (tmp_path / "best.ckpt").touch()
    assert best_checkpoint(trainer) == best.best_model_path  # type: ignore[arg-type]
    assert best_checkpoint(SimpleNamespace(checkpoint_callbacks=[last])) == ""  # type: ignore[arg-type]


def test_stopping_says_how_to_go_on(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(self: Any, *_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyModule, "validation_step", stop)
    with pytest.raises(KeyboardInterrupt):
        main(config("trainer.num_sanity_val_steps=0"))
    assert f"ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}" in capsys.readouterr().err
    assert resume_hint(str(tmp_path / "empty")) == "nothing was saved yet"


def test_wandb_is_finished_where_a_run_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(run=object(), finish=lambda: calls.append("finish"))
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    finish_logging()
    fake.run = None
    finish_logging()
    assert calls == ["finish"]


def test_a_run_that_fails_is_marked_as_failed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, int]] = []
    fake = SimpleNamespace(run=object(), finish=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]

    def fails(self: Any, *_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ToyModule, "training_step", fails)
    with pytest.raises(ZeroDivisionError):
        main(config())
    assert calls == [{"exit_code": 1}]


def test_a_failure_to_close_wandb_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=object(), finish=fails))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="wandb.finish failed .*no route to host.*wandb sync"):
        finish_logging()


def test_without_any_logger_it_trains_all_the_same(config: Config, tmp_path: Path) -> None:
    assert isinstance(main(config("logger=none")), float)
    assert not (tmp_path / "metrics.csv").exists()
    assert (tmp_path / "batches.csv").is_file()
