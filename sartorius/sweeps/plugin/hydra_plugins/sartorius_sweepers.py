"""The sweepers of sartorius, in the package that Hydra scans for plugins; `sartorius.sweeps` does the work.

Hydra executes the modules of plugins itself, after which classes of an earlier import are others: import nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from sartorius.structures import checks, rules
from sartorius.sweeps import sweepers


class GridSweeper(BasicSweeper):
    """Every combination of the values by Hydra's own sweeper, with a record of each member, a table and a plot.

    params: values by key, such as "1,2" or "range(0,5)"; the command line's win. max_batch_size: members that the
    launcher gets at a time; None for all. Raises InputError for other values.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None = None) -> None:
        sweepers.check_params(params)
        checks.check("hydra.sweeper", rules.whole(1) | rules.nothing, max_batch_size=max_batch_size)
        super().__init__(max_batch_size, dict(params or {}))

    def sweep(self, arguments: list[str]) -> None:
        """Run all members. Raises MembersFailed after the table where some failed, InputError where nothing can run."""
        with sweepers.open_sweep(self, self.params or {}, arguments) as sweep:
            sweepers.check_discrete(sweep.options)
            (plan,) = self.split_arguments(list(sweep.options.values()), None)
            if self.max_batch_size is not None:  # Hydra composes a batch when its turn comes
                self.validate_batch_is_legal(plan)
            with sweepers.reported(sweep.folder, lambda: sweepers.grid_members(sweep.folder, plan)):
                super().sweep(arguments)

    def split_arguments(  # type: ignore[override] # Hydra's is static, but called on the instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Split as Hydra does; null of a group becomes `~GROUP`: Hydra does not take `GROUP=null`."""
        assert self.hydra_context is not None
        options = self.hydra_context.config_loader.get_group_options
        null = {f"{override.key_or_group}=null" for override in overrides if options(override.key_or_group)}
        batches = BasicSweeper.split_arguments(overrides, max_batch_size)
        left_out = {text: f"~{text.removesuffix('=null')}" for text in null}
        return [[[left_out.get(text, text) for text in job] for job in batch] for batch in batches]


class OptunaSweeper(BasicSweeper):
    """Optuna's TPE, with a record of each trial, a table and a plot.

    params: distributions by key, as in `sartorius.sweeps.space`; the command line's win. settings: of
    `sartorius.sweeps.sweepers.TrialSettings`.
    """

    def __init__(self, params: Mapping[str, Any] | None, **settings: Any) -> None:
        sweepers.check_params(params)
        super().__init__(None, dict(params or {}))
        self.settings = sweepers.TrialSettings(**settings)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left. Raises as the grid does."""
        with sweepers.open_sweep(self, self.params or {}, arguments) as sweep:
            sweepers.run_search(sweep, self.settings)
