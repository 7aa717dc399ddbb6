"""The short help of train.py, made without importing torch."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datamodules import DATAMODULES
from lightning_modules.names import FULL_KEYS, LOGGERS, SCORES, SHELLS, SHORT_NAMES, STUDENTS
from strategies import STRATEGIES

ROOT = Path(__file__).parents[2]

OPTIONS: dict[str, str] = {
    "--strategy NAME": "distillation loss, see below; a class path works as well",
    "--strategy.OPTION VALUE": "an option of it, e.g. --strategy.epsilon 0.02",
    "--data NAME": "dataset, see below (default: starter)",
    "--data.OPTION VALUE": "an option of it, e.g. --data.language sw, or sw,so,mr for several languages",
    "--student NAME": "kind of student, see below",
    "--student.OPTION VALUE": "an option of it, e.g. --student.layers 3",
    "--teacher NAME": "a run folder, whose student teaches; starter/minilm; a model's folder or name on the hub",
    "--score NAME": "compare texts by one vector (pooled), by tokens (maxsim), or report both",
    "--model.OPTION VALUE": "lr, embedding_lr, schedule, siamese, teacher, ...",
    "--trainer.OPTION VALUE": "of Lightning's Trainer: max_epochs, devices, precision, strategy (ddp, fsdp), ...",
    "--evaluation.OPTION VALUE": "metrics, k, shard_texts, undistilled",
    "--seed_everything N": "seed (default: 0)",
    "--config FILE": "YAML with any of these; several are laid over each other; options win",
    "--logger NAMES": f"one or more of {', '.join(LOGGERS)}, with commas (default: wandb, offline if not logged in)",
    "--output DIR": "where run folders go (default: runs)",
    "--name NAME": "name of the run folder (default: from data, strategy and seed)",
    "--resume [DIR]": "go on with a run that was cut off: that folder, or the newest one of this name",
    "--print_config": "print the whole configuration, and stop",
    "--print_shtab SHELL": "print a completion script for bash or zsh, and stop",
    "--help_all": "every option of everything",
    "--strategy.help NAME, --data.help NAME, --student.help NAME": "the options of one strategy, dataset or student",
}


def short_help() -> str:
    """The text of ``train.py --help``."""
    lines = [
        "usage: python train.py [--strategy NAME] [--data NAME] [--config FILE] [options]",
        "",
        "Distil a teacher into a student for a low-resource language: fit, then test with the best checkpoint.",
        "",
        "examples:",
        "  python train.py --strategy ot --data starter --data.language sw",
        "  python train.py --strategy mse --data tsv --data.root my_language/",
        "  python train.py --resume runs/starter-sw-ot-seed0",
        "",
        "options:",
        *(f"  {name:<24}  {text}" if len(name) <= 24 else f"  {name}\n{'':28}{text}" for name, text in OPTIONS.items()),
    ]
    for title, names in (("strategies", STRATEGIES), ("datasets", DATAMODULES), ("students", STUDENTS)):
        lines += ["", f"{title}:", *(f"  {name:<24}  {summary(path)}" for name, path in names.items())]
    return "\n".join(lines)


def summary(class_path: str) -> str:
    """The first sentence of a class's docstring, read from its source."""
    module, _, name = class_path.rpartition(".")
    source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    raise AssertionError(f"{class_path} is not in its file")


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
