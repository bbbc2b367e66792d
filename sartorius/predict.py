"""Predict on any images: `python -m sartorius.predict checkpoint=runs/<run>/checkpoints/best.ckpt images=folder`.

`model=two_stage model.first=<checkpoint or folder of detections> model.second=<crop segmenter's checkpoint>`, in place
of `checkpoint=`, segments each box of a first model anew. Writes `<output>/detections/` (for evaluate, submit and the
stages after them) and `<output>/overlays/`, a PNG for each image with the cells that the post-processing keeps.

`trainer=ddp` shares the images out among all GPUs, with the same result.

`tta=flips | d4 | scales` looks at several views of each image; with `tta.fuse=null` each view's detections, brought
back, go to a folder of their own, `<output>/detections_<view>/`, for `ensemble` to join.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import building, loading, processes, wiring
from sartorius.running.commands import command
from sartorius.running.distributed import run_on_devices
from sartorius.running.predicting import build_predictor, run_prediction

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from sartorius.inference.tta import Augmented
    from sartorius.modules.base import SegmentationModule


def check_source(cfg: DictConfig) -> str:
    """What predicts, in a word; raises InputError unless it is either a checkpoint or a model of trained stages."""
    stages = dict(cfg.get("model") or {})
    if not stages and cfg.checkpoint is not None:
        return str(cfg.checkpoint)
    if cfg.checkpoint is not None or not stages.get("first") or not stages.get("second"):
        raise InputError(
            "give either checkpoint=runs/<run>/checkpoints/best.ckpt, or model=two_stage with model.first=<a "
            "checkpoint or a folder of detections> and model.second=<a crop segmenter's checkpoint>"
        )
    return f"{stages['first']} + {stages['second']}"


def predict_apart(
    cfg: DictConfig,
    module: SegmentationModule,
    datamodule: LightningDataModule,
    views: Mapping[str, Augmented],
    about: Mapping[str, Any],
) -> list[Path]:
    """Predict view by view, without overlays, each into the folder of the detections with the view's name; those."""
    callbacks = DictConfig({**wiring.plain(cfg.callbacks), "overlays": None})
    folders = [Path(f"{callbacks.prediction_writer.folder}_{name}") for name in views]
    for folder, (name, view) in zip(folders, views.items(), strict=True):
        module.use_windows(view)
        writer = {"folder": str(folder), "meta": {**about, "view": name}}
        built = wiring.instantiate_all(callbacks, prediction_writer=writer)
        run_prediction(module, datamodule, build_predictor(cfg.trainer, built))
    return folders


@command("predict")
@run_on_devices("predict")
def main(cfg: DictConfig) -> None:
    """Build the objects of the config and the checkpoint, and predict."""
    from sartorius.structures.detections import DetectionsFolder

    source = check_source(cfg)
    images, output = Path(str(cfg.images)), Path(str(cfg.output))
    if processes.rank() == 0:  # when the others look, it may have begun
        for folder in (output / "detections", *sorted(output.glob("detections_*"))):
            DetectionsFolder(folder).check_empty()
    datamodule = wiring.instantiate(cfg.data)
    datamodule.setup("predict")  # bad images are named before a network is built
    building.seed_everything(cfg.seed)
    if cfg.checkpoint is not None:
        module = loading.load_module(cfg.checkpoint, cfg.inference)
    else:
        module = loading.load_stages(cfg.model, cfg.inference)
    from sartorius.postprocess.saved import from_saved, to_saved
    from sartorius.rescoring import saved as saved_filter

    postprocess = from_saved(module.hparams["postprocess"], wiring.plain(cfg.postprocess), source)
    about: dict[str, Any] = {
        "checkpoint": source,
        "images": str(images),
        "tta": wiring.plain(cfg.tta) or None,
        "postprocess": to_saved(postprocess),
        saved_filter.KEY: saved_filter.to_save(cfg.filter, module.cell_type_names),
    }
    views = loading.add_tta(module, cfg.tta, source) if cfg.tta else None
    if views is not None and views.fuse is None:
        folders = predict_apart(cfg, module, datamodule, views.apart(), about)
        print(f"{len(datamodule.images)} images: detections of each view in {', '.join(map(str, folders))}")
        return
    shown = saved_filter.with_filter(postprocess, saved_filter.from_entry(about[saved_filter.KEY], source))
    callbacks = wiring.instantiate_all(
        cfg.callbacks, overlays={"postprocess": shown}, prediction_writer={"meta": about}
    )
    run_prediction(module, datamodule, build_predictor(cfg.trainer, callbacks))
    print(f"{len(datamodule.images)} images: detections and overlays in {output}")


if __name__ == "__main__":
    main()
