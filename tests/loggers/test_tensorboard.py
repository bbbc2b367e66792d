from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sartorius.errors import InputError
from sartorius.loggers import tensorboard as tensorboard_log
from sartorius.loggers.protocol import CellsView
from sartorius.loggers.tensorboard import TensorBoardLog
from sartorius.structures.instances import Instances


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_and_images_come_back(tmp_path: Path) -> None:
    log = TensorBoardLog(str(tmp_path), flush_seconds=60, scale=2)
    log.log_hyperparams({"a": {"b": 1}})
    for step in range(3):
        log.log_metrics({"train/loss": 1.0 / (step + 1)}, step)
        log.save()
    cells = Instances.from_masks(np.ones((1, 12, 20), bool), [1])
    grey = np.zeros((12, 20), np.uint8)
    log.log_cells("images/a", CellsView(grey, cells, cells, np.ones(1, np.float32), ("x", "y"), "caption"), 2)
    log.finalize("success")
    (events,) = tmp_path.glob("events*")
    read = EventAccumulator(str(events)).Reload()
    assert [(event.step, round(event.value, 4)) for event in read.Scalars("train/loss")] == [
        (step, round(1 / (step + 1), 4)) for step in range(3)
    ]
    assert set(read.Tags()["images"]) == {"images/a"}
    image = read.Images("images/a")[0]
    assert (image.width, image.height, image.step) == (2 * 2 * 20 + 8, 2 * 12 + 40, 2)


def test_without_tensorboard_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("tensorboard")

    monkeypatch.setattr(tensorboard_log.TensorBoardLogger, "__init__", missing)
    with pytest.raises(InputError, match=r"logger.tensorboard: .* is not installed; `pip install sartorius\[tensorbo"):
        TensorBoardLog(str(tmp_path), 60, 1)
