"""What a run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from foundations.files import read_json
from retrieval.results import Rows, english_note, from_json, groups, is_finished
from retrieval.statistics import macro_mean, macro_permutation_test, macro_t_test, paired_differences
from retrieval.table import Means, format_p, print_table, results_table


def verdict(grouped: Mapping[str, Rows]) -> str:
    """One sentence: student against undistilled on the first metric, with paired tests."""
    metric = next(iter(next(iter(grouped.values()))["test"]))
    ours, theirs = groups(grouped, "test", metric), groups(grouped, "undistilled", metric)
    mean, base = macro_mean(ours), macro_mean(theirs)
    ratio = f"{mean / base:.2f} times" if base > 0 else f"{mean:.3f}, against 0,"
    sentence = f"{metric} of the student is {ratio} that of the undistilled teacher"
    if min(map(len, ours)) < 2:
        return f"{sentence} (one query: no test)"
    differences = paired_differences(ours, theirs)
    p = f"paired t-test p {_p(macro_t_test(differences))}, permutation test p {_p(macro_permutation_test(differences))}"
    average = f"average of {len(ours)} languages, " if len(ours) > 1 else ""
    unit = "images" if metric == "rsum" else "queries"
    return f"{sentence} ({average}{sum(map(len, ours)):,} {unit}; {p})"


def print_results(folder: Path) -> None:
    """Print the results in a run folder, and where its files are; one line where there are none."""
    if not is_finished(folder):
        print(f"{folder}: no results are kept of a run with fast_dev_run or limit_test_batches 0")
        return
    grouped: dict[str, Rows] = from_json(read_json(folder / "per_query.json"))
    means: Means = from_json(read_json(folder / "metrics.json"))
    print()
    title = f"{folder.name}: test queries, mean [95 % bootstrap interval over queries]"
    print_table(results_table(grouped, title, means))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if note := english_note(folder):
        console.print(note)
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
