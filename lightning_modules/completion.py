"""Completion of train.py's options in a shell."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning_modules.front_door import FULL_KEYS, LOGGERS, SCORES, SHELLS, SHORT_NAMES

FILE_OPTIONS = ("config", "output", "resume", "teacher", "data.root")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that completes the options of ``./train.py``, short names, and the options of what they name.

    Args:
        parser: the real parser.
        shell: one of `SHELLS`.
    """
    import shtab

    plain = argparse.ArgumentParser("train.py", add_help=False)
    for name, choices in sorted(_options(parser).items()):
        action = plain.add_argument(f"--{name}", choices=choices)
        if name in FILE_OPTIONS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(plain, shell))


def _options(parser: argparse.ArgumentParser) -> dict[str, list[str] | None]:
    """Options as they are typed, and their choices."""
    options: dict[str, list[str] | None] = {"resume": None, "teacher": None, "help_all": None, "help": None}
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                options[option.removeprefix("--")] = _choices(getattr(action, "_typehint", None))
    options |= {"print_shtab": list(SHELLS), "logger": list(LOGGERS), "score": list(SCORES)}
    for kind, names in SHORT_NAMES.items():
        options |= {kind: list(names), f"{kind}.help": list(names)}
        if FULL_KEYS[kind] != kind:
            options = {name: choices for name, choices in options.items() if not name.startswith(FULL_KEYS[kind])}
        for class_path in names.values():
            for name, choices in class_options(class_path):
                known = options.get(f"{kind}.{name}") or []
                options[f"{kind}.{name}"] = list(dict.fromkeys([*known, *(choices or [])])) or None
    return options


def class_options(class_path: str) -> Iterator[tuple[str, list[str] | None]]:
    """The options of a class of ours and of its bases, and their choices."""
    module, _, name = class_path.rpartition(".")
    for base in getattr(import_module(module), name).__mro__:
        if base.__module__.split(".")[0] in ("datamodules", "strategies", "lightning_modules"):
            types = get_type_hints(base.__init__)
            for option, parameter in inspect.signature(base.__init__).parameters.items():
                if option != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    yield option, _choices(types.get(option))
                    yield from _fields(option, types.get(option))


def _fields(option: str, kind: Any) -> Iterator[tuple[str, list[str] | None]]:
    """The options below one that is a dataclass, such as ``noise.rate``."""
    for member in (kind, *get_args(kind)):
        if dataclasses.is_dataclass(member):
            types = get_type_hints(member)
            yield from ((f"{option}.{each.name}", _choices(types[each.name])) for each in dataclasses.fields(member))


def _choices(kind: Any) -> list[str] | None:
    if kind is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else None
