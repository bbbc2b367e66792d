"""What logging costs: metrics.csv, batches.csv, TensorBoard and W&B offline together, beside the epoch itself.

The epoch is one of `experiment=unet_cpu` over a fold of the competition: 485 images once, in batches of 8, then 121
validated. A few batches and images of it are trained on and validated, the CPU time of each logging call in them is
taken, and scaled: once a batch, once an image, once a validation. Which loggers run must not change any loss.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

from benchmarks import images
from benchmarks.measure import Row, expect, in_subprocess

BATCHES, IMAGES = 61, 121  # of an epoch of the competition: 485 / 8 and 606 / 5
MEASURED_BATCHES, MEASURED_IMAGES = 20, 8
LIMIT = 0.03  # share of the epoch
LOGGING = ("BatchLosses", "Throughput", "FixedImages", "LearningRateMonitor")  # callbacks for loggers alone
CALLS = ("log_metrics", "save", "log_cells", "log_hyperparams")


class Meter:
    """CPU seconds of the calls that log, by what they belong to: batch, image or validation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    def watch(self, thing: Any, name: str, trainer: Any) -> None:
        """Take the time of each call of a method, unless another one that is watched made it."""
        method: Callable[..., Any] = getattr(thing, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            with self._timed("image" if name == "on_scored_image" else _phase(name, trainer)):
                return method(*args, **kwargs)

        setattr(thing, name, timed)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        self._inside, start = True, time.process_time()
        try:
            yield
        finally:
            self.seconds[phase] += time.process_time() - start
            self._inside = False


def _phase(name: str, trainer: Any) -> str:
    return "validation" if trainer.validating or name.startswith(("on_validation", "on_scoring")) else "batch"


class Clock(Callback):
    """CPU seconds of a batch and of a validated image in the last epoch, and what logging took of them."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.meter.seconds.clear()
        self.start = time.process_time()

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        self.middle = time.process_time()

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.images = len(trainer.datamodule.val_images)
        self.batch = (self.middle - self.start) / trainer.num_training_batches
        self.image = (time.process_time() - self.middle) / self.images

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        shares = {"batch": trainer.num_training_batches, "image": self.images, "validation": 1}
        self.logging = {name: self.meter.seconds[name] / count for name, count in shares.items()}


def run(folder: str, logs: bool) -> dict[str, Any]:
    """Two epochs, of which the second is measured: CPU seconds of a batch, a validated image, and logging of each."""
    import warnings

    from hydra import compose, initialize_config_dir

    from sartorius.running import building, wiring

    warnings.simplefilter("ignore")
    os.environ["WANDB_SILENT"] = "true"
    chosen = "[wandb,tensorboard]" if logs else "none"
    with initialize_config_dir(str(wiring.CONF_DIR), version_base="1.3"):
        cfg = compose("train", [
            "experiment=unet_cpu", f"data.root={folder}", f"run_dir={folder}/run{int(logs)}", "data.n_folds=2",
            "data.train_repeats=64", "data.batch_size=8", f"trainer.limit_train_batches={MEASURED_BATCHES}",
            "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu", f"logger={chosen}",
            "callbacks.run_record=null", "callbacks.progress=null", "+trainer.enable_progress_bar=false",
            *(["logger.wandb.offline=true", "logger.wandb.group=bench"] if logs else ["callbacks.batch_losses=null"]),
        ])  # fmt: skip
    building.seed_everything(0)
    datamodule, module = wiring.instantiate(cfg.data), building.build_module(cfg)
    callbacks, loggers = wiring.instantiate_all(cfg.callbacks), building.build_loggers(cfg.logger)
    if not logs:
        callbacks = [callback for callback in callbacks if type(callback).__name__ not in LOGGING]
    meter = Meter()
    clock = Clock(meter)
    building.resolve_precision(cfg.trainer)
    trainer = wiring.instantiate(cfg.trainer, callbacks=[*callbacks, clock], logger=loggers)
    for callback in callbacks:
        if type(callback).__name__ in LOGGING:
            for name in (name for name in dir(type(callback)) if name.startswith("on_")):
                meter.watch(callback, name, trainer)
    for logger in loggers:
        for name in (name for name in CALLS if hasattr(logger, name)):
            meter.watch(logger, name, trainer)
    trainer.fit(module, datamodule)
    return {"losses": clock.losses, "batch": clock.batch, "image": clock.image, "logging": clock.logging}


def rows() -> Iterator[Row]:
    """CPU seconds of an epoch's logging, beside those of the epoch without any."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SARTORIUS_REAL_DATA"], real = scratch, os.environ.get("SARTORIUS_REAL_DATA")
        try:  # generated images: a folder of its own, of known size
            folder = str(images.competition_folder(Path(scratch), 2 * MEASURED_IMAGES))
        finally:
            os.environ.pop("SARTORIUS_REAL_DATA")
            os.environ.update({"SARTORIUS_REAL_DATA": real} if real else {})
        ours, peer = (in_subprocess("benchmarks.logging:run", folder, logs) for logs in (True, False))
    same = expect(ours["losses"] == peer["losses"], f"the losses of {len(peer['losses'])} batches")
    cost = ours["logging"]
    logged = BATCHES * cost["batch"] + IMAGES * cost["image"] + cost["validation"]
    epoch = BATCHES * peer["batch"] + IMAGES * peer["image"]
    what = f"logging of an epoch, {BATCHES} batches and {IMAGES} images"
    yield Row(what, "s", logged, epoch, "the epoch itself, without loggers", same, at_least=1 / LIMIT)
