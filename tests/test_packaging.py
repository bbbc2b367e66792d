"""The wheel: holds the package and conf/, and runs from any folder without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that two test processes never write into one folder."""
    work = tmp_path_factory.mktemp("build")
    for name in ("sartorius", "conf"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work / name)
    program = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, "dist"], cwd=work, check=True, capture_output=True)
    return next((work / "dist").glob("*.whl"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_wheel_holds_every_module_and_config(wheel: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sartorius").rglob("*.py")}
    modules = {name.removeprefix("sartorius/sweeps/plugin/") for name in modules}  # hydra_plugins lies at the top
    configs = {f"sartorius/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert len(modules) > 20
    assert len(configs) > 20
    assert modules | configs <= names(wheel)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    extra = {name for name in names(wheel) if not name.endswith((".py", ".yaml")) and ".dist-info/" not in name}
    page = {f"sartorius/reports/page.{kind}" for kind in ("css", "js", "html.j2")}
    assert extra == {*page, "sartorius/exports/kaggle/installed.txt", "sartorius/networks/builtin.zip"}


def test_wheel_brings_the_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (points,) = (file.read(name).decode() for name in file.namelist() if name.endswith("entry_points.txt"))
    assert points.split("\n\n") == [
        "[console_scripts]\nsartorius = sartorius.running.console:main",
        "[napari.manifest]\nsartorius = sartorius.napari_plugin:napari.yaml\n",
    ]
    assert "sartorius/napari_plugin/napari.yaml" in names(wheel)


def test_lock_has_no_addresses_and_no_paths() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(pins) > 50
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+( ;.*)?", line), line
    assert not any("://" in line or re.search(r"(^|\s)/", line) for line in lines)


@pytest.mark.slow
def test_installed_wheel_composes_the_experiment(wheel: Path, tmp_path: Path) -> None:
    """An empty environment that borrows this one's dependencies, but not its editable install of the repository."""
    venv, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    borrowed = sysconfig.get_path("purelib")
    # sys.path only: .pth files of a folder added this way are not read, and one of them is the editable install
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [python, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(run("-c", "import sartorius; print(sartorius.__file__)").strip()).is_relative_to(venv)
    printed = run("-m", "sartorius.train", "experiment=maskrcnn_r50", "--cfg", "job")
    assert "sartorius.modules.mask_rcnn.MaskRCNNModule" in printed
    run("-c", "import hydra_plugins.sartorius_sweepers")
    assert not list(elsewhere.iterdir())
