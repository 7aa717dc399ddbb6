"""Reading lines with file:line errors, and writing files whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from foundations.errors import InputError
from foundations.progress import delayed_progress

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_LINES_PER_UPDATE = 8192


def require_file(path: str | Path) -> Path:
    """The path, if a file is there.

    Raises:
        InputError: nothing is there, or a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("this is a folder, expected a file", path)
    if not path.is_file():
        raise InputError("no such file", path)
    return path


def read_columns(path: str | Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """The columns of each line of a UTF-8 text file, split at ASCII white space; empty lines are passed over.

    Args:
        path: the file; a byte order mark at its start is ignored.
        expected: what a line should hold, for the error messages.

    Yields:
        Line number from 1, and its columns (at least one).

    Raises:
        InputError: no file, invalid UTF-8, or no line with text at all.
    """
    path = require_file(path)
    empty = True
    with path.open("rb") as file, delayed_progress(f"read {path.name}", path.stat().st_size) as advance:
        size = 0
        for number, raw in enumerate(file, start=1):
            size += len(raw)
            if number % _LINES_PER_UPDATE == 0:
                advance(size)
                size = 0
            line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            try:
                # Split as bytes: str.split() would also split at no-break spaces inside an id.
                columns = [column.decode("utf-8") for column in line.split()]
            except UnicodeDecodeError as error:
                raise InputError(f"invalid UTF-8 ({error.reason}); expected {expected}", path, number) from None
            if columns:
                empty = False
                yield number, columns
    if empty:
        raise InputError(f"the file is empty; expected lines of {expected}", path)


@contextmanager
def write_whole(path: str | Path) -> Iterator[TextIO]:
    """A UTF-8 text file that appears at its path only when it has been written to the end.

    The text goes to a temporary name beside the target, which then takes the target's place; after an error
    the target is as it was before.

    Raises:
        InputError: the folder does not exist, or the path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("this is a folder, expected the name of a file to write", path)
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist", path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON for people to read, whole or not at all; see `write_whole`."""
    with write_whole(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
