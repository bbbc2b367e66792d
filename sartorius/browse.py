"""Draw the samples that a config feeds the model: `python -m sartorius.browse experiment=unet_cpu transform=rotated`.

Draws samples of the training loader (or `split=val`), augmented and collated as `sartorius.train` with the same options
would get them, into one PNG: outlines coloured by cell, boxes, and striped where doubtful cells are ignored. With
`targets=true` each sample has a row, with what the model shall predict for it. Prints a table and the path.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sartorius.running import building, early, outputs, wiring
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next

_OWN = ("split", "epoch", "samples", "columns", "targets", "tile", "output")  # options that `train` lacks


@command("browse", outputs.FILE)
def main(cfg: DictConfig) -> None:
    """Build the data of the config (and with targets=true the model, without pretrained weights), draw, print."""
    early.check_data(wiring.plain(cfg.data))
    from sartorius.visualise.samples import write_sheet

    building.seed_everything(cfg.seed)
    module = building.build_module(cfg, pretrained=False).eval() if cfg.targets else None
    datamodule = wiring.instantiate(cfg.data)
    options = (cfg.split, cfg.samples, cfg.columns, cfg.tile, cfg.epoch, module)
    print(write_sheet(datamodule, Path(str(cfg.output)), *options))
    print_next("train", train_options())


def train_options() -> dict[str, str]:
    """Return the options of the command line that `train` has too; none where this was called in Python."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    pairs = (override.split("=", 1) for override in given if "=" in override)
    return {key: value for key, value in pairs if key not in _OWN}


if __name__ == "__main__":
    main()
