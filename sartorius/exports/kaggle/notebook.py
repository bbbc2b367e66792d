"""The notebook of a kit, and the metadata by which the `kaggle` program uploads both."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sartorius.files import write_json

KIT = "sartorius_kit.json"  # by which the notebook finds the data set, wherever it is mounted
NOTEBOOK = "notebook.ipynb"

_ABOUT = """
# Cell instance segmentation with {members}

Made by `python -m sartorius.kaggle`. Without a network: everything comes from the data set `{name}`. It ends within
{hours:g} hours of its start, and a complete `submission.csv` is there from the first minute on: better predictions
replace it as long as there is time. Run again after an interruption, it goes on where it was.
"""
_INSTALL = """
import os
import subprocess
import sys
import time
from pathlib import Path

started = time.time()
inputs = Path(os.environ.get("SARTORIUS_INPUTS", "/kaggle/input"))
found = sorted(inputs.rglob("{kit}"))
assert len(found) == 1, f"add the data set {name} to this notebook, and no other kit: below {inputs} lie {found}"
kit = found[0].parent
offline = ["--no-index", "--no-deps", "--find-links", str(kit)]  # and nothing that is installed changes
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *offline, {packages}], check=True)
"""
_RUN = """
options = [f"run={kit}", f"inputs={inputs}", f"output={Path.cwd()}", f"started={started}"]
# python -m sartorius.kaggle, in a process that ends with this one, even by a kill
command = [sys.executable, "-u", "-m", "sartorius.running.budget.jobs", "kaggle", *options]
streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
with subprocess.Popen(command, **streams, text=True) as run:
    for line in run.stdout:
        print(line, end="", flush=True)
assert run.returncode in (0, 3), "see the last lines above"  # 3: some images have no prediction
"""
_SHOW = """
lines = Path("submission.csv").read_text().splitlines()
print(len(lines) - 1, "rows")
print(*(line[:70] for line in lines[:5]), sep="\\n")
"""


def write_notebook(path: Path, name: str, members: Sequence[str], hours: float, packages: Sequence[str]) -> None:
    """Write the notebook (nbformat 4.5) of a kit that installs `packages` from the data set `name`."""
    quoted = ", ".join(f'"{package}"' for package in packages)
    texts = [
        ("markdown", _ABOUT.format(members=", ".join(members), name=name, hours=hours)),
        ("markdown", "Install what the image lacks."),
        ("code", _INSTALL.replace("{kit}", KIT).replace("{packages}", quoted).replace("{name}", name)),
        ("markdown", "Predict, join and submit, the most valuable first."),
        ("code", _RUN),
        ("code", _SHOW),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    cells = [_cell(number, kind, text) for number, (kind, text) in enumerate(texts)]
    write_json(path, {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5})


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    own: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    source = textwrap.dedent(text).strip().splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, **own, "source": source}


def write_dataset_metadata(folder: Path, user: str, name: str) -> None:
    """Write what `kaggle datasets create -p FOLDER` reads."""
    about = {"title": name, "id": f"{user}/{name}", "licenses": [{"name": "other"}]}
    write_json(folder / "dataset-metadata.json", about)


def write_kernel_metadata(folder: Path, user: str, name: str, competition: str, gpu: bool) -> None:
    """Write what `kaggle kernels push -p FOLDER` reads; the data set `name` and the competition are its inputs."""
    about = {
        "id": f"{user}/{name}-notebook",
        "title": f"{name}-notebook",
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": gpu,
        "enable_internet": False,
        "dataset_sources": [f"{user}/{name}"],
        "competition_sources": [competition],
        "kernel_sources": [],
        "model_sources": [],
    }
    write_json(folder / "kernel-metadata.json", about)
