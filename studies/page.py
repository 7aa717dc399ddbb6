"""What the report's page shows; page.html.j2 says how."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundations.files import read_json
from retrieval.results import AVERAGE
from retrieval.table import format_p
from studies.figures import Difference, Figure, Study, level_name
from studies.runs import FinishedRun, strategy_names
from studies.tables import Table, number

_PIXELS_PER_POINT = 1.75
_BACKGROUND = ("Settings", "How to read this", "Every figure")
"""The last sections, which every page has."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    lines: Sequence[str] = ()  # of a list
    table: Table | None = None
    plot: str = ""  # an SVG element
    caption: str = ""  # below the plot
    differences: Sequence[Difference] = ()  # between strategies under one noise, shown as a matrix for each level

    def difference(self, level: float, first: str, second: str) -> Difference | None:
        """One of the differences; None where it was not tested."""
        key = (level, first, second)
        return next((each for each in self.differences if (each.level, each.first, each.second) == key), None)


def render_page(
    heading: str, question: str, sections: Sequence[Section], study: Study, runs: Sequence[FinishedRun], command: str
) -> str:
    """The whole page: heading, the question below it, the results, and what made them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    counts = {"run": runs, "strategy": study.strategies, "language": study.languages, "seed": study.seeds}
    counted_words = ", ".join(counted(len(each), word) for word, each in counts.items())
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.globals |= {"AVERAGE": AVERAGE, "format_p": format_p, "hint": _hint, "level_name": level_name,
                            "number": number, "repr": repr}  # fmt: skip
    return environment.get_template("page.html.j2").render(
        heading=heading, question=question, summary=f"{counted_words}. Metric: {study.metric} on the test queries.",
        titles=[*(each.title for each in sections), *_BACKGROUND], sections=sections, study=study,
        settings=_settings(study, runs, command),
    )  # fmt: skip


def scaled(svg: str) -> str:
    """An SVG element at the scale of the page."""
    points = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
    return svg.replace("<svg", f'<svg style="max-width: {points * _PIXELS_PER_POINT:.0f}px"', 1)


def counted(count: int, word: str) -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(3, "strategy")
    ('1 run', '3 strategies')
    """
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def _hint(figure: Figure) -> str:
    """A figure in words, with more digits than the table has."""
    interval = "" if figure.interval is None else f" [{figure.interval[0]:.6g}, {figure.interval[1]:.6g}]"
    plural = "s" if len(figure.seeds) > 1 else ""
    return f"{figure.value:.6g}{interval}, seed{plural} {', '.join(map(str, figure.seeds))}"


def _settings(study: Study, runs: Sequence[FinishedRun], command: str) -> dict[str, str]:
    config, path = runs[0].config, runs[0].folder / "environment.json"
    environment = read_json(path) if path.is_file() else {}
    versions = environment.get("versions", {})
    rows = {
        "Command": command or f"python {shlex.join(environment.get('command', []))} (and so on)",
        "Data": f"{_class(config, 'data')}, languages {', '.join(study.languages)}",
        "Student": f"{_class(config, 'model.student')} from {config.get('model.student.init_args.model')}",
        "Teacher": _teacher(config),
        "Training": f"{config.get('trainer.max_epochs')} epochs, batches of {config.get('data.init_args.batch_size')}",
        "Seeds": ", ".join(map(str, study.seeds)),
        "Versions": ", ".join(f"{name} {value}" for name, value in versions.items() if value != "not installed"),
        "Machine": f"Python {environment.get('python', '?')}, {environment.get('platform', '?')}",
    }
    configs = {name: run.config for name, run in reversed([*zip(strategy_names(runs), runs, strict=True)])}
    return rows | {f"Strategy {name}": _strategy(configs[name]) for name in study.strategies}


def _class(config: dict[str, Any], key: str) -> str:
    return str(config.get(f"{key}.class_path", "")).rpartition(".")[2]


def _options(config: dict[str, Any], key: str) -> dict[str, Any]:
    prefix = f"{key}.init_args."
    return {name.removeprefix(prefix): value for name, value in config.items() if name.startswith(prefix)}


def _teacher(config: dict[str, Any]) -> str:
    nested = "model.teacher.init_args.teacher"
    key = nested if f"{nested}.class_path" in config else "model.teacher"
    options = [f"{name}={value}" for name, value in _options(config, key).items() if value is not None]
    return f"{_class(config, key)} ({', '.join(options[:4])})"


def _strategy(config: dict[str, Any]) -> str:
    options = [f"{name}={value}" for name, value in _options(config, "model.strategy").items()]
    rates = {name: config.get(f"model.{name}") for name in ("lr", "embedding_lr")}
    shown = [f"{name}={value}" for name, value in rates.items() if value is not None]
    return f"{_class(config, 'model.strategy')}({', '.join(options)}); {', '.join(shown)}"
