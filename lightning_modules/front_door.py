"""What the scripts do before anything heavy is imported: short names, the order of options, and errors.

``--strategy ot`` becomes ``--model.strategy strategies.ot.OptimalTransport``, ``--data starter`` the class path of
its datamodule, and both are put behind the config files and before the options that depend on them, so the order on
the command line does not matter.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

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
SHELLS = ("bash", "zsh", "tcsh")
SCORES = ("pooled", "maxsim", "both")
CONFIGS = Path(__file__).parent.parent / "configs"
SHORT_NAMES = {"strategy": STRATEGIES, "data": DATAMODULES, "student": STUDENTS}
FULL_KEYS = {"strategy": "model.strategy", "data": "data", "student": "model.student"}
"""Option as it is typed -> option of the parser."""
_KIND = {"strategy": "distillation strategy", "data": "dataset", "student": "student"}


@dataclass
class Arguments:
    """A command line, taken apart.

    Args:
        cli: what the LightningCLI parses.
        chosen: the short name or class path that was given for ``strategy``, ``data`` and ``student``.
        configs: the config files, in the order in which they are read.
        resume: the run folder to go on with, ``""`` to go on with the newest one of that name, None for a new run.
        completion: the shell for which to print a completion script, or None.
    """

    cli: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    configs: list[Path] = field(default_factory=list)
    resume: str | None = None
    completion: str | None = None


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
    for argument, name, value in option_pairs(arguments):
        key = next((kind for kind, full in FULL_KEYS.items() if name == full), name)
        kind, _, action = key.partition(".")
        if key == "resume":
            parsed.resume = value or ""
        elif key == "help_all":
            return Arguments(["--help"])
        elif kind in FULL_KEYS and action == "help":
            return Arguments([f"--{FULL_KEYS[kind]}.help={class_path(kind, _required(key, value, kind))}"])
        elif key == "print_shtab":
            parsed.completion = _one_of(key, value, SHELLS)
        elif key == "teacher":
            from lightning_modules.teacher_names import teacher_options

            classes += teacher_options(_required(key, value))
        elif key == "score":
            options.append(f"--model.score={_one_of(key, value, SCORES)}")
        elif key == "config":
            configs.append(_required(key, value))
        elif key in FULL_KEYS:
            parsed.chosen[key] = _required(key, value, key)
            classes.append(f"--{FULL_KEYS[key]}={class_path(key, parsed.chosen[key])}")
        else:
            options += [_with_full_key(argument), *([] if value is None or "=" in argument else [value])]
    parsed.configs = _base_configs(parsed, configs, classes) + [_existing(name) for name in configs]
    parsed.cli = [f"--config={path}" for path in parsed.configs] + classes + options
    return parsed


def _base_configs(parsed: Arguments, configs: list[str], classes: list[str]) -> list[Path]:
    """The config files below those that were given: the resumed run's, or the defaults of the dataset."""
    if parsed.resume:
        path = Path(parsed.resume) / "config.yaml"
        if not path.is_file():
            raise InputError("no config.yaml there, expected the folder of a run", parsed.resume)
        return [path]
    data = parsed.chosen.get("data")
    if data is None and not any(_has_data(_existing(name)) for name in configs):
        data = parsed.chosen["data"] = "starter"
        classes.append(f"--data={class_path('data', data)}")
    return [path for name in ("base", data) if name and (path := CONFIGS / f"{name}.yaml").is_file()]


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
        raise InputError(f"{name!r} is a strategy of the trainer: use --trainer.strategy {name}{choices(kind)}")
    raise InputError(f"unknown {_KIND[kind]} {name!r}{did_you_mean(name, names)}{choices(kind)}")


def choices(kind: str) -> str:
    """A second line of a message, with the short names for ``strategy``, ``data`` or ``student``."""
    return f"\nchoices: {', '.join(SHORT_NAMES[kind])}, or a class path such as my_package.MyClass"


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """A question that names the nearest of some names, or nothing where none is near.

    Args:
        name: what was given.
        names: what there is.
        cutoff: similarity that the nearest must have, from 0 to 1.

    >>> did_you_mean("contrastiv", ["ot", "contrastive"])
    ", did you mean 'contrastive'?"
    """
    nearest = difflib.get_close_matches(name, list(names), 1, cutoff)
    return f", did you mean {nearest[0]!r}?" if nearest else ""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, in one line, and whose options are not abbreviated."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(f"{message} (see --help)")


def run_main(script: str, main: Callable[[list[str]], None]) -> None:
    """Run a script: bad input gives its message and exit status 2, and no traceback.

    Args:
        script: its name, which the message begins with.
        main: takes the command line arguments.
    """
    # MKL takes fewer threads when the machine is busy, and sums in another order then: runs would not repeat.
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
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


def option_pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Each option as typed, its name without dashes ("" if it is none), and its value, if it has one."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        name, has_value, value = argument.partition("=")
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        is_option = argument.startswith("--")
        takes_next = is_option and not has_value and not following.startswith("--")
        key = name.removeprefix("--") if is_option else ""
        yield argument, key, value if has_value else following if takes_next else None
        position += 2 if takes_next else 1


def _required(key: str, value: str | None, kind: str | None = None) -> str:
    if not value:
        raise InputError(f"--{key} needs a value{choices(kind) if kind else ''}")
    return value


def _one_of(key: str, value: str | None, names: Sequence[str]) -> str:
    if value is None or value not in names:
        raise InputError(f"--{key} needs one of {', '.join(names)}")
    return value


def _existing(name: str) -> Path:
    if not Path(name).is_file():
        raise InputError("no such config file", name)
    return Path(name)


def _has_data(config: Path) -> bool:
    """Whether a config file chooses the dataset; what is no UTF-8 is complained about later."""
    return any(line.startswith("data:") for line in config.read_text(encoding="utf-8", errors="replace").splitlines())


def _with_full_key(argument: str) -> str:
    """``--strategy.epsilon`` as ``--model.strategy.epsilon``; everything else as it is."""
    for kind, key in FULL_KEYS.items():
        if argument.startswith(f"--{kind}."):
            return f"--{key}." + argument.removeprefix(f"--{kind}.")
    return argument
