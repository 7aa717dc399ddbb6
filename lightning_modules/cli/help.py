"""The short help of train.py, made without importing torch."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightning_modules.names import LOGGERS, SCORES, SHELLS, SHORT_NAMES, TEACHERS

_ROOT = Path(__file__).parents[2]
_CLASSES = {
    "model": ["lightning_modules.distillation.DistillationModule"],
    "model.teacher": TEACHERS.values(),
    "model.teacher.teacher": TEACHERS.values(),
    "evaluation": ["lightning_modules.evaluation.callback.RetrievalEvaluation"],
    "trainer": ["lightning.pytorch.Trainer"],
} | {kind: names.values() for kind, names in SHORT_NAMES.items()}
"""Group of options -> the classes that may stand there."""

OPTIONS: dict[str, str] = {
    "--strategy NAME": "distillation loss, see below; a class path works as well",
    "--strategy.OPTION VALUE": "an option of it, e.g. --strategy.epsilon 0.02",
    "--data NAME": "dataset, see below (default: starter)",
    "--data.OPTION VALUE": "an option of it, e.g. --data.language sw, or sw,so,mr for several languages",
    "--student NAME": "kind of student, see below",
    "--student.OPTION VALUE": "an option of it, e.g. --student.layers 3",
    "--teacher NAME": "a run folder, whose student teaches; starter/minilm; a model's folder or name on the hub",
    "--score NAME": "compare texts by one vector (pooled), by tokens (maxsim), report both, or add BM25 (hybrid)",
    "--model.OPTION VALUE": "lr, embedding_lr, schedule, space, siamese, teacher, ...",
    "--trainer.OPTION VALUE": "of Lightning's Trainer: max_epochs, devices, precision, strategy (ddp, fsdp), ...",
    "--evaluation.OPTION VALUE": "metrics, k, shard_texts, undistilled, bm25, token_weights",
    "--seed_everything N": "seed (default: 0)",
    "--config FILE": "YAML with any of these; several are laid over each other; options win",
    "--logger NAMES": f"one or more of {', '.join(LOGGERS)}, with commas (default: wandb, offline if not logged in)",
    "--output DIR": "where run folders go (default: runs)",
    "--name NAME": "name of the run folder (default: from data, strategy and seed)",
    "--checkpoint_every N": "optimiser steps between checkpoints (default: 100, or more where writing one takes long)",
    "--plots BOOL": "draw curves and results into the run folder (default: true)",
    "--resume [DIR]": "go on with that run; with auto, or no value, with the newest one of this name, or start it",
    "--from NAME": "with --resume: the checkpoint to go on from, last or best (default: the one with the most steps)",
    "--trust": "let run folders of --resume and --teacher name classes from anywhere, and models with code",
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
    for title, names in zip(("strategies", "datasets", "students"), SHORT_NAMES.values(), strict=True):
        lines += ["", f"{title}:", *(f"  {name:<24}  {summary(path)}" for name, path in names.items())]
    return "\n".join(lines)


def summary(class_path: str) -> str:
    """The first sentence of a class's docstring, read from its source."""
    module, _, name = class_path.rpartition(".")
    source = (_ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    raise AssertionError(f"{class_path} is not in its file")


def completion_script(shell: str) -> str:
    """A script that completes the options of ``./train.py``, short names, and the options of what they name."""
    import shtab

    parser = argparse.ArgumentParser("train.py", add_help=False)
    for name, choices in sorted(parser_options().items()):
        action = parser.add_argument(f"--{name}", choices=choices)
        if name in ("config", "output", "resume", "teacher", "data.root"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell))


def parser_options(chosen: Mapping[str, str] | None = None) -> dict[str, list[str] | None]:
    """All options as they are typed, and their choices, if they are few; jsonargparse's own list takes a minute.

    ``chosen`` has class paths for some of ``strategy``, ``data`` and ``student``, which then have the options of that
    class alone.
    """
    options: dict[str, list[str] | None] = dict.fromkeys(re.findall(r"--(\w+)(?= |,|$)", " ".join(OPTIONS)))
    options |= {"print_shtab": list(SHELLS), "logger": list(LOGGERS), "score": list(SCORES), "help": None}
    only = {kind: [path] for kind, path in (chosen or {}).items()}
    classes = [(group, path) for group, paths in (_CLASSES | only).items() for path in paths]
    for group, path in classes:
        for name, choices in class_options(path):
            known = options.get(f"{group}.{name}") or []
            options[f"{group}.{name}"] = list(dict.fromkeys([*known, *(choices or [])])) or None
    for kind, names in SHORT_NAMES.items():
        options |= {kind: list(names), f"{kind}.help": list(names)}
        options.pop(f"model.{kind}", None)
    return options


def class_options(class_path: str) -> Iterator[tuple[str, list[str] | None]]:
    """The options of a class and of its bases, with their choices; those of a dataclass as ``noise.rate``."""
    module, _, name = class_path.rpartition(".")
    for base in getattr(import_module(module), name).__mro__:
        types = get_type_hints(base.__init__)
        for option, parameter in inspect.signature(base.__init__).parameters.items():
            if option not in types or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            yield option, _choices(types[option])
            for member in filter(dataclasses.is_dataclass, (types[option], *get_args(types[option]))):
                yield from ((f"{option}.{name}", _choices(kind)) for name, kind in get_type_hints(member).items())


def _choices(kind: Any) -> list[str] | None:
    if kind is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else None
