"""The tables of a study, and their forms: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from foundations.files import read_json
from studies.figures import NO_NOISE, SUMMARIES, Figure, Series, Study, level_name, t_interval, title
from studies.runs import FinishedRun, training_condition

_SUMMARY_TITLES = {"drop": "drop", "auc": "AUC", "mmi": "MMI"}
_LOSSES = ("drop", "mmi")
"""Summaries in percent, of which the lower is the better."""
_CURVE_NOTE = (
    "Drop: relative drop from clean to the highest level. AUC: mean height of the curve. MMI: (clean - mean over the "
    "levels with noise) / clean; lower is better."
)
_KINDS_NOTE = "MMI: relative drop from clean to the mean over the severities; lower is better."
_HISTORY = "history.json"
"""In a run folder: what was logged at each validation."""
_DETECTION = {"noise_precision": "precision", "noise_recall": "recall", "noise_detected": "found noisy",
              "noise_rate": "noisy"}  # fmt: skip
"""What strategies log as ``train/info/...`` about noisy pairs -> column."""


@dataclass(frozen=True)
class Entry:
    """One entry of a table."""

    text: str  # as people read it
    figure: Figure | None = None  # what it shows; None for words
    best: bool = False  # whether it is the best of its column within its block


@dataclass(frozen=True)
class Table:
    """A table."""

    name: str  # of its files
    title: str
    columns: list[str]
    blocks: dict[str, list[list[Entry]]]  # title, such as a language -> rows of entries, the first of them words
    note: str = ""  # below it
    keys: list[str] = field(default_factory=list)  # the columns' names in CSV


def number(value: float, metric: str, percent: bool = False) -> str:
    """A value as people read it: rsum with one decimal, shares with three, drops in percent.

    >>> number(312.345, "rsum"), number(0.1236, "map"), number(0.12345, "map", percent=True)
    ('312.3', '0.124', '12.3 %')
    """
    if percent:
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if metric.endswith("rsum") else f"{value:.3f}"


def entry(figure: Figure | None, metric: str, percent: bool = False) -> Entry:
    """A mean with half its interval; a dagger where seeds are missing."""
    if figure is None:
        return Entry("-")
    text = number(figure.value, metric, percent)
    if figure.interval is not None:
        half = (figure.interval[1] - figure.interval[0]) / 2
        text += f" ±{number(half, metric, percent)}"
    return Entry(text + ("" if figure.complete else "†"), figure)


def robustness_table(study: Study, series: Series, references: Mapping[tuple[str, str], float] | None = None) -> Table:
    """Strategies by levels of one kind of noise, with drop, area and MMI, in a block for each language.

    ``references`` maps a row, such as ``undistilled teacher``, and a language to the value on the clean test.
    """
    levels, clean, heading = study.levels(series), series == NO_NOISE, title(series)
    summaries = {} if clean else SUMMARIES
    noisy = [f"{level_name(series)} {level:g}" for level in levels[1:]]
    columns = ["strategy", study.metric if clean else "clean", *noisy, *(_SUMMARY_TITLES[key] for key in summaries)]
    lower = [False] * (len(levels) + 1) + [key in _LOSSES for key in summaries]
    blocks = {}
    for language in study.groups:
        rows = []
        for strategy in study.strategies:
            figures = [entry(study.figure(strategy, series, level, language), study.metric) for level in levels]
            rows.append([Entry(strategy), *figures, *(
                entry(study.summary(strategy, series, language, of), study.metric, key in _LOSSES)
                for key, of in summaries.items()
            )])  # fmt: skip
        blocks[language] = _mark_best(rows, lower)
        for (row, of_language), value in (references or {}).items():
            if of_language == language:
                empty = [Entry("")] * (len(columns) - 2)
                blocks[language].append([Entry(row), Entry(number(value, study.metric)), *empty])
    keys = ["", *(f"{level:g}" for level in levels), *summaries]
    if clean:
        return Table("results", "Results without noise", columns, blocks, _note(study), keys)
    name = "-".join(series).replace(" ", "_")
    return Table(name, heading[:1].upper() + heading[1:], columns, blocks, _note(study, _CURVE_NOTE), keys)


def kinds_table(study: Study, side: str) -> Table | None:
    """MMI of each strategy under each kind of test noise on side ``text`` or ``image``, and over all kinds."""
    kinds = study.noise_kinds(side)
    if not kinds:
        return None
    columns = ["strategy", "clean", *(title(each).rpartition(": ")[2] for each in kinds), "MMI of all"]
    blocks = {}
    for language in study.groups:
        rows = []
        for strategy in study.strategies:
            clean = entry(study.figure(strategy, NO_NOISE, 0.0, language), study.metric)
            by_kind = [study.summary(strategy, each, language, SUMMARIES["mmi"]) for each in kinds]
            overall = study.overall_mmi(strategy, kinds, language)
            rows.append([Entry(strategy), clean, *(entry(each, study.metric, True) for each in [*by_kind, overall])])
        blocks[language] = _mark_best(rows, [False, False, *[True] * (len(kinds) + 1)])
    note = _note(study, _KINDS_NOTE)
    return Table(f"test-{side}", f"Test-time {side} noise: MMI by kind", columns, blocks, note,
                 ["", "clean", *(kind for _, kind in kinds), "all"])  # fmt: skip


def to_csv(table: Table) -> str:
    """One line a figure, with all digits: block, row, column, value, interval, seeds."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["language", "strategy", "column", "value", "low", "high", "seeds", "complete"])
    for block, rows in table.blocks.items():
        for row in rows:
            for key, each in zip(table.keys[1:], row[1:], strict=True):
                if each.figure is not None:
                    figure = each.figure
                    ends = figure.interval or ("", "")
                    seeds = " ".join(map(str, figure.seeds))
                    writer.writerow([block, row[0].text, key, repr(figure.value), *ends, seeds, figure.complete])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """For docs; the best of a column is bold."""
    lines = [f"**{table.title}**", ""]
    has_blocks = list(table.blocks) != [""]
    head = [*(["language"] if has_blocks else []), *table.columns]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for block, rows in table.blocks.items():
        for index, row in enumerate(rows):
            texts = [f"**{each.text}**" if each.best else each.text for each in row]
            lines.append("| " + " | ".join([*([block if index == 0 else ""] if has_blocks else []), *texts]) + " |")
    return "\n".join([*lines, "", table.note, ""])


def to_latex(table: Table) -> str:
    """For papers; needs the package booktabs."""
    lines = [
        "% \\usepackage{booktabs}", "\\begin{table}", "\\centering",
        f"\\caption{{{_tex(table.title)}. {_tex(table.note)}}}", f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", "\\toprule",
        " & ".join(map(_tex, table.columns)) + r" \\",
    ]  # fmt: skip
    for block, rows in table.blocks.items():
        lines.append("\\midrule")
        if block:
            lines.append(f"\\multicolumn{{{len(table.columns)}}}{{l}}{{\\emph{{{_tex(block)}}}}} \\\\")
        for row in rows:
            lines.append(" & ".join(f"\\textbf{{{_tex(e.text)}}}" if e.best else _tex(e.text) for e in row) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _mark_best(rows: Sequence[list[Entry]], lower: Sequence[bool]) -> list[list[Entry]]:
    """The rows with the best of each column marked, where there are two or more that differ."""
    marked = [list(row) for row in rows]
    for column, is_lower in enumerate(lower):
        values = {index: row[column].figure.value for index, row in enumerate(rows) if row[column].figure}  # type: ignore[union-attr]
        if len(values) < 2:
            continue
        target = (min if is_lower else max)(values.values())
        best = [index for index, value in values.items() if math.isclose(value, target, rel_tol=1e-9)]
        if len(best) < len(values):
            for index in best:
                marked[index][column] = replace(rows[index][column], best=True)
    return marked


def _note(study: Study, words: str = "") -> str:
    count = len(study.seeds)
    seeds = f"mean of {count} seeds ± half of the 95 % t-interval over seeds" if count > 1 else "one seed"
    incomplete = "† not all seeds are there." if study.missing() else ""
    return " ".join(filter(None, [f"{study.metric}, {seeds}.", words, incomplete]))


def _tex(text: str) -> str:
    for plain, escaped in (("\\", "\\textbackslash{}"), ("&", "\\&"), ("%", "\\%"), ("_", "\\_"), ("#", "\\#"),
                           ("±", "$\\pm$"), ("†", "$^\\dagger$")):  # fmt: skip
        text = text.replace(plain, escaped)
    return text


def detection_table(runs: Sequence[FinishedRun], names: Sequence[str]) -> Table | None:
    """Precision and recall at the end of training, by strategy and noise; None where no run logged them."""
    logged: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run, strategy in zip(runs, names, strict=True):
        path, condition = run.folder / _HISTORY, training_condition(run.config)
        if condition.level == 0 or not path.is_file():
            continue
        for name, key in ((name, f"train/info/{name}") for name in _DETECTION):
            if values := [point[key] for point in read_json(path) if key in point]:
                logged[strategy][f"{condition.kind} {condition.level:g}"][name].append(values[-1])
    if not any("noise_precision" in values for by_noise in logged.values() for values in by_noise.values()):
        return None
    blocks = {
        strategy: [
            [Entry(noise), *(_mean_entry(values.get(name, [])) for name in _DETECTION)]
            for noise, values in by_noise.items()
        ]
        for strategy, by_noise in logged.items()
    }
    note = (
        "Of the pairs of the last epoch, averaged over languages and seeds: share of truly noisy ones among those "
        "found, share of the noisy ones that were found, share found, share that is noisy."
    )
    columns = ["training noise", *_DETECTION.values()]
    return Table("detection", "Detected noise", columns, blocks, note, ["", *_DETECTION])


def _mean_entry(values: list[float]) -> Entry:
    if not values:
        return Entry("-")
    return Entry(f"{fmean(values):.3f}", Figure(fmean(values), t_interval(values), tuple(range(len(values))), True))
