import itertools

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.modules.schedules import one_cycle, warmup_constant, warmup_cosine, warmup_steps_down

CYCLE = {
    "warmup_steps": None,
    "warmup_fraction": 0.3,
    "start_fraction": 0.04,
    "final_fraction": 4e-6,
    "momentum": [0.85, 0.95],
}


def rates(schedule, steps: int, total: int | None = None, **options) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    built = schedule(optimizer, total_steps=total or steps, **options)
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


def test_warmup_constant() -> None:
    assert rates(warmup_constant, 6, warmup_steps=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1])
    assert rates(warmup_constant, 2, warmup_steps=0) == [1, 1, 1]


def test_a_schedule_shorter_than_its_warmup() -> None:
    assert rates(warmup_cosine, 3, warmup_steps=10, final_fraction=0.0)[-1] < 1


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_one_cycle_is_torchs_for_every_group(kind: type[torch.optim.Optimizer]) -> None:
    built = []
    for make in (
        lambda o: one_cycle(o, 40, **CYCLE),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, [0.5, 0.05], total_steps=40),
    ):
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 0.05)]
        optimizer = kind(groups, lr=1.0, **({"momentum": 0.5} if kind is torch.optim.SGD else {}))
        schedule, seen = make(optimizer), []
        for _ in range(40):
            seen += [(g["lr"], g["betas"][0] if "betas" in g else g["momentum"]) for g in optimizer.param_groups]
            optimizer.step()
            schedule.step()
        built.append(torch.tensor(seen))
    assert torch.allclose(*built, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_one_cycle_of_few_steps(steps: int, fraction: float) -> None:
    seen = rates(one_cycle, steps, **{**CYCLE, "warmup_fraction": fraction, "momentum": None})
    assert all(0 < rate <= 1 for rate in seen)


def test_one_cycle_with_its_warmup_in_steps() -> None:
    seen = rates(one_cycle, 21, **{**CYCLE, "warmup_steps": 5, "momentum": None})
    assert seen[5] == 1
    assert seen[0] == pytest.approx(0.04)
    assert seen[20] == pytest.approx(4e-6)


def test_one_cycle_goes_on_where_it_was_over_other_steps() -> None:
    def run(steps: int, total: int, state: dict | None = None) -> tuple[list[float], dict]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        schedule = one_cycle(optimizer, total, **CYCLE)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
        seen = []
        for _ in range(steps):
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            optimizer.step()
            schedule.step()
        return seen, {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}

    whole, _ = run(20, 20)
    first, state = run(8, 20)
    assert not any(callable(value) for value in state["schedule"].values())
    assert first + run(12, 20, state)[0] == whole
    longer = run(12, 30, state)[0]  # the first rate is the saved one, those after it are of the longer cycle
    assert longer[1:] == run(20, 30)[0][9:]


def test_one_cycle_refuses() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    for name in ("warmup", "start", "final"):
        with pytest.raises(InputError, match=f"scheduler.{name}_fraction: expected a number from 0 to 1, got 1.5"):
            one_cycle(optimizer, 10, **{**CYCLE, f"{name}_fraction": 1.5})
    with pytest.raises(InputError, match="Adagrad has none"):
        one_cycle(torch.optim.Adagrad([nn.Parameter(torch.zeros(1))]), 10, **CYCLE)
