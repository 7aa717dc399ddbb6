"""Training pairs that stay where they are: read in chunks, never all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from datamodules.pairs import Pair
from datamodules.text import normalise, text_id

Row = Any
"""A pair as the source keeps it, before `PairSource.parse`; cheap to make, e.g. the bytes of a line."""
_SPREAD = 256
"""Chunks that a small sample is spread over."""


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


class SampledSource(PairSource):
    """Some pairs of a source: random rows of random chunks, the same for a seed.

    They come from few chunks (at least 256, where there are as many), so that taking them from a file of tens of
    gigabytes does not read all of it. An epoch reads the chunks in the order of the source's own epoch.

    Args:
        source: the source.
        rows: how many rows to take.
        seed: gives the chunks and the rows in them.

    Raises:
        ValueError: the source has fewer rows.
    """

    def __init__(self, source: PairSource, rows: int, seed: int = 0) -> None:
        sizes = source.chunk_sizes()
        if not 0 < rows <= sizes.sum():
            raise ValueError(f"cannot take {rows} rows of a source with {sizes.sum()}")
        self.source, self.seed = source, seed
        order = np.random.default_rng([seed, rows]).permutation(len(sizes))
        enough = int(np.searchsorted(np.cumsum(sizes[order]), rows)) + 1
        chunks = np.sort(order[: max(enough, _SPREAD)])
        ends = np.cumsum(sizes[chunks])
        shares = np.diff(ends * rows // ends[-1], prepend=0)  # no share is above its chunk's size
        self._chunks = chunks[shares > 0]
        self._shares: np.ndarray[Any, np.dtype[np.int64]] = shares[shares > 0]

    def chunk_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of rows taken of each chunk that is used; (C,)."""
        return self._shares

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows taken of a chunk, in their order."""
        chunk = int(self._chunks[number])
        rows = self.source.read_chunk(chunk)
        places = np.random.default_rng([self.seed, chunk]).permutation(len(rows))[: self._shares[number]]
        return [rows[place] for place in np.sort(places).tolist()]

    def parse(self, row: Row) -> Pair:
        """The pair of a row."""
        return self.source.parse(row)

    def row_length(self, row: Row) -> int:
        """Length of a row; see `PairSource`."""
        return self.source.row_length(row)

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The used chunks of the source's epoch, in its order; a permutation where it has none of them."""
        places = {int(chunk): place for place, chunk in enumerate(self._chunks)}
        order = [places[chunk] for chunk in self.source.epoch_chunks(epoch, seed) if chunk in places]
        return order or super().epoch_chunks(epoch, seed)


def stream_pair(source: str, target: str) -> Pair:
    """The pair of two texts, normalised as by `make_pairs`, with an id that needs no other pair."""
    return Pair(normalise(source), normalise(target), text_id(source))
