"""Write a trained model for others: `python -m sartorius.export checkpoint=best.ckpt format=bundle output=model.zip`.

`format=bundle`: everything that the cells depend on in one file without pickle, which `predict checkpoint=` and
`sartorius.load` take; `weights=float16` makes it half as large. `format=onnx`: the network in ONNX, and a program of
one file that finds its cells without torch. `format=bioimageio`: a package of the BioImage Model Zoo. `show=FILE`
prints the model card of a bundle, `validate=FILE` finds the cells of its example anew, and compares. Several models in
one bundle: `model=joined`, `model=two_stage`, or both: `model.first=` may be a bundle of several.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sartorius.errors import InputError
from sartorius.running import outputs
from sartorius.running.commands import command
from sartorius.structures.next_step import print_next, print_next_program


def written_file(cfg: DictConfig) -> Path | None:
    """Return the file to write; None where one is shown or checked."""
    return outputs.output_file(cfg) if cfg.validate is None and cfg.show is None else None


@command("export", outputs.Output(written_file, is_folder=False))
def main(cfg: DictConfig) -> None:
    """Write the model of the config in its format; or show or check a bundle."""
    from sartorius.exports.bioimageio.write import write_bioimageio
    from sartorius.exports.bundle.write import write_bundle
    from sartorius.exports.onnx.write import write_onnx
    from sartorius.running import exporting

    exporting.check_alone(cfg)
    if cfg.show is not None:
        print(exporting.read_card(str(cfg.show)))
        return
    if cfg.validate is not None:
        print(f"{cfg.validate}: {exporting.validate(str(cfg.validate))}")
        return
    path = Path(str(cfg.output))
    if cfg.format != "bundle" and cfg.weights != "float32":
        raise InputError(f"weights={cfg.weights}: goes with format=bundle; leave it out")
    model = exporting.build_trained(cfg)
    if cfg.format == "bundle":
        write_bundle(model, path, cfg.weights)
    else:
        {"onnx": write_onnx, "bioimageio": write_bioimageio}[cfg.format](model, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if cfg.format == "bioimageio":
        print_next_program("bioimageio", "test", str(path))  # of bioimageio.core
    else:
        print_next("export", {"validate": path})


if __name__ == "__main__":
    main()
