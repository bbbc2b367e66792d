"""timm's hub: its cache, a download, and no network; here without one, with files in the place of answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from sartorius.errors import InputError
from sartorius.networks import hub_weights
from sartorius.networks.encoders import TimmEncoder
from tests.networks.test_local_weights import equal, network


class Hub:
    """A hub that has the files of a folder; those of `cached` are on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cached, self.asked = folder, set[str](), list[tuple[str, str, str | None]]()

    def url(self, repository: str, file: str, revision: str | None) -> str:
        return f"{repository}/{file}@{revision}"

    def ask(self, url: str, timeout: float) -> None:
        file = url.partition("@")[0].rpartition("/")[2]
        if not (self.folder / file).is_file():
            raise EntryNotFoundError(f"no {file}")

    def download(self, repository: str, file: str, revision: str | None, local_files_only: bool = False) -> str:
        if local_files_only and file not in self.cached:
            raise LocalEntryNotFoundError("not in the cache")
        self.asked.append((repository, file, revision))
        return str(self.folder / file)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path)
    monkeypatch.setattr(hub_weights, "hf_hub_url", hub.url)
    monkeypatch.setattr(hub_weights, "get_hf_file_metadata", hub.ask)
    monkeypatch.setattr(hub_weights, "hf_hub_download", hub.download)
    return hub


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_of_the_hub(hub: Hub, file: str, cached: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = network("resnet10t")
    if file == "model.safetensors":
        save_file(state, hub.folder / file)
    else:
        torch.save(state, hub.folder / file)
    hub.cached = {file} if cached else set()
    assert equal(TimmEncoder("resnet10t", "imagenet").body, state)
    assert hub.asked == [("timm/resnet10t.c3_in1k", file, None)]
    assert "resnet10t starts from timm's hub, timm/resnet10t.c3_in1k" in caplog.messages


def test_a_damaged_cache_is_named(hub: Hub) -> None:
    (hub.folder / "model.safetensors").write_bytes(b"")
    hub.cached = {"model.safetensors"}
    with pytest.raises(InputError, match=r"model\.safetensors: no safetensors file, or a damaged one"):
        TimmEncoder("resnet10t", "imagenet")


def test_networks_that_are_not_on_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_weights.hub_weights("no_such_network") is None
    assert hub_weights.hub_weights("legacy_seresnet18") is None  # at an address of its own
    with pytest.raises(InputError, match=r"of resnet10t are not on this machine, .* \(no pytorch_model.bin\)"):
        TimmEncoder("resnet10t", "imagenet")


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_it_is_asked_once(tmp_path: Path, offline: str) -> None:
    """In a namespace without a network, where that is permitted."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace (unshare -n)")
    program = "from sartorius.networks.encoders import TimmEncoder; TimmEncoder('resnet10t', 'imagenet')"
    environment: dict[str, Any] = {
        "PYTHONPATH": ":".join(filter(None, sys.path)), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline,
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert "model.network.encoder.weights=imagenet: the weights of resnet10t are not on this machine" in last
    assert "Retry" not in done.stderr
    assert ("offline mode is enabled" in done.stderr) == (offline == "1")
