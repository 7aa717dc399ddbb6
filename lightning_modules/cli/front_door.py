"""What the scripts do before anything heavy is imported: short names, the order of options, and errors.

``--strategy ot`` becomes ``--model.strategy strategies.ot.OptimalTransport``, ``--data starter`` the class path of
its datamodule, and both are put behind the config files and before the options that depend on them, so the order on
the command line does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foundations.checks import did_you_mean
from foundations.errors import InputError
from lightning_modules.models.starter import STARTER_MODELS, resolve_model
from lightning_modules.names import FULL_KEYS, SCORES, SHELLS, SHORT_NAMES

LIGHTNING_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_notebook", "ddp_spawn", "deepspeed",
                        "dp", "fsdp", "single_device", "xla")  # fmt: skip

CONFIGS = Path(__file__).parents[2] / "configs"

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


_CACHED = "lightning_modules.teachers.cached.CachedTeacher"

_OPEN_CLIP = "open_clip:"

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def teacher_options(name: str) -> list[str]:
    """What ``--teacher NAME`` stands for.

    Args:
        name: a run folder (its student becomes the teacher), ``starter/minilm``, a model's folder, a name on the hub,
            ``open_clip:ARCHITECTURE/WEIGHTS`` with a tag of published weights or a checkpoint file,
            ``open_clip:FOLDER``, ``open_clip:hf-hub:NAME``, or the class path of a teacher, which is then used without
            a cache.

    Returns:
        Options of the real parser, in their order.

    Raises:
        InputError: it is a path where there is neither a run nor a model, or an unknown starter name.
    """
    if name.startswith(_OPEN_CLIP):
        return _open_clip(name.removeprefix(_OPEN_CLIP))
    folder = Path(name).expanduser()
    if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
        if not (folder / "checkpoints" / "best.ckpt").is_file():
            raise InputError("this run has no checkpoints/best.ckpt yet, so its student cannot be a teacher", folder)
        return _cached("lightning_modules.teachers.run.RunTeacher", "run", name)
    if _CLASS_PATH.fullmatch(name) and not folder.exists():
        return [f"--model.teacher={name}"]
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError("neither a run (config.yaml) nor a model (config.json) is in this folder", folder)
    if folder.parent != Path() and folder.parent.is_dir() and not folder.exists():
        near = did_you_mean(folder.name, sorted(path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(f"no such folder, expected a run or a model{near}", folder)
    if name not in STARTER_MODELS:  # those would be fetched
        resolve_model(name)
    return _cached("lightning_modules.teachers.online.OnlineTeacher", "model", name)


def _open_clip(name: str) -> list[str]:
    from lightning_modules.teachers.open_clip import HUB, check_folder, check_name

    class_path = "lightning_modules.teachers.open_clip.OpenClipTeacher"
    if name.startswith((HUB, "/", ".", "~")) or Path(name).is_dir():
        if not name.startswith(HUB):
            check_folder(Path(name).expanduser())
        # A config file may have set it, for an architecture.
        return [*_cached(class_path, "model", name), "--model.teacher.teacher.pretrained="]
    architecture, _, weights = name.partition("/")
    check_name(architecture)
    if not weights:
        raise InputError(
            f"{_OPEN_CLIP}{name} names no weights, expected {_OPEN_CLIP}{name}/TAG or {_OPEN_CLIP}{name}/FILE"
        )
    return [*_cached(class_path, "model", architecture), f"--model.teacher.teacher.pretrained={weights}"]


def _cached(class_path: str, option: str, value: str) -> list[str]:
    inner = "--model.teacher.teacher"
    return [f"--model.teacher={_CACHED}", f"{inner}={class_path}", f"{inner}.{option}={value}"]
