"""Public teacher scores: a query and its scored passages on each line, as JSON.

Both layouts that are in use are read, plain or compressed, also mixed:

    ["q1", ["d7", 9.25], ["d2", -1.5]]
    ["q1", [["d7", 9.25], ["d2", -1.5]]]

Ids may be strings or whole numbers, which are the same thing: 7 is "7". The order of a list is kept, for the
strategies that take the first passage as the relevant one.

Traps: a score in quotes is refused, as are NaN and Infinity, which Python's JSON would let through, and a passage that
a list names twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foundations.errors import InputError
from foundations.files import json_line, scan_lines

_LINE = "[query id, [passage id, score], ...]"
_EXPECTED = f"expected {_LINE}"


@dataclass(frozen=True)
class ScoredList:
    """The scored passages of a query.

    Args:
        query: id of the query.
        passages: id and score of each passage, at least one, in the order of the file.
        line: line of the file, from 1.
    """

    query: str
    passages: tuple[tuple[str, float], ...]
    line: int


def read_scores(path: str | Path) -> Iterator[ScoredList]:
    """The lists of a file, one after the other; the file is never in memory as a whole.

    Args:
        path: the file, plain or compressed, whatever its name ends in; empty lines are passed over.

    Raises:
        InputError: no file, no list in it, a damaged file; with file and line: what `scores_line` refuses, or a query
            that has a list already.
    """
    parse, lines = scores_line(path), dict[str, int]()
    for number, _, line in scan_lines(path, _LINE):
        scored = parse(line, number)
        if scored.query in lines:
            message = f"query {scored.query!r} has a list on line {lines[scored.query]} already"
            raise InputError(message, path, number)
        lines[scored.query] = number
        yield scored


def scores_line(path: str | Path) -> Callable[[bytes, int], ScoredList]:
    """The parser of lines of a file of scores, for `datamodules.lines.LineIndex` and alike.

    Args:
        path: the file, for the error messages.

    Returns:
        A function of a line and its number, which can be given to other processes. It raises InputError for a line
        that is not JSON in UTF-8, a list without query or passages, an id that is no id, a score that is no finite
        number, and a passage that is there twice.
    """
    return partial(_parse, Path(path))


def _parse(path: Path, line: bytes, number: int) -> ScoredList:
    row = json_line(line, _LINE, path, number)
    try:
        return ScoredList(*_list(row), number)
    except ValueError as error:
        raise InputError(f"{error}, {_EXPECTED}", path, number) from None


def _list(row: Any) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Query and passages of a row; ValueError says what is wrong."""
    if not isinstance(row, list):
        raise ValueError(f"found {_short(row)}")
    if len(row) < 2:
        raise ValueError("the list names no passage" if row else "the list is empty")
    query, *entries = row
    if len(entries) == 1 and isinstance(entries[0], list) and all(isinstance(entry, list) for entry in entries[0]):
        entries = entries[0]
        if not entries:
            raise ValueError("the list names no passage")
    passages = tuple(_entry(entry) for entry in entries)
    if len(names := [name for name, _ in passages]) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"passage {twice!r} is there twice")
    return _identifier(query, "query"), passages


def _entry(entry: Any) -> tuple[str, float]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise ValueError(f"found {_short(entry)} for a passage and its score")
    name, score = entry
    # A bool is an int to Python; float(10**400) overflows.
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(_as_float(score)):
        raise ValueError(f"the score {_short(score)} of passage {_short(name)} is not a finite number")
    return _identifier(name, "passage"), float(score)


def _as_float(score: float) -> float:
    """The score as a float; infinite where it is a whole number too large for one."""
    try:
        return float(score)
    except OverflowError:
        return math.inf


def _identifier(value: Any, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"{_short(value)} is no id of a {what}")
    return str(value)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
