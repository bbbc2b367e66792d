import itertools

import pytest
import torch
from torch import nn

from sartorius.modules.optimisation import NonFiniteLossError, configure, seed_step, warmup_cosine, warmup_steps_down


def rates(schedule, steps: int, **options) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    built = schedule(optimizer, total_steps=steps, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_warmup_cosine() -> None:
    seen = rates(warmup_cosine, 104, warmup_steps=4, final_fraction=0.1)
    assert seen[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert seen[54] == pytest.approx(0.1 + 0.9 * 0.5)  # half way
    assert seen[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(seen[4:]))


def test_warmup_steps_down() -> None:
    seen = rates(warmup_steps_down, 100, warmup_steps=9, milestones=[0.5, 0.8], gamma=0.1)
    assert seen[0] == pytest.approx(0.1)
    assert [seen[k] for k in (9, 49, 50, 79, 80)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_schedule_shorter_than_its_warmup() -> None:
    assert rates(warmup_cosine, 3, warmup_steps=10, final_fraction=0.0)[-1] < 1


def test_norms_and_biases_are_not_decayed() -> None:
    class Trainer:
        estimated_stepping_batches = 10

    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4))
    module[0].bias.requires_grad_(False)
    module.trainer = Trainer()
    built = configure(module, lambda groups: torch.optim.AdamW(groups, lr=1, weight_decay=0.5), None)
    decayed = {id(p) for group in built.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(module[0].weight)}
    assert sum(len(group["params"]) for group in built.param_groups) == 3
    assert isinstance(configure(module, torch.optim.SGD, {}), torch.optim.SGD)  # scheduler=none
    with_schedule = configure(
        module, lambda groups: torch.optim.AdamW(groups), lambda o, total_steps: warmup_cosine(o, total_steps, 1, 0.0)
    )
    assert with_schedule["lr_scheduler"]["interval"] == "step"


def test_random_numbers_of_a_step_are_a_function_of_seed_step_and_rank() -> None:
    def draw(*key: int) -> list[float]:
        seed_step(*key)
        return torch.rand(3).tolist()

    assert draw(1, 5) == draw(1, 5)
    assert len({tuple(draw(*key)) for key in [(1, 5), (1, 6), (2, 5), (1, 5, 1)]}) == 4


def test_the_error_of_a_broken_loss_names_pictures_and_terms() -> None:
    error = NonFiniteLossError(["a1", "b2"], {"loss_box": torch.tensor(float("nan")), "loss_mask": torch.tensor(0.5)})
    assert "a1, b2" in str(error)
    assert "loss_box nan, loss_mask 0.5" in str(error)
