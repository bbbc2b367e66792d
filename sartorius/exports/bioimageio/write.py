"""The writer of packages of the BioImage Model Zoo (BioImage.IO), for ilastik, QuPath, deepImageJ and napari.

A package is a zip of `rdf.yaml` (see `description`), the network as ONNX and as TorchScript, a test input and output as
.npy, samples to look at, a cover and README.md. It gives maps of pixels, no cells: decoding and post-processing are no
part of the format, their settings lie in `config.sartorius`.

ilastik and QuPath take one input and one output, so that all maps are channels of one. QuPath and deepImageJ run
TorchScript, ilastik and bioimageio.core either.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
from PIL import Image
from torch import Tensor

from sartorius.errors import InputError
from sartorius.exports.bioimageio.check import check_package
from sartorius.exports.bioimageio.description import TensorSizes, check_name, describe, missing_metadata
from sartorius.exports.bioimageio.documentation import document
from sartorius.exports.onnx.graph import MapsGraph, multiple_of, write_graph
from sartorius.exports.trained import TrainedModel
from sartorius.files import atomic_path
from sartorius.inference.windows import FiveCrops, Tiles, Whole
from sartorius.modules.unet import UNetModule
from sartorius.networks.finite import check_finite
from sartorius.networks.unet import UNet
from sartorius.structures.arrays import GreyImage

TEST_SIZE = 256  # pixels of the test tensors, or the smallest that the network takes where that is more
TOLERANCE = 1e-3  # absolute and relative, of bioimageio.core's own test


def write_bioimageio(model: TrainedModel, path: Path) -> None:
    """Write a package of the BioImage Model Zoo, format version 0.5.

    Checked by bioimageio.spec where that is installed, and moved into place afterwards. Warns of metadata that the zoo
    asks for and the card lacks. Raises InputError for anything but one U-Net that predicts whole images, tiles or five
    crops, for a network whose output is not finite, for a name that the zoo does not take, and where the check fails.
    """
    check_name(model.card)
    module, sizes = _mappable(model)
    image = _test_image(model.example, sizes)
    maps = _maps(module, image, model.source)
    with tempfile.TemporaryDirectory() as scratch, atomic_path(path) as temporary:
        folder = Path(scratch)
        write_graph(module, folder / "weights.onnx")
        _write_torchscript(module, folder / "weights.pt", sizes, model.source)
        _write_tensors(folder, image, maps)
        (folder / "README.md").write_text(document(model, module, sizes), encoding="utf-8")
        description = describe(model, module, sizes, folder)
        (folder / "rdf.yaml").write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True), "utf-8")
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
        check_package(temporary, path)
    if lacking := missing_metadata(model.card):
        warnings.warn(
            f"{path}: BioImage.IO takes models with {lacking}; add what is missing to upload it", stacklevel=2
        )


def _mappable(model: TrainedModel) -> tuple[UNetModule, TensorSizes]:
    """Return the module and the sizes of its tensors; raises InputError where the format cannot say how it predicts."""
    module, instead = model.module, "write it with format=bundle"
    if not isinstance(module, UNetModule) or not isinstance(module.network, UNet):
        raise InputError(
            f"{model.source}: format=bioimageio takes one U-Net, whose maps of pixels other programs can show, not a "
            f"{type(module).__name__}; {instead}"
        )
    windows, step = module.inference, multiple_of(module)
    if not isinstance(windows, Whole | Tiles | FiveCrops):
        raise InputError(
            f"{model.source}: format=bioimageio cannot make other programs predict through {type(windows).__name__}; "
            f"give tta=none inference=tiles, or {instead}"
        )
    halo = (0 if isinstance(windows, Whole) else windows.margin) or step
    return module, TensorSizes(step=step, halo=halo)


def _test_image(example: GreyImage, sizes: TensorSizes) -> GreyImage:
    """Cut the middle of an image to TEST_SIZE, or mirror a smaller one, to a size that the network takes."""
    for axis in (0, 1):
        wanted = max(sizes.least, min(example.shape[axis], TEST_SIZE) // sizes.step * sizes.step)
        if (lacking := wanted - example.shape[axis]) > 0:
            example = np.pad(example, [(0, lacking * (axis == other)) for other in (0, 1)], "symmetric")
        start = (example.shape[axis] - wanted) // 2
        example = example.take(range(start, start + wanted), axis)
    return np.ascontiguousarray(example)


def _maps(module: UNetModule, image: GreyImage, source: str) -> Tensor:
    """Predict the maps [1, C, H, W] of an image in one piece, by the module and not by what is exported of it."""
    with torch.inference_mode():
        logits = module.network(torch.from_numpy(image)[None, None])[0].float()
        maps = torch.cat(list(module.activate(logits).values()))[None]
    check_finite(source, maps)
    return maps


def _write_torchscript(module: UNetModule, path: Path, sizes: TensorSizes, source: str) -> None:
    """Trace the network, and compare what it gives at another size; raises InputError where that differs."""
    network = MapsGraph(module, activated=True).eval()
    del network.source  # its weights would be written twice
    small, large = (
        torch.rand(count, 1, sizes.least + more, sizes.least) * 255 for count, more in [(1, 0), (2, sizes.step)]
    )
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript, which Java's readers need, and warns of shapes
        traced: Any = torch.jit.trace(network, small, check_trace=False)
        traced.save(str(path))
        if not torch.allclose(network(large), torch.jit.load(str(path))(large), TOLERANCE, TOLERANCE):
            raise InputError(f"{source}: its network changes when torch traces it; write it with format=bundle")


def _write_tensors(folder: Path, image: GreyImage, maps: Tensor) -> None:
    """Write the test tensors, float32, the same to look at, and a cover: the image beside its foreground."""
    array = maps.numpy()
    np.save(folder / "test_input.npy", image[None, None].astype(np.float32))
    np.save(folder / "test_output.npy", array)
    Image.fromarray(image).save(folder / "sample_input.png")
    tifffile.imwrite(folder / "sample_output.tif", array[0], imagej=True, metadata={"axes": "CYX"})
    foreground = np.rint(array[0, 0] * 255).astype(np.uint8)
    side = min(image.shape)
    cover = np.hstack([_stretched(image[:side, :side]), foreground[:side, :side]])
    Image.fromarray(cover).save(folder / "cover.png")


def _stretched(image: GreyImage) -> GreyImage:
    """Stretch the grey levels of an image to 0..255, without its darkest and brightest percent."""
    low, high = np.percentile(image, [1, 99])
    stretched: GreyImage = ((image - low) / max(high - low, 1.0) * 255).clip(0, 255).astype(np.uint8)
    return stretched
