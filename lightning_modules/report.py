"""The table at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from retrieval.significance import bootstrap_interval, paired_permutation_test, paired_t_test

LABELS = {
    "undistilled": "undistilled (the teacher reads the language as it is)",
    "test": "student, distilled",
    "teacher": "teacher on English queries (the ceiling)",
}
PerQueryRows = dict[str, dict[str, dict[str, float]]]


def results_table(rows: PerQueryRows, title: str) -> Table:
    """Mean and 95 % bootstrap interval over queries of each metric, a line a row.

    Args:
        rows: row -> metric -> query id -> value.
        title: of the table.
    """
    metrics = list(rows["test"])
    table = Table(title=title, title_justify="left", title_style="bold", show_lines=False)
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, label in LABELS.items():
        if name in rows:
            cells = []
            for metric in metrics:
                values = list(rows[name][metric].values())
                low, high = bootstrap_interval(values)
                cells.append(f"{sum(values) / len(values):.3f} [{low:.3f}, {high:.3f}]")
            table.add_row(label, *cells, style="bold" if name == "test" else "")
    return table


def verdict(rows: PerQueryRows) -> str:
    """One sentence: student against undistilled on the first metric, with paired tests."""
    metric = next(iter(rows["test"]))
    student, before = rows["test"][metric], rows["undistilled"][metric]
    ours, theirs = [student[query] for query in before], list(before.values())
    mean, base = sum(ours) / len(ours), sum(theirs) / len(theirs)
    ratio = f"{mean / base:.2f} times" if base > 0 else "against 0,"
    return (
        f"{metric} of the student is {ratio} that of the undistilled teacher, over {len(ours)} queries: paired t-test "
        f"p = {paired_t_test(ours, theirs):.2g}, permutation test p = {paired_permutation_test(ours, theirs):.2g}"
    )


def print_results(folder: Path) -> None:
    """Print the results of a run, and where its files are.

    Args:
        folder: the run folder.
    """
    rows: PerQueryRows = json.loads((folder / "per_query.json").read_text(encoding="utf-8"))
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    console.print()
    console.print(results_table(rows, f"{folder.name}: test queries, mean and 95 % bootstrap interval over queries"))
    if "undistilled" in rows:
        console.print(verdict(rows), soft_wrap=True)
    console.print(
        f"run folder   {folder}   (config.yaml, metrics.json, per_query.json, TREC runs, checkpoints)", soft_wrap=True
    )
    plots = "  ".join(str(path) for path in sorted(folder.glob("*.png")))
    if plots:
        console.print(f"plots        {plots}", soft_wrap=True)
    for run in sorted((folder / "wandb" / "wandb").glob("offline-run-*"))[-1:]:
        console.print(f"W&B          {run}   (offline; upload it with: wandb sync {run})", soft_wrap=True)
