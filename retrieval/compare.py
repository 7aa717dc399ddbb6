"""Compare runs query by query: means with intervals, and whether the differences are more than chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from foundations.checks import did_you_mean
from foundations.errors import InputError, as_input_error
from foundations.files import read_json, write_json
from foundations.progress import delayed_progress
from retrieval.collection import Qrels
from retrieval.metrics import DEFAULT_METRICS, PerQuery, evaluate_run, metric_name
from retrieval.results import AVERAGE, from_json
from retrieval.statistics import (
    holm,
    macro_interval,
    macro_mean,
    macro_permutation_test,
    macro_t_test,
    paired_differences,
)
from retrieval.table import format_interval, format_p, plain_table, print_table
from retrieval.trec import check_queries, read_qrels, read_run

PER_QUERY_FILE = "per_query.json"
DEFAULT_ROW = "test"


@dataclass(frozen=True)
class ScoredRun:
    """A run, as tables call it, and its metrics for each query.

    `groups` is language -> metric -> query id -> value; the language of a run with a single one is ``""``.
    """

    name: str
    groups: dict[str, PerQuery]

    @property
    def metrics(self) -> list[str]:
        """The metrics that the run has in every language."""
        first, *rest = self.groups.values()
        return [metric for metric in first if all(metric in per_query for per_query in rest)]


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
        t_test_holm: the same, corrected over the comparisons of this metric, in all languages and of their average.
        permutation: p of the paired permutation test.
        permutation_holm: the same, corrected.
        language: the language, or ``average``; None for runs of a single language.
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
    language: str | None = None


def print_comparison(
    specs: Sequence[str],
    baseline: str | None = None,
    qrels: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    json_file: str | Path | None = None,
) -> None:
    """Compare runs and print the table; what compare.py does.

    Args:
        specs: the runs, see `load_runs`.
        baseline: which of them the others are compared with; None is the first.
        qrels: a file of judgments, for run files.
        metrics: the metrics to compare; None is all that every run has.
        json_file: where to write all numbers as well, as ``{"baseline": name, "comparisons": [...]}`` with the fields
            of `Comparison`.

    Raises:
        InputError: fewer than two runs, another baseline, or as `load_runs` and `compare_runs`.
    """
    baseline = baseline or specs[0]
    if len(specs) < 2:
        raise InputError("found one run, expected at least two to compare")
    if baseline not in specs:
        raise InputError(f"--baseline is {baseline}, expected one of the runs, {', '.join(specs)}")
    metrics = metrics and list(map(metric_name, metrics))
    runs = load_runs(specs, qrels, metrics)
    name = runs[list(specs).index(baseline)].name
    comparisons = compare_runs(runs, metrics, list(specs).index(baseline))
    if json_file:
        write_json(json_file, {"baseline": name, "comparisons": list(map(asdict, comparisons))})
    print_table(comparison_table(comparisons, name))
    print(comparison_note(comparisons))


def load_runs(
    specs: Sequence[str], qrels: str | Path | None = None, metrics: Sequence[str] | None = None
) -> list[ScoredRun]:
    """The runs that a command line names; InputError where one is not there, is malformed, or is named twice.

    A run is a folder with a ``per_query.json`` (``FOLDER``, or ``FOLDER:ROW`` for another row than ``test``, or
    ``FOLDER:ROW/LANGUAGE`` for one language of several), or a TREC run file, which needs qrels, and for which the
    metrics are computed.
    """
    specs = [spec.rstrip("/") or spec for spec in specs]
    judgments = None if qrels is None else read_qrels(qrels)
    spec, times = Counter(specs).most_common(1)[0]
    if times > 1:
        raise InputError(f"the run {spec} is given twice: expected different runs")
    scored = [_load(spec, judgments, metrics or DEFAULT_METRICS) for spec in specs]
    names = [_short(spec) for spec in specs]
    distinct = len(set(names)) == len(names)
    return [ScoredRun(*run) for run in zip(names if distinct else specs, scored, strict=True)]


def compare_runs(
    runs: Sequence[ScoredRun], metrics: Sequence[str] | None = None, baseline: int = 0
) -> list[Comparison]:
    """Compare two or more runs with one of them on the same queries: a comparison for each metric, language and run.

    Runs of several languages are compared in each of them and on the average of the languages, which all weigh the
    same. By default the metrics are all that every run has; InputError where a run lacks one, or the runs have
    different languages or queries.
    """
    _check_languages(runs, runs[baseline])
    if metrics is None:
        metrics = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    if not metrics:
        raise InputError("the runs have no metric in common")
    comparisons = []
    with delayed_progress("compare", len(metrics)) as advance:
        for metric in metrics:
            comparisons += _compare_metric(runs, metric, runs[baseline])
            advance(1)
    return comparisons


def comparison_table(comparisons: Sequence[Comparison], baseline: str) -> Table:
    """The comparisons as a table for people, with the name of the baseline."""
    has_languages = comparisons[0].language is not None
    lines = []
    for result in comparisons:
        cells = ["baseline", "", ""]
        if result.difference is not None:
            assert result.difference_interval is not None
            assert result.t_test_holm is not None
            assert result.permutation_holm is not None
            difference = format_interval(result.difference, result.difference_interval, sign=True)
            cells = [difference, format_p(result.t_test_holm), format_p(result.permutation_holm)]
        labels = [result.metric, *([result.language or ""] if has_languages else [])]
        lines.append([*labels, result.run, format_interval(result.mean, result.interval), *cells])
    columns = ["metric", *(["language"] if has_languages else []), "run", "mean [95 % interval]",
               f"difference to {baseline}", "p t-test", "p permutation"]  # fmt: skip
    return plain_table(columns, lines, labels=1 + has_languages)


def comparison_note(comparisons: Sequence[Comparison]) -> str:
    """What a reader of the table must know, in one line."""
    languages = list(dict.fromkeys(result.language for result in comparisons))
    tests = (len({result.run for result in comparisons}) - 1) * len(languages)
    drawn = "queries" if languages == [None] else "the queries of each language"
    return (
        f"{max(result.queries for result in comparisons):,} queries. Intervals: percentile bootstrap over {drawn}. "
        f"p: paired, two-sided, Holm-corrected over {tests} comparison{'s' if tests > 1 else ''} a metric."
    )


def _compare_metric(runs: Sequence[ScoredRun], metric: str, baseline: ScoredRun) -> list[Comparison]:
    """The comparisons of one metric: in each language and on their average, all runs in each."""
    names = list(baseline.groups)
    families = {name: [name] for name in names} | ({AVERAGE: names} if len(names) > 1 else {})
    values = {run.name: {name: _values(run, metric, baseline, name) for name in names} for run in runs}
    comparisons: list[Comparison] = []
    for language, members in families.items():
        reference = [values[baseline.name][name] for name in members]
        for run in runs:
            groups = [values[run.name][name] for name in members]
            figures = (metric, run.name, sum(map(len, groups)), macro_mean(groups), macro_interval(groups))
            comparison = Comparison(*figures, language=language or None)
            if run is not baseline:
                differences = paired_differences(groups, reference)
                comparison = replace(
                    comparison,
                    difference=macro_mean(differences),
                    difference_interval=macro_interval(differences),
                    t_test=macro_t_test(differences),
                    permutation=macro_permutation_test(differences),
                )
            comparisons.append(comparison)
    return _holm_corrected(comparisons)


def _holm_corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons of a metric, with p-values corrected over all of them."""
    t_tests = iter(holm([result.t_test for result in comparisons if result.t_test is not None]))
    permutations = iter(holm([result.permutation for result in comparisons if result.permutation is not None]))
    return [
        result
        if result.t_test is None
        else replace(result, t_test_holm=next(t_tests), permutation_holm=next(permutations))
        for result in comparisons
    ]


def _check_languages(runs: Sequence[ScoredRun], baseline: ScoredRun) -> None:
    for run in runs:
        if run.groups.keys() != baseline.groups.keys():
            theirs, ours = (", ".join(each.groups) or "a single language" for each in (baseline, run))
            raise InputError(
                f"the runs have different languages: {baseline.name} has {theirs}, {run.name} has {ours}; "
                "name one language with FOLDER:test/LANGUAGE"
            )


def _values(run: ScoredRun, metric: str, baseline: ScoredRun, language: str) -> dict[str, float]:
    """The metric of each query of a language, in the baseline's order."""
    for each in (baseline, run):
        if metric == "median_rank" or metric.endswith("/median_rank"):
            raise InputError("median_rank is no mean over queries, so there is nothing to compare query by query")
        if metric not in each.groups[language]:
            raise InputError(f"{each.name} has no metric {metric!r}{_instead(metric, each.groups[language])}")
    expected, given = baseline.groups[language][metric], run.groups[language][metric]
    missing = [query for query in expected if query not in given]
    foreign = [query for query in given if query not in expected]
    where = f" in {language}" if language else ""
    if missing or foreign:
        raise InputError(
            f"the runs have different queries{where}: {len(missing):,} of the {len(expected):,} queries of "
            f"{baseline.name} are missing in {run.name}, which has {len(foreign):,} others "
            f"(e.g. {[*missing, *foreign][0]!r})"
        )
    if len(expected) < 2:
        raise InputError(f"{baseline.name} has {len(expected)} queries{where}: a comparison needs at least 2")
    return {query: float(given[query]) for query in expected}


def _short(spec: str) -> str:
    """The last folder or file, and the row behind it: ``ot:test/sw`` of ``runs/ot:test/sw``."""
    folder, colon, row = spec.rpartition(":")
    return Path(spec).name if Path(spec).exists() or not colon else f"{Path(folder).name}:{row}"


def _load(spec: str, qrels: Qrels | None, metrics: Sequence[str]) -> dict[str, PerQuery]:
    """The metrics of the run that one argument names, by language."""
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
    check_queries(run, qrels, spec)
    with as_input_error():
        return {"": evaluate_run(run, qrels, metrics)}


def _load_row(folder: Path, row: str) -> dict[str, PerQuery]:
    """A row of a run folder by language; ``test/sw`` is one language of several."""
    path = folder / PER_QUERY_FILE
    if not path.is_file():
        raise InputError(f"there is no {PER_QUERY_FILE} in it: expected the folder of a finished run", folder)
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError('expected an object {row: {metric: {query id: value}}}, e.g. {"test": ...}', path)
    groups = from_json(content)
    if not isinstance(groups, dict) or not groups or not all(isinstance(rows, dict) for rows in groups.values()):
        raise InputError('"languages": expected an object {language: {row: {metric: {query id: value}}}}', path)
    row, _, language = row.partition("/")
    if language:
        if language not in groups:
            known = "; the run has a single one" if "" in groups else _instead(language, groups)
            raise InputError(f"there is no language {language!r}{known}", path)
        groups = {"": groups[language]}
    return {name: _checked_row(rows, row, f"{name}, " if name else "", path) for name, rows in groups.items()}


def _checked_row(rows: dict[str, Any], row: str, where: str, path: Path) -> PerQuery:
    """The values of a row, if they are metric -> query id -> finite number."""
    if row not in rows:
        raise InputError(f"{where}there is no row {row!r}{_instead(row, rows)}", path)
    if not isinstance(rows[row], dict):
        raise InputError(f"{where}row {row!r}: expected an object {{metric: {{query id: value}}}}", path)
    for metric, values in rows[row].items():
        if not isinstance(values, dict) or not values:
            raise InputError(f"{where}row {row!r}, metric {metric!r}: expected an object {{query id: value}}", path)
        for query, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                problem = f"query {query!r}: found {value!r}, expected a finite number"
                raise InputError(f"{where}{row}, {metric}, {problem}", path)
    return {metric: dict(values) for metric, values in rows[row].items()}


def _instead(name: str, names: Iterable[str]) -> str:
    """What there is instead of an unknown name."""
    question = did_you_mean(name, names)
    return f"{question} There is {', '.join(names)}" if question else f": there is {', '.join(names)}"
