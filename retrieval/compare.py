"""Compare runs query by query: means with intervals, and whether the differences are more than chance."""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from retrieval.collection import Qrels
from retrieval.errors import InputError
from retrieval.files import require_file, write_json
from retrieval.metrics import DEFAULT_METRICS, PerQuery, evaluate_run
from retrieval.progress import delayed_progress
from retrieval.significance import bootstrap_interval, holm, paired_permutation_test, paired_t_test
from retrieval.table import format_interval, format_p, plain_table
from retrieval.trec import read_qrels, read_run

PER_QUERY_FILE = "per_query.json"
DEFAULT_ROW = "test"


@dataclass(frozen=True)
class ScoredRun:
    """A run and its metrics for each query.

    Args:
        name: how tables call it.
        per_query: metric -> query id -> value.
    """

    name: str
    per_query: PerQuery


@dataclass(frozen=True)
class Comparison:
    """One metric of one run, and its difference to the baseline's.

    Args:
        metric: name of the metric.
        run: name of the run.
        queries: number of queries.
        mean: over the queries.
        interval: 95 % percentile bootstrap interval of the mean.
        difference: mean minus the baseline's; None for the baseline itself, like all that follow.
        difference_interval: 95 % interval of the difference, by resampling queries.
        t_test: p of the paired t-test.
        t_test_holm: the same, corrected over the comparisons of this metric.
        permutation: p of the paired permutation test.
        permutation_holm: the same, corrected.
    """

    metric: str
    run: str
    queries: int
    mean: float
    interval: tuple[float, float]
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    t_test: float | None = None
    t_test_holm: float | None = None
    permutation: float | None = None
    permutation_holm: float | None = None


def load_runs(
    specs: Sequence[str], qrels: str | Path | None = None, metrics: Sequence[str] | None = None
) -> list[ScoredRun]:
    """The runs that a command line names.

    Args:
        specs: run folders with a ``per_query.json`` (``FOLDER``, or ``FOLDER:ROW`` for another row than ``test``), or
            TREC run files, which need qrels.
        qrels: a file of judgments, for run files.
        metrics: the metrics to compute for run files.

    Raises:
        InputError: something is not there, or is not what it should be; a run is named twice.
    """
    specs = [spec.rstrip("/") or spec for spec in specs]
    judgments = None if qrels is None else read_qrels(qrels)
    spec, times = Counter(specs).most_common(1)[0]
    if times > 1:
        raise InputError(f"the run {spec} is given twice: expected different runs")
    scored = [_load(spec, judgments, metrics or DEFAULT_METRICS) for spec in specs]
    names = [Path(spec).name for spec in specs]
    distinct = len(set(names)) == len(names)
    return [ScoredRun(name if distinct else spec, run) for name, spec, run in zip(names, specs, scored, strict=True)]


def compare_runs(
    runs: Sequence[ScoredRun], metrics: Sequence[str] | None = None, baseline: int = 0
) -> list[Comparison]:
    """Compare runs with a baseline on the same queries.

    Args:
        runs: two or more.
        metrics: the metrics to compare, by default all that every run has.
        baseline: which of the runs the others are compared with.

    Returns:
        A comparison for each metric and run, metric by metric, runs in the order given.

    Raises:
        InputError: a run lacks a metric, or the runs have different queries.
    """
    if metrics is None:
        metrics = [name for name in runs[0].per_query if all(name in run.per_query for run in runs)]
    if not metrics:
        raise InputError("the runs have no metric in common")
    comparisons = []
    with delayed_progress("compare", len(metrics)) as advance:
        for metric in metrics:
            comparisons += _compare_metric(runs, metric, runs[baseline])
            advance(1)
    return comparisons


def comparison_table(comparisons: Sequence[Comparison], baseline: str) -> Table:
    """The comparisons as a table for people.

    Args:
        comparisons: from `compare_runs`.
        baseline: name of the baseline.
    """
    table = plain_table(
        "metric", "run", "mean [95 % interval]", f"difference to {baseline}", "p t-test", "p permutation"
    )
    metric = None
    for one in comparisons:
        if metric not in (None, one.metric):
            table.add_section()
        cells = ["baseline", "", ""]
        if one.difference is not None:
            assert one.difference_interval is not None
            assert one.t_test_holm is not None
            assert one.permutation_holm is not None
            difference = format_interval(one.difference, one.difference_interval, sign=True)
            cells = [difference, format_p(one.t_test_holm), format_p(one.permutation_holm)]
        first = one.metric if one.metric != metric else ""
        table.add_row(first, one.run, format_interval(one.mean, one.interval), *cells)
        metric = one.metric
    return table


def comparison_note(comparisons: Sequence[Comparison]) -> str:
    """What a reader of the table must know, in one line."""
    others = len({one.run for one in comparisons}) - 1
    return (
        f"{comparisons[0].queries:,} queries. Intervals: percentile bootstrap over queries. "
        f"p: paired, two-sided, Holm-corrected over {others} comparison{'s' if others > 1 else ''} a metric."
    )


def write_comparisons(path: str | Path, comparisons: Sequence[Comparison], baseline: str) -> None:
    """Write the comparisons as ``{"baseline": name, "comparisons": [...]}``, with the fields of `Comparison`."""
    write_json(path, {"baseline": baseline, "comparisons": [asdict(one) for one in comparisons]})


def _compare_metric(runs: Sequence[ScoredRun], metric: str, baseline: ScoredRun) -> list[Comparison]:
    values = [_values(run, metric, baseline) for run in runs]
    reference = _values(baseline, metric, baseline)
    others = [i for i, run in enumerate(runs) if run is not baseline]
    t_tests = [paired_t_test(values[i], reference) for i in others]
    permutations = [paired_permutation_test(values[i], reference) for i in others]
    tests = dict(zip(others, zip(t_tests, holm(t_tests), permutations, holm(permutations), strict=True), strict=True))
    found = []
    for i, run in enumerate(runs):
        mean, interval = float(values[i].mean()), bootstrap_interval(values[i])
        if i in tests:
            difference = values[i] - reference
            change = (float(difference.mean()), bootstrap_interval(difference))
            found.append(Comparison(metric, run.name, len(reference), mean, interval, *change, *tests[i]))
        else:
            found.append(Comparison(metric, run.name, len(reference), mean, interval))
    return found


def _values(run: ScoredRun, metric: str, baseline: ScoredRun) -> NDArray[np.float64]:
    """The metric of each query, in the baseline's order."""
    for one in (baseline, run):
        if metric not in one.per_query:
            raise InputError(f"{one.name} has no metric {metric!r}{_nearest(metric, list(one.per_query))}")
    wanted, given = baseline.per_query[metric], run.per_query[metric]
    missing = [query for query in wanted if query not in given]
    foreign = [query for query in given if query not in wanted]
    if missing or foreign:
        raise InputError(
            f"the runs have different queries: {len(missing):,} of the {len(wanted):,} queries of {baseline.name} are "
            f"missing in {run.name}, which has {len(foreign):,} others (e.g. {[*missing, *foreign][0]!r})"
        )
    if len(wanted) < 2:
        raise InputError(f"{baseline.name} has {len(wanted)} queries: a comparison needs at least 2")
    return np.array([given[query] for query in wanted], dtype=np.float64)


def _load(spec: str, qrels: Qrels | None, metrics: Sequence[str]) -> PerQuery:
    """The metrics of the run that one argument names."""
    path, row = Path(spec), None
    if not path.exists() and ":" in spec:
        folder, _, row = spec.rpartition(":")
        path = Path(folder)
    if path.is_dir():
        return _load_row(path, row or DEFAULT_ROW)
    if not path.exists() or row is not None:
        raise InputError("no such run: expected a run folder, FOLDER:ROW, or a TREC run file with --qrels", spec)
    if qrels is None:
        raise InputError("this is a file: a TREC run file needs --qrels FILE (or name a run folder)", path)
    run = read_run(path)
    if not any(query in qrels for query in run):
        raise InputError(f"none of its {len(run):,} queries is in the qrels: are these the right qrels?", path)
    return evaluate_run(run, qrels, metrics)


def _load_row(folder: Path, row: str) -> PerQuery:
    path = folder / PER_QUERY_FILE
    if not path.is_file():
        raise InputError(f"there is no {PER_QUERY_FILE} in it: expected the folder of a finished run", folder)
    rows = _read_json(path)
    if not isinstance(rows, dict):
        raise InputError('expected an object {row: {metric: {query id: value}}}, e.g. {"test": ...}', path)
    if row not in rows:
        raise InputError(f"there is no row {row!r}{_nearest(row, list(rows))}", path)
    if not isinstance(rows[row], dict):
        raise InputError(f"row {row!r}: expected an object {{metric: {{query id: value}}}}", path)
    for metric, values in rows[row].items():
        if not isinstance(values, dict) or not values:
            raise InputError(f"row {row!r}, metric {metric!r}: expected an object {{query id: value}}", path)
        for query, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{row}, {metric}, query {query!r}: found {value!r}, expected a finite number", path)
    return {metric: dict(values) for metric, values in rows[row].items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(require_file(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"invalid UTF-8 ({error.reason}); expected JSON", path) from None
    except json.JSONDecodeError as error:
        raise InputError(f"invalid JSON: {error.msg}", path, error.lineno) from None


def _nearest(name: str, names: list[str]) -> str:
    """What there is instead of an unknown name."""
    near = difflib.get_close_matches(name, names, 1)
    return f", did you mean {near[0]!r}? There is {', '.join(names)}" if near else f": there is {', '.join(names)}"
