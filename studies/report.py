"""What report.py does: read runs, and write tables, curves and the page."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from foundations.commands import Parser
from foundations.errors import InputError
from foundations.files import write_whole
from foundations.progress import delayed_progress
from retrieval.results import AVERAGE, LABELS
from studies import page
from studies.curves import kind_curves, language_curves, save, svg
from studies.figures import Difference, Series, Study, title
from studies.runs import (
    Run,
    check_same_settings,
    default_metric,
    find_folders,
    is_finished,
    read_run,
    read_scores,
    strategy_names,
)
from studies.tables import Table, detection_table, robustness_table, test_noise_table, to_csv, to_latex, to_markdown

_MOST_MISSING = 40
QUESTION = (
    "What does noise in low-resource pairs do to retrieval models distilled by optimal transport, and to those "
    "distilled by its rivals?"
)


def write_report(
    paths: Sequence[str], output: str | None, metric: str | None, heading: str, question: str, command: str
) -> Path:
    """Write a report on run folders.

    Args:
        paths: run folders, or folders of them.
        output: folder to write into; None is ``report`` in the first path.
        metric: None is ``rsum`` where there is one, or the first metric.
        heading: title of the page.
        question: below the title.
        command: that made the runs.

    Returns:
        The page.

    Raises:
        InputError: there is no finished run, a file is not what it should be, or runs cannot be compared.
    """
    folders = find_folders(paths)
    finished = [folder for folder in folders if is_finished(folder)]
    if not finished:
        raise InputError(f"none of the {len(folders)} runs is finished", paths[0])
    runs = [read_run(folder) for folder in finished]
    check_same_settings(runs, strategy_names(runs))
    metric = metric or default_metric(runs)
    study = Study(read_scores(runs, metric), metric)
    target = Path(output) if output else Path(paths[0]) / "report"
    for part in ("tables", "figures"):
        (target / part).mkdir(parents=True, exist_ok=True)
    unfinished = [folder.name for folder in folders if folder not in finished]
    differences = _differences(study)
    sections = [*_missing(study, unfinished), *_results(study, runs, target, differences)]
    sections += _background(study, runs, command)
    parts = ((runs, "run"), (study.strategies, "strategy"), (study.languages, "language"), (study.seeds, "seed"))
    summary = ", ".join(counted(len(each), word) for each, word in parts) + f". Metric: {metric} on the test queries."
    _write_rows(target / "runs.csv", [_flat_score(score) for score in study.scores])
    _write_rows(target / "significance.csv", [_flat_difference(each) for rows in differences.values() for each in rows])
    with write_whole(target / "index.html") as file:
        file.write(page.page(heading, question, summary, sections))
    return target / "index.html"


def counted(count: int, word: str) -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(3, "strategy")
    ('1 run', '3 strategies')
    """
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def _differences(study: Study) -> dict[tuple[Series, str], list[Difference]]:
    with delayed_progress("tests", len(study.series) * len(study.groups)) as advance:
        found = {}
        for series in study.series:
            for language in study.groups:
                found[series, language] = study.differences(series, language)
                advance(1)
    return found


def _results(
    study: Study, runs: Sequence[Run], target: Path, differences: dict[tuple[Series, str], list[Difference]]
) -> list[page.Section]:
    """The sections with results; writes tables and figures on the way."""
    sections, tables = [], []
    known = references(runs, study)
    for series in study.series:
        content = robustness_table(study, series, known)
        tables.append(content)
        plot = language_curves(study, series)
        save(plot, target / "figures" / content.name)
        if series[0] == "training":
            caption = (
                f"{study.metric} on the clean test after training with {title(series)}. "
                f"{'Bands: 95 % t-interval over seeds. ' if len(study.seeds) > 1 else ''}"
            )
            parts = [page.table(content, caption=False), page.figure(svg(plot), caption)]
            parts += [
                "<h3>Differences between strategies</h3>",
                page.significance(differences[series, study.groups[-1]], study),
            ]
            sections.append(page.Section(_heading(series), parts))
    for side in ("text", "image"):
        content_or_none = test_noise_table(study, side)
        if content_or_none is None:
            continue
        tables.append(content_or_none)
        kinds = [
            each for each in study.series if each[0] == "test" and each[1].startswith(f"{side}-") and " " not in each[1]
        ]
        plot = kind_curves(study, kinds)
        save(plot, target / "figures" / content_or_none.name)
        caption = (
            f"{study.metric} by severity of {side} noise in the test; trained on clean pairs, average of the languages."
        )
        parts = [page.table(content_or_none, caption=False), page.figure(svg(plot), caption)]
        sections.append(page.Section(f"Test-time {side} noise", parts))
    if not study.series:
        tables.append(clean := clean_table(study, known))
        sections.append(page.Section("Results", [page.table(clean, caption=False)]))
    if (detected := detection_table(runs, strategy_names(runs))) is not None:
        tables.append(detected)
        sections.append(page.Section("Detected noise", [page.table(detected, caption=False)]))
    _write_tables(target, tables)
    return sections


def clean_table(study: Study, known: dict[tuple[str, str], float]) -> Table:
    """The results without noise, for runs that have none."""
    table = robustness_table(study, ("", "clean"), known)
    short = {block: [row[:2] for row in rows] for block, rows in table.blocks.items()}
    return Table("results", "Results without noise", ["strategy", study.metric], short, table.note, ["", "0"])


def references(runs: Sequence[Run], study: Study) -> dict[tuple[str, str], float]:
    """Rows to compare with: (``undistilled teacher``, language) -> value, where every run has them."""
    found: dict[tuple[str, str], float] = {}
    for row, label in LABELS.items():
        if row == "test":
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


def _heading(series: Series) -> str:
    name = title(series)
    return name[:1].upper() + name[1:]


def _missing(study: Study, unfinished: Sequence[str]) -> list[page.Section]:
    lines = [f"not finished: {name}" for name in unfinished] + [f"no run of: {line}" for line in study.missing()]
    shown = lines[:_MOST_MISSING] + (
        [f"... and {len(lines) - _MOST_MISSING} more"] if len(lines) > _MOST_MISSING else []
    )
    return [page.Section("Missing runs", [page.items(shown, "missing")])] if lines else []


def _background(study: Study, runs: Sequence[Run], command: str) -> list[page.Section]:
    return [
        page.Section("Settings", [page.settings(_settings(study, runs, command))]),
        page.Section("How to read this", [page.items(_caveats(study))]),
        page.Section("Every figure", [page.runs_table(study.scores, study.metric)]),
    ]


def _settings(study: Study, runs: Sequence[Run], command: str) -> dict[str, str]:
    config, environment = runs[0].config, _environment(runs[0])
    versions = environment.get("versions", {})
    names = strategy_names(runs)
    first = dict(reversed(list(zip(names, runs, strict=True))))
    rows = {
        "Command": command or f"python {shlex.join(environment.get('command', []))} (and so on)",
        "Data": f"{config.get('data.class_path', '').rpartition('.')[2]}, languages {', '.join(study.languages)}",
        "Student": str(config.get("model.student.class_path", "")).rpartition(".")[2]
        + f" from {config.get('model.student.init_args.model')}",
        "Teacher": _teacher(config),
        "Training": f"{config.get('trainer.max_epochs')} epochs, batches of {config.get('data.init_args.batch_size')}",
        "Seeds": ", ".join(map(str, study.seeds)),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items() if value != "not installed"),
        "Machine": f"Python {environment.get('python', '?')}, {environment.get('platform', '?')}",
    }
    for name in study.strategies:
        rows[f"Strategy {name}"] = _strategy(first[name].config)
    return rows


def _teacher(config: dict[str, Any]) -> str:
    key = (
        "model.teacher.init_args.teacher" if "model.teacher.init_args.teacher.class_path" in config else "model.teacher"
    )
    name = str(config.get(f"{key}.class_path", "")).rpartition(".")[2]
    options = [
        f"{k.rpartition('.')[2]}={v}" for k, v in config.items() if k.startswith(f"{key}.init_args.") and v is not None
    ]
    return f"{name} ({', '.join(options[:4])})"


def _strategy(config: dict[str, Any]) -> str:
    prefix = "model.strategy.init_args."
    options = [f"{key.removeprefix(prefix)}={value}" for key, value in config.items() if key.startswith(prefix)]
    rates = [
        f"{key}={config[f'model.{key}']}" for key in ("lr", "embedding_lr") if config.get(f"model.{key}") is not None
    ]
    name = str(config.get("model.strategy.class_path", "")).rpartition(".")[2]
    return f"{name}({', '.join(options)}); {', '.join(rates)}"


def _caveats(study: Study) -> list[str]:
    seeds = len(study.seeds)
    lines = [
        "The clean column is the ordinary evaluation of runs without noise, as in their metrics.json.",
        f"Intervals are over {seeds} seeds (Student's t); with so few they are wide; they are not over queries."
        if seeds > 1
        else "There is one seed, so there are no intervals over seeds.",
        "Tests between strategies are over queries, on values averaged over seeds: they say how sure a difference is "
        "for other queries, not for other seeds.",
        "Rates are those asked for; shuffled pairs can fall back into their place, so the realised rate may be lower "
        "(diagnostics.json of each run).",
    ]
    if study.missing():
        lines.append(
            "Runs are missing. A figure is averaged over the seeds that there are and marked by a dagger; averages "
            "over languages, drops, AUC and MMI use only the seeds that all their parts have."
        )
    return lines


def _environment(run: Run) -> dict[str, Any]:
    path = run.folder / "environment.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def _write_tables(target: Path, tables: Sequence[Table]) -> None:
    for table in tables:
        with write_whole(target / "tables" / f"{table.name}.csv") as file:
            file.write(to_csv(table))
    for name, form in (("tables.md", to_markdown), ("tables.tex", to_latex)):
        with write_whole(target / "tables" / name) as file:
            file.write("\n".join(map(form, tables)))


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with write_whole(path) as file:
        file.write(out.getvalue())


def _flat_score(score: Any) -> dict[str, Any]:
    return {"run": score.run, "strategy": score.strategy, **asdict(score.condition), "language": score.language,
            "seed": score.seed, "value": repr(score.value)}  # fmt: skip


def _flat_difference(each: Difference) -> dict[str, Any]:
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
