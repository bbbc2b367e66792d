"""Write a trained model for others: `python -m sartorius.export checkpoint=best.ckpt format=bundle output=model.zip`.

`format=bundle`: everything that the cells depend on in one file without pickle, which `predict checkpoint=` and
`sartorius.load` take. `format=onnx`: the network in ONNX, and a program of one file that finds its cells without torch.
`format=bioimageio`: a package of the BioImage Model Zoo. `validate=FILE` predicts the example of a file and compares.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sartorius.running import outputs
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next


def written_file(cfg: DictConfig) -> Path | None:
    """Return the file to write; None where one is checked."""
    return outputs.output_file(cfg) if cfg.validate is None else None


@command("export", outputs.Output(written_file, is_folder=False))
def main(cfg: DictConfig) -> None:
    """Build the model of the config and write it in its format."""
    from sartorius.exports.bioimageio.write import write_bioimageio
    from sartorius.exports.bundle.write import write_bundle
    from sartorius.exports.onnx.write import write_onnx
    from sartorius.running.exporting import build_trained

    write = {"bundle": write_bundle, "onnx": write_onnx, "bioimageio": write_bioimageio}[cfg.format]
    path = Path(str(cfg.output))
    write(build_trained(cfg), path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print_next("export", {"validate": path})


if __name__ == "__main__":
    main()
