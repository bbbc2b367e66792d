"""Settings from the data: `python -m sartorius.plan data.root=mine`, then `python -m sartorius.train experiment=mine`.

Measures a folder of labelled images (sizes, shapes, crowding and overlaps of the cells, grey levels, number of images)
and this machine, and writes an experiment: model, scale, crop, anchors, windows, batch, epochs and all that is in
pixels, each with its reason in a comment. A few training steps are run for their time and memory (measure=false
estimates them). The file is conf/experiment/<name>.yaml; elsewhere (output=FOLDER/experiment/NAME.yaml) it is used with
`train --config-dir FOLDER experiment=NAME`.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from sartorius import files
from sartorius.errors import InputError
from sartorius.planning.experiment_file import MARKER, experiment_text
from sartorius.running import outputs, precision, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import command_line, print_next_program

if TYPE_CHECKING:
    from sartorius.planning.costs import Batches, StepCost
    from sartorius.planning.planner import Planner

_NAME = r"[A-Za-z][\w-]*"
_OPTIONS = ("minutes", "network", "accelerator", "measure")  # besides the folder and the name


def experiment_file(cfg: DictConfig) -> Path:
    """Return the file to write: `output`, else conf/experiment/<name>.yaml, named after the folder without `name`.

    Raises InputError for a name that Hydra cannot take, a file that it would not find, one that is there already and a
    folder that cannot be written.
    """
    if cfg.output is not None:
        path = Path(str(cfg.output))
        if path.suffix != ".yaml" or path.resolve().parent.name != "experiment":
            raise InputError(
                f"output={path}: experiments are found in a folder named experiment; expected "
                "FOLDER/experiment/NAME.yaml"
            )
        if cfg.name is not None and cfg.name != path.stem:
            raise InputError(f"name={cfg.name}, but output={path} names the experiment {path.stem}; give one of them")
        name = path.stem
    else:
        name = cfg.name or re.sub(r"\W+", "_", Path(str(cfg.data.root)).resolve().name, flags=re.ASCII)
        path = wiring.CONF_DIR / "experiment" / f"{name}.yaml"
    if not re.fullmatch(_NAME, name, re.ASCII):
        raise InputError(f"name={name}: expected letters, digits, - and _, first a letter; give another name=")
    if path.exists() and MARKER not in path.read_text(errors="replace"):
        raise InputError(f"{path}: there is such an experiment, which `plan` did not write; give another name=")
    if path.exists() and not cfg.overwrite:
        raise InputError(f"{path}: there is such an experiment; give another name=, or replace it: overwrite=true")
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written; give output=FOLDER/experiment/{path.stem}.yaml")
    return path


def read_planner(cfg: DictConfig) -> Planner:
    """Measure the folder and the machine of a config, and choose the model."""
    from sartorius.planning.facts import read_facts
    from sartorius.planning.machine import read_machine
    from sartorius.planning.numbers import BaseSettings
    from sartorius.planning.planner import Planner, choose_model

    numbers = wiring.instantiate(cfg.rules)
    facts = read_facts(str(cfg.data.root), numbers.images)
    machine = read_machine(cfg.accelerator)
    chosen, why = choose_model(facts, machine, numbers, cfg.network)
    model = wiring.instantiate(cfg.models[chosen])
    second = BaseSettings(_settings_of(model.second_stage["experiment"])) if model.second_stage else None
    settings = BaseSettings(_settings_of(model.experiment), second)
    return Planner(facts, machine, numbers, model, why, settings, cfg.minutes, cfg.accelerator)


def _settings_of(experiment: str) -> dict[str, Any]:
    cfg = wiring.compose("train", [f"experiment={experiment}", "inference=tiles"])
    return {str(key): value for key, value in OmegaConf.to_container(cfg, resolve=False).items()}  # type: ignore[union-attr]


def _changed(given: Any, default: Any, key: str) -> dict[str, Any]:
    """Return the settings below a key that differ from the defaults, by full key."""
    if not isinstance(given, dict) or not isinstance(default, dict):
        return {} if given == default else {key: given}
    parts = (_changed(value, default.get(name), f"{key}.{name}") for name, value in given.items())
    return {name: value for part in parts for name, value in part.items()}


def made_by(cfg: DictConfig, root: Path, path: Path) -> str:
    """Return the command line that plans the folder `root` in the same way again into `path`, from anywhere."""
    place = {"name": path.stem} if cfg.output is None else {"output": path.resolve()}
    options: dict[str, Any] = {"data.root": root, **place} | {key: cfg[key] for key in _OPTIONS}
    defaults = wiring.compose("plan")
    for key in ("rules", "models"):
        options |= _changed(wiring.plain(cfg[key]), wiring.plain(defaults[key]), key)
    return command_line("plan", {k: str(v).lower() if isinstance(v, bool) else v for k, v in options.items()})


def experiment_of(planner: Planner, batches: Batches, cost: StepCost, notes: list[str]) -> tuple[str, DictConfig]:
    """Return the text of the experiment, and the config that `train` composes of it.

    Raises InputError where `train` would refuse it.
    """
    text = experiment_text(planner.model.experiment, notes, planner.choices(batches, cost))
    with tempfile.TemporaryDirectory() as folder:
        files.write_text(Path(folder) / "experiment" / "planned.yaml", text)
        cfg = wiring.compose("train", [f"hydra.searchpath=['file://{folder}']", "experiment=planned"])
    return text, cfg


def cost_of(planner: Planner, steps: int | None) -> tuple[Batches, StepCost]:
    """Choose the largest batch that fits, by measuring `steps` batches of it; None estimates. Returns its cost too.

    Warns where a batch of one image takes more than the share of the memory that a plan may take, and raises InputError
    where it takes more than there is.
    """
    from sartorius.planning.costs import fits

    batches = planner.first_batches()
    cost = estimated = planner.estimate(batches)
    if steps is not None:
        from sartorius.running.measuring import measure_step

        while True:
            cost = measure_step(experiment_of(planner, batches, estimated, [])[1], steps)
            if batches.size == 1 or fits(cost, planner.machine, planner.numbers):
                break
            batches = batches.halved()
    if fits(cost, planner.machine, planner.numbers):
        return batches, cost
    remedy = "; ".join(
        [
            *(["network=unet takes less"] if planner.model.title != "U-Net" else []),
            *(["accelerator=cpu plans for the processor"] if planner.machine.gpu else []),
            "end other programs that hold its memory, or plan on a machine with more",
        ]
    )
    memory = "memory" if planner.machine.memory is None else f"{planner.machine.memory:,.0f} MB"
    device = f"the {memory} of {planner.machine.gpu or 'this machine'}"
    if math.isinf(cost.megabytes):
        raise InputError(f"a batch of one image needs more memory than {device}; {remedy}")
    warnings.warn(
        f"a batch of one image takes {cost.megabytes:,.0f} MB, more than {planner.numbers.memory_share:.0%} of "
        f"{device}, so that a training may run out of it; {remedy}",
        stacklevel=2,
    )
    return batches, cost


@command("plan", outputs.Output(experiment_file, is_folder=False))
def main(cfg: DictConfig) -> str:
    """Write the experiment of the config's folder; returns the file."""
    path = experiment_file(cfg)
    planner = read_planner(cfg)
    batches, cost = cost_of(planner, planner.numbers.steps if cfg.measure else None)
    elsewhere = path.resolve().parent != wiring.CONF_DIR / "experiment"
    conf = ["--config-dir", str(path.resolve().parent.parent)] if elsewhere else []
    train = command_line("train", {"experiment": path.stem}, *conf)
    resolved, reason = precision.resolve(precision.AUTO, cfg.accelerator, precision.read_hardware())
    notes = planner.notes(made_by(cfg, planner.facts.root, path), train, f"{resolved} ({reason})")
    text, _ = experiment_of(planner, batches, cost, notes)
    files.write_text(path, text)
    print(*notes[1:-1], sep="\n")
    print(f"{path}: {len(planner.choices(batches, cost))} settings, each with its reason")
    print_next_program("python", "-m", "sartorius.train", *conf, f"experiment={path.stem}")
    return str(path)


if __name__ == "__main__":
    main()
