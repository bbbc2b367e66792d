"""The writer of ONNX packages: the network, its settings, and a program that finds cells with them without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from sartorius.data.files.reading import Reading
from sartorius.errors import InputError
from sartorius.exports.bundle.card import card_of, readme
from sartorius.exports.onnx.graph import write_crop_graph, write_graph
from sartorius.exports.onnx.program import program
from sartorius.exports.onnx.standalone import main as standalone
from sartorius.exports.onnx.standalone.model import (
    DECODERS,
    FORMAT,
    FORMAT_VERSION,
    NETWORK,
    SECOND,
    SETTINGS,
    STEPS,
    FoundCells,
)
from sartorius.exports.trained import TrainedModel
from sartorius.files import atomic_path, write_json, write_text, write_zip
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.tta import Augmented
from sartorius.inference.windows import FiveCrops, Tiles, Whole
from sartorius.modules.mask_rcnn import MaskRCNNModule
from sartorius.modules.two_stage import TwoStageModule
from sartorius.modules.unet import UNetModule
from sartorius.networks.unet import UNet
from sartorius.postprocess.finalise import settings_of
from sartorius.postprocess.saved import from_saved
from sartorius.rescoring import saved as saved_filter

_WINDOWS = {kind.__name__: kind for kind in (Whole, Tiles, FiveCrops, Enlarged, Augmented)}
_LEAST_IOU = 0.99  # of each cell of run.py with that of torch on this machine, where both round alike
_INSTEAD = "write format=bundle, which holds every model"
_USAGE = """\
`run.py` needs Python 3.10 or newer with numpy, scipy and onnxruntime, nothing else:

    pip install numpy scipy onnxruntime
    python run.py --check                      # finds the cells of example/image.png, and compares
    python run.py IMAGES... --output FOLDER    # label images, and cells.csv with the run-length text of each cell

or in Python:

    from run import Model
    cells = Model()(image)                     # an array [H, W] or [H, W, channels]; cells.labels, .scores, .types

`network.onnx` takes grey levels float32 [B, 1, H, W], H and W multiples of {multiple}, and gives logits [B, C, H, W].
`settings.json` holds what `run.py` does before and after it.
"""
_SECOND_USAGE = """\
`second.onnx` segments each cell anew: it takes the square around its box float32 [B, {channels}, {size}, {size}], grey
levels normalised{prompt}, and gives logits [B, 2, {size}, {size}] of the cell and of its neighbours.
"""


def write_onnx(model: TrainedModel, path: Path) -> None:
    """Write a zip of the network in ONNX and a program that runs it, once that finds the same cells in the example.

    Of two stages it holds both networks.

    Raises InputError for a model that the program cannot run, as `write_graph` does, and where the program gives other
    cells here.
    """
    first, stages = _supported(model)
    settings = settings_for(first, model.metadata, model.source)
    usage = _USAGE.format(multiple=settings["network"]["multiple"])
    if sentence := Reading.of_training(model.metadata).sentence():
        usage += f"\n{sentence}\n"
    cells = model.find_cells(model.example)
    found = FoundCells(cells.labels.astype("uint16"), cells.scores, cells.types)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_graph(first, folder / NETWORK, activated=False)
        if stages is not None:
            write_crop_graph(stages.second, folder / SECOND)
            settings["second"], network = second_settings(stages), stages.second.network
            channels, prompt = (2, ", and the box") if network.prompt else (1, "")
            usage += _SECOND_USAGE.format(channels=channels, size=network.size, prompt=prompt)
        write_json(folder / SETTINGS, settings)
        write_text(folder / "run.py", program())
        card = card_of(model, sum(value.numel() for value in model.module.state_dict().values()), "float32")
        write_text(folder / "README.md", readme(card, usage))
        (folder / standalone.EXAMPLE).parent.mkdir()
        Image.fromarray(model.example).save(folder / standalone.EXAMPLE)
        rows = standalone.rows_of(Path(model.example_name).stem, found)
        write_text(folder / standalone.EXPECTED, standalone.table(rows))
        _check(folder, path)
        files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        content = {f"{path.stem}/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}
        with atomic_path(path) as zipped:
            write_zip(zipped, content)


def _check(folder: Path, path: Path) -> None:
    """Run the written program on the example; raises InputError where it fails or gives other cells."""
    done = subprocess.run(
        [sys.executable, "-B", "run.py", "--check", f"--least-iou={_LEAST_IOU}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise InputError(f"{path}: not written, its run.py fails here: {done.stderr.strip()[-300:]}; {_INSTEAD}")


def _supported(model: TrainedModel) -> tuple[UNetModule, TwoStageModule | None]:
    """Return the U-Net, and the two stages whose first it is; raises InputError for a model that `run.py` lacks."""
    if model.needs_boxes:
        raise InputError(
            f"{model.source}: a crop segmenter finds no cells by itself; export it behind a U-Net: model=two_stage "
            "model.first=<the U-Net's checkpoint> model.second=<this one>"
        )
    stages = model.module if isinstance(model.module, TwoStageModule) else None
    module = stages.first if stages is not None else model.module
    if isinstance(module, MaskRCNNModule):
        raise InputError(
            f"{model.source}: a Mask R-CNN is not written as ONNX: the number of its proposals, and with it the shapes "
            f"within the network, depend on the image; {_INSTEAD}"
        )
    if not isinstance(module, UNetModule) or not isinstance(module.network, UNet):
        raise InputError(
            f"{model.source}: a {type(module).__name__} is not written as ONNX, only one U-Net is; {_INSTEAD}, or "
            "export a single U-Net with checkpoint=, a crop segmenter behind it with model=two_stage"
        )
    if model.metadata.get(saved_filter.KEY):
        raise InputError(f"{model.source}: run.py has no false-positive filter; give filter=none, or {_INSTEAD}")
    return module, stages


def second_settings(stages: TwoStageModule) -> dict[str, Any]:
    """Collect the settings of the second stage of `run.py`, see `standalone.second.SecondStage`."""
    network = stages.second.network
    return {
        "mean": network.mean,
        "std": network.std,
        "size": network.size,
        "margin": network.margin,
        "min_side": network.min_side,
        "prompt": network.prompt,
        "low": stages.second.low,
        "crops_at_once": stages.second.crops_at_once,
        "min_score": stages.min_score,
        "box_probability": stages.box_probability,
        "combine": stages.combine,
        "mask_size": stages.mask_size,
    }


def settings_for(module: UNetModule, metadata: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Collect what `run.py` does before and after the network, as plain values for settings.json.

    Raises InputError for a decoder, windows or a step of post-processing that is not part of `run.py`.
    """
    network = module.network
    assert isinstance(network, UNet)
    steps = from_saved(metadata.get("postprocess"), None, source, module.cell_type_names).steps
    reading = Reading.of_training(metadata)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cell_types": list(module.cell_type_names),
        "pixel_size": metadata.get("pixel_size"),
        "channel": reading.channel,
        "levels": asdict(reading.levels),
        "network": {
            "multiple": network.divisor,
            "scale": network.scale,
            "mean": network.mean,
            "std": network.std,
            "normalises": None not in (network.mean, network.std),
        },
        "maps": {name: [part.start, part.stop] for name, part in module.layout.slices.items()},
        "offset_scale": module.layout.offset_scale,
        "windows": _described(module.inference, _WINDOWS, source),
        "decoder": _described(module.decoder, DECODERS, source),
        "mask_size": module.mask_size,
        "postprocess": {name: _described(step, STEPS, source) for name, step in steps.items()},
    }


def _described(part: Any, known: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return `kind` and the settings of a part that `run.py` has."""
    kind = type(part).__name__
    if known.get(kind) is not type(part):
        raise InputError(f"{source}: run.py has no {kind}, only {', '.join(known)}; {_INSTEAD}")
    if kind == "Augmented":
        shared = {"symmetries": list(part.symmetries), "scales": list(part.scales)}
        return {"kind": kind, **shared, "windows": _described(part.windows, known, source)}
    settings = settings_of(part)
    if "windows" in settings:
        settings["windows"] = _described(settings["windows"], known, source)
    return {"kind": kind, **settings}
