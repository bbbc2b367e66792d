"""The shape of the package: who imports whom, what lies at its root, where a command is added."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layers import commands

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sartorius"
COMMANDS = commands(ROOT)
KNOW_HYDRA = {*COMMANDS, "running", "sweeps"}
ABOVE_RUNNING = {"napari_plugin"}  # takes models from there, and no configs
FILES = sorted(PACKAGE.rglob("*.py"))


def modules() -> set[str]:
    """What lies at the top of the package."""
    return {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }


def sources() -> list[Path]:
    return [path for path in FILES if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in KNOW_HYDRA]


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def copy_tree(folder: Path) -> None:
    """What the contracts, the commands and their tests are made of."""
    for part in ("sartorius", "conf", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """The contracts, checked in a working copy by a process of its own."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_contracts_hold() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("structures/rle.py", "from sartorius import data"),  # upwards
        ("postprocess/__init__.py", "from sartorius.metrics import functional"),  # sideways
        ("train.py", "from sartorius import evaluate"),  # from command to command
        ("files.py", "import omegaconf"),  # Hydra below running
        ("helpers.py", ""),  # a module that no layer knows
    ],
)
def test_contracts_catch(tmp_path: Path, file: str, line: str) -> None:
    copy_tree(tmp_path)
    with (tmp_path / "sartorius" / file).open("a") as module:
        module.write(f"\n{line}\n")
    done = check(tmp_path)
    assert done.returncode == 1
    assert file.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") in done.stdout


def test_a_command_is_a_file_and_a_conf_root(tmp_path: Path) -> None:
    """Nothing else is written, and the contracts and the tests of all commands take it."""
    copy_tree(tmp_path)
    (tmp_path / "conf" / "count.yaml").write_text("folder: ???\nhydra:\n  run: {dir: .}\n  output_subdir: null\n")
    (tmp_path / "sartorius" / "count.py").write_text(
        '"""Count the files of a folder."""\n\n'
        "from pathlib import Path\n\n"
        "from omegaconf import DictConfig\n\n"
        "from sartorius.running.commands import command\n\n\n"
        '@command("count")\n'
        "def main(cfg: DictConfig) -> None:\n"
        '    """Print how many there are."""\n'
        '    print(len(list(Path(str(cfg.folder)).iterdir())), "files")\n\n\n'
        'if __name__ == "__main__":\n'
        "    main()\n"
    )
    assert "count" in commands(tmp_path)
    assert check(tmp_path).returncode == 0

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "three").mkdir()
    for number in range(3):
        (tmp_path / "three" / str(number)).touch()
    assert "3 files" in run("sartorius.count", "folder=three")
    of_commands = ("test_architecture.py", "conf/test_conf.py")
    ran = run("pytest", "-q", "-k", "count", *(f"tests/{file}" for file in of_commands))
    assert re.search(r"^[2-9] passed", ran, re.MULTILINE), ran


def test_hydra_contract_names_every_module_below_running() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = (contract["source_modules"] for contract in contracts if contract["type"] == "forbidden")
    assert {module.removeprefix("sartorius.") for module in forbidden} == modules() - KNOW_HYDRA - ABOVE_RUNNING


def test_there_are_sources() -> None:
    assert len(sources()) > 20 and len(COMMANDS) > 10


@pytest.mark.parametrize("path", sources(), ids=name)
def test_no_config_object_below_running(path: Path) -> None:
    for word in ("DictConfig", "ListConfig", "omegaconf", "import hydra"):
        assert word not in path.read_text(), f"{path}: takes objects and numbers, {word} belongs into running/"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command: str) -> None:
    """Importing a command must not load torch: `--help` would take seconds."""
    program = f"import sys, sartorius.{command}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["predict", "convert", "submit"])
def test_help_of_a_prediction_is_lighter_still(command: str) -> None:
    program = (
        f"import sys, sartorius.{command}; sys.exit(str({{'scipy', 'pandas', 'cv2', 'skimage'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"


def test_the_root_holds_commands_and_packages() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {f"{command}.py" for command in COMMANDS} | {"__init__.py", "errors.py", "files.py"}


def test_names_tell_what_a_module_holds() -> None:
    parts = {part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not parts & {"utils", "helpers", "common", "core", "misc"}


def test_an_image_is_an_image() -> None:
    texts = [*FILES, *(ROOT / "conf").rglob("*.yaml"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    assert [path for path in texts if re.search(r"\bpictures?\b", path.read_text(), re.IGNORECASE)] == []


def test_no_import_goes_round() -> None:
    """No top-level import leads back to its module; one within a function counts too."""
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    arrows = {module: set(imported(path, known)) - {module} for module, path in known.items()}
    while leaves := {module for module, targets in arrows.items() if not targets & set(arrows)}:
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}
    assert arrows == {}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, those for type checking left out."""
    tree = ast.parse(path.read_text())
    typing = {id(inner) for node in ast.walk(tree) if type_checking(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (module if module in known else node.module for module in inner if node.module in known)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
