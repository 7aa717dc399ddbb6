"""A batch solved in groups of pairs of about the same length, cut to it: less to compute, and it fits the cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strategies.transport.problem import Potentials, Transport, without_padding


def in_groups(
    solve: Callable[[Tensor, Tensor, Tensor, Potentials | None], Transport],
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    potentials: Potentials | None,
    *,
    entries: int,
) -> Transport:
    """Solve groups of pairs, the longest first, and put the results where the pairs were.

    Args:
        solve: solves one group, given its cost (a copy of its own, zero at padding), masses, and potentials to start
            from.
        cost: (B, S, T).
        source: (B, S).
        target: (B, T).
        potentials: of all pairs, or None.
        entries: a group has about so many cost entries, and at least one pair.

    Returns:
        The transport of all pairs.
    """
    ends = [_ends(marginal) for marginal in (source, target)]
    longest, order = torch.maximum(*ends).sort(descending=True, stable=True)
    out = Transport(
        plan=torch.zeros_like(cost),
        value=torch.empty_like(cost[:, 0, 0]),
        violation=torch.empty_like(cost[:, 0, 0]),
        iterations=torch.empty_like(ends[0]),
        converged=torch.empty_like(ends[0], dtype=torch.bool),
        potentials=(torch.zeros_like(source), torch.zeros_like(target)),
    )
    sides, start = longest.tolist(), 0
    while start < len(cost):
        count = max(1, entries // sides[start] ** 2)
        group = order[start : start + count]
        start += count
        s, t = (int(end[group].max()) for end in ends)
        given = None if potentials is None else (potentials[0][group, :s], potentials[1][group, :t])
        a, b = source[group, :s], target[group, :t]
        _put(solve(without_padding(cost[group, :s, :t], a, b), a, b, given), out, group)
    return out


def _ends(marginal: Tensor) -> Tensor:
    """The place after each row's last mass."""
    places = torch.arange(1, marginal.shape[1] + 1, device=marginal.device)
    return torch.where(marginal > 0, places, 1).amax(1)


def _put(part: Transport, out: Transport, group: Tensor) -> None:
    """Write a group's results to their places."""
    _, s, t = part.plan.shape
    out.plan[:, :s, :t].index_copy_(0, group, part.plan)
    for name in ("value", "violation", "iterations", "converged"):
        getattr(out, name).index_copy_(0, group, getattr(part, name))
    for mine, whole, length in zip(part.potentials or (), out.potentials or (), (s, t), strict=True):
        whole[:, :length].index_copy_(0, group, mine)
