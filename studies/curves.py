"""Robustness curves: a panel a language or a kind of noise, a line a strategy with its name at the end."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.results import AVERAGE
from studies.figures import Series, Study, level_name, title

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's colours, which people with colour-blindness tell apart; the markers differ as well."""
_MARKERS = "osD^vPX*"
_INK, _GREY = "#222222", "#888888"


def language_curves(study: Study, series: Series) -> Any:
    """The curves under one kind of noise, a panel a language, their average first."""
    languages = sorted(study.groups, key=lambda name: name != AVERAGE)
    titles = {AVERAGE: f"average of {len(study.languages)} languages"}
    return _draw(study, [(series, name, titles.get(name, name)) for name in languages], level_name(series))


def kind_curves(study: Study, kinds: Sequence[Series]) -> Any:
    """The curves of several kinds of test noise, a panel a kind, averaged over the languages."""
    return _draw(study, [(each, study.groups[-1], title(each).rpartition(": ")[2]) for each in kinds], "severity")


def _draw(study: Study, panels: Sequence[tuple[Series, str, str]], x_label: str) -> Any:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    width = (4.6, 7.4, 8.4)[columns - 1]
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, (2.75 if columns < 3 else 2.3) * rows + 0.1))
        axes = figure.subplots(rows, columns, squeeze=False, sharey=False)
        for spare in axes.ravel()[len(panels) :]:
            spare.remove()
        tops = [_panel(axis, study, *panel) for axis, panel in zip(axes.ravel(), panels, strict=False)]
        for index, axis in enumerate(axes.ravel()[: len(panels)]):
            axis.set_ylim(0, max(tops, default=1) * 1.04)
            _label_ends(axis)
            if index % columns == 0:
                axis.set_ylabel(study.metric)
            axis.set_xlabel(x_label)
        figure.tight_layout(w_pad=0.6, h_pad=1.4)
    return figure


_STYLE: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.edgecolor": _GREY, "axes.linewidth": 0.6, "text.color": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.titlesize": 9,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "svg.fonttype": "none", "svg.hashsalt": "potstill", "figure.dpi": 100,
}  # fmt: skip


def _panel(axis: Any, study: Study, series: Series, language: str, name: str) -> float:
    """Draw the lines of a panel; give the highest point."""
    levels, top = study.levels(series), 0.0
    axis.lines_by_strategy = {}
    for number, strategy in enumerate(study.strategies):
        figures = [(level, study.figure(strategy, series, level, language)) for level in levels]
        points = [(level, figure) for level, figure in figures if figure is not None]
        if not points:
            continue
        colour = COLOURS[number % len(COLOURS)]
        x, values = [level for level, _ in points], [figure.value for _, figure in points]
        axis.plot(x, values, color=colour, marker=_MARKERS[number % len(_MARKERS)], ms=3.6, lw=1.4, mew=0, zorder=3)
        banded = [(level, *figure.interval) for level, figure in points if figure.interval]
        if banded:
            axis.fill_between(*zip(*banded, strict=True), color=colour, alpha=0.10, lw=0, zorder=1)
        axis.lines_by_strategy[strategy] = (x[-1], values[-1], colour)
        top = max([top, *values])
    axis.set_title(name)
    axis.set_xticks(levels, [f"{level:g}" for level in levels])
    axis.grid(axis="y", color="#e6e6e6", lw=0.6)
    axis.set_axisbelow(True)
    return top


def _label_ends(axis: Any) -> None:
    """Write each strategy's name at the end of its line, moved apart where lines end close together."""
    low, high = axis.get_ylim()
    step = 0.068 * (high - low)
    ends = sorted(axis.lines_by_strategy.items(), key=lambda item: item[1][1])
    values = [value for _, (_, value, _) in ends]
    pushed_up = _apart(values, step)
    pushed_down = [-value for value in _apart([-value for value in values[::-1]], step)][::-1]
    heights = [(up + down) / 2 for up, down in zip(pushed_up, pushed_down, strict=True)]
    beyond = max(0.0, heights[-1] - high) if heights else 0.0
    heights = [height - beyond for height in heights]
    for (strategy, (x, value, colour)), height in zip(ends, heights, strict=True):
        axis.annotate(
            strategy, (x, value), (1.03, height), textcoords=axis.get_yaxis_transform(), color=colour, va="center",
            fontsize=7.5, annotation_clip=False,
        )  # fmt: skip


def _apart(rising: Sequence[float], step: float) -> list[float]:
    """Rising numbers, each moved up to be at least a step above the one before it."""
    moved: list[float] = []
    for value in rising:
        moved.append(max(value, moved[-1] + step) if moved else value)
    return moved


def save(figure: Any, stem: Path) -> str:
    """Write a figure of matplotlib as PNG and SVG under a path without suffix, and give the SVG."""
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=200)
    text = _svg(figure)
    stem.with_name(f"{stem.name}.svg").write_text(text, encoding="utf-8")
    return text


def _svg(figure: Any) -> str:
    """A figure as an SVG element that can stand in a page: no header, no metadata, no size in points."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    return re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", text, count=1).strip()
