"""Averages of the weights: the arithmetic, what is validated and saved, and runs that were stopped between."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from sartorius.callbacks.checkpoint_io import AtomicCheckpointIO
from sartorius.callbacks.checkpoints import LastCheckpoint
from sartorius.callbacks.weight_averaging import EMA
from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.errors import InputError
from sartorius.modules.schedules import warmup_cosine
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Components
from tests.callbacks.test_checkpoints import Interrupt, keep_signals

__all__ = ["keep_signals"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pytorch_lightning")
EPOCHS, STEPS = 3, 3  # 9 images in batches of 2, two batches an optimizer step: 5 batches, 3 steps an epoch
LR = 0.01


class Watch(pl.Callback):
    """The weights and the rate after and at each optimizer step, and the weights that are validated."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.rates: list[float] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any, **__: Any) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(copy_of(module))

    def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any, **__: Any) -> None:
        self.validated.append(copy_of(module))


def copy_of(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def module_of() -> UNetModule:
    torch.manual_seed(0)
    layout = MapLayout(types=0, border=0, centre=False, offset_scale=0.0)
    network = UNet(
        PlainEncoder(filters=4, blocks=1, norm="batch"), layout, channels=[4], norm="batch", mean=128.0, std=11.58
    )
    return UNetModule(
        network,
        layout,
        Components(threshold=0.5, min_area=1),
        lambda groups: torch.optim.AdamW(groups, lr=LR),
        scheduler=lambda optimizer, total_steps: warmup_cosine(optimizer, total_steps, 2, 0.1),
    )


def fit(
    root: Path,
    folder: Path,
    averaging: EMA | None,
    *others: pl.Callback,
    resume: Path | None = None,
) -> UNetModule:
    module, data = module_of(), SupervisedDataModule(root, batch_size=2, fold=0, n_folds=4)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*([averaging] if averaging else []), *others, LastCheckpoint(folder)],
        plugins=[AtomicCheckpointIO()], accumulate_grad_batches=2, limit_val_batches=1, num_sanity_val_steps=0,
    )  # fmt: skip
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trainer.fit(module, data, ckpt_path=resume, **({"weights_only": False} if resume else {}))
    return module


def load(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "last.ckpt", weights_only=True))


def leaves(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for key in sorted(node, key=str) for leaf in leaves(node[key])]
    return [leaf for child in node for leaf in leaves(child)] if isinstance(node, list | tuple) else [node]


def same(a: Any, b: Any) -> bool:
    pairs = list(itertools.zip_longest(leaves(a), leaves(b)))
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def ema() -> EMA:
    return EMA(decay=0.9, warmup=2)


def test_the_schedule_and_ema_count_optimizer_steps(tiny_competition: Path, tmp_path: Path) -> None:
    watch = Watch()
    module = fit(tiny_competition, tmp_path, EMA(decay=0.6, warmup=4), watch)
    assert len(watch.steps) == EPOCHS * STEPS
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
    schedule = warmup_cosine(optimizer, EPOCHS * STEPS, 2, 0.1)
    for rate in watch.rates:
        assert rate == optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()

    saved = load(tmp_path)
    for name, present in watch.steps[-1].items():
        expected = watch.steps[0][name].double()
        for update, step in enumerate(watch.steps[1:], 1):
            decay = min(0.6, (1 + update) / (4 + update))
            expected = decay * expected + (1 - decay) * step[name].double()
        if name.endswith("num_batches_tracked"):
            assert torch.equal(saved["state_dict"][name], present)
            continue
        assert torch.equal(saved["averaging"]["weights"][name], present)
        assert torch.allclose(saved["state_dict"][name].double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(watch.validated[-1][name], saved["state_dict"][name])
    assert same(module.state_dict(), saved["state_dict"])  # after the fit the module has the average


@pytest.mark.parametrize(("epoch", "batch", "hook"), [(1, 1, "train"), (1, 0, "val"), (2, 3, "train")])
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped(
    tiny_competition: Path, tmp_path: Path, epoch: int, batch: int, hook: str
) -> None:
    whole = fit(tiny_competition, tmp_path / "whole", ema())
    part = tmp_path / "part"
    with pytest.raises(SystemExit):
        fit(tiny_competition, part, ema(), Interrupt(epoch, batch, hook))
    resumed = fit(tiny_competition, part, ema(), resume=part / "last.ckpt")
    a, b = load(tmp_path / "whole"), load(part)
    assert a["averaging"]["weights"]
    for key in ("state_dict", "averaging", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(a[key], b[key]), key
    assert same(whole.state_dict(), resumed.state_dict())
    assert not same(a["state_dict"], a["averaging"]["weights"])


def test_the_training_itself_is_as_without_an_average(tiny_competition: Path, tmp_path: Path) -> None:
    fit(tiny_competition, tmp_path / "plain", None)
    fit(tiny_competition, tmp_path / "ema", ema())
    plain, averaged = load(tmp_path / "plain"), load(tmp_path / "ema")
    assert all(
        torch.equal(plain["state_dict"][name], value) for name, value in averaged["averaging"]["weights"].items()
    )
    assert same(plain["optimizer_states"], averaged["optimizer_states"])


def test_a_checkpoint_of_a_validation_that_was_broken_off_keeps_both_apart(
    tiny_competition: Path, tmp_path: Path
) -> None:
    class Save(pl.Callback):
        def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt", weights_only=False)

    watch = Watch()
    fit(tiny_competition, tmp_path, ema(), watch, Save())
    saved = torch.load(tmp_path / "2.ckpt", weights_only=True)
    last = load(tmp_path)
    assert same(saved["state_dict"], last["state_dict"])
    assert all(torch.equal(watch.steps[-1][name], value) for name, value in saved["averaging"]["weights"].items())


def test_bad_options_of_ema() -> None:
    for options in ({"decay": 1.0, "warmup": 10}, {"decay": 0.9, "warmup": 0}):
        with pytest.raises(InputError, match="averaging.decay"):
            EMA(**options)
