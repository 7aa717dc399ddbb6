"""Greedy one-to-one alignment of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def greedy_alignment(cost: Tensor, source_mask: Tensor, target_mask: Tensor) -> Tensor:
    """Align tokens one to one: again and again the pair with the smallest cost, whose row and column then leave.

    Equals that sequential search, but takes in one round all pairs that are the smallest of both their row
    and their column, since no smaller pair can take them apart. Equal costs go to the lower index.

    Source: DR.DECR (Li et al. 2021, arXiv 2112.08185), section on cross-lingual token alignment.

    Args:
        cost: (B, S, T).
        source_mask: True at real tokens; (B, S).
        target_mask: likewise; (B, T).

    Returns:
        1 at aligned pairs, 0 elsewhere, so that each text has as many ones as the shorter side has real tokens;
        (B, S, T), of the cost's dtype.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[[0.1, 0.2], [0.3, 0.9], [0.5, 0.5]]])
        >>> greedy_alignment(cost, torch.ones(1, 3).bool(), torch.ones(1, 2).bool())
        tensor([[[1., 0.],
                 [0., 0.],
                 [0., 1.]]])
    """
    with torch.no_grad():
        free = source_mask[:, :, None] & target_mask[:, None, :]
        left = torch.where(free, cost, math.inf)
        plan = torch.zeros_like(cost)
        rows = torch.arange(cost.shape[1], device=cost.device)
        for _ in range(min(cost.shape[1:])):
            value, column = left.min(2)
            back = left.argmin(1).gather(1, column)  # the row that each row's choice would choose
            chosen = (back == rows) & value.isfinite()
            if not bool(chosen.any()):
                break
            plan.scatter_add_(2, column[:, :, None], chosen.to(plan)[:, :, None])
            left += torch.where(chosen, math.inf, 0.0)[:, :, None]
            left += torch.where(plan.sum(1) > 0, math.inf, 0.0)[:, None, :]
    return plan
