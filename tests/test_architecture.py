"""Who may import whom: the contracts of pyproject.toml hold, and they name every module there is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sartorius"
VERBS = (
    "train",
    "evaluate",
    "predict",
    "ensemble",
    "tune",
    "fit_filter",
    "pseudo_label",
    "prepare",
    "submit",
    "browse",
    "report",
)
KNOW_HYDRA = {*VERBS, "running", "sweeps"}


def contracts() -> dict[str, dict[str, object]]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {contract["type"]: contract for contract in table}


def modules() -> set[str]:
    return {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }


def sources() -> list[Path]:
    return sorted(
        path
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in KNOW_HYDRA
    )


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of ROOT, checked on the package `sartorius` in `folder` by a process of its own."""
    program = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))"
    )
    command = [sys.executable, "-c", program, str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_contracts_hold() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("structures/rle.py", "from sartorius import data"),  # upwards
        ("postprocess/__init__.py", "from sartorius.metrics import functional"),  # sideways
        ("files.py", "import omegaconf"),  # Hydra below wiring
        ("helpers.py", ""),  # a module that no layer knows
    ],
)
def test_contracts_catch(tmp_path: Path, file: str, line: str) -> None:
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / "sartorius" / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    with (tmp_path / "sartorius" / file).open("a") as module:
        module.write(f"\n{line}\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert file.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") in done.stdout


def test_hydra_contract_names_every_module_below_wiring() -> None:
    forbidden = contracts()["forbidden"]["source_modules"]
    assert isinstance(forbidden, list)
    assert {name.removeprefix("sartorius.") for name in forbidden} == modules() - KNOW_HYDRA


def test_there_are_sources() -> None:
    assert len(sources()) > 20


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_config_object_below_wiring(path: Path) -> None:
    for word in ("DictConfig", "ListConfig", "omegaconf", "import hydra"):
        assert word not in path.read_text(), f"{path}: takes objects and numbers, {word} belongs into wiring.py"


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_light(verb: str) -> None:
    """Importing a verb must not load torch: `--help` would take seconds."""
    program = f"import sys, sartorius.{verb}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
