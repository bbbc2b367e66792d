import functools

import pytest
import torch
from torch import nn

from sartorius.errors import InputError
from sartorius.modules.optimisation import NonFiniteLossError, configure, seed_step, total_steps
from sartorius.modules.schedules import warmup_cosine


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
    for nothing in (None, {}, {"warmup_steps": 30}):  # scheduler=none, and what an experiment sets for another
        assert isinstance(configure(module, torch.optim.SGD, nothing), torch.optim.SGD)
    with pytest.raises(InputError, match="unexpected keyword argument 'milestones'; leave out"):
        configure(module, torch.optim.SGD, functools.partial(warmup_cosine, milestones=[0.5]))
    with_schedule = configure(
        module, lambda groups: torch.optim.AdamW(groups), lambda o, total_steps: warmup_cosine(o, total_steps, 1, 0.0)
    )
    assert with_schedule["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize("steps", [float("inf"), -1])
def test_a_schedule_needs_an_end(steps: float) -> None:
    class Trainer:
        estimated_stepping_batches = steps

    with pytest.raises(InputError, match="set trainer.max_epochs or trainer.max_steps"):
        total_steps(Trainer())


def test_random_numbers_of_a_step_are_a_function_of_seed_step_and_rank() -> None:
    def draw(*key: int) -> list[float]:
        seed_step(*key)
        return torch.rand(3).tolist()

    assert draw(1, 5) == draw(1, 5)
    assert len({tuple(draw(*key)) for key in [(1, 5), (1, 6), (2, 5), (1, 5, 1)]}) == 4


def test_the_error_of_a_broken_loss_names_images_and_terms() -> None:
    error = NonFiniteLossError(["a1", "b2"], {"loss_box": torch.tensor(float("nan")), "loss_mask": torch.tensor(0.5)})
    assert "a1, b2" in str(error)
    assert "loss_box nan, loss_mask 0.5" in str(error)
