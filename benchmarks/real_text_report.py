"""Tables and JSON of the benchmark on real text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import README, machine, replace_section, versions
from foundations.files import write_json
from retrieval.statistics import (
    Groups,
    holm,
    macro_interval,
    macro_mean,
    macro_t_test,
    paired_differences,
)
from retrieval.table import format_interval, format_p

DOCS = Path(__file__).parent.parent / "docs"
PAGE, GUIDE = DOCS / "results.md", DOCS / "own_language.md"
COMMAND = "python -m benchmarks.real_text"
SCORES = {
    "pooled": "pooled",
    "maxsim": "MaxSim",
    "weighted": "MaxSim, query tokens weighted by their norm",
    "hybrid": "hybrid of pooled, weighted MaxSim and BM25",
}
TITLES = {
    "static": "Static student of MiniLM",
    "late": "Static student of a late-interaction teacher",
    "contextual": "Contextual student (3 layers) of MiniLM",
}
BM25, UNDISTILLED, TEACHER = "BM25, questions as they are", "undistilled", "teacher on English"
BEST_KINDS = {BM25: "bm25", "BM25, human translations": "bm25"}
Row = tuple[str, str]
"""Row, space."""
CHOICES: dict[str, tuple[Row, Row]] = {
    "whitened space instead of plain (`mse`)": (("mse", "whitened"), ("mse", "plain")),
    "whitened space instead of plain (`contrastive`)": (("contrastive", "whitened"), ("contrastive", "plain")),
    "whitened space instead of plain (`ot_contrastive`)": (("ot_contrastive", "whitened"), ("ot_contrastive", "plain")),
    "`contrastive` instead of `mse`, plain": (("contrastive", "plain"), ("mse", "plain")),
    "`contrastive` instead of `mse`, whitened": (("contrastive", "whitened"), ("mse", "whitened")),
    "`ot` instead of `mse`, whitened": (("ot", "whitened"), ("mse", "whitened")),
    "`ot_contrastive` instead of `mse`, whitened": (("ot_contrastive", "whitened"), ("mse", "whitened")),
    "`ot_contrastive` instead of `contrastive`, whitened": (
        ("ot_contrastive", "whitened"),
        ("contrastive", "whitened"),
    ),
    "its transport plan instead of attention, whitened": (
        ("ot_contrastive", "whitened"),
        ("its plan: attention", "whitened"),
    ),
}
"""What a user may choose: the row that has it, and the row that does not."""


class Table:
    """The rows of one condition and variant under one score, each on the same questions of the same languages.

    Args:
        results: what its cells gave.
        baselines: what needs no student, by language.
        score: ``pooled``, ``maxsim``, ``weighted`` or ``hybrid``.
    """

    def __init__(self, results: Iterable[dict[str, Any]], baselines: list[dict[str, Any]], score: str) -> None:
        runs: dict[Row, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
        for result in results:
            cell = result["cell"]
            runs[cell["row"], cell["space"]][cell["language"]].append(result["map"][score])
        self.languages = [each["language"] for each in baselines]
        complete = {row: seeds for row, seeds in runs.items() if list(seeds) and set(seeds) == set(self.languages)}
        self.groups: dict[Row, Groups] = {
            row: [_mean_of(seeds[language]) for language in self.languages] for row, seeds in complete.items()
        }
        self.seeds = {row: min(len(seeds[language]) for language in self.languages) for row, seeds in complete.items()}
        self.deviations = [
            float(np.std([np.mean(list(each.values())) for each in by_seed], ddof=1))
            for seeds in complete.values()
            for by_seed in seeds.values()
            if len(by_seed) > 1
        ]
        self.plain: dict[str, Groups] = {}
        for row in (UNDISTILLED, f"{UNDISTILLED}, whitened", *BEST_KINDS, TEACHER):
            kind = BEST_KINDS.get(row, score if score in ("maxsim", "weighted") else "pooled")
            self.plain[row] = [_mean_of([each["map"][row][kind]]) for each in baselines]

    def tests(self) -> dict[tuple[Row, str], tuple[float, float]]:
        """Difference on the average of the languages, and p, of each row against each of three; Holm over all."""
        against = {"`mse`": self.groups.get(("mse", "plain"), self.groups.get(("mse", "whitened")))}
        against |= {"undistilled": self.plain[UNDISTILLED], "BM25": self.plain[BM25]}
        found = [
            (row, name, paired_differences(groups, base))
            for (row, groups), (name, base) in product(self.groups.items(), against.items())
            if base is not None and groups is not base
        ]
        p_values = holm([macro_t_test(differences) for _, _, differences in found])
        return {
            (row, name): (macro_mean(differences), p)
            for (row, name, differences), p in zip(found, p_values, strict=True)
        }

    def lines(self, short: bool = False) -> list[str]:
        """The table in Markdown; in short, without the tests."""
        tests, names = self.tests(), [] if short else ["`mse`", "undistilled", "BM25"]
        counts = [
            f"{language} ({len(group)})" for language, group in zip(self.languages, self.plain[BM25], strict=True)
        ]
        head = ["", *counts, "average [95 % interval]", *(f"against {name}" for name in names)]
        lines = [_line(head), _line(["---"] * len(head))]
        *first, last = self.plain
        for name in first:
            lines.append(_line([name, *self._cells(self.plain[name]), *("" for _ in names)]))
        for row in sorted(self.groups, key=lambda row: row[1]):
            marks = [_mark(*tests[row, name]) if (row, name) in tests else "" for name in names]
            label = _label(row[0]) + (", whitened" if row[1] == "whitened" else "")
            lines.append(_line([label, *self._cells(self.groups[row]), *marks]))
        return [*lines, _line([last, *self._cells(self.plain[last]), *("" for _ in names)])]

    def _cells(self, groups: Groups) -> list[str]:
        means = [f"{np.mean(list(group.values())):.3f}" for group in groups]
        return [*means, format_interval(macro_mean(groups), macro_interval(groups))]

    def compare(self, first: Row, second: Row) -> str:
        """Difference on the average of the languages with its interval and p, uncorrected."""
        differences = paired_differences(self.groups[first], self.groups[second])
        interval = format_interval(macro_mean(differences), macro_interval(differences), sign=True)
        return f"{interval}, p {format_p(macro_t_test(differences))}"


def write_report(
    results: list[dict[str, Any]], baselines: list[dict[str, Any]], settings: dict[str, Any], json_file: Path | None
) -> None:
    """Write the sections of docs/results.md and of the README, and the JSON file (None: none)."""
    replace_section(PAGE, COMMAND, "\n".join(_sections(results, baselines, settings)))
    main = [
        result for result in results if result["cell"]["condition"] == "static" and result["cell"]["variant"] == "full"
    ]
    replace_section(README, COMMAND, "\n".join(Table(main, baselines, "pooled").lines(short=True)))
    replace_section(GUIDE, COMMAND, "\n".join(_choices(main, baselines, settings)))
    if json_file is not None:
        write_json(json_file, list(_rows(results, baselines)))


def _choices(results: list[dict[str, Any]], baselines: list[dict[str, Any]], settings: dict[str, Any]) -> Iterable[str]:
    """What each choice gains on the average of the languages, under each score; Holm over all tests of the table."""
    tables = {score: Table(results, baselines, score) for score in SCORES}
    known = tables["pooled"].groups.keys()
    pairs = {name: pair for name, pair in CHOICES.items() if set(pair) <= known}
    gains = {
        (name, score): paired_differences(table.groups[first], table.groups[second])
        for name, (first, second) in pairs.items()
        for score, table in tables.items()
    }
    best = ("ot_contrastive", "whitened")
    if best in known:
        name = "hybrid instead of pooled (`ot_contrastive`, whitened)"
        pairs[name] = (best, best)
        gains[name, "hybrid"] = paired_differences(tables["hybrid"].groups[best], tables["pooled"].groups[best])
    p_values = dict(zip(gains, holm([macro_t_test(each) for each in gains.values()]), strict=True))
    yield _line(["choice", "pooled", "MaxSim", "weighted MaxSim", "hybrid"])
    yield _line(["---"] * 5)
    for name in pairs:
        cells = [(name, score) for score in SCORES]
        yield _line([
            name, *(_mark(macro_mean(gains[cell]), p_values[cell]) if cell in gains else "" for cell in cells)
        ])  # fmt: skip
    chosen = settings["rows"]["mse"]["epochs"]
    tried = settings["tried"]
    alike = [each for each in tried if all(each[name] == tried[0][name] for name in ("row", "space", "embedding_lr"))]
    recipes = {each["english"]: each["pooled"] for each in alike if each["epochs"] == chosen}
    told = ", ".join(f"{value:.3f} with `{english}`" for english, value in recipes.items())
    yield from ("", f"Of `--data.english`, on Hausa, which chose: `mse` in the plain space has pooled MAP {told}.")


def _sections(
    results: list[dict[str, Any]], baselines: list[dict[str, Any]], settings: dict[str, Any]
) -> Iterable[str]:
    passages = baselines[0]["passages"]
    yield (
        f"Questions of AfriQA against its {passages:,} English passages; MAP at 100, averaged over seeds and then "
        "over languages; the interval is a bootstrap over questions. Tests are paired t-tests over questions on that "
        "average; p is corrected by Holm's method over all tests of a table. Everything was chosen on Hausa "
        f"(`benchmarks/real_text.yaml`): the student reads English {settings['rows']['mse']['english']} as pairs with "
        f"themselves, {settings['rows']['mse']['epochs']} epochs. The hybrid is z(pooled) + "
        f"{settings['hybrid'].split()[0]} z(weighted MaxSim) + {settings['hybrid'].split()[1]} z(BM25). "
        f"{machine()}, {versions('torch', 'transformers')}; {len(results)} runs."
    )
    for condition, title in TITLES.items():
        cells = [r for r in results if r["cell"]["condition"] == condition and r["cell"]["variant"] == "full"]
        for score, words in SCORES.items() if cells else ():
            table = Table(cells, baselines, score)
            yield from ("", f"### {title}: {words}", "", *table.lines(), "", _seeds(table, cells))
    yield from _variants(results, baselines)


def _seeds(table: Table, cells: Sequence[dict[str, Any]]) -> str:
    seeds = sorted(set(table.seeds.values()))
    seconds = np.median([cell["seconds"] for cell in cells])
    count = f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'}"
    text = f"{count} a row; median {seconds:.0f} s of training on one thread."
    if table.deviations:
        median, most = np.median(table.deviations), max(table.deviations)
        text += f" Standard deviation over seeds: median {median:.4f}, at most {most:.4f}."
    return text


def _variants(results: list[dict[str, Any]], baselines: list[dict[str, Any]]) -> Iterable[str]:
    """The table of changed bitext: the average over the languages."""
    variants = list(dict.fromkeys(r["cell"]["variant"] for r in results if r["cell"]["variant"] != "full"))
    for score in ("pooled", "maxsim", "weighted") if variants else ():
        tables = {
            variant: Table([r for r in results if r["cell"]["variant"] == variant], baselines, score)
            for variant in variants
        }
        tables = {variant: table for variant, table in tables.items() if table.groups}
        rows = list(dict.fromkeys(row for table in tables.values() for row in table.groups))
        yield from ("", f"### Changed bitext, static student, whitened: {SCORES[score]}", "")
        yield _line(["", *(_label(row[0]) for row in rows), "`ot_contrastive` against `mse`", "against attention"])
        yield _line(["---"] * (len(rows) + 3))
        for variant, table in tables.items():
            values = [f"{macro_mean(table.groups[row]):.3f}" if row in table.groups else "" for row in rows]
            own = ("ot_contrastive", "whitened")
            others = [(other, "whitened") for other in ("mse", "its plan: attention")]
            compared = [table.compare(own, other) if {own, other} <= table.groups.keys() else "" for other in others]
            yield _line([variant, *values, *compared])


def _rows(results: list[dict[str, Any]], baselines: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """One row a figure, for JSON."""
    for base in baselines:
        for row, scores in base["map"].items():
            for score, values in scores.items():
                yield {"row": row, "language": base["language"], "score": score, "map": _mean(values)}
    for result in results:
        for score, values in result["map"].items():
            yield result["cell"] | {"score": score, "map": _mean(values), "seconds": result["seconds"]}


def _mean_of(seeds: list[dict[str, float]]) -> dict[str, float]:
    """The mean over seeds of each question, in the order of their ids, which the bootstrap follows."""
    return {query: float(np.mean([seed[query] for seed in seeds])) for query in sorted(seeds[0])}


def _mean(values: dict[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _label(row: str) -> str:
    """How the tables call a row: the option as it is typed, and what is said of it in words."""
    name, _, words = row.replace("its plan: ", "ot_contrastive, plan ").partition(", ")
    return f"`{name}`" + (f", {words}" if words else "")


def _mark(difference: float, p: float) -> str:
    return f"{difference:+.3f} (p {format_p(p)})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
