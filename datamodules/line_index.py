"""Where the lines of a large file lie, so that any chunk of them is read without the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from datamodules.derived import IntArray, clean_line, derived_array, scan_lines
from retrieval.errors import InputError

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
