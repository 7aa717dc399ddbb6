"""Lines and texts that stay on disk: an index of a large file of lines, and texts by id that are read when needed."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from array import array
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from datamodules.text import normalise
from foundations.cache import IntArray, derived_array, unpacked
from foundations.checks import check_number
from foundations.errors import InputError
from foundations.files import clean_line, columns, scan_lines

TEXT_LINE = "id<TAB>text"

_Content = TypeVar("_Content")

_TEXT_ROWS = 4
"""Lines that a look-up of a text reads: few, and still a small index."""

Check = Callable[[bytes, int], object]
"""Raises InputError for a bad line; gets the line without its end, and its number from 1 (0 where it is not known)."""

ParseLine = Callable[[bytes, int], tuple[str, str]]
"""A `Check` that gives id and text of the line."""


class LineIndex:
    """The lines of a file in chunks of consecutive lines; lines without text are passed over.

    `open` reads the file once, validates every line, and keeps the offsets of the chunks in the cache folder
    (24 bytes a chunk). Later runs go without that pass as long as the file does not change.

    Args:
        path: the file.
        table: for each chunk, and for the end: offset in bytes, number of lines with text before it, and line number;
            (C + 1, 3).
        chunk_rows: lines with text in a chunk; the last one may have fewer.
    """

    def __init__(self, path: Path, table: IntArray, chunk_rows: int) -> None:
        self.path, self._table, self.chunk_rows = path, table, chunk_rows
        self._file: int | None = None

    @classmethod
    def open(
        cls, path: str | Path, check: Check | None = None, chunk_rows: int = 1024, form: str = "lines"
    ) -> LineIndex:
        """Index a file, or take the index from the cache.

        Args:
            path: the file; a compressed one is unpacked into the cache folder.
            check: called for each line with text; raises InputError where the line is not as expected.
            chunk_rows: lines with text in a chunk; the last one may have fewer.
            form: names the format that `check` expects. A file that passed under a name is not checked again.

        Raises:
            InputError: no file, a file without text, or what `check` raises.
            ValueError: chunk_rows is below 1.
        """
        check_number("chunk_rows", chunk_rows, least=1)
        path = unpacked(path)  # offsets are those of the content
        table = derived_array(path, f"chunks 1 {chunk_rows} {form}", lambda: _chunk_table(path, check, chunk_rows))
        return cls(path, table, chunk_rows)

    def chunk_sizes(self) -> IntArray:
        """Number of lines with text in each chunk; (C,)."""
        return np.diff(self._table[:, 1])

    def read_chunk(self, number: int) -> list[bytes]:
        """The lines of a chunk, without their ends.

        Raises:
            InputError: the file is shorter than it was.
        """
        (start, before, first), (end, after, _) = self._table[number : number + 2].tolist()
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        # A positional read: processes that share the open file do not disturb each other.
        content = os.pread(self._file, end - start, start)
        lines = [line for at, raw in enumerate(content.split(b"\n"), first) if (line := clean_line(raw, at))]
        if len(lines) != after - before:
            raise InputError("the file has changed since the run began", self.path)
        return lines

    def read_line(self, row: int) -> bytes:
        """The line of a row (of lines with text, from 0), without its end."""
        chunk, position = divmod(row, self.chunk_rows)
        return self.read_chunk(chunk)[position]

    def first_line(self, number: int) -> int:
        """Number in the file, from 1, of the first line of a chunk."""
        return int(self._table[number, 2])

    def __len__(self) -> int:
        """Lines with text in the file."""
        return int(self._table[-1, 1])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


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


class LazyTexts(Mapping[str, str]):
    """Texts by id that are read or made when they are asked for; a subclass says how."""

    @abstractmethod
    def read(self) -> Iterator[tuple[str, str]]:
        """(id, text) of all, in one go."""

    def __iter__(self) -> Iterator[str]:
        return (identifier for identifier, _ in self.read())

    def items(self) -> ItemsView[str, str]:
        """(id, text) of all, read in one go."""
        return _Items(self)

    def values(self) -> ValuesView[str]:
        """All texts, read in one go."""
        return _Values(self)


class _Items(ItemsView[str, str]):
    _mapping: LazyTexts

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self._mapping.read()


class _Values(ValuesView[str]):
    _mapping: LazyTexts

    def __iter__(self) -> Iterator[str]:
        return (text for _, text in self._mapping.read())


class TextStore(LazyTexts):
    """Text by id, read from a file of lines; in the order of the file.

    No text is in memory: 22 bytes a text lie in the cache folder, mapped, made in one pass that validates every
    line. A look-up costs one small read; going through ``items()`` or ``values()`` reads the file from its beginning
    to its end.

    Args:
        lines: the lines of the file.
        parse: gives id and text of a line.
        keys: sorted hashes of the ids, and the row (of lines with text) of each; (2, N).
    """

    def __init__(self, lines: LineIndex, parse: ParseLine, keys: IntArray) -> None:
        self.lines, self._parse, self._keys = lines, parse, keys
        self.path = lines.path

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
        path, hashes = Path(path), array("q")

        def keep(line: bytes, number: int) -> None:
            hashes.append(_hash(parse(line, number)[0]))

        def lines() -> LineIndex:
            return LineIndex.open(path, keep, _TEXT_ROWS, f"texts {form}")

        def keys() -> IntArray:
            lines()
            if not hashes:  # the index was there already
                for _, _, line in scan_lines(path):
                    keep(line, 0)
            return _sorted_keys(hashes, path, parse)

        table = derived_array(path, f"text keys 1 {form}", keys)
        return cls(lines(), parse, table)

    def __getitem__(self, key: str) -> str:
        if isinstance(key, str):
            hashes, rows = self._keys
            key_hash = np.int64(_hash(key))
            for position in range(int(np.searchsorted(hashes, key_hash)), len(hashes)):
                if hashes[position] != key_hash:
                    break
                identifier, text = self.item_at(int(rows[position]))
                if identifier == key:
                    return text
        raise KeyError(key)

    def item_at(self, row: int) -> tuple[str, str]:
        """(id, text) of a row in the order of the file, from 0: one small read."""
        return self._parse(self.lines.read_line(row), 0)

    def __len__(self) -> int:
        return len(self.lines)

    def read(self) -> Iterator[tuple[str, str]]:
        """(id, text) in the order of the file, read in one go."""
        return (self._parse(line, number) for number, _, line in scan_lines(self.path))

    def __repr__(self) -> str:
        return f"TextStore({str(self.path)!r}, {len(self)} texts)"


def items_at(texts: Mapping[str, str], rows: list[int]) -> Iterator[tuple[str, str]]:
    """Ids and texts by their positions, in the given order."""
    if hasattr(texts, "item_at"):
        return map(texts.item_at, rows)
    identifiers = list(texts)
    return ((identifiers[row], texts[identifiers[row]]) for row in rows)


def _hash(identifier: str) -> int:
    digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _sorted_keys(hashes: array[int], path: Path, parse: ParseLine) -> IntArray:
    keys = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    table = np.stack([keys[order], order])
    twice = np.flatnonzero(table[0, 1:] == table[0, :-1])
    if len(twice):
        _refuse_duplicates(path, parse, {int(key) for key in table[0, twice]})
    return table


def _refuse_duplicates(path: Path, parse: ParseLine, hashes: set[int]) -> None:
    """Raise InputError where ids of the same hash are really equal."""
    rows = ((number, *parse(line, number)) for number, _, line in scan_lines(path))
    for _ in unique((row for row in rows if _hash(row[1]) in hashes), path):
        pass


def tsv_line(path: str | Path) -> ParseLine:
    """The parser of lines of ``id<TAB>text`` of a file (the path is for the error messages).

    It raises InputError for another number of columns, an empty one, invalid UTF-8, or an id with white space.
    """
    return partial(_parse_tsv, Path(path))


def _parse_tsv(path: Path, line: bytes, number: int) -> tuple[str, str]:
    identifier, text = columns(line, 2, TEXT_LINE, path, number, filled=True)
    if any(space in identifier for space in " \v\f\r"):
        raise InputError(f"the id {identifier!r} holds white space, which TREC files cannot", path, number)
    return identifier, normalise(text)


def unique(rows: Iterable[tuple[int, str, _Content]], path: Path) -> Iterator[tuple[str, _Content]]:
    """The (id, content) of lines given as (number, id, content).

    Raises:
        InputError: an id that appears twice.
    """
    lines: dict[str, int] = {}
    for number, identifier, content in rows:
        if identifier in lines:
            raise InputError(f"the id {identifier!r} is already that of line {lines[identifier]}", path, number)
        lines[identifier] = number
        yield identifier, content
