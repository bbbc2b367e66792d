"""The manifest, and files as layers of napari, which need no napari."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sartorius.errors import InputError
from sartorius.exports.bundle.example import read_example
from sartorius.formats.cells import Cells
from sartorius.napari_plugin.layer_files import read_bundle, reader_of, write_cells
from sartorius.networks.builtin import located

ROOT = Path(__file__).resolve().parents[2]


def test_the_manifest_names_what_there_is() -> None:
    manifest = yaml.safe_load((ROOT / "sartorius/napari_plugin/napari.yaml").read_text())
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    assert entry == {manifest["name"]: "sartorius.napari_plugin:napari.yaml"}
    for command in manifest["contributions"]["commands"]:
        module, _, name = command["python_name"].partition(":")
        if module.endswith("layer_files"):
            assert callable(getattr(importlib.import_module(module), name))
        else:
            assert f"def {name}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()


def test_the_example_of_a_bundle(tmp_path: Path) -> None:
    path = located("builtin")
    reader = reader_of(str(path))
    assert reader is read_bundle
    (image, _, first), (labels, attributes, second) = reader(str(path))
    expected = read_example(path)
    assert (first, second) == ("image", "labels") and (image == expected.image).all()
    assert (labels == expected.labels).all() and list(attributes["features"]["type"]) == expected.cell_types
    (tmp_path / "x.zip").write_bytes(b"PK\3\4 another")
    assert reader_of(str(tmp_path / "x.zip")) is None and reader_of([str(path)]) is None


@pytest.mark.parametrize("suffix", ["zip", "geojson", "json"])
def test_labels_are_written_with_their_types(tmp_path: Path, suffix: str) -> None:
    """Layers of cells that overlap, with gaps in the numbers."""
    labels = np.zeros((2, 30, 40), np.int32)
    labels[0, 2:8, 3:9], labels[0, 20:25, 20:30], labels[1, 5:12, 3:9] = 7, 3, 70_000
    features = pd.DataFrame({"index": [3, 7], "type": ["long", "round"], "score": [0.25, 0.5]})
    (path,) = write_cells(str(tmp_path / f"a.{suffix}"), labels, {"features": features})
    cells = Cells.load(path, 30, 40)
    assert cells.types == ["long", "round", "cell"] and cells.instances.areas.tolist() == [50, 36, 42]
    assert suffix == "geojson" or cells.scores[:2].tolist() == [0.25, 0.5]
    assert np.isnan(cells.scores[2])


def test_labels_without_features_and_wrong_ones(tmp_path: Path) -> None:
    (path,) = write_cells(str(tmp_path / "a.csv"), np.eye(9, dtype=int), {})
    assert len(pd.read_csv(path)) == 1
    write_cells(str(tmp_path / "none.zip"), np.zeros((9, 9), int), {})
    for wrong in (np.zeros((1, 1, 9, 9), int), -np.eye(9, dtype=int)):
        with pytest.raises(InputError, match="expected 2, or layers of them, labels from 0"):
            write_cells(str(tmp_path / "b.zip"), wrong, {})
