"""What the scripts do before anything heavy is imported: short names, the order of options, and errors.

``--strategy ot`` becomes ``--model.strategy strategies.ot.OptimalTransport``, ``--data starter`` the class path of
its datamodule, and both are put behind the config files and before the options that depend on them, so the order on
the command line does not matter.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datamodules import DATAMODULES
from retrieval.errors import InputError
from strategies import STRATEGIES

STUDENTS: dict[str, str] = {
    "transformer": "lightning_modules.encoder.TransformerEncoder",
    "static": "lightning_modules.static_encoder.StaticEncoder",
}
"""Short name, as in ``--student static``, -> class path."""

LIGHTNING_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_notebook", "ddp_spawn", "deepspeed",
                        "dp", "fsdp", "single_device", "xla")  # fmt: skip
LOGGERS = ("wandb", "csv", "tensorboard", "none")
CONFIGS = Path(__file__).parent.parent / "configs"
SHORT_NAMES = {"strategy": STRATEGIES, "data": DATAMODULES, "student": STUDENTS}
_FULL_KEY = {"strategy": "model.strategy", "data": "data", "student": "model.student"}
_KIND = {"strategy": "distillation strategy", "data": "dataset", "student": "student"}


@dataclass
class Arguments:
    """A command line, taken apart.

    Args:
        cli: what the LightningCLI parses.
        chosen: the short name or class path that was given for ``strategy``, ``data`` and ``student``.
        configs: the config files, in the order in which they are read.
        resume: the run folder to go on with, ``""`` to go on with the newest one of that name, None for a new run.
    """

    cli: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    configs: list[Path] = field(default_factory=list)
    resume: str | None = None


def parse(arguments: Sequence[str]) -> Arguments:
    """Rewrite a command line for the LightningCLI.

    Args:
        arguments: as typed, without the name of the script.

    Raises:
        InputError: a name that does not exist, an option without its value, or a config file that is not there.
    """
    parsed = Arguments()
    configs: list[str] = []
    classes: list[str] = []
    options: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        key, has_value, value = argument.removeprefix("--").partition("=")
        takes_next = not has_value and _takes_value(arguments, position)
        if key == "resume" and argument.startswith("--"):
            parsed.resume = value if has_value else arguments[position + 1] if takes_next else ""
        elif argument.startswith("--") and (key in _FULL_KEY or key == "config"):
            if not has_value and not takes_next:
                raise InputError(f"--{key} needs a value{_choices(key)}")
            value = value if has_value else arguments[position + 1]
            if key == "config":
                configs.append(value)
            else:
                parsed.chosen[key] = value
                classes.append(f"--{_FULL_KEY[key]}={class_path(key, value)}")
        else:
            options.append(_with_full_key(argument))
            takes_next = False
        position += 2 if takes_next else 1
    if parsed.resume:
        folder = Path(parsed.resume)
        if not (folder / "config.yaml").is_file():
            raise InputError("no config.yaml there, expected the folder of a run", folder)
        parsed.configs.append(folder / "config.yaml")
    else:
        data = parsed.chosen.get("data")
        if data is None and not configs:
            data = parsed.chosen["data"] = "starter"
            classes.append(f"--data={class_path('data', data)}")
        parsed.configs += [path for name in ("base", data) if name and (path := CONFIGS / f"{name}.yaml").is_file()]
    for name in configs:
        if not Path(name).is_file():
            raise InputError("no such config file", name)
        parsed.configs.append(Path(name))
    parsed.cli = [f"--config={path}" for path in parsed.configs] + classes + options
    return parsed


def class_path(kind: str, name: str) -> str:
    """The class path for a short name; a class path (with a dot) stays as it is.

    Raises:
        InputError: no such name; the message has the choices and the nearest one.
    """
    names = SHORT_NAMES[kind]
    if name in names:
        return names[name]
    if "." in name:
        return name
    if kind == "strategy" and name in LIGHTNING_STRATEGIES:
        raise InputError(f"{name!r} is a strategy of the trainer: use --trainer.strategy {name}{_choices(kind)}")
    raise InputError(f"unknown {_KIND[kind]} {name!r}{did_you_mean(name, names)}{_choices(kind)}")


def did_you_mean(name: str, choices: Sequence[str] | dict[str, str]) -> str:
    """A question that names the nearest choice, or nothing where none is near.

    >>> did_you_mean("contrastiv", ["ot", "contrastive"])
    ", did you mean 'contrastive'?"
    """
    nearest = difflib.get_close_matches(name, list(choices), 1, 0.5)
    return f", did you mean {nearest[0]!r}?" if nearest else ""


def run_main(script: str, main: Callable[[list[str]], None]) -> None:
    """Run a script: bad input gives its message and exit status 2, and no traceback.

    Args:
        script: its name, which the message begins with.
        main: takes the command line arguments.
    """
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"{script}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _takes_value(arguments: Sequence[str], position: int) -> bool:
    return position + 1 < len(arguments) and not arguments[position + 1].startswith("--")


def _with_full_key(argument: str) -> str:
    """``--strategy.epsilon`` as ``--model.strategy.epsilon``; everything else as it is."""
    for kind, key in _FULL_KEY.items():
        if argument.startswith(f"--{kind}."):
            return f"--{key}." + argument.removeprefix(f"--{kind}.")
    return argument


def _choices(kind: str) -> str:
    names = SHORT_NAMES.get(kind)
    return "" if names is None else f"\nchoices: {', '.join(names)}, or a class path such as my_package.MyClass"
