"""The order of epochs: a permutation, new each epoch, the same for the same seed, shared out between ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sartorius.data.competition.datamodule import SupervisedDataModule
from sartorius.data.loading.sampler import EpochSampler, ShareSampler
from sartorius.errors import InputError


def test_every_index_once_with_its_epoch() -> None:
    sampler = EpochSampler(10, seed=0)
    sampler.set_epoch(3)
    items = list(sampler)
    assert sorted(items) == [(3, index) for index in range(10)]
    assert len(sampler) == 10


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(20, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 1) == order(0, 1)
    assert [i for _, i in order(0, 1)] != [i for _, i in order(0, 2)]
    assert order(0, 1) != order(1, 1)


def test_empty() -> None:
    assert list(EpochSampler(0, 0)) == []


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_ranks_share_the_indices_equally(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append([index for _, index in EpochSampler(size, 0)])
    assert {len(share) for share in shares} == {-(-size // 3)}
    assert {index for share in shares for index in share} == set(range(size))


def test_too_few_samples_for_every_process_are_refused(tiny_competition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = SupervisedDataModule(tiny_competition, n_folds=4, batch_size=4, drop_last=True)
    data.setup()
    assert len(data.train_dataloader()) == 9 // 4
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with pytest.raises(InputError, match="9 training samples are 3 for each of 3 processes, less than one batch of 4"):
        data.train_dataloader()


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_shares_are_in_order_and_nothing_comes_twice(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(ShareSampler(size)) == list(range(size))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        sampler = ShareSampler(size)
        assert len(sampler) == len(list(sampler)) == (size - rank + 2) // 3
        shares += list(sampler)
    assert sorted(shares) == list(range(size))
