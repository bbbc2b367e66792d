"""What a checkpoint says about itself: the recipe beside the weights, read without running code from the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartorius.errors import InputError

if TYPE_CHECKING:
    from torch import nn

KEY = "sartorius"  # of the recipe in a checkpoint
FORMAT_VERSION = 1
# A recipe names the classes that it is built from, and comes with a file from elsewhere: only these may be called.
TRUSTED = (
    "sartorius.modules.",
    "sartorius.networks.",
    "sartorius.losses.",
    "torch.nn.",
    "torch.optim.",
    "timm.create_model",
)


def read_checkpoint(checkpoint: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of this program (tensors on the CPU, no code is run); raises InputError otherwise."""
    import torch

    path = Path(checkpoint)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected a file such as runs/<run>/checkpoints/best.ckpt")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for files that are not its own
        raise InputError(
            f"{path}: not a checkpoint, or a damaged one ({type(error).__name__}: {_shorten(error)})"
        ) from error
    if not isinstance(state, dict) or KEY not in state or "state_dict" not in state:
        raise InputError(f"{path}: not a checkpoint of sartorius.train (it has no '{KEY}' entry)")
    version = state[KEY].get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: format version {version}, this program reads {FORMAT_VERSION}; update sartorius")
    return state


def check_resume(checkpoint: str | Path, module: nn.Module) -> None:
    """Raise InputError when `checkpoint` cannot continue the training of `module`: no checkpoint, or other model."""
    saved = {name: tuple(value.shape) for name, value in read_checkpoint(checkpoint)["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if saved == wanted:
        return
    name = min(n for n in saved.keys() | wanted.keys() if saved.get(n) != wanted.get(n))
    raise InputError(
        f"{checkpoint}: holds another model than the one configured: '{name}' is {saved.get(name, 'absent')} there and "
        f"{wanted.get(name, 'absent')} here; resume with the experiment and options that wrote it"
    )


def model_config(recipe: dict[str, Any], checkpoint: str | Path) -> dict[str, Any]:
    """The config of the recipe's model, without pretrained weights; raises InputError for a call not in TRUSTED."""
    config: dict[str, Any] = _without_weights(recipe["model"])
    for target in _targets(config):
        if not target.startswith(TRUSTED):
            raise InputError(
                f"{checkpoint}: refused, its recipe calls {target}; a model is built from {', '.join(TRUSTED)}"
            )
    return config


def load_weights(module: nn.Module, state: dict[str, Any], checkpoint: str | Path) -> None:
    """Load the weights of a checkpoint's content; raises InputError when they do not fit."""
    try:
        module.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        raise InputError(f"{checkpoint}: the weights do not fit the model of its recipe: {_shorten(error)}") from error


def _shorten(error: BaseException, characters: int = 300) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= characters else text[:characters] + "..."


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in nested plain containers."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "_target_" in node:
        yield str(node["_target_"])
    for child in children:
        yield from _targets(child)


def _without_weights(node: Any) -> Any:
    """The same containers with every `weights` set to None: the checkpoint brings them."""
    if isinstance(node, dict):
        return {key: None if key == "weights" else _without_weights(value) for key, value in node.items()}
    return [_without_weights(value) for value in node] if isinstance(node, list) else node
