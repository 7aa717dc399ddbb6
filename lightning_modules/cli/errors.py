"""What is wrong with an option, in one or two lines, with the place in the config file.

jsonargparse's messages are nested and many lines long. `explain` takes from them what a user needs: which option, what
was found, what was expected.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundations.checks import did_you_mean
from foundations.errors import InputError
from foundations.files import require_file
from lightning_modules.cli.front_door import choices
from lightning_modules.cli.help import class_options
from lightning_modules.names import FULL_KEYS, SHORT_NAMES, TEACHERS

_TYPES = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text",
          "collections.abc.Sequence": "a list such as [a, b]", "list": "a list such as [a, b]"}  # fmt: skip

_UNKNOWN = (
    r"(?:Group '(?P<group>[\w.]+)' does not accept option '(?P<a>[\w.]+)'|Option '(?P<b>[\w.]+)' is not accepted)"
)

_IMPORT = re.compile(r"No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+'")


class OptionError(InputError):
    """The parser's own message about an option, to be explained before a user sees it."""


def explain(message: str, names: Iterable[str], files: Sequence[Path], arguments: Sequence[str]) -> InputError:
    """Make an error for users from jsonargparse's.

    Args:
        message: jsonargparse's message.
        names: the dotted names of all options of the parser.
        files: the config files that were read, in that order.
        arguments: the command line.

    Returns:
        The error; with file and line where the option stands in a file and not on the command line.
    """
    if "unrecognized arguments:" in message:
        name = message.split("unrecognized arguments:", 1)[1].split(maxsplit=1)[0]
        if not name.startswith("--"):
            return InputError(f"unexpected argument {name!r}: options begin with --")
        name = name.removeprefix("--").split("=")[0]
        return InputError(f"unknown option --{shown(name)}{_nearest(name, names)}")
    path = ".".join(re.findall(r'Parser key "([\w.]+)"', message))
    unknown = re.search(_UNKNOWN, message)
    if unknown:
        path = ".".join(part for part in (path, unknown["group"], unknown["a"] or unknown["b"]) if part)
        problem = f"unknown option {shown(path)}{_in_yaml(path) or _nearest(path, names)}"
    elif path:
        problem = f"{shown(path)}: {_problem(path, message)}"
    else:
        problem = " ".join(line.strip() for line in message.splitlines()[:3])
    return InputError(problem, *_place(path, files, arguments))


def _problem(path: str, message: str) -> str:
    """What is wrong with the value of an option."""
    kind = next((kind for kind, full in FULL_KEYS.items() if path == full), None)
    if required := re.search(r"the following arguments are required: ([\w.]+)", message):
        return f"needs the option --{shown(path)}.{required[1]}"
    if kind and (short := re.search(r"Expected a dot import path string: (\w+)", message)):
        name = short[1]
        if name in SHORT_NAMES[kind]:
            return f"in a config file write class_path: {SHORT_NAMES[kind][name]}"
        return f"unknown name {name!r}{did_you_mean(name, SHORT_NAMES[kind])}{choices(kind)}"
    if found := _IMPORT.search(message):
        return f"cannot import the class: {found[0]}"
    if found := re.search(r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", message):
        return f"{found[1]} is not a subclass of {found[2]}"
    problem = _wrong_value(message)
    names = re.search(r"found \"\[(.*)\]\"$", problem) if path == "data.language" else None
    return problem if names is None else "write several languages with commas: " + re.sub("[' ]", "", names[1])


def _wrong_value(message: str) -> str:
    """Which type or value was expected, and what was found."""
    kinds = list(dict.fromkeys(re.findall(r"Expected a (<class '[\w.]+'>|typing\.Literal\[.*?\])", message)))
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if not kinds or value is None:
        lines = [line.strip(" -") for line in message.splitlines()[1:] if line.strip(" -")]
        return " ".join(lines[:2])
    words: list[str] = []
    literals: list[str] = []
    for kind in kinds:
        if kind.startswith("typing"):
            literals += [str(item) for item in ast.literal_eval(kind.removeprefix("typing.Literal"))]
        else:
            name = kind.removeprefix("<class '").removesuffix("'>")
            words += [_TYPES.get(name, name)] if name != "NoneType" else []
    if literals:
        words.insert(0, f"one of {', '.join(dict.fromkeys(literals))}")
    found = value[1].strip()
    return f"expected {' or '.join(dict.fromkeys(words))}, found {found!r}{did_you_mean(found, literals)}"


def shown(path: str) -> str:
    """An option as it is typed: ``strategy.epsilon`` for ``model.strategy.epsilon``."""
    for short, full in FULL_KEYS.items():
        if path == full or path.startswith(f"{full}."):
            return short + path.removeprefix(full)
    return path


def _in_yaml(path: str) -> str:
    """What to write in a config file instead of a short option."""
    short = path.partition(".")[0]
    full = FULL_KEYS.get(short, short)
    return "" if full == short else f": in a config file it is {full}, with class_path and init_args"


def _nearest(path: str, names: Iterable[str]) -> str:
    """The nearest option of the same group, or else of all."""
    group, _, last = path.rpartition(".")
    names = [*names, *_class_options(path)]
    near = did_you_mean(last, [name.rpartition(".")[2] for name in names if group and name.startswith(f"{group}.")])
    if near:
        return near
    short = {shown(name) for name in names}
    return did_you_mean(shown(path), sorted(short), 0.75 if "." not in path else 0.6)


def _class_options(path: str) -> Iterator[str]:
    """Dotted names of the options of the classes that may stand at a place."""
    classes = {full: SHORT_NAMES[kind] for kind, full in FULL_KEYS.items()}
    classes |= {"model.teacher": TEACHERS, "model.teacher.teacher": TEACHERS}
    group = path.rpartition(".")[0]
    for place, names in classes.items():
        if group == place or group.startswith(f"{place}."):
            for class_path in names.values():
                yield from (f"{place}.{option}" for option, _ in class_options(class_path))


def _place(path: str, files: Sequence[Path], arguments: Sequence[str]) -> tuple[Path, int] | tuple[()]:
    """The file and line of an option that does not stand on the command line."""
    typed = [argument.removeprefix("--").split("=")[0].replace(".init_args", "") for argument in arguments]
    if not path or path in typed:
        return ()
    for file in reversed(files):
        lines = [line for name, line in keys_of(file) if name == path]
        if lines:
            return file, lines[-1]
    return ()


def keys_of(file: Path) -> list[tuple[str, int]]:
    """The keys of a YAML file as dotted names without ``init_args``, with their lines.

    Raises:
        InputError: the file is not there, is no UTF-8, or is no YAML.
    """
    try:
        root = yaml.compose(require_file(file).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"invalid UTF-8 ({error.reason})", file, line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise InputError(f"invalid YAML: {error.problem}", file, None if mark is None else mark.line + 1) from None
    if root is not None and not isinstance(root, yaml.MappingNode):
        raise InputError("expected options as `key: value`", file, 1)
    return list(_keys(root, ""))


def _keys(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = prefix if key.value == "init_args" else f"{prefix}.{key.value}".lstrip(".")
        if key.value != "init_args":
            yield name, key.start_mark.line + 1
        yield from _keys(value, name)
