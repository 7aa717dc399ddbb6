"""What a run prints at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from retrieval.results import AVERAGE, LABELS, Rows, from_json, groups, view_of
from retrieval.statistics import Groups, macro_interval, macro_mean, macro_permutation_test, macro_t_test
from retrieval.table import format_interval, format_p, metrics_table, plain_table, print_table

Means = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Language -> row -> metric -> mean."""


def print_rows(grouped: Mapping[str, Rows], title: str, means: Means) -> None:
    """Print means and intervals: a line a row; with several languages or views, a line for each.

    Args:
        grouped: language -> row -> metric -> query id -> value; see `retrieval.results`.
        title: of the table.
        means: those of `grouped`, and what is no mean over queries, such as median ranks.
    """
    names = next(iter(means.values()))["test"]
    if any(view_of(name)[0] or name not in next(iter(grouped.values()))["test"] for name in names):
        print_table(_views_table(grouped, title, means))
        return
    if list(grouped) != [""]:
        print_table(_languages_table(grouped, title))
        return
    rows = grouped[""]
    labelled = {label: rows[name] for name, label in LABELS.items() if name in rows}
    print_table(metrics_table(labelled, list(rows["test"]), title))


def _languages_table(grouped: Mapping[str, Rows], title: str) -> Table:
    metrics = list(next(iter(grouped.values()))["test"])
    table = plain_table("", "language", *metrics, title=title)
    for row, label in LABELS.items():
        lines: dict[str, list[Groups]] = {
            language: [groups({language: rows}, row, metric) for metric in metrics]
            for language, rows in grouped.items()
            if row in rows
        }
        if not lines:
            continue
        lines[AVERAGE] = [groups(grouped, row, metric) for metric in metrics]
        for number, (language, values) in enumerate(lines.items()):
            table.add_row("" if number else label, language, *map(_cell, values))
        table.add_section()
    return table


def _views_table(grouped: Mapping[str, Rows], title: str, means: Means) -> Table:
    """A line a system, language and view; metrics of all views together, such as rsum, have a line of their own."""
    names = list(next(iter(means.values()))["test"])
    views = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    metrics = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    languages = {language: [language] for language in grouped} | ({AVERAGE: list(grouped)} if len(grouped) > 1 else {})
    shows_language = list(grouped) != [""]
    table = plain_table("", *(["language"] if shows_language else []), "view", *metrics, title=title)
    for row, label in LABELS.items():
        lines = [
            (language, members, view)
            for language, members in languages.items()
            if all(row in grouped[member] for member in members)
            for view in views
        ]
        for number, (language, members, view) in enumerate(lines):
            full = {name.rpartition("/")[2]: name for name in names if name.rpartition("/")[0] == view}
            cells = [_view_cell(grouped, means, members, row, full.get(metric)) for metric in metrics]
            shown = language if number % len(views) == 0 else ""
            table.add_row("" if number else label, *([shown] if shows_language else []), _line_name(view), *cells)
        table.add_section()
    return table


def _line_name(prefix: str) -> str:
    """What stands before the name of a metric, for people."""
    is_maxsim = prefix.split("/", maxsplit=1)[0] == "maxsim"
    view = prefix.removeprefix("maxsim").removeprefix("/") if is_maxsim else prefix
    return (view or "all") + (", MaxSim" if is_maxsim else "")


def _view_cell(grouped: Mapping[str, Rows], means: Means, languages: list[str], row: str, name: str | None) -> str:
    """The mean over languages of a metric and its interval; without one where the values per query are not kept."""
    if name is None:
        return ""
    if values := groups({language: grouped[language] for language in languages}, row, name):
        mean, (low, high) = macro_mean(values), macro_interval(values)
        return f"{mean:.1f} [{low:.1f}, {high:.1f}]" if name.endswith("rsum") else _cell(values)
    known = [means[language][row][name] for language in languages if name in means[language][row]]
    return f"{fmean(known):g}" if len(known) == len(languages) else "-"


def _cell(values: Groups) -> str:
    return format_interval(macro_mean(values), macro_interval(values)) if values else "-"


def verdict(grouped: Mapping[str, Rows]) -> str:
    """One sentence: student against undistilled on the first metric, with paired tests.

    Args:
        grouped: language -> row -> metric -> query id -> value.
    """
    metric = next(iter(next(iter(grouped.values()))["test"]))
    ours, theirs = groups(grouped, "test", metric), groups(grouped, "undistilled", metric)
    mean, base = macro_mean(ours), macro_mean(theirs)
    ratio = f"{mean / base:.2f} times" if base > 0 else f"{mean:.3f}, against 0,"
    sentence = f"{metric} of the student is {ratio} that of the undistilled teacher"
    if min(map(len, ours)) < 2:
        return f"{sentence} (one query: no test)"
    differences = [
        {query: value - other[query] for query, value in one.items()} for one, other in zip(ours, theirs, strict=True)
    ]
    p = f"paired t-test p {_p(macro_t_test(differences))}, permutation test p {_p(macro_permutation_test(differences))}"
    average = f"average of {len(ours)} languages, " if len(ours) > 1 else ""
    unit = "images" if metric == "rsum" else "queries"
    return f"{sentence} ({average}{sum(map(len, ours)):,} {unit}; {p})"


def print_results(folder: Path) -> None:
    """Print the results of a run, and where its files are; or one line where nothing was tested.

    Args:
        folder: the run folder.
    """
    if not (folder / "metrics.json").is_file():
        print(f"{folder}: no results are kept of a run with fast_dev_run or limit_test_batches 0")
        return
    grouped: dict[str, Rows] = from_json(json.loads((folder / "per_query.json").read_text(encoding="utf-8")))
    means: Means = from_json(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
    print()
    print_rows(grouped, f"{folder.name}: test queries, mean [95 % bootstrap interval over queries]", means)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if all("undistilled" in rows for rows in grouped.values()):
        console.print(f"{verdict(grouped)}\n")
    console.print(f"run folder  {folder}")
    plots = [str(path) for path in sorted(folder.glob("*.png"))]
    if plots:
        console.print(f"plots       {'  '.join(plots)}")
    for run in sorted((folder / "wandb").glob("offline-run-*"))[-1:]:
        console.print(f"W&B run     {run}   (offline; to upload it: wandb sync {run})")


def _p(p: float) -> str:
    """A p-value with its sign."""
    text = format_p(p)
    return text if text.startswith("<") else f"= {text}"
