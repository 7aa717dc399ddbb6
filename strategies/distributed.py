"""Gathering tensors from all ranks, with gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from strategies.base import Embeddings


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


def gather_tokens(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Padded tokens and masks of all ranks, where each rank may have padded to another length; see `gather`.

    Args:
        tokens: (B, T, D), the same B and D on all ranks.
        mask: True at real tokens; (B, T).

    Returns:
        (ranks * B, longest T, D), and (ranks * B, longest T).
    """
    if rank_and_world_size()[1] == 1:
        return tokens, mask
    all_tokens, all_masks = gather(pad_over_ranks(tokens, 1), pad_over_ranks(mask, 1).to(torch.uint8))
    return all_tokens, all_masks.bool()


def gather_embeddings(embeddings: Embeddings, tokens: bool = False) -> Embeddings:
    """The texts of all ranks, in the order of ranks, with gradient; see `gather`.

    Args:
        embeddings: one side of the pairs, with the same B on all ranks; the number of tokens may differ.
        tokens: whether to gather the token states as well.

    Returns:
        Pooled vectors (ranks * B, D); with ``tokens`` also tokens (ranks * B, T, D) and mask.

    Raises:
        ValueError: ``tokens`` without token states.
    """
    (pooled,) = gather(embeddings.pooled)
    if not tokens:
        return Embeddings(pooled)
    states, mask = gather_tokens(*embeddings.require_tokens())
    return Embeddings(pooled, states, mask)


def pad_over_ranks(tensor: Tensor, dimension: int) -> Tensor:
    """The tensor with zeros at the end of a dimension, so that it has the largest size of all ranks.

    All ranks must call it together.
    """
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return tensor
    size = torch.tensor(tensor.shape[dimension], device=tensor.device)
    dist.all_reduce(size, dist.ReduceOp.MAX)
    lacking = list(tensor.shape)
    lacking[dimension] = int(size) - tensor.shape[dimension]
    return torch.cat([tensor, tensor.new_zeros(lacking)], dimension) if lacking[dimension] else tensor


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
