"""Plots of one run: learning curves, and the rows of the result table with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_modules.retrieval_evaluation import Result
from retrieval.significance import bootstrap_interval

ROW_LABELS = {"undistilled": "undistilled", "test": "student", "teacher": "teacher\non English"}


def plot_curves(path: Path, history: list[dict[str, float]]) -> Path:
    """Draw training loss and dev metrics over optimiser steps.

    Args:
        path: PNG file to write.
        history: for each validation ``step``, ``train/...`` and ``dev/...``.
    """
    figure, (left, right) = _subplots(2)
    for axes, prefix, title in ((left, "train/", "training loss"), (right, "dev/", "dev queries")):
        names = dict.fromkeys(name for point in history for name in point if name.startswith(prefix))
        for name in names:
            if "/info/" in name:
                continue
            points = [(point["step"], point[name]) for point in history if name in point]
            axes.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix(prefix))
        axes.set(title=title, xlabel="optimiser step")
        axes.legend(frameon=False)
    right.set_ylim(0, None)
    return _save(figure, path)


def plot_rows(path: Path, results: dict[str, Result]) -> Path:
    """Draw the first metric of undistilled, student and teacher, with bootstrap intervals over queries.

    Args:
        path: PNG file to write.
        results: row -> what was measured.
    """
    rows = [name for name in ROW_LABELS if name in results]
    metrics = list(results["test"].means)[:4]
    figure, axes_list = _subplots(len(metrics), width=2.4)
    for axes, metric in zip(axes_list, metrics, strict=True):
        means = [results[row].means[metric] for row in rows]
        intervals = [bootstrap_interval(list(results[row].per_query[metric].values())) for row in rows]
        errors = [[max(0.0, mean - low) for mean, (low, _) in zip(means, intervals, strict=True)],
                  [max(0.0, high - mean) for mean, (_, high) in zip(means, intervals, strict=True)]]  # fmt: skip
        colours = ["#b8b8b8", "#2b6cb0", "#e0b354"]
        axes.bar([ROW_LABELS[row] for row in rows], means, yerr=errors, capsize=4, color=colours)
        axes.set(title=metric, ylim=(0, 1))
        axes.tick_params(axis="x", labelsize=8)
    return _save(figure, path)


def _subplots(columns: int, width: float = 4.5) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 3.2), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", alpha=0.3)
        each.set_axisbelow(True)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path
