"""Wheels of the packages that a machine without a network lacks; those that it has stay as they are."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sartorius.errors import InputError

INSTALLED = Path(__file__).with_name("installed.txt")  # what Kaggle's image had, with its date
_FROZEN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*) *(?:==+ *([^\s;]+)|@ .*)")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def read_freeze(path: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Read the versions of a `pip freeze`, by canonical name; "" for a package of no index (`NAME @ FILE`).

    without: packages that are left out. Raises InputError for a line of another form, and a file without packages.
    """
    if not path.is_file():
        raise InputError(f"installed={path}: no such file; `pip freeze` in a notebook of Kaggle prints one")
    versions: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith(("#", "-e ", "--")):
            continue
        if (found := _FROZEN.fullmatch(text)) is None:
            raise InputError(f"installed={path}: line {number}: expected NAME==VERSION of `pip freeze`, got {text!r}")
        versions[canonicalize_name(found[1])] = found[2] or ""
    if not versions:
        raise InputError(f"installed={path}: no packages in it; `pip freeze` in a notebook of Kaggle prints them")
    for name in without:
        versions.pop(canonicalize_name(name), None)
    return versions


def own_requirements(left_out: Sequence[str]) -> list[str]:
    """List what this package requires, as its metadata do, without the extras and without the packages `left_out`."""
    lines = metadata.requires("sartorius") or []
    names = {canonicalize_name(name) for name in left_out}
    if unknown := names - {canonicalize_name(Requirement(line).name) for line in lines}:
        raise InputError(f"left_out: {', '.join(sorted(unknown))} are no requirements of sartorius")
    kept = [line for line in lines if "extra ==" not in line]
    return [line for line in kept if canonicalize_name(Requirement(line).name) not in names]


@dataclass
class Wheelhouse:
    """A folder that gets wheels for another machine.

    installed: the versions of what that machine has, see `read_freeze`. python: its version, such as 3.12. source: a
    folder of packages to take them from; None asks the package index. names, kept: after `add`, the names of the
    packages whose wheels are there, and a sentence on each preinstalled one that is older or newer than required.
    """

    folder: Path
    installed: Mapping[str, str]
    python: str
    source: Path | None = None
    names: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def add(self, requirements: Sequence[str]) -> None:
        """Put in what the requirements, and those of what they bring, lack; raises InputError as `_fetch` does."""
        for line in requirements:
            needed = Requirement(line)
            name = canonicalize_name(needed.name)
            if needed.marker is not None and not needed.marker.evaluate(self._environment()):
                continue
            if name in self.installed:
                version = self.installed[name]
                if version and not needed.specifier.contains(version, prereleases=True):
                    self.kept.append(f"{name} stays as it is there, {version}, though {needed} is required")
            elif name not in self.names:
                self.names.append(name)
                self.add(list(_requirements_of(self._fetch(needed))))

    def _environment(self) -> dict[str, str]:
        full = f"{self.python}.0"
        return {"extra": "", "python_version": self.python, "python_full_version": full, "sys_platform": "linux"}

    def _fetch(self, needed: Requirement) -> Path:
        """Get the wheel of a package, in the version that is installed here if it is; a source package is built.

        Raises InputError where pip finds none, and for one that fits this machine only.
        """
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            version = ""
        pinned = (
            f"{needed.name}=={version}"
            if version and version in needed.specifier
            else f"{needed.name}{needed.specifier}"
        )
        options = [] if self.source is None else ["--no-index", "--find-links", str(self.source)]
        platforms = [option for platform in _PLATFORMS for option in ("--platform", platform)]
        ready = ["download", "--only-binary=:all:", "--python-version", self.python, *platforms, "--dest"]
        problems = []
        for command in (ready, ["wheel", "--wheel-dir"]):
            before = set(self.folder.glob("*.whl"))
            arguments = [*command, str(self.folder), "--no-deps", "--retries", "1", *options, pinned]
            done = _pip(arguments)
            if new := set(self.folder.glob("*.whl")) - before:
                (path,) = new
                if command is ready or path.name.endswith("-none-any.whl"):
                    return path
                path.unlink()
                problems.append(f"{path.name} would fit this machine only")
            problems.append(_last_error(done.stderr))
        raise InputError(
            f"no wheel of {pinned} for Python {self.python}: {'; '.join(dict.fromkeys(problems))}. Without a network "
            f"give wheels=FOLDER, which `pip wheel --no-deps --wheel-dir FOLDER {pinned}` fills elsewhere"
        )


def _pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_error(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")] or text.splitlines()
    return errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no reason"


def _requirements_of(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        lines = BytesParser().parsebytes(file.read(name)).get_all("Requires-Dist") or []
    for line in lines:
        try:
            yield str(Requirement(line))
        except InvalidRequirement as error:
            raise InputError(f"{wheel.name}: requires {line!r}, which cannot be read ({error})") from error
