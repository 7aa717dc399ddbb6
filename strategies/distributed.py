"""Gathering tensors from all ranks, with gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) without ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all ranks, along the first dimension in the order of ranks.

    The gradient flows back to the rank where each row came from, summed over what all ranks made of it. So where each
    rank's loss is the plain mean over its own rows, and gradients are averaged over ranks (as DDP does), the
    result is the gradient of one process on the full batch. All ranks must call it together.

    Args:
        tensors: (B, ...) each, with the same B on all ranks.

    Returns:
        (ranks * B, ...) each; the tensors themselves where there is one process.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return tensors
    rows = torch.tensor([len(tensor) for tensor in tensors], device=tensors[0].device)
    all_rows = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(all_rows, rows)
    assert all(torch.equal(rows, other) for other in all_rows), f"ranks have unequal batches: {all_rows}"
    return tuple(_Gather.apply(tensor) for tensor in tensors)


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
