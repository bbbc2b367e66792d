"""Wheels of what is lacking, from a folder (no network), and the wheel of this package."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

import sartorius
from sartorius.errors import InputError
from sartorius.exports.kaggle.own_wheel import write_own_wheel
from sartorius.exports.kaggle.wheelhouse import INSTALLED, Wheelhouse, own_requirements, read_freeze
from sartorius.running.console import CONF_DIR

PACKAGE = Path(sartorius.__file__).parent


def fake_wheel(folder: Path, name: str, version: str, requires: list[str], tag: str = "py3-none-any") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {line}" for line in requires)]
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")


def house(tmp_path: Path, installed: dict[str, str]) -> Wheelhouse:
    (tmp_path / "kit").mkdir(exist_ok=True)
    return Wheelhouse(tmp_path / "kit", installed, "3.12", tmp_path / "source")


def test_what_is_lacking_comes_with_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    needs = ["Beta_Pkg>=2", "gamma; python_version < '3'", "delta; extra == 'more'", "epsilon>=1"]
    fake_wheel(tmp_path / "source", "alpha", "1.2", needs)
    fake_wheel(tmp_path / "source", "alpha", "3.0", [])
    fake_wheel(tmp_path / "source", "epsilon", "1.0", ["alpha"], "cp312-cp312-manylinux_2_28_x86_64")
    made = house(tmp_path, {"beta-pkg": "1.0", "zeta": ""})
    made.add(["alpha<2", "zeta>=7"])
    assert made.names == ["alpha", "epsilon"]
    assert made.kept == ["beta-pkg stays as it is there, 1.0, though Beta_Pkg>=2 is required"]
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == [
        "alpha-1.2-py3-none-any.whl",
        "epsilon-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    ]


def test_a_wheel_that_is_nowhere_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    fake_wheel(tmp_path / "source", "alpha", "1.0", [], "cp39-cp39-manylinux_2_28_x86_64")
    with pytest.raises(InputError, match=r"no wheel of alpha>=1 for Python 3.12: .*give wheels=FOLDER"):
        house(tmp_path, {}).add(["alpha>=1"])
    assert not list((tmp_path / "kit").iterdir())


def test_a_freeze(tmp_path: Path) -> None:
    file = tmp_path / "freeze.txt"
    file.write_text("# a comment\n-e git+https://x/y\nA_b.C==1.0+cpu\nlocal @ file:///home/x.whl\n\n")
    assert read_freeze(file) == {"a-b-c": "1.0+cpu", "local": ""}
    assert read_freeze(file, ["a_b.c"]) == {"local": ""}
    for content, message in [("numpy 1.0\n", "line 1: expected NAME==VERSION"), ("# none\n", "no packages in it")]:
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            read_freeze(file)
    with pytest.raises(InputError, match="no such file"):
        read_freeze(tmp_path / "none.txt")


def test_the_list_that_comes_along_has_a_date_and_the_large_packages() -> None:
    assert "May 2026" in INSTALLED.read_text().splitlines()[0]
    assert {"torch", "torchvision", "numpy", "pandas", "timm", "pytorch-lightning"} <= set(read_freeze(INSTALLED))


def test_requirements_are_those_of_the_package() -> None:
    everything, fewer = own_requirements([]), own_requirements(["wandb", "Scikit_Learn"])
    assert {line.partition("<")[0].partition(">")[0] for line in set(everything) - set(fewer)} == {
        "wandb",
        "scikit-learn",
    }
    assert not any("extra" in line for line in everything)
    with pytest.raises(InputError, match="left_out: nonsense"):
        own_requirements(["nonsense"])


def test_the_own_wheel_holds_every_module_and_config_with_its_sum(tmp_path: Path) -> None:
    given = tmp_path, PACKAGE, CONF_DIR, sartorius.__version__, ["numpy>=1"]
    wheel = write_own_wheel(*given)
    with zipfile.ZipFile(wheel) as file:
        content = {name: file.read(name) for name in file.namelist()}
    modules = {f"sartorius/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*.py") if "plugin" not in path.parts}
    configs = {f"sartorius/conf/{path.relative_to(CONF_DIR)}" for path in CONF_DIR.rglob("*.yaml")}
    assert modules | configs <= set(content) and len(modules) > 100
    info = f"sartorius-{sartorius.__version__}.dist-info"
    rows = [line.rsplit(",", 2) for line in content[f"{info}/RECORD"].decode().splitlines()]
    assert {row[0] for row in rows} == set(content)
    for name, digest, size in rows[:-1]:
        sha = base64.urlsafe_b64encode(hashlib.sha256(content[name]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={sha}", str(len(content[name]))), name
    assert b"Requires-Dist: numpy>=1\n" in content[f"{info}/METADATA"]
    before = wheel.read_bytes()
    assert write_own_wheel(*given).read_bytes() == before
