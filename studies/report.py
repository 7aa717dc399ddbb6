"""What report.py does: read runs, and write tables, curves and the page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from foundations.commands import Parser
from foundations.errors import InputError
from foundations.files import write_whole
from foundations.progress import delayed_progress
from retrieval.results import AVERAGE, LABELS, OF_STUDENT, is_finished
from studies.curves import kind_curves, language_curves, save
from studies.figures import NO_NOISE, Difference, Series, Study, title
from studies.page import Section, render_page, scaled
from studies.runs import (
    FinishedRun,
    RunScore,
    check_same_settings,
    default_metric,
    find_folders,
    finished_run,
    run_scores,
    strategy_names,
)
from studies.tables import Table, detection_table, kinds_table, robustness_table, to_csv, to_latex, to_markdown

_MOST_MISSING = 40
QUESTION = (
    "What does noise in low-resource pairs do to retrieval models distilled by optimal transport, and to those "
    "distilled by its rivals?"
)


def write_report(
    paths: Sequence[str], output: str | None, metric: str | None, heading: str, question: str, command: str
) -> Path:
    """Write a report on run folders, or folders of them, and return the page; see ``report.py --help``.

    It is an InputError if no run is finished, a file is not what it should be, or the runs cannot be compared.
    """
    folders = find_folders(paths)
    finished = [folder for folder in folders if is_finished(folder)]
    if not finished:
        raise InputError(f"none of the {len(folders)} runs is finished", paths[0])
    runs = [finished_run(folder) for folder in finished]
    check_same_settings(runs, strategy_names(runs))
    metric = metric or default_metric(runs)
    study = Study(run_scores(runs, metric), metric)
    target = Path(output) if output else Path(paths[0]) / "report"
    for part in ("tables", "figures"):
        (target / part).mkdir(parents=True, exist_ok=True)
    differences = _differences(study)
    sections = [
        *_missing(study, [folder.name for folder in folders if folder not in finished]),
        *_results(study, runs, target, differences),
    ]
    _write_rows(target / "runs.csv", [_score_row(score) for score in study.scores])
    _write_rows(target / "significance.csv", [_difference_row(each) for rows in differences.values() for each in rows])
    with write_whole(target / "index.html") as file:
        file.write(render_page(heading, question, sections, study, runs, command))
    return target / "index.html"


def _differences(study: Study) -> dict[tuple[Series, str], list[Difference]]:
    differences = {}
    with delayed_progress("tests", len(study.series) * len(study.groups)) as advance:
        for series in study.series:
            for language in study.groups:
                differences[series, language] = study.differences(series, language)
                advance(1)
    return differences


def _missing(study: Study, unfinished: Sequence[str]) -> list[Section]:
    lines = [f"not finished: {name}" for name in unfinished] + [f"no run of: {line}" for line in study.missing()]
    more = len(lines) - _MOST_MISSING
    shown = lines[:_MOST_MISSING] + ([f"... and {more} more"] if more > 0 else [])
    return [Section("Missing runs", shown)] if lines else []


def _results(
    study: Study, runs: Sequence[FinishedRun], target: Path, differences: Mapping[tuple[Series, str], list[Difference]]
) -> list[Section]:
    """The sections with results; writes tables and figures on the way."""
    sections, tables = [], []
    known = references(runs, study)
    for series in study.series:
        tables.append(table := robustness_table(study, series, known))
        plot = "" if series == NO_NOISE else _plot(language_curves(study, series), target, table)
        caption = f"{study.metric} on the clean test after training with {title(series)}."
        caption += " Bands: 95 % t-interval over seeds." if len(study.seeds) > 1 else ""
        if series[0] != "test":
            tests = differences[series, study.groups[-1]]
            heading = "Results" if series == NO_NOISE else table.title
            sections.append(Section(heading, (), table, plot, caption, tests))
    for side in ("text", "image"):
        if (by_kind := kinds_table(study, side)) is not None:
            tables.append(by_kind)
            plot = _plot(kind_curves(study, study.noise_kinds(side)), target, by_kind)
            caption = f"{study.metric} by severity of {side} noise in the test; trained on clean pairs"
            caption += ", average of the languages." if len(study.languages) > 1 else "."
            sections.append(Section(f"Test-time {side} noise", (), by_kind, plot, caption))
    if (detected := detection_table(runs, strategy_names(runs))) is not None:
        tables.append(detected)
        sections.append(Section("Detected noise", (), detected))
    _write_tables(target / "tables", tables)
    return sections


def _plot(figure: Any, target: Path, table: Table) -> str:
    """Write a figure next to the tables, and give it as the page shows it."""
    return scaled(save(figure, target / "figures" / table.name))


def references(runs: Sequence[FinishedRun], study: Study) -> dict[tuple[str, str], float]:
    """Rows to compare with: (``undistilled teacher``, language) -> value, where every run has them."""
    found: dict[tuple[str, str], float] = {}
    for row, label in LABELS.items():
        if row in OF_STUDENT:
            continue
        values: dict[str, float] = {}
        for run in runs:
            for language, rows in run.means.items():
                if study.metric in rows.get(row, {}):
                    values[language or run.language] = rows[row][study.metric]
        if set(values) == set(study.languages):
            found |= {(label, language): value for language, value in values.items()}
            found[label, AVERAGE] = fmean(values.values())
    return found


def _write_tables(folder: Path, tables: Sequence[Table]) -> None:
    contents = {f"{table.name}.csv": to_csv(table) for table in tables}
    contents |= {"tables.md": "\n".join(map(to_markdown, tables)), "tables.tex": "\n".join(map(to_latex, tables))}
    for name, content in contents.items():
        with write_whole(folder / name) as file:
            file.write(content)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with write_whole(path) as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _score_row(score: RunScore) -> dict[str, Any]:
    return {"run": score.run, "strategy": score.strategy, **asdict(score.condition), "language": score.language,
            "seed": score.seed, "value": repr(score.value)}  # fmt: skip


def _difference_row(each: Difference) -> dict[str, Any]:
    stage, kind = each.series
    return {"stage": stage, "kind": kind, "level": each.level, "language": each.language, "first": each.first,
            "second": each.second, "difference": repr(each.difference), "p_holm": repr(each.p),
            "seeds": each.seeds}  # fmt: skip


def report(arguments: list[str]) -> None:
    """Write tables (CSV, Markdown, LaTeX), robustness curves and an HTML page about the finished runs of a study."""
    parser = Parser(report.__doc__)
    parser.add_argument("runs", nargs="+", help="run folders, or folders that hold them")
    parser.add_argument("--output", help="folder to write into (default: report in the first of the runs)")
    parser.add_argument("--metric", help="the metric to report (default: rsum if there is one, or the run's first)")
    parser.add_argument("--title", default="Robustness to noise", help="heading of the page")
    parser.add_argument("--question", help="the question that the study answers, below the heading")
    parser.add_argument("--command", default="", help="the command that made the runs, to be shown")
    options = parser.parse_args(arguments)
    question = QUESTION if options.question is None else options.question
    page = write_report(options.runs, options.output, options.metric, options.title, question, options.command)
    print(f"page     {page}")
    print(f"tables   {page.parent / 'tables'}    figures  {page.parent / 'figures'}")
