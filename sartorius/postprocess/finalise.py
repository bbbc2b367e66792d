"""Post-processing: the steps from soft detections to cells, no pixel twice unless overlaps are to be kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from sartorius.errors import InputError
from sartorius.postprocess.candidates import Candidates
from sartorius.postprocess.step import SearchRange, Step
from sartorius.postprocess.steps import Overlaps
from sartorius.structures.arrays import Ints, Scores
from sartorius.structures.detection_checks import MOST_IN_ONE_PIECE
from sartorius.structures.detections import Detections
from sartorius.structures.instances import Instances

S = TypeVar("S", bound=Step)
Keeping = Literal["remove", "keep"]  # of overlaps: the option of commands


@dataclass(frozen=True)
class Finalised:
    """The N cells of one image, best score first.

    instances: cell k has value k + 1; one layer, unless overlaps were kept. scores: float32 [N]. source: int64 [N],
    index of each cell in the detections that it came from. Cell types are those of the detections.
    """

    image_id: str
    instances: Instances
    scores: Scores
    source: Ints

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def cell_types(self) -> Ints:
        """int64 [N], index into the detections' cell_type_names."""
        return self.instances.cell_types


class Postprocess:
    """All decisions between detections and cells: a callable that turns Detections into Finalised.

    order: names of the steps that run, in their order; None runs all, in the order they are given. steps: by name; None
    leaves one out.

    Raises InputError for an order that names no step, or leaves one out.
    """

    def __init__(self, order: Sequence[str] | None = None, **steps: Step | None) -> None:
        present = {name: step for name, step in steps.items() if step is not None}
        names = list(present) if order is None else [name for name in order if steps.get(name, ...) is not None]
        if sorted(names) != sorted(present):
            raise InputError(f"postprocess.order: expected each of {', '.join(present)} once, got {list(order or ())}")
        self.steps: Mapping[str, Step] = {name: present[name] for name in names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Postprocess) and list(self.steps.items()) == list(other.steps.items())

    def __repr__(self) -> str:
        return f"Postprocess({', '.join(f'{name}={step!r}' for name, step in self.steps.items())})"

    def __call__(self, detections: Detections, overlaps: Keeping = "remove") -> Finalised:
        """Return the cells of one image; no detections give no cells.

        overlaps: `keep` leaves the step `Overlaps` out, so that each cell is whole, and those are there too of which
        other cells would leave too little. Raises InputError where a cell type of the detections has no threshold, and
        where overlaps are to be removed and no step does so.
        """
        height, width = detections.height, detections.width
        if height * width > MOST_IN_ONE_PIECE:
            raise InputError(
                f"image {detections.image_id}: {height} x {width} px (height x width) are too many for cells in one "
                "piece; `predict` and `convert` write them with a lower large.pixels="
            )
        *_, (_, candidates) = self.run(detections, overlaps)
        source, types = candidates.source, detections.cell_types[candidates.source]
        if overlaps == "keep":
            instances = Instances.from_runs(Instances(candidates.layers(), types).to_runs(), types)  # in few layers
        else:
            candidates.check_disjoint()
            instances = Instances.from_label_map(candidates.layers()[0], types)
        return Finalised(detections.image_id, instances, detections.scores[source], source)

    def run(self, detections: Detections, overlaps: Keeping = "remove") -> Iterator[tuple[str, Candidates]]:
        """Yield "" with all detections, then each step's name with the candidates that remain after it."""
        candidates = Candidates.of(detections)
        yield "", candidates
        for name, step in self.chosen(overlaps).items():
            candidates = step(candidates)
            yield name, candidates

    def chosen(self, overlaps: Keeping) -> dict[str, Step]:
        """Return the steps that run: without `Overlaps` where these are kept."""
        return {k: step for k, step in self.steps.items() if overlaps == "remove" or not isinstance(step, Overlaps)}

    def find(self, kind: type[S]) -> S | None:
        """Return the first step of a class, None where there is none."""
        return next((step for step in self.steps.values() if isinstance(step, kind)), None)

    def with_step(self, step: Step) -> Postprocess:
        """Replace the step of the class of `step`, or put it before all others where there is none."""
        replaced = {name: step if type(old) is type(step) else old for name, old in self.steps.items()}
        if step not in replaced.values():
            replaced = {type(step).__name__: step, **self.steps}
        return Postprocess(None, **replaced)

    def with_settings(self, changes: Mapping[str, Any]) -> Postprocess:
        """Replace values of settings, by `step.setting`."""
        steps = dict(self.steps)
        for key, value in changes.items():
            name, _, setting = key.partition(".")
            step: Any = steps[name]
            steps[name] = replace(step, **{setting: value})
        return Postprocess(None, **steps)

    @property
    def searchable(self) -> dict[str, SearchRange]:
        """The settings that `tune` may search, by `step.setting`."""
        return {
            f"{name}.{setting}": values
            for name, step in self.steps.items()
            for setting, values in step.searchable.items()
        }


def settings_of(step: Any) -> dict[str, Any]:
    """Return the plain settings of a step. Raises TypeError for a step that is no dataclass."""
    if not is_dataclass(step):
        raise TypeError(f"{type(step).__name__}: a step of post-processing must be a dataclass")
    values = vars(step)
    return {field.name: _plain(values[field.name]) for field in fields(step)}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple) else value
