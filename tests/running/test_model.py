"""A trained model as a function: the cells of an array are those that the command finds in its file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

import sartorius
from sartorius.errors import InputError
from sartorius.formats.cells import Cells
from sartorius.networks import checkpoints
from sartorius.postprocess.finalise import settings_of
from sartorius.postprocess.steps import PasteMasks
from sartorius.predict import main
from sartorius.running import building, wiring
from tests.doubles import toy_config
from tests.rescoring.size_filter import larger_than
from tests.smoke.test_unet_family import UNET

CELLS = ["model.network.foreground=0.5", "model.decoder.depth=0", "model.decoder.peak=0", "model.decoder.smooth=0"]
KEPT = [
    "postprocess.score=null", "postprocess.min_area=null",
    *(f"postprocess.mask.threshold.{name}=0.3" for name in ("shsy5y", "astro", "cort")),
]  # fmt: skip
PIXELS = np.random.default_rng(0).integers(100, 156, (48, 64)).astype(np.uint8)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with random weights, which sees cells everywhere."""
    torch.manual_seed(0)
    module = building.build_module(wiring.compose("train", [*UNET, *CELLS]), pretrained=False)
    path = tmp_path_factory.mktemp("unet") / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, path)
    return path


def predicted(checkpoint: Path, folder: Path, *options: str) -> NDArray[np.integer]:
    """The label image that the command writes of the only image of a folder."""
    fixed = [f"checkpoint={checkpoint}", f"images={folder / 'images'}", f"output={folder / 'out'}", "write=[labels]"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Lightning: few workers
        main(wiring.compose("predict", [*fixed, "trainer.accelerator=cpu", "data.num_workers=0", *options]))
    (path,) = (folder / "out" / "labels").iterdir()
    return tifffile.imread(path)


def same(cells: Cells, labels: NDArray[np.integer]) -> bool:
    assert len(cells) > 5
    return np.array_equal(cells.labels, labels)


@pytest.mark.parametrize("options", [[], ["tta=flips"], ["inference=tiles", "inference.size=32", "inference.overlap=12",
                                     "inference.margin=4"]], ids=["whole", "flips", "tiles"])  # fmt: skip
def test_the_cells_are_the_command_s(checkpoint: Path, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "images" / "a.png")
    labels = predicted(checkpoint, tmp_path, *KEPT, *options)
    model = sartorius.load(checkpoint, *KEPT, *options, device="cpu")
    assert same(model(PIXELS), labels)
    assert same(model(PIXELS), labels), "once more"


def test_an_image_of_any_type(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    wide = (PIXELS.astype(np.uint16) * 13 + 70).astype(np.uint16)
    tifffile.imwrite(tmp_path / "images" / "a.tif", wide)
    labels = predicted(checkpoint, tmp_path, *KEPT)
    model = sartorius.load(checkpoint, *KEPT, device="cpu")
    for image in (wide, wide.astype(np.float32), wide.astype(np.int64), wide[..., None], wide.tolist()):
        assert same(model(image), labels)
    eight = model(PIXELS).labels
    for image in (PIXELS[..., None].repeat(3, 2), PIXELS / 255):
        assert np.array_equal(model(image).labels, eight)
    assert model(np.zeros((5, 7), bool)).labels.shape == (5, 7)


def test_a_channel_is_chosen(checkpoint: Path) -> None:
    two = np.stack([PIXELS[::-1], PIXELS], 2)
    assert same(sartorius.load(checkpoint, *KEPT, "channel=1", device="cpu")(two),
                sartorius.load(checkpoint, *KEPT, device="cpu")(PIXELS).labels)  # fmt: skip
    with pytest.raises(InputError, match="mine: 2 channels, neither colours nor opaque alpha; give channel=0 to 1"):
        sartorius.load(checkpoint, device="cpu")(two, image_id="mine")
    with pytest.raises(InputError, match="no channel 3, it has 3"):
        sartorius.load(checkpoint, "channel=3", device="cpu")(PIXELS[..., None].repeat(3, 2))


def test_opaque_alpha_is_left_out(checkpoint: Path) -> None:
    model = sartorius.load(checkpoint, *KEPT, device="cpu")
    colours = np.stack([PIXELS] * 3, 2)
    opaque = np.dstack([colours, np.full(PIXELS.shape, 255, np.uint8)])
    assert same(model(opaque), model(PIXELS).labels)
    with pytest.raises(InputError, match="image: 4 channels, neither colours nor opaque alpha"):
        model(np.dstack([colours, PIXELS]))


def test_results_are_at_hand(checkpoint: Path, tmp_path: Path) -> None:
    cells = sartorius.load(checkpoint, *KEPT, device="cpu")(PIXELS, image_id="a")
    assert cells.labels.shape == PIXELS.shape and cells.labels.max() == len(cells)
    table = cells.table(pixel_size=0.5)
    np.testing.assert_allclose(table["area_um2"], table["area"] * 0.25)
    assert table["image"].eq("a").all() and table["intensity_mean"].notna().all()
    for name in ("a.zip", "a.tif", "a.csv", "a.png"):
        assert cells.save(tmp_path / name).stat().st_size > 0


def test_the_image_stays_the_caller_s(checkpoint: Path) -> None:
    image = PIXELS.copy()
    image.flags.writeable = False
    cells = sartorius.load(checkpoint, *KEPT, device="cpu")(image)
    assert cells.grey is not None and not np.shares_memory(cells.grey, image)
    np.testing.assert_array_equal(cells.grey, PIXELS)


def test_the_pixel_size_is_kept_and_scales(checkpoint: Path) -> None:
    model = sartorius.load(checkpoint, *KEPT, "scale=0.5", device="cpu")
    cells = model(PIXELS, pixel_size=0.5)
    assert cells.pixel_size == 0.5 and cells.labels.shape == PIXELS.shape
    whole = sartorius.load(checkpoint, *KEPT, "pixel_size=0.7", device="cpu")(PIXELS)
    assert whole.pixel_size == 0.7 and not np.array_equal(whole.labels, cells.labels)


@pytest.mark.parametrize("size", [0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none(checkpoint: Path, size: float) -> None:
    with pytest.raises(InputError, match="image: pixel_size=.*; expected micrometres above 0"):
        sartorius.load(checkpoint, device="cpu")(PIXELS, pixel_size=size)


def test_thresholds_of_the_types_of_the_model(tmp_path: Path) -> None:
    module = building.build_module(toy_config(cell_type_names=["neuron"]))
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "a.ckpt")
    model = sartorius.load(tmp_path / "a.ckpt", "postprocess.mask.threshold={neuron: 0.4}", device="cpu")
    assert settings_of(model.postprocess.find(PasteMasks))["threshold"]["neuron"] == 0.4
    with pytest.raises(InputError, match="no such cell type; there are default, neuron"):
        sartorius.load(tmp_path / "a.ckpt", "postprocess.mask.threshold={cort: 0.4}", device="cpu")


def test_thresholds_and_a_filter(tmp_path: Path) -> None:
    """The toy finds one box of 15 x 6 pixels in any image."""
    module = building.build_module(toy_config())
    torch.save({"state_dict": module.state_dict(), checkpoints.KEY: dict(module.hparams)}, tmp_path / "toy.ckpt")

    def count(*options: str) -> int:
        return len(sartorius.load(tmp_path / "toy.ckpt", *options, device="cpu")(PIXELS))

    assert count() == 1 and count("postprocess.score.threshold.default=0.99") == 0
    larger_than(15 * 6).save(tmp_path / "filter.npz")
    assert count(f"filter={tmp_path / 'filter.npz'}") == 0


@pytest.mark.parametrize("image", [np.zeros(5), np.zeros((0, 4)), np.zeros((2, 2, 2, 2)), np.full((4, 4), "a"),
                                   np.zeros((4, 4), complex)])  # fmt: skip
def test_an_array_that_is_no_image(checkpoint: Path, image: NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"image: .*; expected numbers \[height, width\] or x channels"):
        sartorius.load(checkpoint, device="cpu")(image)


def test_nan_and_options_that_do_not_fit(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image: 4 pixels are NaN or infinite"):
        sartorius.load(checkpoint, device="cpu")(np.full((2, 2), np.nan))
    with pytest.raises(InputError, match="no such checkpoint"):
        sartorius.load(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match="give either checkpoint="):
        sartorius.load(None)
    with pytest.raises(InputError, match=r"overlaps"):
        sartorius.load(checkpoint, "overlaps=some")
