"""Formats of one set of cells give the same cells, and trainings the same targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sartorius.data.competition.folder import Competition
from sartorius.data.dataset import InstanceDataset
from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.labelling.sources.folder import ImportedFolder, import_folder
from sartorius.structures import rle
from sartorius.structures.instances import Instances

NAMES = ("cort", "astro")


def drawn(seed: int, overlap: bool = True, size: tuple[int, int] = (60, 90)) -> Instances:
    """Eight discs of two types, one with a hole, two of which overlap."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = []
    for k in range(8):
        y, x = 14 + 30 * (k // 4), 12 + 21 * (k % 4)
        masks.append((rows - y) ** 2 + (columns - x) ** 2 < rng.integers(40, 80))
    masks[1][14, 33] = False
    if overlap:
        masks[2] |= (rows == 14) & (columns > 30) & (columns < 60)
    return Instances.from_masks(np.array(masks), rng.integers(0, 2, 8))


def cells_of(image_id: str, instances: Instances, names: tuple[str, ...] = NAMES) -> Cells:
    return Cells(image_id, instances, np.full(len(instances), np.nan, np.float32), names)


def write_image(path: Path, instances: Instances) -> Path:
    """Grey levels as 16 bits, 257 times as large as 8 bits, which are read back exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(1).integers(118, 139, (instances.height, instances.width)).astype(np.uint16)
    tifffile.imwrite(path, (grey + 20 * instances.foreground().astype(np.uint16)) * 257)
    return path


def cellpose(path: Path, labels: np.ndarray, **more: object) -> None:
    """What Cellpose saves: a dict in an array of objects, in a pickle."""
    flows = [np.zeros((1, *labels.shape[-2:], 3), np.uint8), [], np.float32([1.5])]
    content = {
        "outlines": labels * 0, "masks": labels, "chan_choose": [0, 0], "ismanual": np.zeros(int(labels.max()), bool),
        "filename": Path("raw/x.tif"), "flows": flows, "diameter": np.nan, "colors": np.zeros((3, 3), np.uint8),
        "manual_changes": [["01/01/2026, 10:00:00", "added mask", [np.arange(3), np.arange(3)]]],
        "normalize_params": {"lowhigh": None, "percentile": [1.0, 99.0], "invert": False}, "zdraw": [None], **more,
    }  # fmt: skip
    np.save(path, content, allow_pickle=True)


def write_labels(raw: Path, kind: str, cells: Mapping[str, Instances], names: tuple[str, ...] = NAMES) -> str:
    """Write the labels of images in a format beside them; returns the pattern that names them."""
    if kind == "csv":
        rows = [
            f"{image_id},{text},{names[k]}"
            for image_id, one in cells.items()
            for text, k in zip(one.to_rles(), one.cell_types.tolist(), strict=True)
        ]
        (raw / "cells.csv").write_text("\n".join(["id,annotation,cell_type", *rows]) + "\n")
        return f"{raw}/cells.csv"
    for image_id, one in cells.items():
        if kind == "_seg.npy":
            cellpose(raw / f"{image_id}_seg.npy", one.layers[0] if len(one.layers) == 1 else one.layers)
        else:
            cells_of(image_id, one, names).save(raw / f"{image_id}{kind}")
    return f"{raw}/*{kind}"


KINDS = ("_masks.tif", "_seg.npy", "_rois.zip", ".geojson", ".json", "csv")
TYPED = KINDS[2:]


def check_same(root: Path, cells: Mapping[str, Instances], names: tuple[str, ...] | None) -> None:
    """Compare what a training gets with the cells; names: of their types, None where the format has none."""
    competition = Competition(root, names or ("cell",))
    competition.check()
    assert competition.ids == tuple(sorted(cells))
    for image_id, one in cells.items():
        expected = Instances.from_runs(one.to_runs(), one.cell_types if names else np.zeros(len(one), int))
        found = competition.instances(image_id)
        assert np.array_equal(found.layers, expected.layers) and np.array_equal(found.boxes, expected.boxes)
        assert found.cell_types.tolist() == expected.cell_types.tolist()
        _, target = InstanceDataset(competition, [image_id])[0]
        assert len(target) == len(one) and target.cell_types.tolist() == expected.cell_types.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_gives_the_same_cells(tmp_path: Path, kind: str) -> None:
    cells = {"a": drawn(0), "b": drawn(1)}
    for image_id, one in cells.items():
        write_image(tmp_path / "raw" / f"{image_id}.tif", one)
    labels = write_labels(tmp_path / "raw", kind, cells)
    imported = import_folder(
        tmp_path / "mine", f"{tmp_path}/raw/*.tif", labels, cell_types=NAMES if kind in TYPED else None
    )
    assert imported.about.cell_types == (NAMES if kind in TYPED else ("cell",))
    check_same(tmp_path / "mine", cells, NAMES if kind in TYPED else None)
    grey = Competition(tmp_path / "mine", imported.about.cell_types).image("a")
    assert np.array_equal(grey.astype(np.uint16) * 257, tifffile.imread(tmp_path / "raw" / "a.tif"))


@pytest.mark.parametrize("kind", KINDS)
def test_real_cells_are_the_same_in_each_format(real_data: Path, tmp_path: Path, kind: str) -> None:
    source = Competition(real_data / "sartorius")
    densest = max(source.ids, key=lambda image_id: len(source.record(image_id)))
    chosen = [*source.ids[:2], densest]
    cells = {image_id: source.instances(image_id) for image_id in chosen}
    raw = tmp_path / "raw"
    raw.mkdir()
    for image_id in chosen:
        Image.fromarray(source.image(image_id)).save(raw / f"{image_id}.png")
    labels = write_labels(raw, kind, cells, source.cell_type_names)
    names = source.cell_type_names
    import_folder(tmp_path / "mine", f"{raw}/*.png", labels, cell_types=names if kind in TYPED else None)
    check_same(tmp_path / "mine", cells, names if kind in TYPED else None)


def test_the_competitions_own_csv_with_its_wells(tiny_competition: Path, tmp_path: Path) -> None:
    source = Competition(tiny_competition)
    imported = import_folder(
        tmp_path / "mine", f"{tiny_competition}/train/*.png", f"{tiny_competition}/train.csv", levels="exact"
    )
    found = Competition(tmp_path / "mine", imported.about.cell_types)
    assert found.ids == source.ids and not any("no group" in note for note in imported.notes)
    assert found.wells == source.wells and found.cell_type("cort03") == "cort"
    for image_id in source.ids:
        assert np.array_equal(found.image(image_id), source.image(image_id))
        assert rle.format(found.runs(image_id)) == rle.format(source.runs(image_id))


def read(tmp_path: Path, labels: str = "raw/*_masks.*", **options: object) -> ImportedFolder:
    return import_folder(tmp_path / "mine", f"{tmp_path}/raw/*.tif", f"{tmp_path}/{labels}", **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.float32])
def test_labels_of_any_width_keep_their_order(tmp_path: Path, dtype: type) -> None:
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "x.tif", one)
    values = np.array([0, 3, 4, 9, 20, 21, 99, 100, 120])
    tifffile.imwrite(tmp_path / "raw" / "x_masks.tif", values[one.layers[0]].astype(dtype))
    read(tmp_path)
    check_same(tmp_path / "mine", {"x": one}, None)


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGB", "RGBA"])
def test_pngs_of_labels(tmp_path: Path, mode: str) -> None:
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "x.tif", one)
    labels = one.layers[0].astype(np.uint8)
    if mode == "P":
        picture = Image.fromarray(labels, "L").convert("P")
        picture.putpalette(list(range(255, -1, -1)) * 3)
        picture.putdata(labels.ravel().tolist())
    else:
        picture = Image.fromarray(labels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(labels).convert(mode)
    picture.save(tmp_path / "raw" / "x_masks.png")
    read(tmp_path)
    check_same(tmp_path / "mine", {"x": one}, None)
    if mode.startswith("RGB"):
        tifffile.imwrite(tmp_path / "x.tif", np.array(picture), photometric="rgb")
        read(tmp_path, "x.tif")
        check_same(tmp_path / "mine", {"x": one}, None)


def test_masks_of_one_value(tmp_path: Path) -> None:
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "x.tif", one)
    Image.fromarray(one.foreground().astype(np.uint8) * 255).save(tmp_path / "raw" / "x_masks.png")
    with pytest.raises(InputError, match=r"x_masks\.png: one value, 255, in 8 pieces.*binary=components"):
        read(tmp_path)
    read(tmp_path, binary="components")
    found = Competition(tmp_path / "mine", ["cell"]).instances("x")
    assert len(found) == 8 and np.array_equal(found.foreground(), one.foreground())
    read(tmp_path, binary="cell", existing="replace")
    assert len(Competition(tmp_path / "mine", ["cell"]).instances("x")) == 1


def test_a_background_with_a_number_and_a_map_of_classes_are_refused(tmp_path: Path) -> None:
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "x.tif", one)
    cells = one.layers[0].astype(np.uint8)
    classes = np.array([0, 1, 1, 1, 1, 1, 2, 2, 2], np.uint8)  # the largest piece of none is most of it
    for labels, message in (
        (np.where(cells > 0, cells, 255), "every pixel has a number, none is 0; which one is the background"),
        (1 + (cells > 0), "every pixel has a number"),
        (classes[cells], "2 of 2 values lie in scattered pixels or in pieces far apart.*a map of types"),
        (np.array([0, 1, 0, 0, 2, 2, 0, 0, 1])[cells], "2 of 2 values lie in scattered pixels or in pieces far apart"),
    ):
        tifffile.imwrite(tmp_path / "raw" / "x_masks.tif", labels.astype(np.uint8))
        with pytest.raises(InputError, match=message):
            read(tmp_path)
    labels = cells.astype(np.uint16)
    labels[0, [0, 40, 80]], labels[-1, [0, 40, 80]] = [8, 6, 5], [4, 3, 1]  # crumbs far away, of 6 cells of 8
    tifffile.imwrite(tmp_path / "raw" / "x_masks.tif", labels)
    read(tmp_path)
    kept = Competition(tmp_path / "mine", ["cell"]).instances("x")
    assert kept.areas.tolist() == (one.areas + np.isin(np.arange(1, 9), [8, 6, 5, 4, 3, 1])).tolist()


def test_labels_that_are_no_cells_are_refused(tmp_path: Path) -> None:
    one = drawn(0, overlap=False)
    write_image(tmp_path / "raw" / "x.tif", one)
    Image.fromarray((one.layers[0] * 30).astype(np.uint8)).save(tmp_path / "x.jpg", quality=80)
    with pytest.raises(InputError, match=r"x\.jpg: labels saved as JPEG"):
        read(tmp_path, "x.jpg")
    Image.open(tmp_path / "x.jpg").save(tmp_path / "raw" / "x_masks.png")
    with pytest.raises(InputError, match=r"x_masks\.png: \d+ of \d+ values lie in scattered pixels"):
        read(tmp_path)
    types = np.where(one.layers[0] > 0, 1 + one.layers[0] % 2, 0)  # a map of types
    Image.fromarray(types.astype(np.uint8)).save(tmp_path / "raw" / "x_masks.png")
    with pytest.raises(InputError, match="a map of types"):
        read(tmp_path)
    colours = np.random.default_rng(0).integers(0, 255, (9, 3), np.uint8)[one.layers[0]]
    Image.fromarray(colours).save(tmp_path / "raw" / "x_masks.png")
    with pytest.raises(InputError, match="coloured labels"):
        read(tmp_path)
