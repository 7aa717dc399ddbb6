"""Training pairs that stay where they are: read in chunks, never all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from datamodules.pairs import Pair

Row = Any
"""A pair as the source keeps it, before `PairSource.parse`; cheap to make, e.g. the bytes of a line."""


class PairSource(ABC):
    """Training pairs in chunks of consecutive rows, such as the lines of a file of tens of gigabytes.

    Reading a chunk is cheap; parsing a row may not be. Every rank and worker reads all chunks of a window of the
    shuffle, and parses only the rows of its own batches.
    """

    @abstractmethod
    def chunk_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of rows of each chunk; (C,)."""

    @abstractmethod
    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk.

        Args:
            number: of the chunk, from 0.
        """

    @abstractmethod
    def parse(self, row: Row) -> Pair:
        """The pair of a row."""

    def row_length(self, row: Row) -> int:
        """Length of a row in any unit, to batch rows of similar length; 0 where it is not known."""
        return len(row) if isinstance(row, bytes) else 0

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The chunks of an epoch in the order in which they are read; by default a permutation of all of them.

        Args:
            epoch: from 0.
            seed: of the run.
        """
        generator = np.random.default_rng([seed, epoch])
        order: list[int] = generator.permutation(len(self.chunk_sizes())).tolist()
        return order

    def __len__(self) -> int:
        return int(self.chunk_sizes().sum())

    def __iter__(self) -> Iterator[Pair]:
        """All pairs, in the order of the rows."""
        for number in range(len(self.chunk_sizes())):
            for row in self.read_chunk(number):
                yield self.parse(row)
