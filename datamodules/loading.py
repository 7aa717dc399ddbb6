"""The order of the training pairs: the same for a seed, shared out over ranks, and resumable in mid-epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.pairs import Pair, PairBatch, collate
from datamodules.sources import PairSource, Row
from foundations.errors import InputError


@dataclass(frozen=True)
class Position:
    """How far a run is in the training data: the epoch, from 0, and the batches of it (of each rank) that are done."""

    epoch: int = 0
    batches: int = 0


class PairSampler(Sampler[list[int]]):
    """Batches of indices: one permutation for each (seed, epoch), shared out over the ranks.

    The batches of the same number on all ranks are one slice of the permutation, without overlap: W ranks with batches
    of B see what one process with batches of B * W sees. What does not fill a batch on every rank is left out of that
    epoch; where that is all, there is an InputError.

    With the lengths of the pairs (in any unit), pairs of similar length go together, so that little is padded: the
    permutation is cut into windows of `window` slices of W * B pairs, each window is sorted by length, cut into
    batches, and these are shuffled. A batch is then a random choice among the pairs of about its length in the window.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | None = None,
        window: int = 32,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.lengths = None if lengths is None else torch.tensor(lengths)
        self.window = window
        self.position = Position()
        if len(self) == 0:
            raise InputError(
                f"found {size} training pairs, fewer than one batch of {batch_size} on each of {world_size} device(s): "
                "use a smaller batch_size"
            )

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next iteration gives, without as many batches at its beginning as are done."""
        self.position = Position(epoch, start)

    def __len__(self) -> int:
        """Batches of one rank in a whole epoch, wherever the next iteration starts."""
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = seeded_generator(self.seed, self.position.epoch)
        order = torch.randperm(self.size, generator=generator)
        if self.lengths is not None:
            order = by_length(order, self.lengths, self.batch_size * self.world_size, self.window, generator)
        for number in range(self.position.batches, len(self)):
            first = (number * self.world_size + self.rank) * self.batch_size
            yield order[first : first + self.batch_size].tolist()


def seeded_generator(*words: int) -> torch.Generator:
    """A generator for some numbers: a digest, because neighbours (seed 0, epoch 1 and seed 1, epoch 0) must differ."""
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def by_length(order: Tensor, lengths: Tensor, size: int, window: int, generator: torch.Generator) -> Tensor:
    """A permutation of N items, cut to whole slices of `size` items of similar length; see `PairSampler`.

    Windows of that many slices are sorted by length, and the generator shuffles the slices of each.
    """
    order = order[: len(order) // size * size]
    slices: list[Tensor] = []
    for start in range(0, len(order), window * size):
        chunk = order[start : start + window * size]
        rows = chunk[lengths[chunk].argsort(stable=True)].view(-1, size)
        slices += rows[torch.randperm(len(rows), generator=generator)]
    return torch.cat(slices)


class PairLoader(DataLoader[PairBatch]):
    """A dataloader of a list of pairs, or of a `StreamDataset`, that asks where to start each time that it is iterated.

    Its random generator is not the global one, which iterating it leaves alone: a resumed run iterates once more than
    an uninterrupted one.
    """

    def __init__(self, dataset: Any, sampler: PairSampler, num_workers: int, position: Callable[[], Position]) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(sampler.seed),
        )
        self.pair_sampler = sampler
        self.next_position = position

    def __iter__(self) -> Any:
        position = self.next_position()
        self.pair_sampler.set_epoch(position.epoch, position.batches)
        return super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the datamodule keeps the position. That this method exists tells Lightning that we can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""


class StreamSampler(PairSampler):
    """Numbers of batches, counted from the beginning of the run: the order is made by `StreamDataset`.

    Every epoch has as many batches as epoch 0 fills, on every rank. What does not fill a batch on every rank is left
    out of that epoch; which rows these are changes, as the order does.
    """

    def __init__(self, source: PairSource, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        size = int(source.chunk_sizes()[list(source.epoch_chunks(0, seed))].sum())
        super().__init__(size, batch_size, seed, rank, world_size)

    def __iter__(self) -> Iterator[list[int]]:
        first = self.position.epoch * len(self)
        yield from ([first + number] for number in range(self.position.batches, len(self)))


class StreamDataset(Dataset[list[Pair]]):
    """The pairs of a batch by its number, for a loader that asks for rising numbers.

    It holds the raw rows of one window of about `buffer` rows (those of its rank), and parses only the rows of the
    requested batches. Worker processes each read the windows for themselves. With `bucket`, rows of similar length go
    into a batch, as in `PairSampler`.
    """

    def __init__(self, source: PairSource, sampler: StreamSampler, buffer: int, bucket: bool = True) -> None:
        self.source, self.sampler, self.bucket = source, sampler, bucket
        self.slice = sampler.batch_size * sampler.world_size
        self.slices = max(1, buffer // self.slice)
        self._epoch, self._window = -1, (-1, -1)
        self._order, self._ends = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._rows: list[Row] = []

    def __getitems__(self, numbers: list[int]) -> list[Pair]:
        """The pairs of some batches of this rank, which are counted from the beginning of the run."""
        return [self.source.parse(row) for number in numbers for row in self._batch(number)]

    def _batch(self, number: int) -> list[Row]:
        epoch, batch = divmod(number, len(self.sampler))
        window, position = divmod(batch, self.slices)
        if self._window != (epoch, window):
            self._rows = []  # before the next ones are read
            self._rows = self._read_window(epoch, window)
            self._window = (epoch, window)
        size = self.sampler.batch_size
        return self._rows[position * size : (position + 1) * size]

    def _read_window(self, epoch: int, window: int) -> list[Row]:
        """The rows of this rank in a window, batch after batch."""
        start = window * self.slices * self.slice
        rows = self._read(epoch, start, min(start + self.slices * self.slice, self.sampler.size))
        generator = seeded_generator(self.sampler.seed, epoch, window)
        order = torch.randperm(len(rows), generator=generator)
        if self.bucket:
            lengths = torch.tensor([self.source.row_length(row) for row in rows])
            order = by_length(order, lengths, self.slice, self.sampler.window, generator)
        whole = order[: len(order) // self.slice * self.slice]
        by_rank = whole.view(-1, self.sampler.world_size, self.sampler.batch_size)
        return [rows[index] for index in by_rank[:, self.sampler.rank].flatten().tolist()]

    def _read(self, epoch: int, start: int, end: int) -> list[Row]:
        """Rows of an epoch's sequence of chunks."""
        if self._epoch != epoch:
            self._set_epoch(epoch)
        rows: list[Row] = []
        for position in range(int(np.searchsorted(self._ends, start, side="right")), len(self._order)):
            last = int(self._ends[position])
            chunk = self.source.read_chunk(int(self._order[position]))
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
        return self.__dict__ | {"_rows": [], "_window": (-1, -1)}


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
    """A dataloader of streamed pairs; iterating it gives one epoch, in the same order for any number of workers.

    Options are those of `StreamSampler`, `StreamDataset` and `PairLoader`.
    """
    sampler = StreamSampler(source, batch_size, seed, rank, world_size)
    return PairLoader(StreamDataset(source, sampler, buffer, bucket), sampler, num_workers, position)
