"""Rules of everything that costs time or memory: batch, steps, epochs, processes, cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, isfinite

from sartorius.planning.experiment_file import Choice
from sartorius.planning.facts import FolderFacts
from sartorius.planning.machine import Machine
from sartorius.planning.numbers import BaseSettings, PlannedModel, PlanNumbers
from sartorius.planning.sizes import Sizes


@dataclass(frozen=True)
class StepCost:
    """What a training step costs: seconds, None where nothing tells, and the largest memory, MB (1e6 bytes)."""

    seconds: float | None
    megabytes: float
    measured: bool


@dataclass(frozen=True)
class Batches:
    """Images of a batch, and those that an optimizer step is to have."""

    size: int
    wanted: int

    @property
    def accumulated(self) -> int:
        """Batches of an optimizer step."""
        return max(1, round(self.wanted / self.size))

    def halved(self) -> Batches:
        """Return batches of half the size for the same steps."""
        return Batches(max(1, self.size // 2), self.wanted)


def base_batches(model: PlannedModel, base: BaseSettings, sizes: Sizes) -> Batches:
    """Return the base's batch; of larger crops fewer, so that a step has no more pixels."""
    pixels = base["transform.crop.height"] * base["transform.crop.width"] / (sizes.crop * sizes.scale) ** 2
    size = base["data.batch_size"]
    size = min(size, max(model.least_batch, int(size * pixels)))
    return Batches(size, size)


def fitting_batches(
    batches: Batches, machine: Machine, numbers: PlanNumbers, model: PlannedModel, sizes: Sizes
) -> Batches:
    """Halve the batch until its estimated memory is the share of the machine's that a plan may take."""
    while batches.size > 1 and not fits(estimate(batches, machine, numbers, model, sizes), machine, numbers):
        batches = batches.halved()
    return batches


def estimate(batches: Batches, machine: Machine, numbers: PlanNumbers, model: PlannedModel, sizes: Sizes) -> StepCost:
    """Estimate the cost of a batch from its pixels inside the network; a GPU's time is not known."""
    pixels = batches.size * (sizes.crop * sizes.scale) ** 2
    megabytes = (0 if machine.gpu else numbers.process_memory) + pixels * model.pixel_bytes / 1e6
    seconds = None if machine.gpu else pixels / 1e6 * model.megapixel_seconds / machine.threads
    return StepCost(seconds, megabytes, measured=False)


def fits(cost: StepCost, machine: Machine, numbers: PlanNumbers) -> bool:
    """Whether a step stays within the share of the memory that a plan may take; one that ran out of it never does."""
    return isfinite(cost.megabytes) and (
        machine.memory is None or cost.megabytes <= machine.memory * numbers.memory_share
    )


def batch_choices(
    batches: Batches, cost: StepCost, machine: Machine, numbers: PlanNumbers, model: PlannedModel, base: BaseSettings
) -> Iterator[Choice]:
    """Choose the batch and the batches of a step."""
    memory = "" if machine.memory is None else f" of {machine.memory:,.0f} MB"
    how = "measured" if cost.measured else "estimated"
    reason = f"{base['data.batch_size']} in {model.experiment}; a step takes {cost.megabytes:,.0f}{memory}, {how}"
    if not fits(cost, machine, numbers):
        reason += f", more than the {numbers.memory_share:.0%} that a plan may take"
    yield Choice("data.batch_size", batches.size, reason)
    if batches.accumulated > 1:
        images = batches.size * batches.accumulated
        told = (
            "as many images a step as without"
            if images == batches.wanted
            else f"{images} images a step, {batches.wanted} without"
        )
        yield Choice("trainer.accumulate_grad_batches", batches.accumulated, told)


def process_choices(facts: FolderFacts, machine: Machine, numbers: PlanNumbers) -> Iterator[Choice]:
    """Choose the processes that load samples, and the memory for decoded images."""
    if machine.gpu:
        workers = max(0, min(machine.threads - 1, numbers.workers))
        yield Choice("data.num_workers", workers, f"processes that feed the GPU; {machine.threads} cores")
        yield Choice("data.pin_memory", True, "")
    else:
        workers = 0
        yield Choice("data.num_workers", 0, "the processor trains; a loading process would take turns with it")
    needed = ceil(facts.pixels * numbers.cache_bytes / 1e6)
    most = needed if machine.ram is None else int(machine.ram * numbers.cache_share / max(workers, 1))
    of = "" if machine.ram is None else f", {numbers.cache_share:.0%} of the memory are {most * max(workers, 1):,} MB"
    yield Choice("data.cache_mb", min(needed, most), f"all images decoded take about {needed:,} MB{of}")


def schedule_choices(
    facts: FolderFacts,
    train_images: float,
    sizes: Sizes,
    batches: Batches,
    cost: StepCost,
    minutes: float,
    numbers: PlanNumbers,
    model: PlannedModel,
    base: BaseSettings,
) -> Iterator[Choice]:
    """Choose epochs and samples of an epoch: as many steps as the minutes allow, and no more than are of use."""
    of_pass = train_images / facts.images * facts.pixels / (batches.size * sizes.crop**2)
    most = max(numbers.least_steps, int(of_pass * numbers.passes))
    within = most if cost.seconds is None else int(minutes * 60 / cost.seconds)
    steps = max(min(most, within), 1)
    samples = steps * batches.size
    repeats = max(ceil(batches.size / train_images), round(samples / (train_images * numbers.epochs)), 1)
    of_epoch = max(1, int(train_images * repeats) // batches.size)
    epochs = max(1, round(steps / of_epoch))
    done = min(steps, epochs * of_epoch)
    time = "time not known, measure=true measures it"
    if cost.seconds is not None:
        time = f"{cost.seconds:.2g} s each, {'measured' if cost.measured else 'estimated'}: "
        time += f"{done * cost.seconds / 60:.0f} of {minutes:g} minutes"
    passes = f"crops of {done / of_pass:.3g} times the area of the images; more than {numbers.passes:g} gained nothing"
    of_run = f"validations: {model.validations}; their time comes on top"
    yield Choice("data.train_repeats", repeats, "samples of each image an epoch")
    yield Choice("trainer.max_epochs", epochs, f"{done:,} batches, {time}; {passes}")
    if of_epoch > steps:
        yield Choice("trainer.limit_train_batches", steps, f"batches: an epoch of all images has {of_epoch:,}")
    yield Choice("trainer.check_val_every_n_epoch", max(1, epochs // model.validations), of_run)
    warmup = int(min(base["scheduler.warmup_steps"], max(1, done / batches.accumulated * numbers.warmup_share)))
    yield Choice("scheduler.warmup_steps", warmup, f"{numbers.warmup_share:.0%} of the steps at most")
