"""Texts by id that stay on disk: for queries and documents too many to hold in memory."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.text import normalise
from foundations.cache import IntArray, derived_array
from foundations.errors import InputError
from foundations.files import clean_line, scan_lines

TEXT_LINE = "id<TAB>text"

ParseLine = Callable[[bytes, int], tuple[str, str]]
"""Gives (id, text) of a line with its number from 1 (0 where it is not known), or raises InputError."""


class TextStore(Mapping[str, str]):
    """Text by id, read from a file of lines whenever it is asked for.

    In memory are no texts: 24 bytes a text lie in the cache folder, mapped, made in one pass that validates every
    line. A look-up costs one small read; going through ``items()`` or ``values()`` reads the file from its beginning
    to its end. Iteration is in the order of the file.

    Args:
        path: the file.
        parse: gives id and text of a line.
        table: sorted hashes of the ids, the row (of lines with text) of each, and the offset of each row; (3, N).
    """

    def __init__(self, path: Path, parse: ParseLine, table: IntArray) -> None:
        self.path, self._parse, self._table = path, parse, table
        self._file: int | None = None

    @classmethod
    def open(cls, path: str | Path, parse: ParseLine, form: str) -> TextStore:
        """Index a file, or take the index from the cache.

        Args:
            path: the file; lines without text are passed over.
            parse: gives id and text of a line, or raises InputError with path and line. It is given to worker
                processes, so make it of module-level functions (`functools.partial`).
            form: names the format that `parse` expects. A file that passed under a name is not checked again.

        Raises:
            InputError: no file, a file without text, an id that is there twice, or what `parse` raises.
        """
        path = Path(path)
        return cls(path, parse, derived_array(path, f"texts 1 {form}", lambda: _table(path, parse)))

    def __getitem__(self, key: str) -> str:
        if isinstance(key, str):
            hashes, rows, _ = self._table
            wanted = np.int64(_hash(key))
            for place in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
                if hashes[place] != wanted:
                    break
                identifier, text = self._parse(self._line(int(rows[place])), 0)
                if identifier == key:
                    return text
        raise KeyError(key)

    def item_at(self, row: int) -> tuple[str, str]:
        """(id, text) of a row in the order of the file, from 0: one small read."""
        return self._parse(self._line(row), 0)

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return int(self._table.shape[1])

    def __iter__(self) -> Iterator[str]:
        return (identifier for identifier, _ in self._read())

    def items(self) -> ItemsView[str, str]:
        """(id, text) in the order of the file, read in one go."""
        return _Items(self)

    def values(self) -> ValuesView[str]:
        """The texts in the order of the file, read in one go."""
        return _Values(self)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __repr__(self) -> str:
        return f"TextStore({str(self.path)!r}, {len(self)} texts)"

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    def _read(self) -> Iterator[tuple[str, str]]:
        return (self._parse(line, number) for number, _, line in scan_lines(self.path))

    def _line(self, row: int) -> bytes:
        """The line of a row; positional reads, so that processes that share the open file do not disturb each other."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        offsets = self._table[2]
        start = int(offsets[row])
        end = int(offsets[row + 1]) if row + 1 < len(offsets) else os.fstat(self._file).st_size
        # Lines without text may follow before the next row.
        first = os.pread(self._file, end - start, start).split(b"\n", 1)[0]
        return clean_line(first, 1 if start == 0 else 0)


class _Items(ItemsView[str, str]):
    _mapping: TextStore

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self._mapping._read()


class _Values(ValuesView[str]):
    _mapping: TextStore

    def __iter__(self) -> Iterator[str]:
        return (text for _, text in self._mapping._read())


def tsv_line(path: str | Path) -> ParseLine:
    """The parser of lines of ``id<TAB>text`` of a file (the path is for the error messages).

    It raises InputError for another number of columns, an empty one, invalid UTF-8, or an id with white space.
    """
    return partial(_parse_tsv, Path(path))


def two_columns(line: bytes, number: int, path: Path, expected: str) -> tuple[str, str]:
    """The two columns of a line as they are, empty ones too.

    Args:
        line: without its end.
        number: of the line, for the error messages; 0 where it is not known.
        path: of the file, for the error messages.
        expected: what a line holds, e.g. ``id<TAB>text``.

    Raises:
        InputError: invalid UTF-8, or another number of columns.
    """
    try:
        columns = line.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"invalid UTF-8 ({error.reason}); expected {expected}", path, number or None) from None
    if len(columns) != 2:
        plural = "" if len(columns) == 1 else "s"
        raise InputError(f"found {len(columns)} column{plural}, expected 2: {expected}", path, number or None)
    return columns[0], columns[1]


def tsv_columns(line: bytes, number: int, path: Path, expected: str) -> tuple[str, str]:
    """The two columns of a line, without white space around them.

    Args:
        line: without its end.
        number: of the line, for the error messages.
        path: of the file, for the error messages.
        expected: what a line holds, e.g. ``id<TAB>text``.

    Raises:
        InputError: invalid UTF-8, another number of columns, or an empty column.
    """
    columns = two_columns(line, number, path, expected)
    first, second = columns[0].strip(), columns[1].strip()
    if not first or not second:
        which = "second" if first else "first"
        raise InputError(f"the {which} column is empty, expected {expected}", path, number or None)
    return first, second


def _parse_tsv(path: Path, line: bytes, number: int) -> tuple[str, str]:
    identifier, text = tsv_columns(line, number, path, TEXT_LINE)
    if any(space in identifier for space in " \v\f\r"):
        raise InputError(f"the id {identifier!r} holds white space, which TREC files cannot", path, number or None)
    return identifier, normalise(text)


def _hash(identifier: str) -> int:
    digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _table(path: Path, parse: ParseLine) -> IntArray:
    hashes, offsets = array("q"), array("q")
    for number, offset, line in scan_lines(path):
        identifier, _ = parse(line, number)
        hashes.append(_hash(identifier))
        offsets.append(offset)
    keys = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    table = np.stack([keys[order], order, np.frombuffer(offsets, dtype=np.int64)])
    twice = np.flatnonzero(table[0, 1:] == table[0, :-1])
    if len(twice):
        _refuse_duplicates(path, parse, {int(key) for key in table[0, twice]})
    return table


def _refuse_duplicates(path: Path, parse: ParseLine, hashes: set[int]) -> None:
    """Raise InputError where ids of the same hash are really equal."""
    lines: dict[str, int] = {}
    for number, _, line in scan_lines(path):
        identifier, _ = parse(line, number)
        if _hash(identifier) not in hashes:
            continue
        if identifier in lines:
            raise InputError(f"the id {identifier!r} is already that of line {lines[identifier]}", path, number)
        lines[identifier] = number


Check = Callable[[bytes, int], object]
"""Raises InputError for a bad line; gets the line as `LineIndex.read_chunk` gives it, and its number from 1."""


class LineIndex:
    """The lines of a file in chunks of consecutive lines; lines without text are passed over.

    `open` reads the file once, validates every line, and keeps the offsets of the chunks in the cache folder
    (24 bytes a chunk). Later runs go without that pass as long as the file does not change.

    Args:
        path: the file.
        table: for each chunk, and for the end: offset in bytes, number of lines with text before it, and line number;
            (C + 1, 3).
    """

    def __init__(self, path: Path, table: IntArray) -> None:
        self.path, self._table = path, table

    @classmethod
    def open(
        cls, path: str | Path, check: Check | None = None, chunk_rows: int = 1024, form: str = "lines"
    ) -> LineIndex:
        """Index a file, or take the index from the cache.

        Args:
            path: the file.
            check: called for each line with text; raises InputError where the line is not as expected.
            chunk_rows: lines with text in a chunk; the last one may have fewer.
            form: names the format that `check` expects. A file that passed under a name is not checked again.

        Raises:
            InputError: no file, a file without text, or what `check` raises.
            ValueError: chunk_rows is below 1.
        """
        if chunk_rows < 1:
            raise ValueError(f"chunk_rows is {chunk_rows}, expected at least 1")
        path = Path(path)
        table = derived_array(path, f"chunks 1 {chunk_rows} {form}", lambda: _chunk_table(path, check, chunk_rows))
        return cls(path, table)

    def chunk_sizes(self) -> IntArray:
        """Number of lines with text in each chunk; (C,)."""
        return np.diff(self._table[:, 1])

    def read_chunk(self, number: int) -> list[bytes]:
        """The lines of a chunk, without their ends.

        Raises:
            InputError: the file is shorter than it was.
        """
        (start, before, first), (end, after, _) = self._table[number : number + 2].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        lines = [line for at, raw in enumerate(content.split(b"\n"), first) if (line := clean_line(raw, at))]
        if len(lines) != after - before:
            raise InputError("the file has changed since the run began", self.path)
        return lines

    def first_line(self, number: int) -> int:
        """Number in the file, from 1, of the first line of a chunk."""
        return int(self._table[number, 2])

    def __len__(self) -> int:
        """Lines with text in the file."""
        return int(self._table[-1, 1])


def _chunk_table(path: Path, check: Check | None, chunk_rows: int) -> IntArray:
    rows: list[tuple[int, int, int]] = []
    count, number = 0, 0
    for number, offset, line in scan_lines(path):
        if check is not None:
            check(line, number)
        if count % chunk_rows == 0:
            rows.append((offset, count, number))
        count += 1
    return np.array([*rows, (path.stat().st_size, count, number + 1)], dtype=np.int64)
