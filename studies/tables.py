"""The tables of a study, and their forms: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from studies.figures import SUMMARIES, Figure, Series, Study, level_name, title
from studies.robustness import t_interval
from studies.runs import Run, training_condition

SUMMARY_TITLES = {"drop": "drop", "auc": "AUC", "mmi": "MMI"}

_IN_PERCENT = ("drop", "mmi")

_LOWER_IS_BETTER = ("drop", "mmi")


@dataclass(frozen=True)
class Entry:
    """One entry of a table.

    Args:
        text: as people read it.
        figure: what it shows; None for words.
        best: whether it is the best of its column within its block.
    """

    text: str
    figure: Figure | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: of its files.
        title: above it.
        columns: the head.
        blocks: title of a block of rows, such as a language -> rows of entries, the first of them words.
        note: below it.
    """

    name: str
    title: str
    columns: list[str]
    blocks: dict[str, list[list[Entry]]]
    note: str = ""
    keys: list[str] = field(default_factory=list)


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

    Args:
        study: the scores.
        series: the noise.
        references: row, such as ``undistilled teacher``, and language -> value on the clean test.
    """
    levels = study.levels(series)
    name = level_name(series)
    columns = ["strategy", *(f"{name} {level:g}" for level in levels), *SUMMARY_TITLES.values()]
    columns[1] = "clean"
    blocks = {}
    for language in study.groups:
        rows = [[Entry(strategy), *_row(study, strategy, series, language)] for strategy in study.strategies]
        lower = [False] * (len(levels) + 1) + [key in _LOWER_IS_BETTER for key in SUMMARIES]
        blocks[language] = _mark_best(rows, lower)
        for (row, of), value in (references or {}).items():
            if of == language:
                words = [Entry(number(value, study.metric)), *[Entry("")] * (len(columns) - 2)]
                blocks[language].append([Entry(row), *words])
    keys = ["", *(f"{level:g}" for level in levels), *SUMMARIES]
    stem, note = "-".join(series).replace(" ", "_"), _note(study, _CURVE_NOTE)
    return Table(stem, _capital(title(series)), columns, blocks, note, keys)


def test_noise_table(study: Study, side: str) -> Table | None:
    """MMI of each strategy under each kind of test noise on one side, and over all kinds.

    Args:
        study: the scores.
        side: ``text`` or ``image``.
    """
    kinds = [
        each for each in study.series if each[0] == "test" and each[1].startswith(f"{side}-") and " " not in each[1]
    ]
    if not kinds:
        return None
    columns = ["strategy", "clean", *(title(each).rpartition(": ")[2] for each in kinds), "MMI of all"]
    blocks = {}
    for language in study.groups:
        rows = []
        for strategy in study.strategies:
            own = [study.summary(strategy, each, language, SUMMARIES["mmi"]) for each in kinds]
            clean = entry(study.figure(strategy, None, 0.0, language), study.metric)
            overall = study.overall_mmi(strategy, kinds, language)
            rows.append([Entry(strategy), clean, *(entry(each, study.metric, True) for each in [*own, overall])])
        blocks[language] = _mark_best(rows, [False, False, *[True] * (len(kinds) + 1)])
    note = _note(study, _KINDS_NOTE)
    return Table(f"test-{side}", f"Test-time {side} noise: MMI by kind", columns, blocks, note,
                 ["", "clean", *(kind for _, kind in kinds), "all"])  # fmt: skip


test_noise_table.__test__ = False  # type: ignore[attr-defined]


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
        for place, row in enumerate(rows):
            texts = [f"**{each.text}**" if each.best else each.text for each in row]
            lines.append("| " + " | ".join([*([block if place == 0 else ""] if has_blocks else []), *texts]) + " |")
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


def _row(study: Study, strategy: str, series: Series, language: str) -> list[Entry]:
    figures = [study.figure(strategy, series, level, language) for level in study.levels(series)]
    summaries = [
        entry(study.summary(strategy, series, language, of), study.metric, name in _IN_PERCENT)
        for name, of in SUMMARIES.items()
    ]
    return [*(entry(each, study.metric) for each in figures), *summaries]


def _mark_best(rows: Sequence[list[Entry]], lower: Sequence[bool]) -> list[list[Entry]]:
    """The rows with the best of each column marked, where there are two or more that differ."""
    marked = [list(row) for row in rows]
    for column, is_lower in enumerate(lower):
        values = {place: row[column].figure.value for place, row in enumerate(rows) if row[column].figure}  # type: ignore[union-attr]
        if len(values) < 2:
            continue
        best = (min if is_lower else max)(values.values())
        if all(math.isclose(value, best, rel_tol=1e-9) for value in values.values()):
            continue  # all are alike
        for place, value in values.items():
            if math.isclose(value, best, rel_tol=1e-9):
                old = rows[place][column]
                marked[place][column] = Entry(old.text, old.figure, True)
    return marked


_CURVE_NOTE = (
    "Drop: relative drop from clean to the highest level. AUC: mean height of the curve. MMI: (clean - mean over the "
    "levels with noise) / clean; lower is better."
)

_KINDS_NOTE = "MMI: relative drop from clean to the mean over the severities; lower is better."


def _note(study: Study, words: str) -> str:
    count = len(study.seeds)
    seeds = f"mean of {count} seeds ± half of the 95 % t-interval over seeds" if count > 1 else "one seed"
    incomplete = " † not all seeds are there." if study.missing() else ""
    return f"{study.metric}, {seeds}. {words}{incomplete}"


def _tex(text: str) -> str:
    for plain, escaped in (("\\", "\\textbackslash{}"), ("&", "\\&"), ("%", "\\%"), ("_", "\\_"), ("#", "\\#"),
                           ("±", "$\\pm$"), ("†", "$^\\dagger$")):  # fmt: skip
        text = text.replace(plain, escaped)
    return text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


HISTORY = "history.json"
"""In a run folder: what was logged at each validation."""

_NAMES = {
    "noise_precision": "precision",
    "noise_recall": "recall",
    "noise_detected": "found noisy",
    "noise_rate": "noisy",
}

_PREFIX = "train/info/"


def detection_table(runs: Sequence[Run], names: Sequence[str]) -> Table | None:
    """Precision and recall at the end of training, by strategy and noise; None where no run logged them.

    Args:
        runs: finished runs.
        names: the strategy of each.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, strategy in zip(runs, names, strict=True):
        path = run.folder / HISTORY
        history = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        condition = training_condition(run.config)
        for name in _NAMES:
            logged = [point[_PREFIX + name] for point in history if _PREFIX + name in point]
            if logged and condition.level > 0:
                found[strategy][f"{condition.kind} {condition.level:g}", name].append(logged[-1])
    if not any(key[1] == "noise_precision" for values in found.values() for key in values):
        return None
    blocks = {}
    for strategy, values in found.items():
        rows = [
            [Entry(noise), *(_entry(values.get((noise, name), [])) for name in _NAMES)]
            for noise in dict.fromkeys(noise for noise, _ in values)
        ]
        blocks[strategy] = rows
    note = (
        "Of the pairs of the last epoch, averaged over languages and seeds: share of truly noisy ones among those "
        "found, share of the noisy ones that were found, share found, share that is noisy."
    )
    return Table("detection", "Detected noise", ["training noise", *_NAMES.values()], blocks, note, ["", *_NAMES])


def _entry(values: list[float]) -> Entry:
    if not values:
        return Entry("-")
    return Entry(f"{fmean(values):.3f}", Figure(fmean(values), t_interval(values), tuple(range(len(values))), True))
