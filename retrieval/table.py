"""Tables of metrics with intervals, for people: the rows of a run, in its languages and views."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from retrieval.results import AVERAGE, LABELS, Rows, groups, view_of
from retrieval.statistics import macro_interval, macro_mean

Means = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Language -> row -> metric -> mean."""

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


def plain_table(
    columns: Sequence[str], lines: Iterable[Sequence[str]], title: str | None = None, labels: int = 0
) -> Table:
    """A table in the style of the project; no cell is wrapped or cut.

    Args:
        columns: the head.
        lines: the cells of each line.
        title: words above the table.
        labels: number of first columns that name groups of lines: a name that stands in the line above is left out,
            and a gap parts the groups of the first column.
    """
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    rows = [list(line) for line in lines]
    has_groups = labels > 0 and len({row[0] for row in rows}) < len(rows)
    above: list[str] = []
    for row in rows:
        if has_groups and above and row[0] != above[0]:
            table.add_section()
        repeated = [number < labels and row[: number + 1] == above[: number + 1] for number in range(len(row))]
        table.add_row(*("" if skip else cell for cell, skip in zip(row, repeated, strict=True)))
        above = row
    return table


def results_table(
    grouped: Mapping[str, Rows],
    title: str | None = None,
    means: Means | None = None,
    labels: Mapping[str, str] = LABELS,
) -> Table:
    """The rows of results with means and 95 % bootstrap intervals: a line for each row, language and view.

    With several languages, their average has a line as well. Metrics of all views together, such as rsum, have a line
    of their own. A metric that a row lacks shows ``-``.

    Args:
        grouped: language -> row -> metric -> query id -> value; see `retrieval.results`. The metrics are those of the
            row ``test``.
        title: words above the table.
        means: those of ``grouped``, and what is no mean over queries, such as median ranks.
        labels: row -> how the table calls it, in the order of the table.
    """
    per_query = next(iter(grouped.values()))["test"]
    names = list(per_query if means is None else next(iter(means.values()))["test"])
    has_views = any(view_of(name)[0] or name not in per_query for name in names)
    has_languages = list(grouped) != [""]
    parts = {name: name.rpartition("/")[::2] if has_views else ("", name) for name in names}
    full = {part: name for name, part in parts.items()}
    views = dict.fromkeys(view for view, _ in parts.values())
    metrics = list(dict.fromkeys(metric for _, metric in parts.values()))
    lines = []
    for row, label in labels.items():
        languages = {language: [language] for language, rows in grouped.items() if row in rows}
        if languages and len(grouped) > 1:
            languages[AVERAGE] = list(grouped)
        for language, members in languages.items():
            for view in views:
                first = [label, *([language] if has_languages else []), *([_view_label(view)] if has_views else [])]
                cells = (_cell(grouped, means or {}, members, row, full.get((view, metric))) for metric in metrics)
                lines.append([*first, *cells])
    columns = ["", *(["language"] if has_languages else []), *(["view"] if has_views else []), *metrics]
    return plain_table(columns, lines, title, labels=1 + has_languages)


def print_table(table: Table) -> None:
    """Print a table to stdout as wide as it is, also into a file, a pipe or a narrow window."""
    console = Console(file=sys.stdout, width=_WIDEST, highlight=False, markup=False)
    console.width = Measurement.get(console, console.options, table).maximum
    console.print(table)


def _view_label(prefix: str) -> str:
    """What stands before the name of a metric, for people."""
    is_maxsim = prefix.split("/", maxsplit=1)[0] == "maxsim"
    view = prefix.removeprefix("maxsim").removeprefix("/") if is_maxsim else prefix
    return (view or "all") + (", MaxSim" if is_maxsim else "")


def _cell(grouped: Mapping[str, Rows], means: Means, languages: list[str], row: str, name: str | None) -> str:
    """The mean over languages of a metric and its interval; without one where the values per query are not kept."""
    if name is None:
        return ""
    if values := groups({language: grouped[language] for language in languages}, row, name):
        mean, (low, high) = macro_mean(values), macro_interval(values)
        return f"{mean:.1f} [{low:.1f}, {high:.1f}]" if name.endswith("rsum") else format_interval(mean, (low, high))
    known = [means[language][row][name] for language in languages if name in means.get(language, {}).get(row, {})]
    return f"{fmean(known):g}" if len(known) == len(languages) else "-"
