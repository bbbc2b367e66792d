"""The page of one or more runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sartorius.files import write_text
from sartorius.reports import numbers as tables
from sartorius.reports.curves import curve_plots, shared_curve_plots
from sartorius.reports.document import Document, Gallery, Section, Table
from sartorius.reports.gallery import Style, card, chosen
from sartorius.reports.instance_table import instance_table
from sartorius.reports.numbers import Bootstrap
from sartorius.reports.plots import cell_plots, score_plots
from sartorius.reports.rounds import rounds_of, rounds_plot, rounds_table
from sartorius.reports.runs import flattened
from sartorius.reports.unscored import table_of_counts, tiles_of
from sartorius.reports.views import Entry, RunView, are_folds, pooled, type_names, view_of


def write_report(
    entries: Sequence[Entry], output: str | Path, plots: Path | None, style: Style, bootstrap: Bootstrap
) -> int:  # fmt: skip
    """Write the page of one or more runs, and with a folder `plots` each plot as PNG; returns the page's bytes.

    bootstrap: samples, seed and level of the intervals. The same runs give the same bytes. Raises InputError where
    cells and images do not fit together.
    """
    singles, notes = [], []
    for entry in entries:
        view, remarks = view_of(entry)
        singles.append(view)
        notes += [note if len(entries) == 1 else f"{entry.run.name}: {note}" for note in remarks]
    html = render(entries, singles, list(dict.fromkeys(notes)), plots, style, bootstrap)
    write_text(output, html)
    return len(html.encode())


def render(
    entries: Sequence[Entry], singles: Sequence[RunView], notes: Sequence[str], plots: Path | None, style: Style,
    bootstrap: Bootstrap,
) -> str:  # fmt: skip
    """Return the page's text. singles: a view a run; those of folds are scored together."""
    folds = are_folds(singles)
    views = [pooled(singles)] if folds else singles
    types = type_names(views)
    written: list[Mapping[str, Any]] = [{}] if folds else [entry.run.numbers for entry in entries]
    summaries = [tables.summary_of(view, types, bootstrap) or numbers
                 for view, numbers in zip(views, written, strict=True)]  # fmt: skip
    images = chosen(views, style)
    style = style.for_images(len(images))
    cards = [card(image_id, views, style) for image_id in images]
    top = _top(singles, views, types, summaries, bootstrap)
    sections = _sections(entries, views, types, written, plots, bootstrap)
    rounds, shared = ([], 0) if len(views) == 1 else rounds_of([entry.run for entry in entries], views, bootstrap)
    if rounds:
        top.append(rounds_table(rounds, shared, bootstrap))
        sections.insert(0, Section("rounds", "Rounds", [rounds_plot(rounds, shared, plots)]))
    return Document(
        title=_title(entries, folds),
        facts=[_facts(entry) for entry in entries],
        names=[entry.run.name for entry in entries],
        tiles=_tiles(views[0], summaries[0], bootstrap) if len(views) == 1 else [],
        notes=notes,
        top=top,
        sections=sections,
        configs=_configs(entries),
        gallery=Gallery(
            cards,
            available=len({image_id for view in views for image_id in view.sources}),
            views=[view.name for view in views],
            types=sorted({shown_card.cell_type for shown_card in cards if shown_card.cell_type}),
            labelled=any(view.compared for view in views),
            counted=any(view.counted for view in views),
            folds=folds,
        ),
    ).html()


def _title(entries: Sequence[Entry], folds: bool) -> str:
    names = [entry.run.name for entry in entries]
    if len(names) == 1:
        return names[0]
    return f"{len(names)} folds: {', '.join(names)}" if folds else " against ".join(names)


def _facts(entry: Entry) -> dict[str, str]:
    run = entry.run
    about = run.get("callbacks", "run_record", "about") or {}
    facts = {str(name): value for name, value in about.items()} | {"data": run.get("data", "name")}
    if isinstance(commit := run.git.get("commit"), str):
        facts["commit"] = commit[:10] + (" with changes" if run.git.get("dirty") else "")
    facts["folder"] = str(run.folder)
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _tiles(view: RunView, numbers: Mapping[str, Any], bootstrap: Bootstrap) -> list[tuple[str, str, str]]:
    """Return the numbers at the top: (value, caption, small print)."""
    tiles = []
    if (score := numbers.get("competition_map")) is not None:
        interval = numbers.get("competition_map_interval")
        small = f"{tables.between(interval)} ({bootstrap['level']:.0%})" if interval else ""
        tiles.append((f"{score:.3f}", "mAP, mean over images", small))
    precision = numbers.get("precision_by_threshold") or {}
    for threshold in ("0.50", "0.75"):
        if precision.get(threshold) is not None:
            tiles.append((f"{precision[threshold]:.3f}", f"precision at IoU {threshold}", "TP / (TP + FP + FN)"))
    if view.compared:
        cells = list(view.compared.values())
        real, predicted = sum(len(c.true_areas) for c in cells), sum(len(c.areas) for c in cells)
        hits = sum(int(c.hit.sum()) for c in cells)
        if real:
            tiles.append((f"{hits / real:.0%}", "of annotated cells found", f"{hits} of {real}, IoU above 0.50"))
        if predicted:
            false = predicted - hits
            tiles.append((f"{1 - hits / predicted:.0%}", "of predicted cells are false", f"{false} of {predicted}"))
    elif "cells" in numbers:
        tiles.append((str(numbers["cells"]), "annotated cells", f"{numbers.get('predictions', '?')} predicted"))
    if view.counted:
        return [*tiles, *tiles_of(view.counted)]
    count = numbers.get("images", len(view.sources))
    return [*tiles, (str(count), "images", "")] if count else tiles


def _top(
    singles: Sequence[RunView], views: Sequence[RunView], types: Sequence[str], summaries: Sequence[Mapping[str, Any]],
    bootstrap: Bootstrap,
) -> list[Table]:  # fmt: skip
    """Return the tables that come first: the runs, and the score by cell type."""
    top = [tables.comparison(singles, types, bootstrap, len(views) != len(singles))] if len(singles) > 1 else []
    if len(views) == 1 and views[0].table is not None and summaries[0] and "cell_type" in views[0].table:
        top.append(tables.by_type(views[0], types, summaries[0]))
    return top


def _sections(
    entries: Sequence[Entry], views: Sequence[RunView], types: Sequence[str], written: Sequence[Mapping[str, Any]],
    plots: Path | None, bootstrap: Bootstrap,
) -> list[Section]:  # fmt: skip
    runs = [entry.run for entry in entries]
    by_threshold = [_named(tables.by_threshold(view, types), view, views) for view in views if view.table is not None]
    fields = [_named(t, view, views) for view, numbers in zip(views, written, strict=True)
              if (t := instance_table(view, types, numbers, bootstrap))]  # fmt: skip
    confusions = [_named(t, view, views) for view in views if (t := tables.confusion(view, types))]
    if len(runs) == 1:
        curves = curve_plots(runs[0].curves, runs[0].batches, plots)
    else:
        curves = shared_curve_plots({run.name: run.curves for run in runs}, plots)
    every = [table for table in (tables.per_image(views),) if table]
    if counted := [(view.name, view.counted) for view in views if view.counted]:
        every.append(table_of_counts(counted))
    sections = [
        Section("scores", "Scores", score_plots(views, types, plots), [*(t for t in by_threshold if t.rows), *fields]),
        Section("curves", "Training", curves, [t for t in (tables.pixel_scores(runs), tables.timings(runs)) if t]),
        Section("cells", "Cells", cell_plots(views, types, plots), confusions),
        Section("every", "Every image", (), every, f"A line an image, {len(every[0].rows)} of them" if every else ""),
    ]
    return [section for section in sections if section.plots or section.tables]


def _named(table: Table, view: RunView, views: Sequence[RunView]) -> Table:
    return table if len(views) == 1 else replace(table, title=f"{table.title}, {view.name}")


def _configs(entries: Sequence[Entry]) -> list[Table]:
    """Return the settings that differ between several runs, then those of each run."""
    runs, many = [entry.run for entry in entries], len(entries) > 1
    configs = [tables.settings(runs)] if many else []
    for run in runs:
        if run.config:
            title = f"Config of {run.name}" if many else "Config"
            configs.append(Table(title, ["setting", "value"], list(flattened(run.config))))
    return [table for table in configs if table is not None]
