"""The plan of a training: which model, and all choices that follow from the folder and the machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sartorius.planning import costs, sizes
from sartorius.planning.costs import Batches, StepCost
from sartorius.planning.experiment_file import Choice
from sartorius.planning.facts import FolderFacts, sizes_text
from sartorius.planning.machine import Machine
from sartorius.planning.numbers import BaseSettings, PlannedModel, PlanNumbers
from sartorius.planning.sizes import Sizes
from sartorius.structures.next_step import command_line


def choose_model(facts: FolderFacts, machine: Machine, numbers: PlanNumbers, wanted: str) -> tuple[str, str]:
    """Choose the entry of `models` in conf/plan.yaml, and tell why. wanted: `unet`, `maskrcnn` or `auto`."""
    crossing = float((facts.shared > numbers.shared).mean())
    text = f"{crossing:.0%} of the cells share more than {numbers.shared:.0%} of their pixels with others"
    if wanted == "maskrcnn":
        return ("maskrcnn" if machine.gpu else "maskrcnn_cpu"), f"it was asked for; {text}"
    if wanted == "unet":
        return "unet", f"it was asked for; {text}"
    if crossing <= numbers.shared_cells:
        return "unet", f"{text}: it gives a pixel to one cell"
    if machine.gpu:
        return "maskrcnn", f"{text}: it keeps both cells, a U-Net would give such pixels to one"
    return "unet", (
        f"{text}, which it gives to one of them; a Mask R-CNN would keep both, but learns too little in the same time "
        "without a GPU"
    )


@dataclass(frozen=True)
class Planner:
    """All that a plan follows from.

    model: why it was chosen is `why`.  minutes: of a training.  accelerator: auto, cpu or gpu.
    """

    facts: FolderFacts
    machine: Machine
    numbers: PlanNumbers
    model: PlannedModel
    why: str
    base: BaseSettings
    minutes: float
    accelerator: str

    @property
    def sizes(self) -> Sizes:
        """The scale of the network and the side of a crop."""
        return sizes.choose_sizes(self.facts, self.numbers, self.base)

    @property
    def folds(self) -> int:
        """The number of folds; 1 where all images belong together and none can be left out."""
        return self.facts.folds or min(self.numbers.folds, self.facts.groups)

    @property
    def train_images(self) -> float:
        """Images that are trained on in a fold, on average."""
        return self.facts.images * (1 - 1 / self.folds) if self.folds > 1 else self.facts.images

    def first_batches(self) -> Batches:
        """Return the base's batch, halved until its estimated memory fits."""
        batches = costs.base_batches(self.model, self.base, self.sizes)
        return costs.fitting_batches(batches, self.machine, self.numbers, self.model, self.sizes)

    def estimate(self, batches: Batches) -> StepCost:
        """Estimate the cost of a step."""
        return costs.estimate(batches, self.machine, self.numbers, self.model, self.sizes)

    def choices(self, batches: Batches, cost: StepCost) -> list[Choice]:
        """Make all choices for a batch of known cost, in the order of an experiment file."""
        facts, machine, numbers, base, found = self.facts, self.machine, self.numbers, self.base, self.sizes
        return [
            *self._data(),
            *sizes.image_choices(facts, numbers, base),
            *sizes.size_choices(facts, numbers, self.model, base, found),
            *self._start(),
            *sizes.window_choices(facts, numbers, machine, base, found),
            *sizes.crowd_choices(facts, numbers, base),
            *costs.batch_choices(batches, cost, machine, numbers, self.model, base),
            *costs.process_choices(facts, machine, numbers),
            *costs.schedule_choices(
                facts, self.train_images, found, batches, cost, self.minutes, numbers, self.model, base
            ),
            *([] if self.accelerator == "auto" else [Choice("trainer.accelerator", self.accelerator, "as asked for")]),
        ]

    def _data(self) -> Iterator[Choice]:
        facts = self.facts
        counted = ", ".join(f"{len(areas):,} {name}" for name, areas in facts.areas.items())
        yield Choice("cell_types", list(facts.cell_types), f"cells: {counted}")
        yield Choice("data.root", str(facts.root), f"{facts.images} images of {sizes_text(facts.sizes)}")
        if facts.pixel_size is not None:
            size = f"micrometres; cells measure {facts.diameter * facts.pixel_size:.3g}"
            yield Choice("data.pixel_size", facts.pixel_size, size)
        if self.folds == 1:
            yield Choice("data.fold", "all", "all images belong together: none can be left out for a score")
        elif facts.folds is not None:
            yield Choice("data.n_folds", self.folds, "those of the folder's folds.csv")
        else:
            groups = f"{facts.groups} " + ("images" if facts.groups == facts.images else "groups that stay together")
            yield Choice("data.n_folds", self.folds, f"{groups}; at most {self.numbers.folds} folds")

    def _start(self) -> Iterator[Choice]:
        if "encoder" not in self.base["model.network"]:
            return
        count, few = f"{self.train_images:.0f} images to train on", self.numbers.builtin_images
        if self.train_images <= few:
            yield Choice("model.weights", "builtin", f"{count}, at most {few}: the model that comes along is a good "
                         "start; for stained or fluorescent cells compare none")  # fmt: skip
        else:
            yield Choice("model.weights", "none", f"{count}, more than {few}: ImageNet's encoder is as good a start as "
                         "builtin")  # fmt: skip

    def notes(self, made_by: str, train: str, precision: str) -> list[str]:
        """Describe the data, the machine and the model for the top of the file; made_by, train: command lines."""
        facts, machine = self.facts, self.machine
        counts = sorted(facts.counts.tolist())
        memory = "" if machine.memory is None else f", {machine.memory / 1000:.3g} GB"
        device = machine.gpu or f"CPU, {machine.threads} thread{'s' * (machine.threads > 1)}"
        measured = "" if len(counts) == facts.images else f" (measured on {len(counts)} of them)"
        return [
            f"Made by: {made_by}",
            f"Data: {facts.images} images{measured}, {counts[0]} to {counts[-1]} cells in one, "
            f"{counts[len(counts) // 2]} at the median.",
            f"Machine: {device}{memory}; trainer.precision=auto is {precision} here.",
            f"Model: {self.model.title}; {self.why}.",
            *sizes.doubts(facts, self.numbers, self.sizes.scale),
            *self._second_stage(),
            f"Train: {train} (every fold: with -m and sweep=folds). Score and mask "
            "thresholds do not follow from the data: tune them on the detections of all folds (sartorius.tune).",
        ]

    def _second_stage(self) -> list[str]:
        """Advise the crop segmenter behind a U-Net; what is in pixels in its settings follows the size of the cells."""
        second, base, facts = self.model.second_stage, self.base.second, self.facts
        if second is None or base is None:
            return []
        options = {"experiment": second["experiment"], "data.root": facts.root, "cell_types": list(facts.cell_types)}
        pixels = sizes.scaled(base, self.sizes.scale, second["lengths"], second["areas"])
        return [
            "Each cell segmented anew in its box, where cells overlap too, gained in every trial: "
            f"{command_line('train', options | pixels)} and then predict with model=two_stage."
        ]
