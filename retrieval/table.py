"""Tables of metrics with intervals, for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from retrieval.metrics import PerQuery
from retrieval.statistics import bootstrap_interval

_WIDEST = 10_000


def format_interval(value: float, interval: tuple[float, float], sign: bool = False) -> str:
    """A value and its interval, in three decimals.

    >>> format_interval(0.2291, (0.21, 0.2484))
    '0.229 [0.210, 0.248]'
    >>> format_interval(0.15, (-0.012, 0.2), sign=True)
    '+0.150 [-0.012, +0.200]'
    """
    plus = "+" if sign else ""
    low, high = interval
    return f"{value:{plus}.3f} [{low:{plus}.3f}, {high:{plus}.3f}]"


def format_p(p: float) -> str:
    """A p-value in three decimals.

    >>> format_p(0.0421), format_p(0.0000317)
    ('0.042', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def metrics_table(
    rows: Mapping[str, PerQuery], metrics: Sequence[str] | None = None, title: str | None = None, seed: int = 0
) -> Table:
    """A table with a row for each run and a column for each metric: the mean and its 95 % bootstrap interval.

    Args:
        rows: name of the row -> metric -> query id -> value, e.g. ``{"undistilled": ..., "distilled": ...}``.
        metrics: the columns, by default the metrics of the first row; a row without one shows ``-``.
        title: words above the table.
        seed: of the bootstrap.
    """
    columns = metrics if metrics is not None else list(next(iter(rows.values()), {}))
    table = plain_table("", *columns, title=title)
    for name, per_query in rows.items():
        table.add_row(name, *(_cell(per_query.get(metric), seed) for metric in columns))
    return table


def plain_table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the style of the project; no cell is wrapped or cut."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def print_table(table: Table) -> None:
    """Print a table to stdout as wide as it is, also into a file, a pipe or a narrow window."""
    console = Console(file=sys.stdout, width=_WIDEST, highlight=False, markup=False)
    console.width = Measurement.get(console, console.options, table).maximum
    console.print(table)


def _cell(values: Mapping[str, float] | None, seed: int) -> str:
    if not values:
        return "-"
    numbers = np.array(list(values.values()))
    return format_interval(float(numbers.mean()), bootstrap_interval(numbers, seed=seed))
