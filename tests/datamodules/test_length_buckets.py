"""Length buckets: a permutation all the same, with little padding, and batches that are still random."""

from __future__ import annotations

import pytest
import torch

from datamodules.loading import PairSampler


def lengths(size: int) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, generator=generator).mul(0.8).add(3.0).exp().long().clamp(min=1).tolist()


def epoch(number: int, bucketed: bool = True, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    sampler = PairSampler(1000, 8, 0, rank, world_size, lengths=lengths(1000) if bucketed else None)
    sampler.set_epoch(number)
    return list(sampler)


def padded(batches: list[list[int]]) -> int:
    return sum(max(lengths(1000)[index] for index in batch) * len(batch) for batch in batches)


def test_every_pair_once_and_batches_full() -> None:
    batches = epoch(0)
    assert len(batches) == 125
    assert sorted(index for batch in batches for index in batch) == list(range(1000))


def test_less_than_half_the_padding() -> None:
    real = sum(lengths(1000))
    assert padded(epoch(0)) - real < 0.5 * (padded(epoch(0, bucketed=False)) - real)


def test_batches_differ_between_epochs_and_do_not_go_by_length() -> None:
    assert {frozenset(batch) for batch in epoch(0)}.isdisjoint(frozenset(batch) for batch in epoch(1))
    means = torch.tensor([sum(lengths(1000)[i] for i in batch) / len(batch) for batch in epoch(0)])
    order = torch.arange(len(means), dtype=torch.float32)
    assert abs(torch.corrcoef(torch.stack([means, order]))[0, 1]) < 0.25


@pytest.mark.parametrize("start", [0, 3])
def test_ranks_share_and_a_start_is_kept(start: int) -> None:
    whole = epoch(2, world_size=1)
    first, second = epoch(2, rank=0, world_size=2), epoch(2, rank=1, world_size=2)
    assert sorted(i for batch in first + second for i in batch) == sorted(set(range(1000)) - dropped(first, second))
    sampler = PairSampler(1000, 8, lengths=lengths(1000))
    sampler.set_epoch(2, start)
    assert list(sampler) == whole[start:]


def dropped(*shares: list[list[int]]) -> set[int]:
    seen = {index for share in shares for batch in share for index in batch}
    left = set(range(1000)) - seen
    assert len(left) == 1000 % 16
    return left
