from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from sartorius.metrics.competition_map import CompetitionMap
from sartorius.metrics.functional import competition_map, image_row

PERFECT, EMPTY = np.eye(6, dtype=int), np.zeros((6, 6), int)


def test_is_the_mean_over_images_of_its_rows() -> None:
    metric = CompetitionMap()
    metric.update(image_row(4, PERFECT, PERFECT))
    metric.update(image_row(1, EMPTY, PERFECT))
    assert metric.compute().item() == 0.5
    assert metric.compute().dtype == torch.float64
    rows = metric.gathered_rows()
    np.testing.assert_array_equal(rows, [image_row(1, EMPTY, PERFECT), image_row(4, PERFECT, PERFECT)])
    assert competition_map(rows) == 0.5


def test_nothing_seen_and_reset() -> None:
    metric = CompetitionMap()
    assert metric.gathered_rows().shape == (0, 13)
    metric.update(image_row(0, PERFECT, PERFECT))
    metric.reset()
    assert len(metric.gathered_rows()) == 0


def test_gathered_rows_of_processes_that_repeat_images_count_once() -> None:
    other = torch.from_numpy(np.stack([image_row(0, PERFECT, PERFECT), image_row(1, EMPTY, PERFECT)]))
    metric = CompetitionMap(distributed_available_fn=lambda: True, dist_sync_fn=lambda x, group=None: [x, other])
    metric.update(image_row(0, PERFECT, PERFECT))
    metric.update(image_row(2, EMPTY, PERFECT))
    assert metric.gathered_rows()[:, 0].tolist() == [0, 1, 2]
    assert math.isclose(metric.compute().item(), 1 / 3)
    assert len(metric.rows) == 2, "the process keeps its own rows"


def _process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    metric = CompetitionMap()
    for index in (0, 1, 2) if rank == 1 else ():
        metric.update(image_row(index, PERFECT if index else EMPTY, PERFECT))
    Path(folder, str(rank)).write_text(f"{len(metric.gathered_rows())} {float(metric.compute())}")
    torch.distributed.destroy_process_group()


def test_a_process_without_images_takes_part(tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    assert [(tmp_path / rank).read_text() for rank in "01"] == [f"3 {2 / 3}"] * 2
