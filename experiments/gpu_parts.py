"""The parts of the GPU check, run one after the other as `gpu_check.py` asks for them.

Started as `gpu_parts.py DEVICE TINY FOLDER OVERRIDES`. Reads a line `[function, arguments, seconds]` of JSON a part and
answers with a line, `{"rows": {name: [value, note, failed]}}` or `{"error": text}`; ends after an error, for CUDA may
be unusable after one, and by itself where a part takes longer than it may.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_check import PEERS, TRAINED
from gpu_networks import FAMILIES, TINY, TINY_UNET, Step, difference, equal, matched, outputs_and_detections, pair
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.measure import side_by_side
from sartorius.modules.base import BoxPromptedModule, SegmentationModule
from sartorius.running.building import Training, build_training
from sartorius.running.loading import load_module
from sartorius.running.wiring import compose
from sartorius.structures.detections import DetectionsFolder

NO_CUDA = "no CUDA"
STEPS = 20  # measured; as many before them
MOST_DIFFERENT, LEAST_MATCHED = 1e-3, 99.0  # of CPU and GPU in float32: share of the largest value, % of the detections
_TELL_BACKEND = "hydra.job_logging.loggers={pytorch_lightning.utilities.rank_zero: {level: INFO}}"  # Lightning does
ONE_SERIES = ["+trainer.enable_checkpointing=false", "+trainer.enable_progress_bar=false", "trainer.max_epochs=2"]


class Value(NamedTuple):
    """A measured value; None: it was skipped, for the reason in the note."""

    value: float | None
    note: str = ""
    failed: bool = False


Rows = dict[str, Value]


class DetectionClock(Callback):
    """The number of images that are predicted or validated after the first batch, and the seconds that they take."""

    def __init__(self) -> None:
        self.images, self.began, self.seconds = 0, 0.0, 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from zero."""
        self.images, self.began = 0, 0.0

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        """Count the images of a batch, whose detections are on the CPU."""
        if self.began:
            self.images += len(batch.images)
            self.seconds = time.perf_counter() - self.began
        else:
            self.began = time.perf_counter()

    on_validation_start = on_predict_start
    on_validation_batch_end = on_predict_batch_end


@dataclass
class Check:
    """The parts, as methods that return their rows.

    device: "cuda" or "cpu". tiny: small images and networks, two steps. folder: for images and runs. overrides: of the
    families' trainings.
    """

    device: str
    tiny: bool
    folder: Path
    overrides: Sequence[str] = field(default_factory=list)

    def machine(self) -> Rows:
        """Describe the device; raises RuntimeError where it is not there."""
        versions = f"torch {torch.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"
        if self.device == "cpu":
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            return {"memory of the device": Value(memory / 1e6, f"CPU; {versions}")}
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device; DEVICE=cpu TINY=1 tries the check itself without one")
        card = torch.cuda.get_device_properties(0)
        about = f"{card.name}, compute {card.major}.{card.minor}, CUDA {torch.version.cuda}; {versions}"
        return {"memory of the device": Value(card.total_memory / 1e6, about)}

    def draw_images(self) -> Rows:
        """Draw the images that all parts use."""
        count = 4 if self.tiny else 8
        size = ["source.height=96", "source.width=128"] if self.tiny else []
        self._command(
            "prepare", "source=synthetic", f"source.folder={self.folder / 'images'}", "n_folds=4", "source.test=0",
            f"source.images={{cort: {count}, shsy5y: {count}, astro: {count}}}", "source.unlabelled=0", *size,
            f"output={self.folder / 'prepare'}",
        )  # fmt: skip
        return {"images drawn": Value(3 * count)}

    def train(self, family: str, precision: str) -> Rows:
        """Train a family in a precision, validate an image and predict some."""
        if reason := self._lacking(precision):
            return dict.fromkeys(TRAINED, Value(None, reason))
        small = TINY[family] if self.tiny else []
        training, metrics = self._fit(*FAMILIES[family], *small, f"trainer.precision={precision}", *self.overrides)
        clock = next(c for c in _callbacks(training.trainer) if isinstance(c, DetectionClock))
        if isinstance(training.module, BoxPromptedModule):  # it predicts given boxes, which only validation has
            training.trainer.limit_val_batches = training.trainer.limit_predict_batches
            training.trainer.validate(training.module, training.datamodule, verbose=False)
        else:
            training.trainer.predict(training.module, training.datamodule, return_predictions=False)
        memory = metrics.get("throughput/gpu_memory_mb")
        return {
            "training": Value(1 / metrics["throughput/seconds_per_batch"], f"loss {metrics['train/loss']:.3g}"),
            "waiting for data": Value(100 * metrics["throughput/waiting"], f"{self._workers()} workers"),
            "peak memory": Value(memory, "" if memory is not None else NO_CUDA),
            "prediction": Value(clock.images / clock.seconds, f"{clock.images} images"),
        }

    def beside_torchvision(self, precision: str) -> Rows:
        """Train and predict with our Mask R-CNN R50 and torchvision's of the same size, in turn, on the same images."""
        if reason := self._lacking(precision):
            return dict.fromkeys(PEERS, Value(None, reason))
        family = "Mask R-CNN R50"
        small = [key for key in TINY[family] if "box_features" not in key and "mask_layers" not in key]
        cfg = compose("train", [*FAMILIES[family], "model.network.norm=batch", *(small if self.tiny else [])])
        rows: Rows = {}
        steps: dict[str, tuple[Step, Step]] = {}
        for name, build in pair(cfg, self.device, precision, self.tiny).items():
            before = self._memory()
            steps[name] = build()
            steps[name][0]()
            peak = None if before is None else torch.cuda.max_memory_allocated() / 1e6 - before
            rows[f"peak memory of training, {name}"] = Value(peak, NO_CUDA if peak is None else "")
        for place, what, seen in ((0, "training", "2 images a step"), (1, "prediction", "an image at a time")):
            timed = [partial(self._synchronised, steps[name][place]) for name in ("ours", "torchvision")]
            for step in timed:
                step()
            ours, peer = side_by_side(*timed, seconds=0 if self.tiny else 6)
            rows[f"{what}, ours"] = Value(1e3 / ours, seen)
            rows[f"{what}, torchvision"] = Value(1e3 / peer, seen)
            rows[f"{what}, ratio"] = Value(peer / ours, "above 1: ours is faster")
        return rows

    def train_checkpoint(self) -> Rows:
        """Train the demo's network by its command, from nothing, to a checkpoint."""
        run = self.folder / "run"
        self._command("train", *self._demo(), f"hydra.run.dir={run}")
        return {"score": Value(_score(json.loads((run / "metrics.json").read_text())))}

    def evaluate_twice(self) -> Rows:
        """Evaluate the checkpoint twice; scores must be equal."""
        outputs = [self.folder / name for name in ("first", "second")]
        for output in outputs:
            self._command(
                "evaluate", f"checkpoint={self._checkpoint()}", f"trainer.accelerator={self._accelerator()}",
                f"output={output}", f"data.num_workers={self._workers()}",
            )  # fmt: skip
        first, second = ((output / "per_image.csv").read_text().splitlines() for output in outputs)
        rows = sum(one != other for one, other in zip_longest(first, second))
        scores = [json.loads((output / "metrics.json").read_text()) for output in outputs]
        found, again = (DetectionsFolder(output / "detections") for output in outputs)
        names = found.image_ids()
        changed = sum(not equal(found.load(name), again.load(name)) for name in names)
        return {
            "first score": Value(_score(scores[0])),
            "scores that differ": Value(rows, f"of {len(first) - 1}", bool(rows) or scores[0] != scores[1]),
            "detections that differ": Value(changed, f"of {len(names)}, by a bit or more"),
        }

    def compare_unet(self) -> Rows:
        """Apply the checkpoint to an image on the CPU and on the device, in float32."""
        return self._compare(load_module(self._checkpoint()), load_module(self._checkpoint()))

    def compare_mask_rcnn(self) -> Rows:
        """Apply a Mask R-CNN R50 of random weights to an image on the CPU and on the device, in float32."""
        small = TINY["Mask R-CNN R50"] if self.tiny else []
        overrides = (*FAMILIES["Mask R-CNN R50"], *small, "trainer.precision=32-true")
        return self._compare(*(self._build(*overrides).module for _ in range(2)))

    def train_ddp(self) -> Rows:
        """Train with trainer=ddp in one process, by the command; on CUDA the backend must be NCCL."""
        began = time.perf_counter()
        printed = self._command(
            "train", *self._demo(), "trainer=ddp", "trainer.devices=1", f"trainer.accelerator={self._accelerator()}",
            "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.check_val_every_n_epoch=1",
            f"hydra.run.dir={self.folder / 'ddp'}", _TELL_BACKEND,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        wanted = "nccl" if self.device == "cuda" else "gloo"
        found = f"distributed_backend={wanted}" in printed
        return {"whole command": Value(seconds, wanted if found else f"{wanted} was expected, see the log", not found)}

    def compare_compiled(self) -> Rows:
        """Train the U-Net eager and compiled (compile=default), as often."""
        overrides = [*FAMILIES["U-Net"], *(TINY["U-Net"] if self.tiny else []), "trainer.check_val_every_n_epoch=3"]
        part = ["compile.part=head"] if self.tiny else []  # compiled in seconds
        rates, seconds = [], []
        for more in ([], ["compile=default", *part]):
            began = time.perf_counter()
            metrics = self._fit(*overrides, *more)[1]
            rates.append(1 / metrics["throughput/seconds_per_batch"])
            seconds.append(time.perf_counter() - began)
        return {
            "eager": Value(rates[0]),
            "compiled": Value(rates[1], *part),
            "ratio": Value(rates[1] / rates[0], "above 1: compiled is faster"),
            "compiling": Value(seconds[1] - seconds[0], "time of the whole training beside the eager one"),
        }

    def _accelerator(self) -> str:
        return "gpu" if self.device == "cuda" else "cpu"

    def _checkpoint(self) -> Path:
        return self.folder / "run" / "checkpoints" / "best.ckpt"

    def _workers(self) -> int:
        return 0 if self.tiny else min(12, max(1, (os.cpu_count() or 1) - 1))

    def _lacking(self, precision: str) -> str:
        """Tell why the device lacks a precision, "" where it has it."""
        if self.device == "cpu":
            return "fp16 needs CUDA, " + NO_CUDA if precision == "16-mixed" else ""
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "" if native or precision != "bf16-mixed" else "the device does not compute in bfloat16"

    def _data(self) -> list[str]:
        return [
            f"data.root={self.folder / 'images'}", "data.n_folds=4", f"data.num_workers={self._workers()}",
            "data.train_repeats=16", f"trainer.accelerator={self._accelerator()}", "leaderboard=null",
        ]  # fmt: skip

    def _demo(self) -> list[str]:
        """List the settings of the checkpoint's training, from nothing: no weights are needed."""
        tiny = [
            *TINY_UNET,
            "trainer.max_epochs=1",
            "trainer.check_val_every_n_epoch=1",
            "trainer.limit_train_batches=4",
        ]
        return [
            "experiment=demo", "model.network.encoder.weights=none", *self._data(), *(tiny if self.tiny else []),
            "callbacks.last_checkpoint=null", "callbacks.curves=null", "callbacks.overlays=null",
        ]  # fmt: skip

    def _build(self, *overrides: str) -> Training:
        """Build a training with the callbacks that measure alone, of two epochs: one to warm up, one that counts."""
        steps, shown = (1, 2) if self.tiny else (STEPS, 6)
        cfg = compose(
            "train",
            [
                *overrides[:1], *self._data(), *ONE_SERIES, "trainer.check_val_every_n_epoch=2",
                f"trainer.limit_train_batches={steps}", "trainer.limit_val_batches=1", "trainer.num_sanity_val_steps=0",
                f"+trainer.limit_predict_batches={shown}", f"run_dir={self.folder / 'unused'}", "logger=none",
                *overrides[1:],
            ],
        )  # fmt: skip
        cfg.callbacks = OmegaConf.create({"throughput": cfg.callbacks.throughput})
        training = build_training(cfg)
        _callbacks(training.trainer).append(DetectionClock())
        return training

    def _fit(self, *overrides: str) -> tuple[Training, dict[str, float]]:
        """Train; returns the objects, and the metrics of the second epoch by name."""
        self._memory()
        training = self._build(*overrides)
        training.trainer.fit(training.module, training.datamodule)
        return training, {name: float(value) for name, value in training.trainer.callback_metrics.items()}

    def _memory(self) -> float | None:
        """Begin a measurement of the peak. Returns the memory in use, MB; None without CUDA."""
        if self.device == "cpu":
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6

    def _synchronised(self, step: Step) -> None:
        step()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _compare(self, on_cpu: SegmentationModule, on_device: SegmentationModule) -> Rows:
        """Apply two equal modules to the first validation image, one on the CPU."""
        datamodule = self._build("experiment=unet_effb0", *(TINY_UNET if self.tiny else [])).datamodule
        datamodule.setup("validate")
        batch = next(iter(datamodule.val_dataloader()))
        reference, found = outputs_and_detections(on_cpu, batch, "cpu")
        own, own_found = outputs_and_detections(on_device, batch, self.device)
        where = "CPU and CUDA" if self.device == "cuda" else f"{NO_CUDA}: the CPU beside itself"
        far, share = difference(reference, own), matched(found, own_found)
        rows = {
            "outputs": Value(far, f"{where}; at most {MOST_DIFFERENT:g}", not far <= MOST_DIFFERENT),
            "outputs with TF32": Value(None, NO_CUDA),
            "detections matched": Value(
                share, f"{where}: {len(found)} and {len(own_found)}; at least {LEAST_MATCHED:g}"
            ),
        }
        if share is None:
            rows["detections matched"] = Value(None, "neither detects a cell")
        elif share < LEAST_MATCHED:
            rows["detections matched"] = rows["detections matched"]._replace(failed=True)
        if self.device == "cuda":
            with_tf32 = outputs_and_detections(on_device, batch, self.device, tf32=True)[0]
            rows["outputs with TF32"] = Value(difference(reference, with_tf32), "as convolutions are trained in fp32")
        return rows

    def _command(self, name: str, *arguments: str) -> str:
        """Run a command of the package. Returns what it prints; raises RuntimeError with its last line on a failure."""
        program = [sys.executable, "-m", f"sartorius.{name}", *arguments]
        done = subprocess.run(program, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        print(shlex.join(program), done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()[-1]
            raise RuntimeError(f"sartorius.{name} ended with exit code {done.returncode}: {last}")
        return done.stdout + done.stderr


def _callbacks(trainer: Any) -> list[Callback]:
    return trainer.callbacks


def _score(numbers: dict[str, Any]) -> float:
    return float(numbers["competition_map"])


def answer(check: Check, function: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a part; an error becomes its text in one line, its traceback goes to stderr."""
    parts = {name: method for name, method in inspect.getmembers(check, inspect.ismethod) if not name.startswith("_")}
    try:
        return {"rows": parts[function](*arguments)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def main(device: str, tiny: str, folder: str, overrides: str) -> None:
    """Answer questions from stdin until there are no more, or one fails."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is for the log
    check = Check(device, tiny == "1", Path(folder), shlex.split(overrides))
    for line in sys.stdin:
        function, arguments, limit = json.loads(line)
        faulthandler.dump_traceback_later(limit, exit=True)
        result = answer(check, function, arguments)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(result), file=answers, flush=True)
        if "error" in result:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
