"""What a transport solver is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Transport:
    """Transport plans of B problems, and how good they are.

    Args:
        plan: mass moved from each source token to each target token; exactly zero at padding; (B, S, T).
        value: transport cost <P, C>, without any entropy term; (B,).
        violation: the larger of the L1 distances between the plan's two marginals and the wanted ones; (B,).
        iterations: iterations that were made; 0 where the solver does not count them; (B,), int64.
        converged: whether the solver's stopping criterion was met; (B,), bool.
    """

    plan: Tensor
    value: Tensor
    violation: Tensor
    iterations: Tensor
    converged: Tensor


def check_problem(cost: Tensor, source: Tensor, target: Tensor) -> None:
    """Refuse shapes that do not belong together, and marginals that are not distributions.

    Args:
        cost: (B, S, T).
        source: (B, S).
        target: (B, T).

    Raises:
        ValueError: wrong shapes, a negative or non-finite mass, or a row that does not sum to one.
    """
    if cost.ndim != 3 or source.shape != cost.shape[:2] or target.shape != cost.shape[::2]:
        raise ValueError(
            "cost, source and target must be (B, S, T), (B, S) and (B, T), "
            f"not {tuple(cost.shape)}, {tuple(source.shape)} and {tuple(target.shape)}"
        )
    for name, marginal in (("source", source), ("target", target)):
        # Written so that NaN fails too.
        if not bool((((marginal.sum(1) - 1).abs() < 1e-3) & (marginal >= 0).all(1)).all()):
            raise ValueError(f"each row of {name} must be masses >= 0 that sum to one")


def marginal_violation(plan: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The larger of the two marginals' L1 errors, for each problem.

    Args:
        plan: (B, S, T).
        source: (B, S).
        target: (B, T).

    Returns:
        (B,).
    """
    rows = (plan.sum(2) - source).abs().sum(1)
    columns = (plan.sum(1) - target).abs().sum(1)
    return torch.maximum(rows, columns)
