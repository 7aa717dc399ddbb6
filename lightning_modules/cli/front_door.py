"""What the scripts do before anything heavy is imported: short names, the order of options, and errors.

``--strategy ot`` becomes ``--model.strategy=strategies.ot.OptimalTransport``, ``--data starter`` the class path of
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
from lightning_modules.models.starter import STARTER_MODELS, is_model, resolve_model
from lightning_modules.models.trust import read_run_config, trusting
from lightning_modules.names import GONE, SHELLS, SHORT_NAMES, TEACHERS, moved, was_taken_out

_ROOT = Path(__file__).parents[2]
CONFIGS = next((path for path in (_ROOT / "potstill" / "configs", _ROOT / "configs") if path.is_dir()), _ROOT)
"""The folder of the defaults: that of an installed copy, or of the repository."""

_KIND = {"strategy": "distillation strategy", "data": "dataset", "student": "student"}
_TRAINER_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_notebook", "ddp_spawn", "deepspeed",
                       "dp", "fsdp", "single_device", "xla")  # fmt: skip


@dataclass
class Arguments:
    """A command line, taken apart."""

    cli: list[str] = field(default_factory=list)  # what the LightningCLI parses
    configs: list[Path] = field(default_factory=list)  # in the order in which they are read
    resume: str | None = None  # the run folder to go on with; "" is the newest one of that name, if any; None a new run
    checkpoint: str | None = None  # the one to go on from; None is the one with the most steps
    completion: str | None = None  # the shell for which to print a completion script
    trust: bool = False  # whether run folders may name any code


def parse(arguments: Sequence[str]) -> Arguments:
    """Rewrite a command line, without the name of the script, for the LightningCLI.

    Raises:
        InputError: a name that does not exist, an option without its value, or a config file that is not there.
    """
    parsed = Arguments()
    chosen: dict[str, str] = {}
    options: list[str] = []
    for key, value, option in split_options(arguments):
        if asked := _help_of(key, value):
            return Arguments([asked])
        if key == "resume":
            parsed.resume = "" if value in (None, "auto") else value
        elif key == "from":
            parsed.checkpoint = _given(key, value)
        elif key == "print_shtab":
            parsed.completion = _given(key, value)
        elif key == "trust":
            parsed.trust = _flag(key, value)
        elif key == "config":
            parsed.configs.append(config_file(_given(key, value)))
        elif key in (*SHORT_NAMES, "teacher"):
            chosen[key] = _given(key, value)
        else:
            options.append(f"--model.score={_given(key, value)}" if key == "score" else option)
    if parsed.completion not in (None, *SHELLS):
        raise InputError(f"--print_shtab is {parsed.completion!r}, expected one of {', '.join(SHELLS)}")
    if not parsed.resume and "data" not in chosen and not any(_has_data(path) for path in parsed.configs):
        chosen["data"] = "starter"
    classes: list[str] = []
    for kind, name in chosen.items():
        classes += teacher_options(name) if kind == "teacher" else [f"--{full_key(kind)}={class_path(kind, name)}"]
    defaults = [CONFIGS / f"{name}.yaml" for name in ("base", chosen.get("data", ".")) if "." not in name]
    with trusting(parsed.trust):
        parsed.configs[:0] = [run_config(parsed.resume)] if parsed.resume else defaults
    parsed.cli = [*(f"--config={path}" for path in parsed.configs), *classes, *options]
    return parsed


def _help_of(key: str, value: str | None) -> str | None:
    """What to ask the parser for, where an option asks for help."""
    kind, _, action = key.partition(".")
    if kind in SHORT_NAMES and action == "help":
        return f"--{full_key(key)}={class_path(kind, _given(key, value))}"
    return "--help" if key == "help_all" else None


def split_options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None, str]]:
    """Of each option: its short key ("" if it is none), its value, and the whole as one argument of the parser."""
    rest = [moved(argument) for argument in reversed(arguments)]
    while rest:
        argument = rest.pop()
        if not argument.startswith("--"):
            yield "", None, argument
            continue
        key, equals, value = argument[2:].partition("=")
        if not equals and rest and not rest[-1].startswith("--"):
            equals, value = "=", rest.pop()
        yield short_key(key), value if equals else None, f"--{full_key(key)}{equals}{value}"


def full_key(key: str) -> str:
    """An option of the parser: ``model.strategy.epsilon`` for ``strategy.epsilon``."""
    return re.sub(r"^(?=(strategy|student)(\.|$))", "model.", key)


def short_key(key: str) -> str:
    """An option as it is typed: ``strategy.epsilon`` for ``model.strategy.epsilon``."""
    return re.sub(r"^model\.(?=(strategy|student)(\.|$))", "", key)


def class_path(kind: str, name: str) -> str:
    """The class path for a short name; a class path (with a dot) stays as it is."""
    names = SHORT_NAMES[kind]
    if name in names:
        return names[name]
    if "." in name:
        return name
    if kind == "data" and name in GONE:
        raise was_taken_out(name)
    if kind == "strategy" and name in _TRAINER_STRATEGIES:
        raise InputError(f"{name!r} is a strategy of the trainer: use --trainer.strategy {name}{choices(kind)}")
    hint = did_you_mean(name, names, 0.6)
    if kind == "data" and not hint:
        hint = "; a language is chosen by --data.language, as in --data starter --data.language sw"
    raise InputError(f"unknown {_KIND[kind]} {name!r}{hint}{choices(kind)}")


def choices(kind: str) -> str:
    """A second line of a message, with the short names for ``strategy``, ``data`` or ``student``."""
    return f"\nchoices: {', '.join(SHORT_NAMES[kind])}, or a class path such as my_package.MyClass"


def run_config(folder: str | Path) -> Path:
    """The config.yaml of a run folder, which names no code that is not trusted; see `read_run_config`."""
    read_run_config(folder)
    return Path(folder) / "config.yaml"


def config_file(name: str) -> Path:
    """A config file; ``configs/NAME.yaml`` is found from everywhere."""
    for path in (Path(name), CONFIGS.parent / name):
        if path.is_file():
            return path
    raise InputError("no such config file", name)


def _has_data(config: Path) -> bool:
    """Whether a config file chooses the dataset; what is no UTF-8 is complained about later."""
    return any(line.startswith("data:") for line in config.read_text(encoding="utf-8", errors="replace").splitlines())


def _flag(key: str, value: str | None) -> bool:
    if value is not None:
        raise InputError(f"--{key} is {value!r}, expected no value")
    return True


def _given(key: str, value: str | None) -> str:
    if not value:
        kind = key.removesuffix(".help")
        raise InputError(f"--{key} needs a value{choices(kind) if kind in SHORT_NAMES else ''}")
    return value


_OPEN_CLIP, _LOCKED_IMAGE = "open_clip:", "locked_image:"
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def teacher_options(name: str) -> list[str]:
    """What ``--teacher NAME`` stands for, as options of the real parser in their order.

    NAME is a run folder (its student becomes the teacher), ``starter/minilm``, a model's folder, a name on the hub,
    ``open_clip:ARCHITECTURE/WEIGHTS`` with a tag of published weights or a checkpoint file, ``open_clip:FOLDER``,
    ``open_clip:hf-hub:NAME``, ``locked_image:FOLDER`` with photographs to learn from, or the class path of a teacher,
    which is then used without a cache.
    """
    if name.startswith(_LOCKED_IMAGE):
        return _cached("locked_image", "images", name.removeprefix(_LOCKED_IMAGE))
    if name.startswith(_OPEN_CLIP):
        return _open_clip(name.removeprefix(_OPEN_CLIP))
    folder = Path(name).expanduser()
    model = is_model(folder)
    if (folder / "config.yaml").is_file() and not model:
        if not (folder / "checkpoints" / "best.ckpt").is_file():
            raise InputError("this run has no checkpoints/best.ckpt yet, so its student cannot be a teacher", folder)
        return _cached("run", "run", name)
    if _CLASS_PATH.fullmatch(name) and not folder.exists():
        return [f"--model.teacher={name}"]
    if folder.is_dir() and not model:
        raise InputError("neither a run (config.yaml) nor a model (config.json) is in this folder", folder)
    if folder.parent != Path() and folder.parent.is_dir() and not folder.exists():
        near = did_you_mean(folder.name, sorted(path.name for path in folder.parent.iterdir() if path.is_dir()))
        raise InputError(f"no such folder, expected a run or a model{near}", folder)
    if name not in STARTER_MODELS:  # those would be fetched
        resolve_model(name)
    return _cached("online", "model", name)


def _open_clip(name: str) -> list[str]:
    from lightning_modules.teachers.open_clip import HUB, check_folder, check_name

    if name.startswith((HUB, "/", ".", "~")) or Path(name).is_dir():
        if not name.startswith(HUB):
            check_folder(Path(name).expanduser())
        # A config file may have set it, for an architecture.
        return [*_cached("open_clip", "model", name), "--model.teacher.teacher.pretrained="]
    architecture, _, weights = name.partition("/")
    check_name(architecture)
    if not weights:
        raise InputError(
            f"{_OPEN_CLIP}{name} names no weights, expected {_OPEN_CLIP}{name}/TAG or {_OPEN_CLIP}{name}/FILE"
        )
    return [*_cached("open_clip", "model", architecture), f"--model.teacher.teacher.pretrained={weights}"]


def _cached(kind: str, option: str, value: str) -> list[str]:
    inner = "--model.teacher.teacher"
    return [f"--model.teacher={TEACHERS['cached']}", f"{inner}={TEACHERS[kind]}", f"{inner}.{option}={value}"]
