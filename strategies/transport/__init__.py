"""Optimal transport between batches of token sets: one function, several solvers.

All solvers see the same problem: for each of B pairs, move the mass of S source tokens onto T target tokens at
the least cost. They differ in what "least" means:

- ``sinkhorn``: entropic transport, the default. Soft plans, the larger epsilon the softer; batched.
- ``ipot``: proximal point iterations towards the unregularised plan; batched, slower than ``sinkhorn``.
- ``exact``: the linear program, one pair after the other, on the CPU. Sparse plans; the reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from strategies.options import at_least_float32, check_choice, check_number, without_autocast
from strategies.transport import exact, ipot, sinkhorn
from strategies.transport.problem import Transport, check_problem, marginal_violation

__all__ = ["SOLVERS", "Solver", "Transport", "marginal_violation", "solve"]

Solver = Literal["sinkhorn", "exact", "ipot"]

SOLVERS: dict[str, Callable[..., Transport]] = {
    "sinkhorn": sinkhorn.solve,
    "exact": exact.solve,
    "ipot": ipot.solve,
}


def solve(
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    solver: Solver = "sinkhorn",
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float = 1e-3,
) -> Transport:
    """Solve B transport problems.

    Works in float32 (float64 if the cost is), also under autocast, and without gradient: a loss differentiates
    <P, C> with the plan held fixed. Warns when a problem did not converge; never raises for it.

    Args:
        cost: cost of moving a unit of mass; what stands at padding is not read; (B, S, T).
        source: mass of each source token; exact zeros at padding; rows sum to one; (B, S).
        target: mass of each target token, likewise; (B, T).
        solver: ``sinkhorn``, ``exact`` or ``ipot``.
        epsilon: strength of the entropy (``sinkhorn``) or step size of a proximal step (``ipot``), in the
            units of the cost; ``exact`` has no use for it.
        iterations: the most iterations that ``sinkhorn`` and ``ipot`` make.
        tolerance: stop once both marginals are as near as this, in L1 (and for ``ipot`` also the duality gap).
            Float32 reaches about 1e-5; give a float64 cost for less.

    Returns:
        The plans, and how good they are.

    Raises:
        ValueError: an option out of range, shapes that do not fit, or marginals that are not distributions.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 9.0]]])  # the third target token is padding
        >>> half = torch.tensor([[0.5, 0.5]])
        >>> transport = solve(cost, half, torch.tensor([[0.5, 0.5, 0.0]]), solver="exact")
        >>> transport.plan
        tensor([[[0.5000, 0.0000, 0.0000],
                 [0.0000, 0.5000, 0.0000]]])
    """
    check_choice("solver", solver, SOLVERS)
    check_number("epsilon", epsilon)
    check_number("iterations", iterations)
    check_number("tolerance", tolerance)
    check_problem(cost, source, target)
    with torch.no_grad(), without_autocast(cost):
        cost = at_least_float32(cost)
        source, target = (_normalise(marginal.to(cost.dtype)) for marginal in (source, target))
        cost = torch.where((source > 0)[:, :, None], torch.where((target > 0)[:, None, :], cost, 0.0), 0.0)
        transport = SOLVERS[solver](cost, source, target, epsilon=epsilon, iterations=iterations, tolerance=tolerance)
    if not bool(transport.converged.all()):
        # No figures of this batch: Python shows an equal warning once, not at every step.
        warnings.warn(
            f"{solver} did not converge for some pairs (epsilon {epsilon:g}, {iterations} iterations, tolerance "
            f"{tolerance:g}): the plans are approximate; allow more iterations, or a larger epsilon or tolerance",
            stacklevel=2,
        )
    return transport


def _normalise(marginal: Tensor) -> Tensor:
    """Rows that sum to one as nearly as the number format allows; otherwise no plan could meet both marginals."""
    return marginal / marginal.sum(1, keepdim=True)
