"""Read run folders for a report: what was measured, on which strategy, noise, language and seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundations.checks import did_you_mean
from foundations.errors import InputError
from foundations.files import read_json
from foundations.progress import delayed_progress
from foundations.yaml_files import read_yaml
from lightning_modules.names import SHORT_NAMES, moved
from retrieval.results import from_json
from studies.cells import RECORD
from studies.grid import flat
from studies.noisy_tests import FOLDER

CLEAN = "clean"
AFTER = " after "
"""Stands between the noise of a test and that of the training before it."""
_TEST_FILE = re.compile(r"(text|image)-(.+)-([0-5])")
_NOT_COMPARED = ("output", "name", "logger", "plots", "seed_everything", "data.init_args.noise",
                 "data.init_args.language", "trainer.enable_progress_bar", "trainer.accelerator",
                 "trainer.devices")  # fmt: skip
"""What may differ between the runs that are averaged."""


@dataclass(frozen=True, order=True)
class Condition:
    """The noise of a training or a test."""

    stage: str = ""  # ``training`` or ``test``; empty for nothing
    kind: str = CLEAN  # ``correspondence-caption``, ``text-keyboard``, ``image-jpeg`` or so; ``clean`` for nothing
    level: float = 0.0  # rate of wrong correspondence, or severity

    @property
    def series(self) -> tuple[str, str]:
        """Stage and kind."""
        return self.stage, self.kind


@dataclass(frozen=True)
class RunScore:
    """The value of a metric in one run and language under one noise."""

    run: str  # name of the run folder
    strategy: str  # its name in tables
    condition: Condition
    language: str  # empty for data without one
    seed: int
    value: float  # of the metric, as in metrics.json
    per_query: dict[str, float]  # id -> value


@dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    folder: Path
    config: dict[str, Any]  # dotted key -> value of its whole configuration
    label: str | None  # name of its strategy in the sweep, if it is a cell of one
    means: dict[str, dict[str, dict[str, float]]]  # language -> row -> metric -> value

    @property
    def language(self) -> str:
        """Of the data."""
        return str(self.config.get("data.init_args.language") or "")

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config.get("seed_everything") or 0)


def find_folders(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders, finished or not: the given ones, and those inside the given folders; at least one."""
    folders: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError("no such folder", path)
        children = [path] if _is_run(path) else sorted(path.iterdir())
        folders |= {child: None for child in children if _is_run(child)}
    if not folders:
        raise InputError("found no run folder (a folder with a config.yaml) there", paths[0])
    return list(folders)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() or (folder / RECORD).is_file()


def finished_run(folder: Path) -> FinishedRun:
    """Read a finished run's configuration and means."""
    config = moved(read_yaml(folder / "config.yaml"))
    means = from_json(read_json(folder / "metrics.json"))
    record = folder / RECORD
    labels: dict[str, str] = read_json(record)["labels"] if record.is_file() else {}
    return FinishedRun(folder, flat(config), labels.get("strategy", labels.get("config")), means)


def run_scores(runs: Sequence[FinishedRun], metric: str) -> list[RunScore]:
    """The scores of finished runs: of the test as it is, and under test-time noise where it was tested so.

    It is an InputError if a run lacks the metric, if that is not a mean over queries, or if two runs are of the same
    strategy, noise, language and seed.
    """
    names = strategy_names(runs)
    scores: dict[tuple[Any, ...], RunScore] = {}
    with delayed_progress("read runs", len(runs)) as advance:
        for run, strategy in zip(runs, names, strict=True):
            for score in _scores_of(run, strategy, metric):
                key = (score.strategy, score.condition, score.language, score.seed)
                if key in scores:
                    raise InputError(f"the same strategy, noise, language and seed as {scores[key].run}", run.folder)
                scores[key] = score
            advance(1)
    return list(scores.values())


def strategy_names(runs: Sequence[FinishedRun]) -> list[str]:
    """Each run's name for its strategy: its label in the sweep, or its class and what differs in the options."""
    prefix = "model.strategy."
    options = [
        {key.removeprefix(prefix + "init_args."): value for key, value in run.config.items() if key.startswith(prefix)}
        for run in runs
    ]
    classes = [str(each.pop(prefix + "class_path", "?")) for each in options]
    short = {path: name for name, path in SHORT_NAMES["strategy"].items()}
    names = []
    for run, path, options_here in zip(runs, classes, options, strict=True):
        of_class = [options[i] for i, other in enumerate(runs) if classes[i] == path and not other.label]
        differ = [f"{key}={value}" for key, value in options_here.items() if any(o.get(key) != value for o in of_class)]
        name = short.get(path, path.rpartition(".")[2]) + (f" ({', '.join(differ)})" if differ else "")
        names.append(run.label or name)
    return names


def check_same_settings(runs: Sequence[FinishedRun], names: Sequence[str]) -> None:
    """Check that runs of one strategy, which are averaged, differ in seed, language and noise only."""
    references: dict[str, tuple[FinishedRun, dict[str, Any]]] = {}
    for run, name in zip(runs, names, strict=True):
        settings = {key: value for key, value in run.config.items() if not key.startswith(_NOT_COMPARED)}
        reference, expected = references.setdefault(name, (run, settings))
        for key in dict.fromkeys([*expected, *settings]):
            if expected.get(key) != settings.get(key):
                raise InputError(
                    f"{key} is {settings.get(key)} here and {expected.get(key)} in {reference.folder.name}, so the "
                    f"runs of {name!r} cannot be averaged",
                    run.folder,
                )


def default_metric(runs: Sequence[FinishedRun]) -> str:
    """``rsum`` where every run has it, or the first metric of metrics.json."""
    rows = [rows["test"] for run in runs for rows in run.means.values()]
    return "rsum" if all("rsum" in row for row in rows) else next(iter(rows[0]))


def training_condition(config: Mapping[str, Any]) -> Condition:
    """The noise that a run was trained with, by its configuration (dotted key -> value)."""
    noise = {key.rpartition(".")[2]: value for key, value in config.items() if key.startswith("data.init_args.noise.")}
    level = f"correspondence-{noise.get('level', 'caption')}"
    active: list[tuple[str, float]] = []
    if noise.get("rate"):
        active.append((level, float(noise["rate"])))
    elif noise.get("index_file"):
        active.append((f"{level}-{Path(noise['index_file']).stem}", 1.0))
    for side in ("text", "image"):
        if noise.get(side) and noise.get(f"{side}_severity"):
            active.append((f"{side}-{noise[side]}", float(noise[f"{side}_severity"])))
    if not active:
        return Condition()
    (kind, amount), *others = active
    return Condition("training", "+".join([kind, *(f"{other}-{value:g}" for other, value in others)]), amount)


def _scores_of(run: FinishedRun, strategy: str, metric: str) -> Iterator[RunScore]:
    for condition, means, per_query in _results_of(run):
        for language, rows in means.items():
            values, by_query = rows["test"], per_query[language]["test"]
            if metric not in values:
                nearest = did_you_mean(metric, values)
                raise InputError(f"has no metric {metric!r}, expected one of {', '.join(values)}{nearest}", run.folder)
            if metric not in by_query or metric.endswith("median_rank"):
                message = f"{metric} is not a mean over queries, so it has no tests; choose another --metric"
                raise InputError(message, run.folder)
            yield RunScore(run.folder.name, strategy, condition, language or run.language, run.seed, values[metric],
                           by_query[metric])  # fmt: skip


def _results_of(run: FinishedRun) -> Iterator[tuple[Condition, Mapping[str, Any], Mapping[str, Any]]]:
    """Means and values per query, by language and row, of the test as it is and of each test under noise."""
    trained = training_condition(run.config)
    yield trained, run.means, from_json(read_json(run.folder / "per_query.json"))
    for path in sorted((run.folder / FOLDER).glob("*.json")):
        match = _TEST_FILE.fullmatch(path.stem)
        if match is None:
            raise InputError("expected a name such as text-keyboard-3.json", path)
        side, kind, severity = match.groups()
        after = "" if trained == Condition() else f"{AFTER}{trained.kind}-{trained.level:g}"
        condition = Condition("test", f"{side}-{kind}{after}", float(severity))
        content = from_json(read_json(path))
        means, per_query = (
            {language: {row: value[part] for row, value in rows.items() if isinstance(value, dict) and part in value}
             for language, rows in content.items()} for part in ("means", "per_query")
        )  # fmt: skip
        yield condition, means, per_query
