"""A kit's notebook run on this machine: a new environment, no network, inputs that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from sartorius.data.image_files import read_header
from sartorius.data.images import list_images
from sartorius.errors import InputError, collected
from sartorius.exports.kaggle.notebook import NOTEBOOK
from sartorius.formats.submission import HEADER, read_submission, validate_submission
from sartorius.structures.cell_types import HEIGHT, WIDTH

# A shell that makes its first argument a read-only folder and then becomes the rest
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_SANDBOXES = (["unshare", "--net", "--mount"], ["unshare", "--net", "--mount", "--map-root-user"])
_CELLS = """
import json, sys
cells = json.load(open(sys.argv[1]))["cells"]
names = {"__name__": "__main__"}
for cell in cells:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
"""


def dry_run(kit: Path, images: Path | None, lacking: Sequence[str]) -> None:
    """Run the code cells of a kit's notebook, and check the submission.

    images: a folder of test images; None draws three. lacking: packages that the new environment does not get from
    this one. Raises InputError where the notebook fails, and for a file that Kaggle would refuse.
    """
    with tempfile.TemporaryDirectory(prefix="sartorius-dry-run-") as name:
        folder = Path(name)
        inputs, working = folder / "input", folder / "working"
        working.mkdir()
        shutil.copytree(kit / "dataset", inputs / "datasets" / "kit")
        test = _competition(inputs / "competitions" / "sartorius", images)
        python = _environment(folder, lacking)
        sandbox = _sandbox(inputs)
        if not sandbox:
            print("this machine permits no sandbox: the network is there, and the inputs can be written")
        print("dry run: the notebook, by this environment's versions of what Kaggle's image has")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"SARTORIUS_INPUTS": str(inputs)}
        cells = [str(python), "-u", "-c", _CELLS, str((kit / "notebook" / NOTEBOOK).resolve())]
        done = subprocess.run([*sandbox, *cells], cwd=working, env=environment, check=False)
        if done.returncode:
            raise InputError(f"dry run: the notebook ended with exit code {done.returncode}")
        _check(working / "submission.csv", test)


def _competition(folder: Path, images: Path | None) -> Path:
    """Lay out images as the competition does; returns their folder."""
    from sartorius.synthetic.cells import POPULATIONS
    from sartorius.synthetic.image import Appearance, draw_image

    test = folder / "test"
    test.mkdir(parents=True)
    if images is not None:
        for path in list_images(images):
            shutil.copyfile(path, test / path.name)
    else:
        for number, cell_type in enumerate(POPULATIONS):
            randoms = np.random.default_rng(number), np.random.default_rng(number)
            drawn = draw_image(*randoms, cell_type, (0.5, 0.5), Appearance())
            Image.fromarray(drawn.image).save(test / f"generated_{cell_type}.png")
    lines = [",".join(HEADER), *(f"{path.stem}," for path in list_images(test))]
    (folder / "sample_submission.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return test


def _environment(folder: Path, lacking: Sequence[str]) -> Path:
    """Make an environment that sees this one's packages but those that are lacking; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    hidden = {"pip", "sartorius", "__pycache__"}
    for name in ("pip", "sartorius", *lacking):
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            continue
        hidden |= {path.parts[0] for path in files}
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for place in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        for path in Path(place).iterdir():
            if path.name not in hidden and path.suffix != ".pth" and not (borrowed / path.name).exists():
                (borrowed / path.name).symlink_to(path)
    program = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.check_output([str(python), "-c", program], text=True).strip()
    (Path(site) / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    return python


def _sandbox(inputs: Path) -> list[str]:
    """Return the words before a command that take away the network and protect the inputs; [] where not permitted."""
    for words in _SANDBOXES:
        if shutil.which(words[0]) is not None:
            sandbox = [*words, "sh", "-c", _READ_ONLY, "sh", str(inputs)]
            if subprocess.run([*sandbox, "true"], capture_output=True, check=False).returncode == 0:
                return sandbox
    return []


def _check(submission: Path, test: Path) -> None:
    sizes = {}
    for path in list_images(test):
        sizes[path.stem] = (HEIGHT, WIDTH)
        with collected([]):
            sizes[path.stem] = read_header(path)[:2]
    if problems := validate_submission(submission, sizes):
        raise InputError(f"dry run: {submission.name} would be refused: {'; '.join(map(str, problems[:5]))}")
    images = read_submission(submission)
    empty = sum(not texts for texts in images.values())
    cells = sum(map(len, images.values()))
    print(f"dry run: a valid submission of {cells} cells in {len(images)} images, {empty} of them without any")
