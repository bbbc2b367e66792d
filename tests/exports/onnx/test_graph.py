import numpy as np
import onnxruntime
import pytest
import torch

from sartorius.errors import InputError
from sartorius.exports.onnx import graph
from sartorius.exports.onnx.graph import multiple_of, write_crop_graph, write_graph
from sartorius.modules.unet import UNetModule
from sartorius.networks.cell_maps import MapLayout
from sartorius.networks.encoders import PlainEncoder, TimmEncoder
from sartorius.networks.unet import UNet
from sartorius.postprocess.decoders import Watershed
from tests.exports.onnx.bright import crop_module

LAYOUT = MapLayout(types=3, border=2, centre=True, offset_scale=16.0)


def module(encoder=None, **options):
    torch.manual_seed(0)
    encoder = encoder or PlainEncoder(4, 2, "batch")
    options = {"mean": 128.0, "std": 12.0, "scale": 1.0, "norm": "batch", "channels": [8], **options}
    network = UNet(encoder, LAYOUT, **options)
    for layer in network.modules():  # as after a training
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    decoder = Watershed(0.3, 0.3, 0.7, 0.08, 0.3, 20)
    built = UNetModule(
        network, LAYOUT, decoder, torch.optim.SGD, cell_type_names=["a", "b", "c"], scheduler=None, lr_decay=None
    )
    return built.eval()


def run(path, images):
    session = onnxruntime.InferenceSession(path)
    return session.run(["maps"], {"image": images})[0]


def images(*shape):
    return np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)


def test_maps_of_all_sizes_are_those_of_the_module(tmp_path):
    model = module(TimmEncoder("tf_efficientnet_lite0", levels=2))  # pads by the size of its input
    write_graph(model, tmp_path / "maps.onnx")

    assert [file.name for file in tmp_path.iterdir()] == ["maps.onnx"]
    multiple = multiple_of(model)
    assert multiple == 4
    for batch, rows, columns in ((1, 1, 1), (2, 3, 8), (1, 32, 17), (5, 2, 2)):
        given = images(batch, 1, rows * multiple, columns * multiple)
        with torch.no_grad():
            logits = model.network(torch.from_numpy(given))
        found = run(tmp_path / "maps.onnx", given)
        assert found.shape == (batch, 8, rows * multiple, columns * multiple)
        for k in range(batch):
            wanted = torch.cat(list(model.activate(logits[k]).values())).numpy()
            np.testing.assert_allclose(found[k], wanted, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found[:, 5:].sum(axis=1), 1, atol=1e-5)


def test_logits_without_an_own_normalisation_and_scale(tmp_path):
    model = module(mean=None, std=None, scale=2.0)
    write_graph(model, tmp_path / "logits.onnx", activated=False)

    given = images(1, 1, 24, 40) / 255
    plain = module(mean=0.0, std=1.0)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = plain.network(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(run(tmp_path / "logits.onnx", given), wanted, atol=1e-4)


def test_enlargement_and_statistics_of_each_image_are_in_the_graph(tmp_path):
    model = module(mean=None, std=None, scale=1.5)
    assert multiple_of(model) == 8  # 12 enlarged pixels, 3 times the divisor
    write_graph(model, tmp_path / "maps.onnx")

    given = images(2, 1, 16, 24)
    given[1] = given[1] / 4 + 100
    with torch.no_grad():
        logits = model.network(torch.from_numpy(given))
    wanted = torch.stack([torch.cat(list(model.activate(image).values())) for image in logits]).numpy()
    np.testing.assert_allclose(run(tmp_path / "maps.onnx", given), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [True, False])
def test_logits_of_crops(tmp_path, prompt):
    body = UNet(TimmEncoder("tf_efficientnet_lite0", levels=2, in_channels=1 + prompt), 2, channels=[8], norm="batch",
                mean=None, std=None)  # fmt: skip
    model = crop_module(body.eval(), prompt=prompt, size=30)  # no multiple of the network's 4
    write_crop_graph(model, tmp_path / "crops.onnx")

    for count in (1, 2, 7):
        crops = torch.randn(count, 1 + prompt, 30, 30)
        with torch.no_grad():
            wanted = model.network(crops).numpy()
        session = onnxruntime.InferenceSession(tmp_path / "crops.onnx")
        np.testing.assert_allclose(session.run(["logits"], {"crops": crops.numpy()})[0], wanted, atol=1e-5)


def test_graph_that_differs_is_not_kept(tmp_path, monkeypatch):
    original = graph._export

    def wrong(built, *given):
        torch.nn.init.ones_(built.network.head.bias)
        original(built, *given)

    monkeypatch.setattr(graph, "_export", wrong)
    with pytest.raises(InputError, match=r"maps.onnx: not written, onnxruntime's output for \(1, 1, 8, 12\) differs"):
        write_graph(module(), tmp_path / "maps.onnx")
    assert not list(tmp_path.iterdir())


def test_networks_that_onnx_does_not_hold(tmp_path):
    with pytest.raises(InputError, match="only a U-Net"):
        write_graph(torch.nn.Linear(1, 1), tmp_path / "maps.onnx")

    class Growing(torch.nn.Module):
        channels, reductions = (4, 4), (1, 2)

        def forward(self, x):
            raise NotImplementedError("no symbols here\nmore lines")

    with pytest.raises(InputError, match=r"cannot be written as ONNX \(Not.*: no symbols here more lines\); write"):
        write_graph(module(Growing()), tmp_path / "maps.onnx")
    with pytest.raises(InputError, match=r"model.network.scale=1.2345: no size of images"):
        multiple_of(module(scale=1.2345))
    assert not list(tmp_path.iterdir())
