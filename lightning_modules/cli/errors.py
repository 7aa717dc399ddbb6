"""What is wrong with an option, in one or two lines, with its line in the config file.

jsonargparse's messages are nested and many lines long. `explain` takes from them what a user needs: which option, its
value, and what was expected.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundations.checks import did_you_mean
from foundations.errors import InputError
from foundations.files import read_text
from foundations.yaml_files import read_yaml
from lightning_modules.cli.front_door import full_key, short_key
from lightning_modules.cli.help import parser_options
from lightning_modules.names import SHORT_NAMES, STUDENTS, moved
from strategies import STRATEGIES

_TYPES = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text",
          "collections.abc.Sequence": "a list such as [a, b]", "list": "a list such as [a, b]"}  # fmt: skip
_UNKNOWN = re.compile(r"(?:unrecognized arguments: |Group '([\w.]+)' does not accept option '|Option ')(-*)([^'=\s]+)")
_EXPECTED = re.compile(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal(\[.*?\]))")
_SUBCOMMANDS = ("fit", "validate", "test", "predict")
_SCAFFOLD = re.compile(r"Parser key|Does not validate|Subtypes:|Errors:|Expected a path|Problem with given class_path")


class OptionError(InputError):
    """The parser's own message about an option, to be explained before a user sees it."""


def explain(message: str, files: Sequence[Path], arguments: Sequence[str]) -> InputError:
    """An error for users from jsonargparse's; with file and line where the option is not on the command line."""
    path = ".".join(re.findall(r'Parser key "([\w.]+)"', message))
    if (unknown := _UNKNOWN.search(message)) is None:
        return InputError(_problem(short_key(path), message), *_position(path, files, arguments))
    group, dashes, name = unknown.groups()
    if message.startswith("unrecognized") and not dashes:
        why = f"train.py fits and tests, leave out {name}" if name in _SUBCOMMANDS else "options begin with --"
        return InputError(f"unexpected argument {name!r}: {why}")
    path = ".".join(part for part in (path, group, name) if part)
    hint = (
        _nearest(short_key(path), _chosen(files, arguments))
        if full_key(path) == path
        else f", in a config file it is {full_key(path)}"
    )
    return InputError(f"unknown option {dashes}{short_key(path)}{hint}", *_position(path, files, arguments))


def reason(message: str) -> str:
    """The error of a class itself, of a message in which jsonargparse tells how it tried several types."""
    first = re.split(r"\n *- Expected a <class 'NoneType'>|\n *Given value", message, maxsplit=1)[0]
    lines = [re.sub(r"^\s*(- )?", "", line) for line in first.splitlines()]
    return " ".join(line for line in lines if line and not _SCAFFOLD.match(line))


def _problem(path: str, message: str) -> str:
    """What is wrong with the value of an option."""
    kinds = dict.fromkeys(_EXPECTED.findall(message))
    words = [_TYPES.get(kind, kind) for kind, _ in kinds if kind not in ("", "NoneType")]
    literals = [str(each) for _, choices in kinds if choices for each in ast.literal_eval(choices)]
    if literals:
        words.insert(0, f"one of {', '.join(dict.fromkeys(literals))}")
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if missing := re.search(r"arguments are required: ([\w.]+)", message):
        return f"--{path}.{missing[1]} is missing, expected a value"
    if name := re.search(r"Expected a dot import path string: (.*)", message):
        class_path = SHORT_NAMES.get(path, {}).get(name[1], "my_package.MyClass")
        return f"{path} is {name[1]!r}, expected class_path: {class_path}"
    if value is None or not words:
        return f"{path}: {reason(message)}".removeprefix(": ")
    if path == "data.language":
        words = ["languages with commas: " + re.sub(r"[\[\]' ]", "", value[1])]
    found = value[1].strip()
    return f"{path} is {found!r}, expected {' or '.join(dict.fromkeys(words))}{did_you_mean(found, literals)}"


def _nearest(path: str, chosen: Mapping[str, str]) -> str:
    """The nearest option of the same group; where there is no such group, of all, or one that has its words."""
    try:
        names = parser_options(chosen)
    except (ImportError, AttributeError, NameError, TypeError, ValueError):  # a class that is wrong as well
        names = parser_options()
    group, _, last = path.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in names if group and name.rpartition(".")[0] == group]
    if siblings or group in SHORT_NAMES:
        return did_you_mean(last, siblings, 0.65)
    words = set(path.split("_"))
    longer = [name for name in names if words <= set(name.rpartition(".")[2].split("_"))]
    if (hint := did_you_mean(path, names, 0.6 if group else 0.75)) or not longer:
        return hint
    return f", did you mean {min(longer, key=lambda name: (name.count('.'), len(name)))!r}?"


def _chosen(files: Sequence[Path], arguments: Sequence[str]) -> dict[str, str]:
    """The class paths of strategy, data and student, which say which options there are."""
    chosen: dict[str, str] = {}
    for kind in SHORT_NAMES:
        for file in files:
            part: Any = read_yaml(file)
            for key in full_key(kind).split("."):
                part = part.get(key) if isinstance(part, dict) else None
            if isinstance(part, dict) and "class_path" in part:
                chosen[kind] = moved(str(part["class_path"]))
        typed = [each.partition("=")[2] for each in arguments if each.startswith(f"--{full_key(kind)}=")]
        chosen |= {kind: typed[-1]} if typed and "." in typed[-1] else {}
    return {"strategy": STRATEGIES["ot"], "student": STUDENTS["static"]} | chosen


def _position(path: str, files: Sequence[Path], arguments: Sequence[str]) -> tuple[Path, int] | tuple[()]:
    """The file and line of an option that does not stand on the command line."""
    typed = [argument.removeprefix("--").split("=")[0].replace(".init_args", "") for argument in arguments]
    if path not in typed:
        for file in reversed(files):
            for name, line in reversed(keys_of(file)):
                if name == path:
                    return file, line
    return ()


def keys_of(file: Path) -> list[tuple[str, int]]:
    """The keys of a YAML file as dotted names without ``init_args``, with their lines."""
    read_yaml(file)  # has an error with its line for whatever is wrong
    return list(_keys(yaml.compose(read_text(file, "YAML")), ""))


def _keys(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        name = prefix if key.value == "init_args" else f"{prefix}.{key.value}".lstrip(".")
        if key.value != "init_args":
            yield name, key.start_mark.line + 1
        yield from _keys(value, name)
