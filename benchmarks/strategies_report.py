"""Tables, plot and JSON of the benchmark of strategies."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import replace_section, versions
from foundations.files import write_json
from retrieval.statistics import holm, macro_interval, macro_t_test, one_group

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results.md"
PLOT = ROOT / "docs" / "images" / "strategies.png"
BASELINE = "mse"
COMMAND = "python -m benchmarks.strategies"
TITLES = {
    "static": "Static student",
    "contextual": "Contextual student",
    "late": "Late-interaction teacher, static student",
}
Key = tuple[str, str, str]
"""Student, score, language."""


class Figures:
    """The test MAP of each strategy in each condition.

    Args:
        results: what the cells gave.
    """

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self.per_query: dict[Key, dict[str, np.ndarray[Any, Any]]] = defaultdict(dict)
        self.per_seed: dict[Key, dict[str, list[float]]] = defaultdict(dict)
        self.undistilled: dict[Key, float] = {}
        self.teacher: dict[Key, float] = {}
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        by_condition: dict[tuple[Key, str], list[dict[str, float]]] = defaultdict(list)
        for result in results:
            cell = result["cell"]
            self.seconds[cell["student"], cell["strategy"]].append(result["seconds"])
            for score, values in result["test"].items():
                key = (cell["student"], score, cell["language"])
                by_condition[key, cell["strategy"]].append(values)
                self.undistilled[key] = float(np.mean(list(result["undistilled"][score].values())))
                self.teacher[key] = float(np.mean(list(result["teacher"][score].values())))
        for (key, strategy), seeds in by_condition.items():
            queries = sorted(seeds[0])
            matrix = np.array([[seed[query] for query in queries] for seed in seeds])
            self.per_query[key][strategy] = matrix.mean(0)
            self.per_seed[key][strategy] = matrix.mean(1).tolist()
        self.p_values = self._significance()

    def _significance(self) -> dict[tuple[Key, str], float]:
        """Holm-corrected p-values of the paired t-test against the baseline, over the comparisons of a table."""
        families: dict[tuple[str, str], list[tuple[Key, str, float]]] = defaultdict(list)
        for key, strategies in self.per_query.items():
            for strategy, values in strategies.items():
                if strategy != BASELINE and BASELINE in strategies:
                    p = macro_t_test(one_group(values - strategies[BASELINE]))
                    families[key[:2]].append((key, strategy, p))
        corrected: dict[tuple[Key, str], float] = {}
        for family in families.values():
            for (key, strategy, _), p in zip(family, holm([p for _, _, p in family]), strict=True):
                corrected[key, strategy] = float(p)
        return corrected

    def mean(self, key: Key, strategy: str) -> float:
        """Mean over seeds and queries."""
        return float(self.per_query[key][strategy].mean())

    def cell(self, key: Key, strategy: str) -> str:
        """Mean, interval over queries, deviation over seeds, and a mark for significance against the baseline."""
        values = self.per_query[key][strategy]
        low, high = macro_interval(one_group(values))
        p = self.p_values.get((key, strategy))
        mark = "" if p is None or p >= 0.05 else " **+**" if values.mean() > self.mean(key, BASELINE) else " **-**"
        return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]{mark}"

    def rows(self) -> list[dict[str, Any]]:
        """One row a figure, for JSON."""
        rows = []
        for key, strategies in self.per_query.items():
            for strategy, values in strategies.items():
                low, high = macro_interval(one_group(values))
                rows.append({
                    "name": "/".join((*key, strategy)), "student": key[0], "score": key[1], "language": key[2],
                    "strategy": strategy, "metric": "map", "value": float(values.mean()), "low": low, "high": high,
                    "seeds": self.per_seed[key][strategy], "queries": len(values),
                    "p_against_mse": self.p_values.get((key, strategy)),
                    "undistilled": self.undistilled[key], "teacher_on_english": self.teacher[key],
                })  # fmt: skip
        return rows


def write_report(results: list[dict[str, Any]], json_file: Path | None) -> None:
    """Write the section of docs/results.md, the plot, and the JSON file.

    Args:
        results: what the cells gave.
        json_file: None writes none.
    """
    figures = Figures(results)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    plot(figures, PLOT)
    replace_section(PAGE, COMMAND, _sections(figures, results))
    if json_file is not None:
        write_json(json_file, figures.rows())


def _sections(figures: Figures, results: list[dict[str, Any]]) -> str:
    cells = [result["cell"] for result in results]
    lines = [
        f"Measured on {platform.machine()}, one thread a run, {versions('torch')}; {len(cells)} runs. MAP at 100 "
        "over the test queries, averaged over seeds; in brackets the 95 % bootstrap interval over queries. "
        "**+** / **-**: better / worse than `mse` in the same column, paired t-test over queries on the averages over "
        "seeds, p < 0.05 after Holm's correction over all comparisons of a table.",
    ]
    for student in _ordered(key[0] for key in figures.per_query):
        epochs = ", ".join(str(e) for e in _ordered(c["epochs"] for c in cells if c["student"] == student))
        seconds = np.median([s for (kind, _), values in figures.seconds.items() if kind == student for s in values])
        for score in ("pooled", "maxsim"):
            title = f"### {TITLES[student]}, {'pooled' if score == 'pooled' else 'MaxSim'} scoring"
            lines += ["", title, "", _table(figures, student, score)]
        seeds = len({cell["seed"] for cell in cells if cell["student"] == student})
        lines += [
            "",
            f"{seeds} seed{'s' if seeds > 1 else ''}, {epochs} epochs; median {seconds:.0f} s of training a run.",
        ]
        deviations = [
            float(np.std(values, ddof=1))
            for key, by_strategy in figures.per_seed.items()
            if key[0] == student
            for values in by_strategy.values()
            if len(values) > 1
        ]
        if deviations:
            lines.append(
                f"Standard deviation over seeds: median {np.median(deviations):.4f}, at most {max(deviations):.4f}."
            )
    return "\n".join(lines)


def _table(figures: Figures, student: str, score: str) -> str:
    keys = [key for key in figures.per_query if key[:2] == (student, score)]
    strategies = _ordered(strategy for key in keys for strategy in figures.per_query[key])
    lines = [
        "| | "
        + " | ".join(f"{key[2]} ({len(next(iter(figures.per_query[key].values())))} queries)" for key in keys)
        + " |"
    ]
    lines.append("| --- |" + " --- |" * len(keys))
    lines.append("| undistilled teacher | " + " | ".join(f"{figures.undistilled[key]:.3f}" for key in keys) + " |")
    for strategy in strategies:
        cells = [figures.cell(key, strategy) if strategy in figures.per_query[key] else "" for key in keys]
        lines.append(f"| `{strategy}` | " + " | ".join(cells) + " |")
    lines.append("| teacher on English | " + " | ".join(f"{figures.teacher[key]:.3f}" for key in keys) + " |")
    return "\n".join(lines)


def plot(figures: Figures, path: Path) -> None:
    """Draw each strategy's MAP with its interval: a panel a student and score, a group a language."""
    from matplotlib.figure import Figure

    students = _ordered(key[0] for key in figures.per_query)
    figure = Figure(figsize=(11, 3.3 * len(students)), layout="constrained")
    panels = figure.subplots(len(students), 2, squeeze=False, sharey="row")
    for row, student in zip(panels, students, strict=True):
        for axes, score in zip(row, ("pooled", "maxsim"), strict=True):
            _panel(axes, figures, student, score)
    panels[0][0].legend(frameon=False, fontsize=8, ncols=2)
    figure.savefig(path, dpi=130)


def _panel(axes: Any, figures: Figures, student: str, score: str) -> None:
    keys = [key for key in figures.per_query if key[:2] == (student, score)]
    strategies = _ordered(strategy for key in keys for strategy in figures.per_query[key])
    colours = ("#c05621", "#f6ad55", "#2b6cb0", "#276749", "#9ae6b4", "#805ad5")
    width = 0.8 / len(strategies)
    for index, strategy in enumerate(strategies):
        present = [(place, key) for place, key in enumerate(keys) if strategy in figures.per_query[key]]
        means = [figures.mean(key, strategy) for _, key in present]
        intervals = [macro_interval(one_group(figures.per_query[key][strategy])) for _, key in present]
        errors = np.abs(np.array(intervals).T - np.array(means))
        at = [place + (index - (len(strategies) - 1) / 2) * width for place, _ in present]
        axes.bar(
            at, means, width, yerr=errors, label=strategy, color=colours[index % len(colours)], error_kw={"lw": 0.8}
        )
    for place, key in enumerate(keys):
        before = figures.undistilled[key]
        axes.plot([place - 0.45, place + 0.45], [before, before], color="black", lw=1.2, ls=":")
    # Room for three groups at least: the bars of a single language would fill the panel.
    middle, half = (len(keys) - 1) / 2, max(len(keys), 3) / 2
    axes.set_xlim(middle - half, middle + half)
    axes.set_xticks(range(len(keys)), [key[2] for key in keys])
    axes.set_title(
        f"{TITLES[student]}, {'pooled' if score == 'pooled' else 'MaxSim'} scoring (dotted: undistilled)", fontsize=9
    )
    axes.set_ylabel("MAP")
    axes.spines[["top", "right"]].set_visible(False)


def _ordered(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
