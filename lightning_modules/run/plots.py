"""Plots of one run: learning curves, and the rows of the result table with their intervals."""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_modules.names import LOSS
from lightning_modules.run.text_statistics import BIN_EDGES, TextStatistics
from retrieval.results import AVERAGE, LABELS, Result, Rows, by_language, groups, view_of
from retrieval.statistics import Groups, macro_interval, macro_mean

_SCALES = {"rsum": "rsum of the dev queries", "median_rank": "median rank of the dev queries"}
"""Metrics that are not between 0 and 1 -> the title of a panel of their own."""

_LOSS = "training loss"
_COLUMNS = 4
_COLOURS = {"undistilled": "#b8b8b8", "bm25": "#8c8c8c", "test": "#2b6cb0", "hybrid": "#1a4f8a",
            "bm25_english": "#c99a3b", "teacher": "#e0b354"}  # fmt: skip


def plot_curves(path: Path, history: list[dict[str, float]], languages: Container[str] = ()) -> Path:
    """Draw training loss and dev metrics over optimiser steps; with several languages, their first metric as well.

    ``history`` has for each validation ``step``, ``train/...`` (means since the last one) and ``dev/...``, such as
    ``dev/map``, or ``dev/sw/map`` where ``languages`` has ``sw``.
    """
    names = dict.fromkeys(name for point in history for name in point if "/info/" not in name)
    losses = {name: name.removeprefix("train/") for name in names if name.startswith("train/")}
    panels = {_LOSS: {LOSS: losses[LOSS]} if len(losses) == 2 and LOSS in losses else losses}  # one term is the loss
    by_metric: dict[str, dict[str, str]] = {}
    for name in names:
        split, _, rest = name.partition("/")
        language, _, of_language = rest.partition("/")
        if split != "dev":
            continue
        if of_language and language in languages:
            by_metric.setdefault(of_language, {})[name] = language
        elif "/" not in (view := view_of(rest))[0]:  # not of a group
            title = _SCALES.get(view[1].removeprefix("maxsim/"), "dev queries")
            panels.setdefault(title, {})[name] = rest
    if by_metric:
        panels = {title + "\naverage of the languages" * (title != _LOSS): p for title, p in panels.items()}
        metric = next(iter(by_metric))
        panels[f"{metric} of the dev queries"] = by_metric[metric]
    figure, axes_list = _subplots(len(panels))
    for axes, (title, labels) in zip(axes_list, panels.items(), strict=True):
        for name, label in labels.items():
            points = [(point["step"], point[name]) for point in history if name in point]
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set(title=title, xlabel="optimiser step")
        axes.legend(frameon=False, ncols=1 + len(labels) // 8)
    axes_list[0].set_ylabel("mean since the last point")
    for axes in axes_list[1:]:
        axes.set_ylim(0, None)
    return _save(figure, path)


def plot_rows(path: Path, results: Mapping[str, Result]) -> Path:
    """Draw the metrics of the rows, student and others, with bootstrap intervals over queries.

    With several languages, each has its group of bars, and so has their average; see `retrieval.results`.
    """
    grouped = by_language({name: result.per_query for name, result in results.items()})
    rows = [name for name in LABELS if name in next(iter(grouped.values()))]
    metrics = _shown(list(next(iter(grouped.values()))["test"]))
    if list(grouped) != [""]:
        return _plot_languages(path, grouped, rows, metrics)
    figure, axes_list = _subplots(min(_COLUMNS, len(metrics)), width=max(2.4, 0.65 * len(rows)), count=len(metrics))
    for axes, metric in zip(axes_list, metrics, strict=True):
        for position, row in enumerate(rows):
            if values := groups(grouped, row, metric):
                _bar(axes, position, 0.8, values, row)
        axes.set(title=metric.replace("/", "\n"), ylim=(0, _top(metric)))
        axes.set_xticks(range(len(rows)), [LABELS[row].replace(" ", "\n", 1) for row in rows])
        axes.tick_params(axis="x", labelsize=8, rotation=0 if len(rows) < 4 else 90)
    return _save(figure, path)


def _shown(metrics: list[str]) -> list[str]:
    """The metrics to draw: the first four; with views, the first four of each, without those of groups."""
    by_view: dict[str, list[str]] = {}
    for metric in metrics:
        by_view.setdefault(view_of(metric)[0], []).append(metric)
    return [metric for view, names in by_view.items() if "/" not in view for metric in names[:_COLUMNS]]


def _top(metric: str) -> float | None:
    """Upper end of the axis; rsum has none that helps."""
    return None if view_of(metric)[1].removeprefix("maxsim/") in _SCALES else 1


def _plot_languages(path: Path, grouped: Mapping[str, Rows], rows: list[str], metrics: list[str]) -> Path:
    """A panel a metric, a group of bars a language."""
    parts = {name: {name: of_language} for name, of_language in grouped.items()} | {AVERAGE: grouped}
    figure, axes_grid = _subplots(min(2, len(metrics)), width=max(4.5, 0.6 * len(parts) + 1), count=len(metrics))
    for axes, metric in zip(axes_grid, metrics, strict=True):
        values = {name: {row: groups(part, row, metric) for row in rows} for name, part in parts.items()}
        _grouped_bars(axes, rows, values)
        axes.axvline(len(grouped) - 0.5, color="black", lw=0.6, ls=":")
        axes.set(title=metric, ylim=(0, _top(metric)))
    axes_grid[0].legend(frameon=False, fontsize=8)
    return _save(figure, path)


def plot_groups(path: Path, results: Mapping[str, Result]) -> Path | None:
    """Draw the first metric of each view that has groups of queries, such as types of phrases: a group of bars each.

    With several languages their average is drawn. Returns None where there are no groups.
    """
    grouped = by_language({name: result.per_query for name, result in results.items()})
    rows = [name for name in LABELS if name in next(iter(grouped.values()))]
    panels: dict[str, dict[str, str]] = {}
    for name in next(iter(grouped.values()))["test"]:
        view, _, group = view_of(name)[0].partition("/")
        if group:
            panels.setdefault(view, {}).setdefault(group, name)
    if not panels:
        return None
    figure, axes_list = _subplots(1, width=max(6, 0.9 * max(map(len, panels.values()))), count=len(panels))
    for axes, (view, names) in zip(axes_list, panels.items(), strict=True):
        values = {group: {row: groups(grouped, row, name) for row in rows} for group, name in names.items()}
        _grouped_bars(axes, rows, values)
        metric = view_of(next(iter(names.values())))[1]
        axes.set(title=f"{view}, {metric}", ylim=(0, _top(metric)))
    axes_list[0].legend(frameon=False, fontsize=8)
    return _save(figure, path)


def _grouped_bars(axes: Any, rows: list[str], values: Mapping[str, Mapping[str, Groups]]) -> None:
    """A group of bars for each name: a bar for each row that has values."""
    for position, of_row in enumerate(values.values()):
        for number, row in enumerate(rows):
            if of_row[row]:
                width = 0.81 / max(3, len(rows))
                x = position + (number - (len(rows) - 1) / 2) * width
                _bar(axes, x, width, of_row[row], row, LABELS[row] if position == 0 else None)
    axes.set_xticks(range(len(values)), list(values), rotation=0 if len(values) < 9 else 90)


def _bar(axes: Any, x: float, width: float, values: Groups, row: str, label: str | None = None) -> None:
    mean, (low, high) = macro_mean(values), macro_interval(values)
    error = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
    axes.bar(x, mean, width, yerr=error, capsize=3, color=_COLOURS[row], label=label, error_kw={"lw": 1})


def plot_lengths(path: Path, rows: Mapping[str, TextStatistics]) -> Path:
    """Draw the length histogram of each kind of text."""
    names = ["0", *(f"{low}-{high - 1}" if high > low + 1 else str(low) for low, high in pairwise(BIN_EDGES[1:]))]
    figure, axes_list = _subplots(len(rows), width=2.8)
    for axes, (name, row) in zip(axes_list, rows.items(), strict=True):
        axes.bar([*names, f"{BIN_EDGES[-1]}+"], row.histogram, color="#2b6cb0")
        axes.set_title(f"{name}\n{row.fertility:.2f} tokens/word, {row.unknown:.1%} unknown", fontsize=9)
        axes.set_xlabel("tokens")
        axes.tick_params(axis="x", labelsize=7, labelrotation=90)
    axes_list[0].set_ylabel("texts")
    return _save(figure, path)


def _subplots(columns: int, width: float = 4.5, count: int | None = None) -> tuple[Any, Any]:
    """A figure, and its panels row by row; `count` panels, by default one row of them."""
    from matplotlib.figure import Figure

    count = columns if count is None else count
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, 3.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path
