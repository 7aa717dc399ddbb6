"""What a run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from foundations.files import read_json
from retrieval.results import LABELS, OF_STUDENT, PLAIN, Rows, english_note, from_json, groups, is_finished
from retrieval.statistics import holm, macro_mean, macro_permutation_test, macro_t_test, paired_differences
from retrieval.table import Means, format_p, print_table, results_table

SIGNIFICANT = 0.05
_TO_TRY = (
    "let it read the documents in English (--data.english documents), give it more pairs, try the whitened space "
    "(--model.space whitened), or let BM25 search as well (--score hybrid)"
)


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


def against_plain(grouped: Mapping[str, Rows]) -> list[str]:
    """What the student gains over the best row without training, and what to try where it does not gain over each.

    The tests are on the first metric. There is nothing to say without a row of BM25, or of a single query.
    """
    metric = next(iter(next(iter(grouped.values()))["test"]))
    plain, ours = (
        {row: values for row in rows if (values := groups(grouped, row, metric))} for rows in (PLAIN, OF_STUDENT)
    )
    if "bm25" not in plain or min(map(len, plain["bm25"])) < 2:
        return []
    best = max(plain, key=lambda row: macro_mean(plain[row]))
    gains = [paired_differences(values, plain[best]) for values in ours.values()]
    tested = zip(ours, gains, holm([macro_t_test(each) for each in gains]), strict=True)
    parts = [f"{LABELS[row]} {macro_mean(each):+.3f} (p {_p(p)})" for row, each, p in tested]
    lines = [
        f"against {LABELS[best]}, the best row without training: {', '.join(parts)}; paired t-tests, Holm-corrected"
    ]
    gains = [paired_differences(ours["test"], values) for values in plain.values()]
    tested = zip(plain, gains, holm([macro_t_test(each) for each in gains]), strict=True)
    behind = [LABELS[row] for row, each, p in tested if macro_mean(each) <= 0 or p >= SIGNIFICANT]
    if behind:
        lines.append(f"The student is not significantly ahead of {' and '.join(behind)}: {_TO_TRY}")
    return lines


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
        console.print(verdict(grouped))
    console.print("\n".join([*against_plain(grouped), ""]))
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
