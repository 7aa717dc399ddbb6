"""Training pairs that stay where they are: read in chunks, never all at once."""

from __future__ import annotations

import heapq
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.lines import LineIndex, TextStore
from datamodules.pairs import Pair, pair_length
from datamodules.published.judgments import BoolArray, JudgmentTable
from datamodules.text import hash_share, normalise, text_id
from foundations.cache import IntArray, derived_array
from foundations.checks import check_number
from foundations.files import clean_line, columns, scan_lines
from retrieval.collection import Qrels

Row = Any
"""A pair as the source keeps it, before `PairSource.parse`; cheap to make, e.g. the bytes of a line."""

_CHUNKS = 2**16
"""Most chunks of a list."""

_SPREAD = 256
"""Chunks that a small sample is spread over."""


class PairSource(ABC):
    """Training pairs in chunks of consecutive rows, such as the lines of a file of tens of gigabytes.

    Reading a chunk is cheap; parsing a row may not be. Every rank and worker reads all chunks of a window of the
    shuffle, and parses only the rows of its own batches.
    """

    @abstractmethod
    def chunk_sizes(self) -> IntArray:
        """Number of rows of each chunk; (C,)."""

    @abstractmethod
    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk, which is given by its number from 0."""

    @abstractmethod
    def parse(self, row: Row) -> Pair:
        """The pair of a row."""

    def row_length(self, row: Row) -> int:
        """Length of a row in any unit, to batch rows of similar length; 0 where it is not known."""
        return len(row) if isinstance(row, bytes) else 0

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The chunks of an epoch (from 0) in the order of reading; by default a permutation that the seed gives."""
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


Pairs = list[Pair] | PairSource
"""Training pairs in memory, or read in chunks."""


class RowsSource(PairSource):
    """Pairs of rows in memory, in chunks of `chunk_rows`; a subclass makes a pair of a row."""

    def __init__(self, rows: Sequence[Row] | IntArray, chunk_rows: int) -> None:
        self.rows, self.chunk_rows = rows, chunk_rows

    def chunk_sizes(self) -> IntArray:
        """Number of rows of each chunk, of which the last one may have fewer; (C,)."""
        starts = np.arange(0, len(self.rows), self.chunk_rows)
        return np.diff(np.append(starts, len(self.rows)))

    def read_chunk(self, number: int) -> Any:
        """The rows of a chunk."""
        return self.rows[number * self.chunk_rows : (number + 1) * self.chunk_rows]


class ListSource(RowsSource):
    """Pairs in memory, in chunks of one where they are no more than 65,536, and else in about as many chunks."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(pairs, max(1, -(-len(pairs) // _CHUNKS)))

    def parse(self, row: Row) -> Pair:
        """The row itself."""
        assert isinstance(row, Pair)
        return row

    def row_length(self, row: Row) -> int:
        """See `pair_length`."""
        return pair_length(row)


class WrappedSource(PairSource):
    """What another source gives; a subclass changes some of it."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def chunk_sizes(self) -> IntArray:
        """Number of rows of each chunk; (C,)."""
        return self.source.chunk_sizes()

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk."""
        return self.source.read_chunk(number)

    def parse(self, row: Row) -> Pair:
        """The pair of a row."""
        return self.source.parse(row)

    def row_length(self, row: Row) -> int:
        """Length of a row in the source's unit."""
        return self.source.row_length(row)

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The source's order of chunks."""
        return self.source.epoch_chunks(epoch, seed)


class SampledSource(WrappedSource):
    """`rows` pairs of a source, which must have as many: random rows of random chunks, the same for a seed.

    They come from few chunks (at least 256, where there are as many), so that a file of tens of gigabytes is not read
    as a whole. An epoch reads the chunks in the order of the source's epoch.
    """

    def __init__(self, source: PairSource, rows: int, seed: int = 0) -> None:
        super().__init__(source)
        sizes = source.chunk_sizes()
        if not 0 < rows <= sizes.sum():
            raise ValueError(f"cannot take {rows} rows of a source with {sizes.sum()}")
        self.seed = seed
        order = np.random.default_rng([seed, rows]).permutation(len(sizes))
        enough = int(np.searchsorted(np.cumsum(sizes[order]), rows)) + 1
        chunks = np.sort(order[: max(enough, _SPREAD)])
        ends = np.cumsum(sizes[chunks])
        shares = np.diff(ends * rows // ends[-1], prepend=0)  # no share is above its chunk's size
        self._chunks = chunks[shares > 0]
        self._shares: IntArray = shares[shares > 0]

    def chunk_sizes(self) -> IntArray:
        """Number of rows taken of each chunk that is used; (C,)."""
        return self._shares

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows taken of a chunk, in their order."""
        chunk = int(self._chunks[number])
        rows = self.source.read_chunk(chunk)
        positions = np.random.default_rng([self.seed, chunk]).permutation(len(rows))[: self._shares[number]]
        return [rows[position] for position in np.sort(positions).tolist()]

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The used chunks of the source's epoch, in its order; a permutation where it has none of them."""
        positions = {int(chunk): position for position, chunk in enumerate(self._chunks)}
        order = [positions[chunk] for chunk in self.source.epoch_chunks(epoch, seed) if chunk in positions]
        return order or PairSource.epoch_chunks(self, epoch, seed)


class Joined(WrappedSource):
    """A source whose rows are no `Pair`, and pairs in memory behind it; an epoch mixes both."""

    def __init__(self, source: PairSource, pairs: Sequence[Pair]) -> None:
        super().__init__(source)
        self._added, self._first = ListSource(pairs), len(source.chunk_sizes())

    def chunk_sizes(self) -> IntArray:
        """Number of rows of each chunk, those of the source first; (C,)."""
        return np.concatenate([self.source.chunk_sizes(), self._added.chunk_sizes()])

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The rows of a chunk."""
        added: Sequence[Row] = self._added.read_chunk(number - self._first)
        return self.source.read_chunk(number) if number < self._first else added

    def parse(self, row: Row) -> Pair:
        """The pair of a row."""
        return row if isinstance(row, Pair) else self.source.parse(row)

    def row_length(self, row: Row) -> int:
        """Length of a row: bytes of the longer side, or in the source's unit."""
        return pair_length(row) if isinstance(row, Pair) else self.source.row_length(row)

    def epoch_chunks(self, epoch: int, seed: int) -> Sequence[int]:
        """The chunks of the source's epoch and all others, in a random order."""
        chunks = [*self.source.epoch_chunks(epoch, seed), *range(self._first, len(self.chunk_sizes()))]
        order: list[int] = np.random.default_rng([seed, epoch]).permutation(chunks).tolist()
        return order


def limited(pairs: Pairs, count: int | None, seed: int) -> Pairs:
    """A random choice of pairs, in their order; all of them, with a warning, where there are fewer."""
    if count is None:
        return pairs
    if count > len(pairs):
        warnings.warn(f"limit_pairs is {count}, but there are {len(pairs)} pairs only", stacklevel=3)
    if isinstance(pairs, PairSource):
        return SampledSource(pairs, count, seed) if count < len(pairs) else pairs
    chosen = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:count]
    return [pairs[index] for index in sorted(chosen.tolist())]


class LineSource(PairSource):
    """Pairs of the lines of a file; a subclass makes a pair of a line."""

    def __init__(self, lines: LineIndex) -> None:
        self.lines = lines

    def chunk_sizes(self) -> IntArray:
        """Number of lines of each chunk; (C,)."""
        return self.lines.chunk_sizes()

    def read_chunk(self, number: int) -> Sequence[Row]:
        """The lines of a chunk."""
        return self.lines.read_chunk(number)


PAIR_LINE = "source<TAB>target"


class PairFile(LineSource):
    """The pairs of a file of ``source<TAB>target`` without a header line, read in chunks of lines.

    The first time, every line is checked, which takes some 20 seconds a gigabyte; see `LineIndex`.
    """

    def __init__(self, path: str | Path, chunk_rows: int = 1024) -> None:
        self.path = Path(path)
        check = partial(_check, path=self.path)
        super().__init__(LineIndex.open(self.path, check, chunk_rows, form="pairs"))

    def parse(self, row: bytes) -> Pair:
        """The pair of a line, normalised as by `make_pairs`, with an id that needs no other pair."""
        source, target = _check(row, 0, self.path)
        return Pair(normalise(source), normalise(target), text_id(source))


def _check(line: bytes, number: int, path: Path) -> list[str]:
    return columns(line, 2, PAIR_LINE, path, number, filled=True)


class ArticlePairs(RowsSource):
    """Pairs of the texts that the lines of a file of judgments name; 8 bytes a pair are in memory.

    Args:
        judgments: all judgments of the file.
        chosen: which of them are pairs; (J,).
        sources: texts that the teacher reads.
        targets: texts that the student reads.
        source: whether the sources are the queries or the documents of the judgments.
        chunk_rows: pairs in a chunk.
    """

    def __init__(
        self,
        judgments: JudgmentTable,
        chosen: BoolArray,
        sources: TextStore,
        targets: TextStore,
        source: str = "queries",
        chunk_rows: int = 1024,
    ) -> None:
        super().__init__(np.asarray(judgments.offsets[chosen]), chunk_rows)
        self.path, self.sources, self.targets = judgments.path, sources, targets
        self._columns = slice(0, 2) if source == "queries" else slice(1, None, -1)

    def read_chunk(self, number: int) -> list[bytes]:
        """The lines of the judgments of a chunk, which lie near each other in the file."""
        offsets = super().read_chunk(number).tolist()
        with self.path.open("rb") as file:
            file.seek(offsets[0])
            content = file.read(offsets[-1] - offsets[0]) + file.readline() + b"\n"
        starts = [offset - offsets[0] for offset in offsets]
        lines = [content[start : content.index(b"\n", start)] for start in starts]
        return [clean_line(line, 1 if offset == 0 else 0) for line, offset in zip(lines, offsets, strict=True)]

    def parse(self, row: bytes) -> Pair:
        """The texts of a judgment; sources that differ only in case and white space share an id."""
        source, target = (column.decode("utf-8") for column in row.split()[:2][self._columns])
        text = self.sources[source]
        return Pair(text, self.targets[target], text_id(text))

    def row_length(self, row: bytes) -> int:  # noqa: ARG002
        """0: a line names its texts and does not say how long they are."""
        return 0


def check_bounds(**bounds: int) -> None:
    """Refuse a number of queries or documents below 0, which stands for all."""
    for name, value in bounds.items():
        check_number(name, value, least=0)


def sampled_documents(documents: TextStore, qrels: Qrels, count: int) -> TextStore | dict[str, str]:
    """The judged documents and, up to a number of documents, some others: always the same ones for a file.

    The others are those whose id has the smallest hash, so a larger number adds documents and replaces none, and the
    order of the file has no influence.

    Args:
        documents: the documents of a file whose lines begin with the id and a tab.
        qrels: the judgments.
        count: documents to take, if the judged ones are not more; 0 takes all.

    Returns:
        Text by id.
    """
    if count == 0 or count >= len(documents):
        return documents
    chosen = dict.fromkeys(document for grades in qrels.values() for document in grades if document in documents)
    for row in derived_array(documents.path, f"sample 2 {count}", lambda: _least_hashes(documents, count)).tolist():
        if len(chosen) >= count:
            break
        chosen[documents.item_at(row)[0]] = None
    return {identifier: documents[identifier] for identifier in chosen}


def _least_hashes(documents: TextStore, count: int) -> IntArray:
    """Rows of the documents whose ids have the smallest hashes, the smallest first."""
    ids = (line.split(b"\t", 1)[0].decode("utf-8").strip() for _, _, line in scan_lines(documents.path))
    hashes = ((hash_share(identifier, "sample"), row) for row, identifier in enumerate(ids))
    return np.array([row for _, row in heapq.nsmallest(count, hashes)], dtype=np.int64)
