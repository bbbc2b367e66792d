import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sartorius.errors import InputError
from sartorius.exports.bioimageio.check import check_package
from sartorius.exports.bioimageio.description import TensorSizes, citations, missing_metadata
from sartorius.exports.bioimageio.documentation import document
from sartorius.exports.bioimageio.write import write_bioimageio
from sartorius.exports.trained import ModelCard, TrainedModel
from sartorius.inference.enlarged import Enlarged
from sartorius.inference.windows import Tiles, Whole, Windows
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Components, OffsetVoting, Watershed
from sartorius.structures.cell_types import CELL_TYPES
from tests.bright_unet import blobs
from tests.doubles import ToyModule

CARD = ModelCard(
    name="Cells of a test",
    description="Finds bright cells.",
    intended_use="Tests.",
    not_for="People.",
    authors=["Ada Lovelace", "Emmy Noether / Göttingen"],
    license="MIT",
    cite="Ada 1843, https://doi.org/10.1000/182.",
    score={"competition_map": 0.31, "competition_map_interval": [0.2, 0.4], "images": 32},
)
TILES = Tiles(size=64, overlap=32, margin=12, batch=4, join_iou=0.5)


def unet(layout: MapLayout, windows: Windows | None = None, **network: Any) -> UNetModule:
    """A small U-Net of random weights, whose batch norms have run."""
    torch.manual_seed(0)
    encoder = PlainEncoder(filters=4, blocks=3, norm="batch")
    inner = UNet(encoder, layout, channels=[8, 4], norm="batch", **{"mean": 100.0, "std": 40.0, **network})
    decoder: Any = Watershed(
        foreground_low=0.3, border_weight=0.0, smooth=1.0, depth=0.02, peak=0.3, min_area=20
    ) if layout.centre else Components(threshold=0.5, min_area=20)  # fmt: skip
    module = UNetModule(inner, layout, decoder, partial(torch.optim.SGD, lr=0.1), inference=windows)
    with torch.no_grad():
        inner.train()(torch.from_numpy(blobs(96, 96)).float()[None, None])
    return module.eval()


def trained(module: Any, example: Any = None, **changes: Any) -> TrainedModel:
    network = {"mean": 100.0, "std": 40.0}
    model: dict[str, Any] = {
        "network": network,
        "layout": {"types": 3},
        "decoder": {"_target_": "a.Decoder", "peak": 0.3},
    }
    metadata = {"model": model, "postprocess": {"_target_": "a.Post"}, **changes.pop("metadata", {})}
    return TrainedModel(
        module=module, metadata=metadata, card=dataclasses.replace(CARD, **changes), source="best.ckpt",
        example=blobs(300, 150) if example is None else example, example_name="blobs.png",
    )  # fmt: skip


FULL = MapLayout(types=3, border=2, offset_scale=8.0)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("package") / "model.zip"
    write_bioimageio(trained(unet(FULL, TILES), metadata={"pixel_size": 0.65}), path)
    return path


def unpack(package: Path, folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    description: dict[str, Any] = yaml.safe_load((folder / "rdf.yaml").read_text("utf-8"))
    return description


def files_of(node: Any) -> list[dict[str, str]]:
    """Every mapping with a file and its sum."""
    if isinstance(node, list):
        return [file for entry in node for file in files_of(entry)]
    if not isinstance(node, dict):
        return []
    return [node] if "sha256" in node else files_of(list(node.values()))


def test_sums_and_files(package: Path, tmp_path: Path) -> None:
    description = unpack(package, tmp_path)
    named = files_of(description)
    assert [hashlib.sha256((tmp_path / file["source"]).read_bytes()).hexdigest() for file in named] == [
        file["sha256"] for file in named
    ]
    others = {"rdf.yaml", description["documentation"], *description["covers"]}
    assert {file["source"] for file in named} | others == {path.name for path in tmp_path.iterdir()}
    assert len(named) == 6
    with Image.open(tmp_path / "cover.png") as cover:
        assert cover.size == (2 * 144, 144)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "## Validation\n\nOut-of-fold score: 0.310 (0.200 to 0.400, bootstrap over 32 images): mAP at" in text
    assert "summits of `centre` above 0.3, the mask is `foreground` above 0.3." in text
    assert "| 4 | `offset_x` | pixels to the right" in text
    assert "pixels of 0.65 µm" in text
    assert "mean 100 and standard deviation 40" in text


def test_card_and_settings(package: Path, tmp_path: Path) -> None:
    description = unpack(package, tmp_path)
    assert description["name"] == "Cells of a test"
    assert description["authors"] == [{"name": "Ada Lovelace"}, {"name": "Emmy Noether   Göttingen"}]
    assert description["cite"] == [{"text": CARD.cite, "doi": "10.1000/182"}]
    assert description["license"] == "MIT"
    settings = description["config"]["sartorius"]
    assert settings["decoder"]["peak"] == 0.3
    assert settings["postprocess"] == {"_target_": "a.Post"}
    assert settings["cell_types"] == list(CELL_TYPES)


def test_axes_fit_the_test_tensors(package: Path, tmp_path: Path) -> None:
    description = unpack(package, tmp_path)
    (image,), (maps,) = description["inputs"], description["outputs"]
    given, expected = np.load(tmp_path / "test_input.npy"), np.load(tmp_path / "test_output.npy")
    least, step = (image["axes"][2]["size"][key] for key in ("min", "step"))
    assert (least, step) == (32, 8)  # of a halo of 12 px on both sides, and three halvings
    assert given.dtype == expected.dtype == np.float32
    assert given.shape == (1, 1, 256, 144)
    assert all((length - least) % step == 0 and length >= least for length in given.shape[2:])
    assert given.max() > 100
    assert expected.shape == (1, 8, 256, 144)
    assert maps["axes"][1]["channel_names"] == [
        "foreground", "border", "centre", "offset_y", "offset_x", *(f"type_{name}" for name in CELL_TYPES),
    ]  # fmt: skip
    for axis, entry in zip("yx", maps["axes"][2:], strict=True):
        assert entry["size"] == {"tensor_id": image["id"], "axis_id": axis, "offset": 0}
        assert (entry["halo"], entry["scale"], entry["unit"]) == (12, 0.65, "micrometer")


def test_both_weights_give_the_maps_of_the_module(package: Path, tmp_path: Path) -> None:
    import onnxruntime

    description = unpack(package, tmp_path)
    given, expected = np.load(tmp_path / "test_input.npy"), np.load(tmp_path / "test_output.npy")
    module = unet(FULL)
    maps = module.activate(module.network(torch.from_numpy(given))[0])
    apart = torch.cat(list(maps.values())).detach().numpy() - expected[0]
    assert np.abs(apart).max() < 1e-5
    np.testing.assert_allclose(expected[0, 5:].sum(0), 1, atol=1e-5)
    assert np.abs(expected[0, 3:5]).max() > 1  # pixels, not a share of them
    session = onnxruntime.InferenceSession(tmp_path / description["weights"]["onnx"]["source"])
    (output,) = session.run(None, {session.get_inputs()[0].name: given})
    np.testing.assert_allclose(output, expected, atol=1e-4)
    wide = np.concatenate([given[..., :104, :88], given[..., 24:128, :88]])  # another batch and size
    (output,) = session.run(None, {session.get_inputs()[0].name: wide})
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        script: Any = torch.jit.load(str(tmp_path / description["weights"]["torchscript"]["source"]))
    kept = sum(weight.numel() for weight in script.parameters())
    assert kept == sum(weight.numel() for weight in module.network.parameters())  # each once
    np.testing.assert_allclose(script(torch.from_numpy(wide)).detach().numpy(), output, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "channels", "least"),
    [
        (partial(unet, MapLayout(types=0, centre=False), mean=None, std=None), ["foreground"], 24),
        (partial(unet, MapLayout(types=0, border=1), scale=1.5), ["foreground", "border", "centre"], 48),
    ],
)
def test_other_networks(module: Callable[[], UNetModule], channels: list[str], least: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.zip"
    write_bioimageio(trained(module(), blobs(20, 400)), path)  # an image smaller than the network takes
    description = unpack(path, tmp_path / "in")
    assert description["outputs"][0]["axes"][1]["channel_names"] == channels
    assert description["inputs"][0]["axes"][2]["size"] == {"min": least, "step": least // 3}
    assert np.load(tmp_path / "in" / "test_input.npy").shape == (1, 1, least, 256)
    assert "unit" not in description["inputs"][0]["axes"][2]


def test_the_readme_tells_the_thresholds_of_the_decoder() -> None:
    sizes, module = TensorSizes(step=8, halo=12), unet(MapLayout(types=0, border=2, offset_scale=8.0))
    module.decoder = Watershed(foreground_low=0.45, border_weight=0.0, smooth=1.0, depth=0.02, peak=0.15, min_area=20)
    text = document(trained(module), module, sizes)
    assert "seeds are summits of `centre` above 0.15, the mask is `foreground` above 0.45." in text
    module = unet(MapLayout(types=0, centre=False))
    text = document(trained(module, score=None), module, sizes)
    assert "Try the connected pieces of `foreground` above 0.5." in text and "`centre` above" not in text
    assert "Out-of-fold score: not measured. Validate it" in text
    module.decoder = OffsetVoting(foreground_low=0.5, smooth=1.0, depth=0.1, min_area=20, largest_piece=True)
    text = document(trained(module), module, sizes)
    assert "Try" not in text and "were read with" not in text
    reading = {"channel": 2, "pages": "mean"}
    text = document(trained(module, metadata={"reading": reading}), module, sizes)
    assert "of the network. The images of the training were read with channel=2, pages=mean; channels count" in text


def levels_in_readme(**metadata: Any) -> str:
    module = unet(MapLayout(types=0, centre=False))
    text = document(trained(module, metadata=metadata), module, TensorSizes(step=8, halo=12))
    return text.partition("grey levels 0 to 255. ")[2].partition("Bring")[0].strip()


def test_the_readme_tells_the_grey_levels_that_predict_brings_images_to() -> None:
    assert "8-bit files of about mean 100 and standard deviation 40; others were shifted" in levels_in_readme()
    told = {"mean": 90.0, "std": 7.5}
    found = {
        kind: levels_in_readme(reading={"levels": {"levels": kind, **told}})
        for kind in ("auto", "exact", "range", "standardise")
    }
    assert "about mean 90 and standard deviation 7.5;" in found["auto"]
    assert "8-bit files, as they are." in found["exact"] and "mean" not in found["exact"]
    assert "lowest value of each image was scaled to 0, its highest to 255." in found["range"]
    assert "shifted and scaled to mean 90 and standard deviation 7.5, rounded" in found["standardise"]
    assert not any("own statistics" in text for text in found.values())
    own = levels_in_readme(model={"network": {"mean": None, "std": None}}, reading={"levels": {"levels": "range"}})
    assert own.startswith("In training the lowest value") and own.endswith("choose tiles as large as training crops.")


def test_a_package_that_nothing_checks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    check_package(tmp_path / "a.zip", tmp_path / "model.zip")
    assert "model.zip: its format was not checked: bioimageio.spec is not installed" in caplog.text


def test_models_that_are_no_maps_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    for module, reason in [
        (ToyModule(), "takes one U-Net.*not a ToyModule; write it with format=bundle"),
        (unet(FULL, Enlarged(windows=Whole(), factor=2.0)), "through Enlarged; give tta=none inference=tiles, or"),
    ]:
        with pytest.raises(InputError, match=f"^best.ckpt: format=bioimageio .*{reason}") as error:
            write_bioimageio(trained(module), path)
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_network_of_nan_or_a_bad_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    module = unet(FULL)
    for name in ["cell", "a/b/c/d", "é" * 9, "x" * 129]:
        with pytest.raises(InputError, match=f"^name={name}: BioImage.IO takes 5 to 128 letters"):
            write_bioimageio(trained(module, name=name), tmp_path / "model.zip")
    torch.nn.init.constant_(module.network.head.weight, float("nan"))  # type: ignore[arg-type, union-attr]
    with pytest.raises(InputError, match=r"^best.ckpt: the network's output is NaN"):
        write_bioimageio(trained(module), tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_missing_metadata_are_named() -> None:
    assert missing_metadata(CARD) == ""
    lacking = dataclasses.replace(CARD, authors=[], license=None, cite="in preparation")
    assert missing_metadata(lacking) == "authors=, license=, cite= with a DOI or URL"


def test_citations() -> None:
    assert citations(None) == citations("") == citations("in preparation") == []
    assert citations("10.1038/s41592-021-01262-9") == [
        {"text": "10.1038/s41592-021-01262-9", "doi": "10.1038/s41592-021-01262-9"}
    ]
    assert citations("see https://example.org/a(b).")[0]["url"] == "https://example.org/a(b"


@pytest.mark.parametrize(
    ("step", "halo", "least"), [(32, 16, 64), (32, 15, 32), (32, 32, 96), (8, 12, 32), (16, 1, 16)]
)
def test_the_least_size_leaves_something_within_the_halo(step: int, halo: int, least: int) -> None:
    assert TensorSizes(step=step, halo=halo).least == least > 2 * halo


@pytest.mark.slow
def test_the_test_of_bioimageio_core_passes(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("bioimageio.core")
    # on its own: warnings of that package are not ours, and it keeps a cache
    code = (
        "import sys; from bioimageio.core import test_description as test; summary = test(sys.argv[1]);"
        "print(summary.format()); sys.exit(summary.status != 'passed')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, package], env=None, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
