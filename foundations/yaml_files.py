"""YAML that anybody may have written: of bounded size and depth, and with file:line errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from foundations.errors import InputError
from foundations.files import read_text

MOST_BYTES = 4_000_000
MOST_VALUES = 100_000
"""Values of a file, an alias with all that it stands for: more would be read for hours, or fill the memory."""
DEEPEST = 50

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]
    """A safe loader that gives the line also of a value that its tag does not fit, such as ``!!int foo``."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The content of a YAML file that holds keys and values.

    Raises:
        InputError: no file, invalid UTF-8, or as `parse_yaml`, with its line; or something else than keys and values.
    """
    content = parse_yaml(read_text(path, "YAML", MOST_BYTES), path)
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"found {found}, expected YAML with keys and values", path, 1)
    return content


def parse_yaml(text: str, path: str | Path | None = None) -> Any:
    """The value of a YAML text.

    Args:
        text: the YAML.
        path: its file, for the error messages.

    Raises:
        InputError: invalid YAML, or more values or levels than `MOST_VALUES` and `DEEPEST`.
    """
    with yaml_errors(path):
        check_yaml(text, path)
        return yaml.load(text, _Loader)


def check_yaml(text: str, path: str | Path | None = None) -> None:
    """Look whether a YAML text can be read in a short time: as `parse_yaml`, but invalid YAML stays a ``YAMLError``."""
    if wrong := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, wrong.start()) + 1
        raise InputError(f"invalid YAML: {wrong[0]!r} is a control character", path, line)
    values, sizes, containers = 0, dict[str, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(text, _BASE):
        line = getattr(event.start_mark, "line", 0) + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError(f"the alias *{event.anchor} stands for nothing before it", path, line)
            values += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, yaml.CollectionStartEvent):
            containers.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = containers.pop()
            sizes |= {anchor: values - before} if anchor else {}
        if values > MOST_VALUES or len(containers) > DEEPEST:
            found = f"more than {MOST_VALUES:,} values" if values > MOST_VALUES else f"more than {DEEPEST} levels"
            raise InputError(f"{found}, expected the YAML of a configuration", path, line)


@contextmanager
def yaml_errors(path: str | Path | None) -> Iterator[None]:
    """Turn an error of the YAML in a file into an `InputError` with its line."""
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"invalid YAML: {getattr(error, 'problem', error)}", path, mark and mark.line + 1) from None
