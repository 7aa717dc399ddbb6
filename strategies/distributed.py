"""Gathering tensors from all ranks, with gradient, and plain values."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from strategies.base import Embeddings

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own_rows(tensor: Tensor) -> Tensor:
    """Positions of this rank's rows among those of all ranks, as `gather` orders them; (B,)."""
    rows = len(tensor)
    return rank_and_world_size()[0] * rows + torch.arange(rows, device=tensor.device)


def same_source(student: Embeddings, teacher: Embeddings) -> Tensor | None:
    """True where a pair of any rank has the row's id and is not the row itself; (B, ranks * B); None without ids.

    The ids are the student's, or the teacher's where it has none.
    """
    ids = teacher.ids if student.ids is None else student.ids
    if ids is None:
        return None
    return (ids[:, None] == gather(ids)[0][None, :]).scatter_(1, own_rows(ids)[:, None], False)


def gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all ranks, along the first dimension in the order of ranks.

    The gradient flows back to the rank where each row came from, summed over what all ranks made of it. So where each
    rank's loss is the plain mean over its own rows, and gradients are averaged over ranks (as DDP does), the
    result is the gradient of one process on the full batch. All ranks must call it together, with tensors (B, ...) of
    the same B; the results are (ranks * B, ...), or the tensors themselves where there is one process.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return tensors
    rows = torch.tensor([len(tensor) for tensor in tensors], device=tensors[0].device)
    all_rows = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(all_rows, rows)
    assert all(torch.equal(rows, other) for other in all_rows), f"ranks have unequal batches: {all_rows}"
    return tuple(_Gather.apply(tensor) for tensor in tensors)


def gather_tokens(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (B, T, D) and mask (B, T) of all ranks, each of which may have padded to another T; see `gather`."""
    if rank_and_world_size()[1] == 1:
        return tokens, mask
    all_tokens, all_masks = gather(pad_over_ranks(tokens, 1), pad_over_ranks(mask, 1).to(torch.uint8))
    return all_tokens, all_masks.bool()


def gather_embeddings(embeddings: Embeddings, tokens: bool = False) -> Embeddings:
    """Pooled vectors of all ranks, and with ``tokens`` also token states and mask; see `gather`."""
    (pooled,) = gather(embeddings.pooled)
    if not tokens:
        return Embeddings(pooled)
    return Embeddings(pooled, *gather_tokens(*embeddings.require_tokens()))


def pad_over_ranks(tensor: Tensor, dimension: int) -> Tensor:
    """The tensor with zeros at the end of a dimension, so that it has the largest size of all ranks.

    All ranks must call it together.
    """
    if rank_and_world_size()[1] == 1:
        return tensor
    size = torch.tensor(tensor.shape[dimension], device=tensor.device)
    dist.all_reduce(size, dist.ReduceOp.MAX)
    lacking = list(tensor.shape)
    lacking[dimension] = int(size) - tensor.shape[dimension]
    return torch.cat([tensor, tensor.new_zeros(lacking)], dimension) if lacking[dimension] else tensor


def gathered(value: T) -> list[T]:
    """The values of all ranks, in their order; it returns when all ranks have called it."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rank, world_size = rank_and_world_size()
        gathered = [torch.empty_like(tensor) for _ in range(world_size)]
        dist.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        _, world_size = rank_and_world_size()
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        own: Tensor = total.chunk(world_size)[ctx.rank]
        return own
