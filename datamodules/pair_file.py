"""Pairs from a TSV file that is too large for memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.line_index import LineIndex
from datamodules.pairs import Pair
from datamodules.source import PairSource, stream_pair
from datamodules.text_store import tsv_columns

PAIR_LINE = "source<TAB>target"


class PairFile(PairSource):
    """The pairs of a file of ``source<TAB>target``, read in chunks of lines.

    The first time, every line is checked, which takes some 20 seconds a gigabyte; see `LineIndex`.

    Args:
        path: the file, UTF-8, without a header line; empty lines are passed over.
        chunk_rows: lines in a chunk.

    Raises:
        InputError: no file, an empty file, or a line of another form.
    """

    def __init__(self, path: str | Path, chunk_rows: int = 1024) -> None:
        self.path = Path(path)
        check = partial(_check, path=self.path)
        self.index = LineIndex.open(self.path, check, chunk_rows, form="pairs")

    def chunk_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of pairs of each chunk; (C,)."""
        return self.index.chunk_sizes()

    def read_chunk(self, number: int) -> Sequence[bytes]:
        """The lines of a chunk."""
        return self.index.read_chunk(number)

    def parse(self, row: bytes) -> Pair:
        """The pair of a line, normalised."""
        return stream_pair(*tsv_columns(row, 0, self.path, PAIR_LINE))


def _check(line: bytes, number: int, path: Path) -> object:
    return tsv_columns(line, number, path, PAIR_LINE)
