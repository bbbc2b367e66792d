"""The records of a sweep's members: one file a member, written by the process that runs it.

Files work with every launcher: a member may run here, in another process, or on another machine with the same folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sartorius.errors import InputError
from sartorius.files import write_json
from sartorius.structures.reading import read_json

WAITING, RUNNING, FINISHED, PRUNED, FAILED = "waiting", "running", "finished", "pruned", "failed"
STOPPED = "stopped"  # by Ctrl-C
DONE = (FINISHED, PRUNED)  # with a result: not run again when the sweep is continued

_PRUNED_FILE = "pruned.json"  # in the folder of a run


@dataclass(frozen=True)
class SweepMember:
    """One run of a sweep.

    overrides: `key=value` of the command line and the sweep. status: one of this module's; a record that is still
    `running` when the sweep has ended is that of a process that was killed. score: of `monitor`, better the higher it
    is (mode max) or the lower (min); None where nothing was measured. numbers: others that the command returned.
    seconds: of wall time. folder: of its output, absolute. error: one line.
    """

    number: int
    overrides: tuple[str, ...]
    status: str = WAITING
    monitor: str | None = None
    mode: str = "max"
    score: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    folder: str | None = None
    error: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """The overrides by key; `~GROUP` is null."""
        pairs = (f"{override[1:]}=null" if override[0] == "~" else override for override in self.overrides)
        return dict(override.split("=", 1) for override in pairs if "=" in override)


def result(member: SweepMember, returned: Any) -> SweepMember:
    """Return the member with its command's result: a number, or numbers by name among which `monitor` is the score."""
    numbers = {str(k): float(v) for k, v in returned.items() if _finite(v)} if isinstance(returned, dict) else {}
    value = numbers.get(member.monitor or "") if isinstance(returned, dict) else returned
    return replace(member, score=float(value) if _finite(value) else None, numbers=numbers)  # type: ignore[arg-type]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def write_member(sweep: str | Path, member: SweepMember) -> None:
    """Write `<sweep>/members/<number>.json`."""
    write_json(_file(sweep, member.number), asdict(member))


def read_member(sweep: str | Path, number: int) -> SweepMember | None:
    """Read the record of a member, None where it never started. Raises InputError for a file that is none."""
    path = _file(sweep, number)
    try:
        values = read_json(path, "delete it to run it again")
        return SweepMember(**{**values, "overrides": tuple(values["overrides"])})
    except FileNotFoundError:
        return None
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path}: expected the record of a sweep's member ({error}); delete it to run it again"
        ) from error


def read_members(sweep: str | Path, plan: Sequence[tuple[int, Sequence[str]]]) -> list[SweepMember]:
    """Read the record of each planned (number, overrides), in order; one with other overrides is an earlier sweep's."""
    members = []
    for number, overrides in plan:
        known, new = read_member(sweep, number), SweepMember(number, tuple(overrides))
        members.append(known if known and known.overrides == new.overrides else new)
    return members


def mark_pruned(run: str | Path, reason: dict[str, Any] | None) -> None:
    """Write `pruned.json`, why a run was stopped early, into its folder; None deletes an earlier one."""
    path = Path(run) / _PRUNED_FILE
    if reason is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, reason)


def was_pruned(run: str | Path) -> bool:
    """Return whether a run's folder has a `pruned.json`."""
    return (Path(run) / _PRUNED_FILE).is_file()


def _file(sweep: str | Path, number: int) -> Path:
    return Path(sweep) / "members" / f"{number}.json"
