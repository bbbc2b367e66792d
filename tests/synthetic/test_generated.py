from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sartorius.data.competition.folder import MARKER
from sartorius.synthetic.generated import write_whole


def test_two_at_once_write_a_folder_once(tmp_path: Path) -> None:
    written = []

    def write(folder: Path) -> None:
        written.append(folder)
        time.sleep(0.2)
        (folder / "truth.csv").touch()

    def make(_: int) -> Path:
        return write_whole(tmp_path / "deep" / "a", "generated", {"seed": 0}, ["truth.csv"], "truth.csv", write)

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(make, range(2))) == [tmp_path / "deep" / "a"] * 2
    assert len(written) == 1
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]
    assert sorted(path.name for path in (tmp_path / "deep" / "a").iterdir()) == sorted([MARKER, "truth.csv"])
