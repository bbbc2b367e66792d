"""Train a model: `python -m sartorius.train experiment=maskrcnn_r50`.

Writes a run folder (config.yaml, git.json, metrics.csv, batches.csv, metrics.json, checkpoints/, detections/,
overlays/, per_image.csv) and a line of runs/leaderboard.csv. `ckpt_path=runs/<run>/checkpoints/last.ckpt` continues a
run in its folder, with the options and images that it had (see `running.resume_check`); `-m sweep=folds` trains every
fold; `data.fold=all` trains on all labelled images, without a score; `test=true` also runs the best checkpoint over the
data's test split.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import outputs, signals
from sartorius.running.building import build_training
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.early import check_training
from sartorius.structures.next_step import print_next

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule, Trainer


def train(
    module: LightningModule,
    datamodule: LightningDataModule,
    trainer: Trainer,
    resume: str | Path | None = None,
    test: bool = False,
) -> dict[str, float]:
    """Fit the module, then validate its best checkpoint: callbacks write detections and scores of that one.

    Where the fit ended before its first validation (`trainer.max_time`, say), the last checkpoint stands in. resume: a
    checkpoint to continue from. test: run the same checkpoint over the test split too. Returns the metrics of both by
    name, {} of a trainer without checkpoints. Raises KeyboardInterrupt when a person stops the fit, InputError before
    it where `test` cannot be done, in it where memory runs out or torch.compile fails, and after it where no checkpoint
    could be written.
    """
    from sartorius.callbacks.checkpoints import best_checkpoint

    if test:
        check_test(module, datamodule)
    metrics: dict[str, float] = {}
    try:
        trainer.fit(module, datamodule, ckpt_path=resume)
        # the first process decides: others may see a file later on a shared file system
        if checkpoint := trainer.strategy.broadcast(best_checkpoint(trainer) or last_checkpoint(trainer)):
            stages = ((trainer.validate, trainer.limit_val_batches), (trainer.test, test))
            for stage in (stage for stage, wanted in stages if wanted):
                stage(module, datamodule, ckpt_path=checkpoint, verbose=False)
                metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        elif trainer.checkpoint_callbacks and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise InputError(trainer.strategy.broadcast(why_unwritten(trainer)))
    except SystemExit:  # Lightning's answer to Ctrl-C, once its callbacks have saved the state
        raise KeyboardInterrupt from None
    except Exception as error:
        if known := explain(error, trainer):
            raise known from error
        raise
    return metrics


def explain(error: Exception, trainer: Trainer) -> InputError | None:
    """Return the input error for a fit that ran out of memory, failed to compile or met too small crops; else None."""
    from sartorius.callbacks.out_of_memory import explain_memory
    from sartorius.modules.compilation import explain_compilation

    return explain_memory(error, trainer) or explain_compilation(error) or explain_batch_norm(error)


def explain_batch_norm(error: Exception) -> InputError | None:
    """Return the input error for crops too small for batch norm; None for another error."""
    if not str(error).startswith("Expected more than 1 value per channel"):
        return None
    return InputError(
        "batch norm needs more than one value a channel, and the coarsest map of these crops has one; raise "
        "transform.crop.height and width, or data.batch_size, or choose another norm"
    )


def check_test(module: LightningModule, datamodule: LightningDataModule) -> None:
    """Raise InputError when the module has no test_step, or the data have no test images."""
    from pytorch_lightning.utilities.model_helpers import is_overridden

    from sartorius.data.provenance import SplitData

    if not is_overridden("test_step", module):
        raise InputError(f"test=true: {type(module).__name__} has no test_step; set test=false")
    datamodule.setup("test")
    if not (isinstance(datamodule, SplitData) and datamodule.test_images):
        raise InputError(
            f"test=true: {type(datamodule).__name__} has no annotated test images; set test=false, or choose data "
            "with a test split, such as data=livecell"
        )


def last_checkpoint(trainer: Trainer) -> str:
    """Find the last checkpoint; "" when none was written."""
    from sartorius.callbacks.checkpoints import LastCheckpoint

    last = (callback.path for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint))
    return next((str(path) for path in last if path.is_file()), "")


def why_unwritten(trainer: Trainer) -> str:
    """Explain why a fit has left no checkpoint."""
    from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO

    writer = trainer.strategy.checkpoint_io
    failures = writer.unwritten if isinstance(writer, AtomicCheckpointIO) else {}
    if not failures:
        return "nothing was trained, there is no checkpoint; raise trainer.max_epochs, max_steps or max_time"
    path, error = next(iter(failures.items()))
    return f"{path}: no checkpoint could be written ({error}), and the trained weights are lost; make room and repeat"


def score_of(metrics: dict[str, float], monitor: str) -> float:
    """Return the monitored metric; NaN when the run validated nothing."""
    return metrics.get(monitor, float("nan"))


def check_folder(cfg: DictConfig) -> None:
    """Raise InputError where the run folder holds another run than the one to resume."""
    folder = Path(str(cfg.run_dir))
    checkpoints = folder / "checkpoints"
    resumed = cfg.ckpt_path is not None and Path(str(cfg.ckpt_path)).resolve().parent == checkpoints.resolve()
    written = any(checkpoints.glob("*.ckpt")) or (folder / "metrics.json").is_file()
    if not written or resumed:
        return
    last = checkpoints / "last.ckpt"
    advice = f"continue it with ckpt_path={last}, or " if last.is_file() else ""
    raise InputError(f"{folder}: holds another run; {advice}give another hydra.run.dir=")


@command("train", outputs.Output(outputs.run_folder, check=check_folder))
@run_on_devices("train")
def main(cfg: DictConfig) -> float:
    """Build the objects of the config and train. Returns the monitored score of the best checkpoint, for sweeps; NaN
    where nothing is scored."""
    check_training(cfg)
    training = build_training(cfg)
    trainer = training.trainer
    try:
        checkpoint = None if cfg.ckpt_path is None else str(cfg.ckpt_path)
        metrics = train(training.module, training.datamodule, trainer, checkpoint, cfg.test)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | signals.Terminated) and trainer.is_global_zero:
            print(f"stopped in epoch {trainer.current_epoch}; {resume_hint(cfg.run_dir)}", file=sys.stderr)
        finish_logging(failed=True)
        raise
    finish_logging()
    if cfg.monitor is None:
        score = float("nan")
        print(f"no score, since all labelled images were trained on; in {cfg.run_dir}")
    else:
        score = score_of(metrics, cfg.monitor)
        print(f"{cfg.monitor} {score:.4f} in {cfg.run_dir}")
    if trainer.is_global_zero and cfg.largest_checkpoint is not None:
        delete_checkpoints(Path(str(cfg.run_dir)) / "checkpoints", cfg.largest_checkpoint)
    print_next("report", {"run": cfg.run_dir})
    written = [Path(str(cfg.run_dir)) / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    if kept := [path for path in written if path.is_file()]:  # no best one without a validation
        print_next("predict", {"checkpoint": kept[0], "images": "FOLDER"})
    return score


def delete_checkpoints(folder: Path, megabytes: float) -> None:
    """Delete checkpoints that are larger than this, and tell so."""
    for path in sorted(folder.glob("*.ckpt")):
        if (size := path.stat().st_size / 1e6) > megabytes:
            path.unlink()
            print(f"{path}: {size:.0f} MB, deleted by largest_checkpoint={megabytes}")


def resume_hint(run_dir: str) -> str:
    """Tell how to continue the run in this folder, or that nothing was saved."""
    last = Path(run_dir) / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return "nothing was saved yet"
    return f"continue with the same command and ckpt_path={last}"


def finish_logging(failed: bool = False) -> None:
    """Close W&B's run, marked as failed or not: in a multirun the next job would log into it otherwise.

    Errors become warnings.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    from sartorius.loggers.tolerant import SuppressErrors

    with SuppressErrors("wandb.finish", "What W&B has not sent lies in the run folder, for `wandb sync`"):
        wandb.finish(**({"exit_code": 1} if failed else {}))


if __name__ == "__main__":
    main()
