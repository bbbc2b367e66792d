"""Bundles made as a user makes them, and changed as an enemy would."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sartorius import export
from sartorius.running import wiring
from tests.bright_unet import blobs

SMALL = blobs(120, 150)


def write_bundle(path: Path, checkpoint: Path | None, *options: str) -> Path:
    """Export a checkpoint with the command, its example an image of bright cells."""
    from PIL import Image

    example = path.with_name("example.png")
    Image.fromarray(SMALL).save(example)
    given = [f"checkpoint={checkpoint}"] if checkpoint is not None else []
    export.main(wiring.compose("export", [*given, f"output={path}", f"example={example}", *options]))
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, target: Path, **changes: bytes | None) -> Path:
    """Copy a bundle with other members; None leaves one out. Names: `weights`, `manifest`, or any in full."""
    names = {"weights": "weights.safetensors", "manifest": "bundle.json"}
    content = members(path) | {names.get(name, name): data for name, data in changes.items()}  # type: ignore[dict-item]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def edit(path: Path, target: Path, change: Callable[[dict[str, Any]], Any], weights: bytes | None = None) -> Path:
    """Copy a bundle with another bundle.json, and other weights with their sum."""
    import hashlib

    manifest = json.loads(members(path)["bundle.json"])
    if weights is not None:
        manifest["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    changed = change(manifest)
    data = json.dumps(manifest if changed is None else changed).encode()
    return rewrite(path, target, manifest=data, **({} if weights is None else {"weights": weights}))
