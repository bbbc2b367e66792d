"""Extreme settings that the rules admit, on a tiny folder: every command runs, or ends in one line."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

SMALL = [
    "experiment=unet_cpu", "model.network.encoder.levels=2", "model.network.channels=[4,4]",
    "debug=fast", "data.n_folds=2", "data.cache_mb=0",
    "transform.crop.height=32", "transform.crop.width=32",
]  # fmt: skip
TRAININGS = [
    "optimizer.lr=1000", "optimizer.weight_decay=0", "optimizer=sgd optimizer.nesterov=true optimizer.momentum=0",
    "model.dice=0 model.border_weight=0", "model.layout.border=1000", "model.layout.types=0", "model.mask_size=2",
    "model.network.foreground=0.9999", "model.network.mean=null", "model.network.std=null", "model.network.scale=16",
    "model.network.norm=group", "encoder@model.network.encoder=plain", "model.network.encoder.levels=1",
    "model.network.encoder.in_channels=2", "model.decoder.smooth=0 model.decoder.peak=0 model.decoder.depth=0",
    "model.decoder.smooth=1000", "model.loss_weights={}", "model.loss_weights={border: 0, centre: 0}",
    "transform.crop.height=1 transform.crop.width=1", "transform.crop.height=null",
    "transform.min_visible=1 transform.min_area=1e9", "transform.transforms={}", "transform.crop.fill=127.5",
    "transform=strong", "transform=multiscale transform.crop.max_size=1", "data.train_repeats=1 data.batch_size=1000",
    "data.val_batch_size=1000", "data.images=1", "data.fold=7", "trainer.max_epochs=-1", "trainer.max_steps=1",
    "trainer.max_time=00:00:00:00", "trainer.accumulate_grad_batches=1000", "trainer.limit_train_batches=1e-9",
    "trainer.limit_val_batches=1e-9", "trainer.gradient_clip_val=0", "trainer.gradient_clip_val=null",
    "trainer.deterministic=true", "trainer.devices=[1]", "trainer.precision=64", "trainer.precision=16",
    "trainer.accelerator=tpu", "trainer.check_val_every_n_epoch=9", "trainer.log_every_n_steps=1000",
    "trainer.plugins=[]", "trainer.plugins=null", "scheduler.warmup_steps=0",
    "scheduler=one_cycle scheduler.momentum=[0,0]", "scheduler=warmup_steps scheduler.milestones=[0,0,1]",
    "averaging=ema averaging.decay=0 averaging.warmup=1", "copy_paste=default copy_paste.cells=[0,0]",
    "copy_paste=default copy_paste.until=0", "copy_paste=default copy_paste.scale=[100,100] copy_paste.rim=1000000",
    "callbacks.early_stopping={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/map, patience: 0}",
    "callbacks.best_checkpoint.save_top_k=0", "callbacks.best_checkpoint.save_top_k=-1",
    "callbacks.overlays.images=null callbacks.overlays.scale=1",
    "callbacks.overlays.images=1 callbacks.overlays.scale=16", "callbacks.pixel_report.threshold=0",
    "callbacks.batch_losses.rows=1 callbacks.batch_losses.seconds=0", "callbacks.fixed_images.images_per_type=0",
    "callbacks.progress.refresh_rate=0 callbacks.progress.seconds=0",
    "inference=tiles inference.size=1 inference.overlap=0 inference.margin=0",
    "inference=tiles inference.batch=1000000", "postprocess.order=[score]", "postprocess.score.threshold={}",
    "postprocess.score.threshold=1", "postprocess.min_area.pixels=1e9", "cell_types=[a]",
    "cell_types=[cort,cort,astro,shsy5y]", "seed=4294967295", "lr_decay.per_stage=0.0001", "run_dir=other",
    "leaderboard=x/y.csv", "logger=none", "compile=null",
]  # fmt: skip
OTHERS = [
    "evaluate detections=[{d}] bootstrap.samples=1 bootstrap.level=0.0001",
    "evaluate detections=[{d}] cell_types=[a]",
    "evaluate detections=[{d}] baseline=otsu_watershed baseline.smooth=0 baseline.window=0 baseline.shrink=0",
    "evaluate detections=[{d}] baseline=otsu_watershed baseline.smooth=1000 baseline.shrink=1000",
    "evaluate detections=[{d}] data.fold=9", "evaluate detections=[{d}] data.n_folds=1000", "evaluate detections=5",
    "evaluate baseline=otsu_watershed data.n_folds=9 data.fold=0", "evaluate detections=[{d}] images=[x]",
    "tune detections=[{d}] trials=1 rounds=1 least_images=1 folds=2", "tune detections=[{d}] trials=1 folds=0",
    "tune detections=[{d}] trials=1 folds=0 cache_megabytes=0", "tune detections=[{d}] folds=1000 trials=1",
    "tune detections=[{d}] trials=1 folds=0 search.score.threshold.step=1e-9",
    "tune detections=[{d}] trials=1 folds=0 pseudo_labels.precision=1 pseudo_labels.least_cells=1",
    "fit_filter detections=[{d}] folds=3 model.max_iter=1 thresholds=[1]", "fit_filter detections=[{d}] folds=1000",
    "submit detections={d} limit=1 output=s.csv", "submit validate={d} limit=1", "submit detections={d} filter=x",
    "ensemble members=[{d}] min_score=1 output=e1", "ensemble members=[{d},{d}] weights=[0,0] output=e2",
    "ensemble members=[{d},{d}] weights=[1] output=e3",
    "ensemble members=[{d}] fusion=vote fusion.min_share=0 output=e4", "ensemble members={{}} output=e5",
    "ensemble members=[{d}] weights={{}} output=e6", "ensemble members=[{d}] images=abc output=e7",
    "ensemble members=[{d}] image_type=abc output=e8",
    "pseudo_label detections={d} output=p.csv workers=1000 images={r}/train",
    "pseudo_label detections=x output=p.csv",
    "correct images={r}/test output=c1 tool=fiji waiting=1000000 margin=0 n_folds=1000000 cell_types=[a]",
    "correct images={r}/test output=c2 tool=fiji cell_types=[a,a]", "correct images={r}/test output=c3 group=(",
    "correct images={r}/test output=c4 tool=fiji cell_types=[unlabelled]",
    "correct images={r}/test output={r}/train.csv",
    "correct images={r}/test detections={d} output=c5 tool=fiji again=[x]",
    "correct images={r}/test output=c6 tool=fiji channel=65535 pages=mean pixel_size=1000",
    "plates tables={d} well=livecell", "plates tables=x.csv well=( interval=1e6 plate_wells=6 growth.hours=[0,1e6]",
    "review detections={d} images={r}/train level=0.0001 show=0 least_images=3 alpha=1e9 output=v1",
    "review detections={d} images={r}/train oof={d} data.root={r} folds=2 output=v2",
    "review detections={{}} output=v3",
    "plan data.root={r} measure=false output=experiment/a.yaml minutes=1e6 rules.memory_share=0 rules.images=1",
    "plan data.root={r} measure=false output=experiment/b.yaml rules.scales=[16] rules.passes=1e-9",
    "plan data.root={r} measure=false output=experiment/c.yaml rules.scales=[0.1] rules.epochs=1 rules.least_steps=0",
    "plan data.root={r}/train output=experiment/d.yaml", "plan data.root={r} measure=false name=unet_cpu",
    "report run=run gallery.images=1 gallery.best=0 gallery.width=1 gallery.quality=1 plots=false",
    "report detections={d} images={r}/test gallery.images=1000000 gallery.unscored=0 gallery.width=65536",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test tta=flips tta.scales=[16]",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test tta=flips tta.symmetries=[abc]",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test data.batch_size=1000 data.levels=abc",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test inference=tiles inference.size=65536",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test inference=slices inference.factor=64",
    "predict checkpoint=run/checkpoints/best.ckpt images={r}/test callbacks.cells.scale=16",
    "browse experiment=unet_cpu samples=1 columns=1000000 tile=1 output=b.png",
    "browse epoch=1000000 samples=1 output=c.png", "prepare n_folds=1000 data.root={r}",
    "prepare cell_types=[a] data.root={r}", "prepare output={r}/train.csv data.root={r}",
    "prepare source=synthetic source.images={{}} source.test=0 source.unlabelled=0 paths.synthetic_dir=s1",
    "prepare source=synthetic source.images={{cort: 1}} source.height=1 source.width=1 paths.synthetic_dir=s2",
    "prepare source=synthetic source.images={{cort: 1}} source.height=64 source.noise=1000 paths.synthetic_dir=s3",
    "prepare source=synthetic source.images={{cort: 1}} source.height=64 source.debris=1000 paths.synthetic_dir=s4",
]  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> int:
        HydraConfig.instance().cfg = None
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capfd.readouterr()
        try:
            importlib.import_module(f"sartorius.{name}").main()
        except SystemExit as end:
            assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
            return int(str(end.code))
        return 0

    return run


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_extremes_run_or_end_in_one_line(run: Callable[..., int], tiny_competition: Path) -> None:
    root = f"data.root={tiny_competition}"
    bugs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run("train", *SMALL, root, "hydra.run.dir=run") == 0
        trainings = [" ".join(["train", *SMALL, text, root, f"hydra.run.dir=t{k}"]) for k, text in enumerate(TRAININGS)]
        others = [text.format(d="run/detections", r=tiny_competition) for text in OTHERS]
        rooted = ("evaluate", "tune", "fit_filter", "browse")
        others = [f"{text} {root}" if text.startswith(rooted) else text for text in others]
        for text in [*trainings, *others]:
            try:
                run(*text.replace(": ", ":").replace(", ", ",").split(" "))
            except Exception as error:
                bugs.append(f"{text}: {type(error).__name__}: {error}")
    assert not bugs, "\n".join(bugs)
