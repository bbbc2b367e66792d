"""The table of the field's scores beside the competition's: F1, PQ, AJI, COCO AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sartorius.metrics import report
from sartorius.metrics.bootstrap import bootstrap_interval
from sartorius.metrics.instance_scores import AP_MEANINGS, MEANINGS
from sartorius.reports.document import Table, Value
from sartorius.reports.numbers import Bootstrap, between
from sartorius.reports.views import RunView


def instance_table(
    view: RunView, types: Sequence[str], numbers: Mapping[str, Any], bootstrap: Bootstrap
) -> Table | None:
    """Show the field's other scores, a line each, by cell type, with definitions; None where the table lacks them.

    numbers: metrics.json of the run, for COCO AP; {} without.
    """
    if view.table is None or not {*MEANINGS, "cell_type"} <= {*view.table}:
        return None
    lines: list[list[Value]] = []
    for key, (name, meaning) in MEANINGS.items():
        scores = {kind: view.table[key][view.table.cell_type == kind] for kind in types} | {"all": view.table[key]}
        interval = bootstrap_interval(scores["all"].to_numpy(), **bootstrap)
        means = [float(values.mean()) if len(values) else None for values in scores.values()]
        lines.append([name, *means, between(report.limits(interval)), meaning])
    for key, (name, meaning) in AP_MEANINGS.items():
        if numbers.get(key) is not None:
            lines.append([name, *(numbers.get(f"{key}_{kind}") for kind in types), numbers[key], "", meaning])
    note = (
        "Means over images, 1 where there is nothing on both sides. PQ: Kirillov et al. 2019; AJI: Kumar et al. 2017; "
        "AJI+: Graham et al. 2019; COCO AP, of all images together, where evaluate scored detections."
    )
    return Table("Scores of the field", ["score", *types, "all", "interval", "definition"], lines, note)
