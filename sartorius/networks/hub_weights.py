"""Weights of timm's hub, asked for once: its own client tries for a minute where there is no network."""

from __future__ import annotations

from pathlib import Path

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from sartorius.networks.local_weights import LocalWeights, read_file

FILES = ("model.safetensors", "pytorch_model.bin")
TIMEOUT = 5.0  # seconds in which the hub must answer


def hub_weights(name: str) -> LocalWeights | None:
    """Take the weights of timm's network `name` from the hub's cache on this machine, or download them.

    Returns None where timm does not have them on the hub. Raises what huggingface_hub does where they cannot be had (at
    once with HF_HUB_OFFLINE=1), and InputError for a damaged file.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.hf_hub_filename:
        return None
    repository, _, revision = config.hf_hub_id.partition("@")
    path = _cached(repository, revision or None) or _download(repository, revision or None)
    return LocalWeights(read_file(path, str(path)), f"timm's hub, {config.hf_hub_id}")


def _cached(repository: str, revision: str | None) -> Path | None:
    for file in FILES:
        try:
            return Path(hf_hub_download(repository, file, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    return None


def _download(repository: str, revision: str | None) -> Path:
    for file in FILES:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=TIMEOUT)
        except EntryNotFoundError:
            if file == FILES[-1]:
                raise
        else:
            break
    return Path(hf_hub_download(repository, file, revision=revision))
