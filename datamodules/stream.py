"""Batches from a `PairSource`: shuffled in a bounded buffer, shared out over ranks and workers, resumable.

An epoch's chunks, in the order that the source gives them, are one long sequence of rows. It is cut into windows of
about `buffer` rows. The rows of a window are shuffled, and cut into slices of W * B rows, of which each of the W ranks
takes its B. A window is a whole number of slices, so the place of any batch is known without reading what comes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datamodules.pairs import Pair
from datamodules.sampler import PairLoader, PairSampler, Position, by_length, seeded_generator
from datamodules.source import PairSource, Row


class StreamSampler(PairSampler):
    """Numbers of batches, counted from the beginning of the run: the order is made by `StreamDataset`.

    Every epoch has as many batches as epoch 0 fills, on every rank. What does not fill a batch on every rank is left
    out of that epoch; which rows these are changes, as the order does.

    Args:
        source: the pairs.
        batch_size: pairs in a batch of one rank (B).
        seed: gives, with the epoch, the order.
        rank: this process, from 0.
        world_size: number of processes (W).

    Raises:
        InputError: the pairs do not fill one batch on every rank.
    """

    def __init__(self, source: PairSource, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        size = int(source.chunk_sizes()[list(source.epoch_chunks(0, seed))].sum())
        super().__init__(size, batch_size, seed, rank, world_size)

    def __iter__(self) -> Iterator[list[int]]:
        first = self.position.epoch * len(self)
        yield from ([first + number] for number in range(self.position.batches, len(self)))


class StreamDataset(Dataset[list[Pair]]):
    """The pairs of a batch by its number, for a loader that asks for rising numbers.

    It holds the raw rows of one window (those of its rank), and parses only the rows of the batches that are asked
    for. Worker processes each read the windows for themselves.

    Args:
        source: the pairs.
        sampler: says how many batches an epoch has, and for which rank.
        buffer: rows in a window, about.
        bucket: put rows of similar length into a batch, as `PairSampler` does.
    """

    def __init__(self, source: PairSource, sampler: StreamSampler, buffer: int, bucket: bool = True) -> None:
        self.source, self.sampler, self.bucket = source, sampler, bucket
        self.slice = sampler.batch_size * sampler.world_size
        self.slices = max(1, buffer // self.slice)
        self._epoch, self._place = -1, (-1, -1)
        self._order, self._ends = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._rows: list[Row] = []

    def __getitems__(self, numbers: list[int]) -> list[Pair]:
        """The pairs of batches of this rank, in order.

        Args:
            numbers: of the batches since the beginning of the run.
        """
        return [self.source.parse(row) for number in numbers for row in self._batch(number)]

    def _batch(self, number: int) -> list[Row]:
        epoch, batch = divmod(number, len(self.sampler))
        window, place = divmod(batch, self.slices)
        if self._place != (epoch, window):
            self._rows = []  # before the next ones are read
            self._rows = self._read_window(epoch, window)
            self._place = (epoch, window)
        size = self.sampler.batch_size
        return self._rows[place * size : (place + 1) * size]

    def _read_window(self, epoch: int, window: int) -> list[Row]:
        """The rows of this rank in a window, batch after batch."""
        start = window * self.slices * self.slice
        rows = self._read(epoch, start, min(start + self.slices * self.slice, self.sampler.size))
        generator = seeded_generator(self.sampler.seed, epoch, window)
        order = torch.randperm(len(rows), generator=generator)
        if self.bucket:
            lengths = torch.tensor([self.source.row_length(row) for row in rows])
            order = by_length(order, lengths, self.slice, self.sampler.window, generator)
        own = order[: len(order) // self.slice * self.slice].view(-1, self.sampler.world_size, self.sampler.batch_size)
        return [rows[place] for place in own[:, self.sampler.rank].flatten().tolist()]

    def _read(self, epoch: int, start: int, end: int) -> list[Row]:
        """Rows of an epoch's sequence of chunks."""
        if self._epoch != epoch:
            self._set_epoch(epoch)
        rows: list[Row] = []
        for place in range(int(np.searchsorted(self._ends, start, side="right")), len(self._order)):
            last = int(self._ends[place])
            chunk = self.source.read_chunk(int(self._order[place]))
            begin = last - len(chunk)
            rows += chunk[max(0, start - begin) : end - begin]
            if last >= end:
                break
        return rows

    def _set_epoch(self, epoch: int) -> None:
        """Lay out the chunks of an epoch; one with fewer rows than epoch 0 begins again with its first chunk."""
        order = np.asarray(self.source.epoch_chunks(epoch, self.sampler.seed), dtype=np.int64)
        sizes = self.source.chunk_sizes()
        rounds = -(-self.sampler.size // int(sizes[order].sum()))
        self._order = np.tile(order, rounds)
        self._ends = np.cumsum(sizes[self._order])
        self._epoch = epoch

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": [], "_place": (-1, -1)}


def stream_loader(
    source: PairSource,
    batch_size: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    buffer: int = 131072,
    bucket: bool = True,
    num_workers: int = 0,
    position: Callable[[], Position] = Position,
) -> PairLoader:
    """A dataloader of streamed pairs; iterating it gives one epoch.

    Args:
        source: the pairs.
        batch_size: pairs in a batch of one rank.
        seed: gives, with the epoch, the order.
        rank: this process, from 0.
        world_size: number of processes.
        buffer: rows that are shuffled together; each worker process holds as many.
        bucket: put rows of similar length into a batch.
        num_workers: worker processes; they change nothing in the order.
        position: gives epoch and batch at which the next iteration starts.

    Raises:
        InputError: the pairs do not fill one batch on every rank.
    """
    sampler = StreamSampler(source, batch_size, seed, rank, world_size)
    return PairLoader(StreamDataset(source, sampler, buffer, bucket), sampler, num_workers, position)
