"""The loop over images of a command that continues a stopped run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sartorius.running.workers import worker_map
from sartorius.structures import checks
from sartorius.structures.progress import progress_bar

Result = TypeVar("Result")


def resume(
    work: Callable[[str], Result],
    image_ids: Sequence[str],
    is_done: Callable[[str], bool],
    what: str,
    workers: int = 1,
) -> Iterator[tuple[str, Result]]:
    """Apply `work` to each image that an earlier run has not done; yields (image_id, result) in the images' order.

    what: name of the progress bar. workers: processes that share the images; `work` must be picklable for more than
    one. Raises what `work` raises, for the first image in order, and InputError for fewer than one worker.
    """
    checks.whole("", 1, workers=workers)
    left = [image_id for image_id in image_ids if not is_done(image_id)]
    with worker_map(workers) as each:
        yield from zip(progress_bar(left, what), each(work, left), strict=True)
