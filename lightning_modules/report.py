"""What a run prints at its end."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from retrieval.metrics import PerQuery
from retrieval.significance import paired_permutation_test, paired_t_test
from retrieval.table import format_p, metrics_table, print_table

LABELS = {"undistilled": "undistilled teacher", "test": "distilled student", "teacher": "teacher on English"}
"""Rows of `per_query.json`, in the order in which they are printed."""
PerQueryRows = dict[str, PerQuery]


def print_rows(rows: PerQueryRows, title: str) -> None:
    """Print means and intervals, a line a row.

    Args:
        rows: row -> metric -> query id -> value.
        title: of the table.
    """
    labelled = {label: rows[name] for name, label in LABELS.items() if name in rows}
    print_table(metrics_table(labelled, list(rows["test"]), title))


def verdict(rows: PerQueryRows) -> str:
    """One sentence: student against undistilled on the first metric, with paired tests."""
    metric = next(iter(rows["test"]))
    student, before = rows["test"][metric], rows["undistilled"][metric]
    ours, theirs = [student[query] for query in before], list(before.values())
    mean, base = sum(ours) / len(ours), sum(theirs) / len(theirs)
    ratio = f"{mean / base:.2f} times" if base > 0 else f"{mean:.3f}, against 0,"
    sentence = f"{metric} of the student is {ratio} that of the undistilled teacher"
    if len(ours) < 2:
        return f"{sentence} (one query: no test)"
    t_test, permutation = paired_t_test(ours, theirs), paired_permutation_test(ours, theirs)
    return f"{sentence} ({len(ours):,} queries; paired t-test p {_p(t_test)}, permutation test p {_p(permutation)})"


def print_results(folder: Path) -> None:
    """Print the results of a run, and where its files are.

    Args:
        folder: the run folder.
    """
    rows: PerQueryRows = json.loads((folder / "per_query.json").read_text(encoding="utf-8"))
    print()
    print_rows(rows, f"{folder.name}: test queries, mean [95 % bootstrap interval over queries]")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if "undistilled" in rows:
        console.print(f"{verdict(rows)}\n")
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
