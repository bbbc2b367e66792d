"""A handwritten LIVECell folder, small enough that every mask is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32
NAMES = {
    "train": [
        f"{line}_Phase_A{well}_1_00d{hour}h00m_1" for line in ("A172", "BV2") for well in "12" for hour in ("00", "04")
    ],
    "val": ["A172_Phase_A1_1_00d00h00m_2", "BV2_Phase_B7_2_01d12h00m_1"],
    "test": ["BV2_Phase_C3_1_00d00h00m_1", "SKOV3_Phase_C3_1_00d00h00m_4"],
}
PLACES = {"train": "livecell_train_val_images", "val": "livecell_train_val_images", "test": "livecell_test_images"}


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    """The polygon whose mask is mask[top:bottom, left:right]."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number: int, image_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "segmentation": segmentation, **more}


def write_livecell(root: Path, nested: bool = False) -> Path:
    """8 training, 2 validation and 2 test images of 32x24 pixels; image k of a split has k rectangles."""
    for split, names in NAMES.items():
        images, annotations = [], []
        for k, name in enumerate(names):
            folder = root / "images" / PLACES[split] / (name.split("_")[0] if nested else "")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(k).integers(118, 139, (HEIGHT, WIDTH)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.tif")
            images.append({"id": 100 + k, "file_name": f"{name}.tif", "height": HEIGHT, "width": WIDTH})
            for j in range(k):
                shape = rectangle(4 * j, 2 * j, 4 * j + 3, 2 * j + 5)
                annotations.append(annotation(len(annotations) + 1, 100 + k, shape))
        file = root / ("annotations/LIVECell" if nested else "") / f"livecell_coco_{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return root


def edit(root: Path, change: Callable[[dict[str, Any]], Any], split: str = "train") -> Path:
    """Rewrite a COCO file after `change`; returns its path."""
    file = root / f"livecell_coco_{split}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file
