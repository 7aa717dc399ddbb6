"""What is wrong with an option, in one or two lines, with its line in the config file.

jsonargparse's messages are nested and many lines long. `explain` takes from them what a user needs: which option, its
value, and what was expected.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundations.checks import did_you_mean
from foundations.errors import InputError
from foundations.files import read_text, yaml_errors
from lightning_modules.cli.front_door import full_key, short_key
from lightning_modules.cli.help import parser_options
from lightning_modules.names import SHORT_NAMES

_TYPES = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text",
          "collections.abc.Sequence": "a list such as [a, b]", "list": "a list such as [a, b]"}  # fmt: skip
_UNKNOWN = re.compile(r"(?:unrecognized arguments: |Group '([\w.]+)' does not accept option '|Option ')(-*)([^'=\s]+)")
_EXPECTED = re.compile(r"Expected a (?:<class '([\w.]+)'>|typing\.Literal(\[.*?\]))")
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
        return InputError(f"unexpected argument {name!r}: options begin with --")
    path = ".".join(part for part in (path, group, name) if part)
    hint = _nearest(short_key(path)) if full_key(path) == path else f", in a config file it is {full_key(path)}"
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


def _nearest(path: str) -> str:
    """The nearest option of the same group, or else of all."""
    names = parser_options()
    group, _, last = path.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in names if group and name.rpartition(".")[0] == group]
    return did_you_mean(last, siblings) or did_you_mean(path, names, 0.6 if group else 0.75)


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
    with yaml_errors(file):
        root = yaml.compose(read_text(file, "YAML"))
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
