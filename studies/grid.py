"""Sweep files: a grid of options of train.py, in the format of W&B sweeps, and the cells that it stands for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundations.checks import check_choice, did_you_mean
from foundations.errors import InputError, as_input_error
from foundations.yaml_files import parse_yaml, read_yaml
from lightning_modules.cli.front_door import parse

PROGRAM = "train.py"
KEYS = ("program", "method", "parameters", "command", "name", "description", "project", "entity", "metric", "run_cap",
        "metrics", "early_terminate", "controller", "scheduler", "job", "image_uri", "apiVersion", "kind")  # fmt: skip
"""The top-level keys of a W&B sweep file; W&B calls a file with another one malformed."""
_SHORT_KEYS = {"seed_everything": "seed"}
_NOT_SETTINGS = ("output", "name", "logger", "plots", "resume")
"""Options that do not change what a run measures."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str  # of the run folder; made of the values that the sweep varies, so always the same
    options: dict[str, Any]  # option of train.py -> value
    labels: dict[str, str]  # short name of what is varied, e.g. ``language`` or ``rate`` -> value as people read it

    @property
    def arguments(self) -> list[str]:
        """The command line for train.py, without output and name."""
        return [f"--{key}={_as_argument(value)}" for key, value in self.options.items()]

    def settings(self) -> dict[str, Any]:
        """Dotted key -> value of all that the cell's config files and options say, to compare two cells by."""
        settings: dict[str, Any] = {}
        parsed = parse(self.arguments)
        for path in parsed.configs:
            settings |= flat(read_yaml(path))
        options = [argument.removeprefix("--").partition("=") for argument in parsed.cli]
        settings |= {key: parse_yaml(value) for key, _, value in options if key != "config"}
        return {key: value for key, value in settings.items() if key not in _NOT_SETTINGS}


def read_sweep(path: str | Path) -> list[Cell]:
    """The cells of a sweep file, in the order of the grid: the last parameter varies fastest.

    The file has ``program: train.py``, ``method: grid`` and ``parameters``, each with a ``value`` or ``values``; two
    cells of the same name are an InputError.
    """
    content = read_yaml(path)
    for key in content:
        if key not in KEYS:
            raise InputError(f"unknown key {key!r}{did_you_mean(str(key), KEYS)} of a sweep", path)
    for key, expected in (("program", PROGRAM), ("method", "grid")):
        if content.get(key) != expected:
            raise InputError(f"{key} is {content.get(key)!r}, expected {expected}", path)
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise InputError("expected parameters: a mapping from options of train.py to values", path)
    fixed = {key: spec["value"] for key, spec in parameters.items() if _kind(key, spec, path) == "value"}
    varied = {key: spec["values"] for key, spec in parameters.items() if key not in fixed}
    cells: dict[str, Cell] = {}
    for values in itertools.product(*varied.values()):
        varied_here = dict(zip(varied, values, strict=True))
        name = "-".join(_part(key, value) for key, value in varied_here.items()) or "run"
        if name in cells:
            raise InputError(f"two cells have the name {name!r}: the values of a parameter must differ", path)
        options = {key: varied_here.get(key, fixed.get(key)) for key in parameters}
        cells[name] = Cell(name, options, {_short(key): _label(value) for key, value in varied_here.items()})
    return list(cells.values())


def read_sweeps(paths: Sequence[str | Path]) -> list[Cell]:
    """The cells of several sweep files; one that two files have counts once, but must mean the same in both."""
    cells: dict[str, Cell] = {}
    for path in paths:
        for cell in read_sweep(path):
            earlier = cells.setdefault(cell.name, cell)
            if changed := "" if earlier == cell else difference(earlier.settings(), cell.settings()):
                raise InputError(f"{cell.name} is another cell in an earlier file: {changed}", path)
    return list(cells.values())


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What differs between the settings of two cells, in words; "" if nothing does."""
    absent = "not set"
    pairs = {key: (before.get(key, absent), after.get(key, absent)) for key in [*before, *after]}
    changed = [f"{key} was {old} and is {new}" for key, (old, new) in pairs.items() if old != new]
    return ", ".join(changed[:5] + ([f"{len(changed) - 5} more"] if len(changed) > 5 else []))


def select(cells: Sequence[Cell], conditions: Sequence[str]) -> list[Cell]:
    """The cells that all conditions hold for, such as ``language=sw`` or ``data.noise.rate=0,0.4``; at least one.

    A condition has the short or full name of what is varied, and values as they stand in the cells' names.
    """
    for condition in conditions:
        key, equals, values = condition.partition("=")
        if not equals:
            raise InputError(f"condition is {condition!r}, expected KEY=VALUE, e.g. language=sw")
        short, allowed = _short(key), values.split(",")
        with as_input_error():
            check_choice(f"key of {condition}", short, dict.fromkeys(name for cell in cells for name in cell.labels))
            choices = list(dict.fromkeys(cell.labels[short] for cell in cells if short in cell.labels))
            for value in allowed:
                check_choice(key, value, choices)
        cells = [cell for cell in cells if cell.labels.get(short) in allowed]
    if not cells:
        raise InputError("no cell is left by these conditions")
    return list(cells)


def _kind(key: Any, spec: Any, path: str | Path) -> str:
    """``value`` or ``values``; everything else is an error."""
    if isinstance(spec, dict) and list(spec) == ["value"]:
        return "value"
    if not isinstance(spec, dict) or list(spec) != ["values"]:
        raise InputError(f"parameter {key}: expected value: ... or values: [...], as in a grid of W&B", path)
    if not isinstance(spec["values"], list) or not spec["values"]:
        values = spec["values"]
        raise InputError(f"parameter {key}: values is {values!r}, expected a list with at least one value", path)
    return "values"


def _short(key: str) -> str:
    """``language`` of ``data.language``."""
    return _SHORT_KEYS.get(key, key.rpartition(".")[2])


def _label(value: Any) -> str:
    """A value as people read it; a file's name without folder and suffix."""
    if isinstance(value, str):
        return Path(value).stem if Path(value).suffix in (".yaml", ".yml", ".npy", ".tsv") else value
    return _as_argument(value)


def _part(key: str, value: Any) -> str:
    """A value as a part of a folder's name; numbers and the like have their key in front."""
    text = re.sub(r"[^\w.+-]+", "_", _label(value))
    return text if isinstance(value, str) else _short(key) + text


def _as_argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    dotted: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            dotted |= flat(value, f"{prefix}{key}.")
        else:
            dotted[f"{prefix}{key}"] = value
    return dotted
