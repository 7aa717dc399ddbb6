"""Optimal transport between batches of token sets: one function, several solvers.

All solvers see the same problem: for each of B pairs, move the mass of S source tokens onto T target tokens at
the least cost. They differ in what "least" means, and in how fast they are:

- ``fused``: entropic transport, soft plans, the larger epsilon the softer; a native loop over pairs, on the CPU.
- ``torch``: the same, batched, on any device.
- ``reference``: the same by plain iterations in the log domain and in float64; slow.
- ``triton``: the same by one program a pair on a GPU, in float32, for up to 128 tokens on a side.
- ``ipot``: proximal point iterations towards the unregularised plan; batched, slower than ``torch``.
- ``exact``: the linear program, one pair after the other, on the CPU; sparse plans.

``auto`` is the fastest entropic one for the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.functional import at_least_float32, without_autocast
from strategies.transport.problem import (
    FINE,
    NEWTON_LIMIT,
    TRITON_LIMIT,
    Options,
    Transport,
    check_marginals,
    check_problem,
    marginal_violation,
    with_dummies,
    without_dummies,
)

__all__ = ["SOLVERS", "Solver", "Transport", "marginal_violation", "solve"]

Solver = Literal["auto", "fused", "torch", "reference", "triton", "exact", "ipot"]

SOLVERS: dict[str, str] = {
    "fused": "strategies.transport.cpu_solver",
    "torch": "strategies.transport.torch_solver",
    "reference": "strategies.transport.reference",
    "triton": "strategies.transport.gpu_solver",
    "exact": "strategies.transport.exact",
    "ipot": "strategies.transport.ipot",
}
"""The module of each solver, imported when it is used; its ``solve`` takes what `solve` gives it."""

ENTROPIC = ("fused", "reference", "torch", "triton")
"""Solvers with potentials, which therefore do unbalanced plans."""

NATIVE = ("fused", "triton")
"""Solvers that check and normalise masses themselves, and that autocast does not affect."""


def solve(
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    solver: Solver = "auto",
    epsilon: float = 0.05,
    iterations: int = 1000,
    tolerance: float = 1e-3,
    relaxation: float | None = None,
    mass: float | None = None,
) -> Transport:
    """Solve B transport problems.

    Works in float32 (float64 if the cost is), also under autocast, and without gradient: a loss differentiates
    <P, C> with the plan held fixed. Warns when a problem did not converge; never raises for it.

    Args:
        cost: cost of moving a unit of mass; what stands at padding is not read; (B, S, T).
        source: mass of each source token; exact zeros at padding; rows sum to one; (B, S).
        target: mass of each target token, likewise; (B, T).
        solver: ``auto``, ``fused``, ``torch``, ``reference``, ``triton``, ``exact`` or ``ipot``.
        epsilon: strength of the entropy, or step size of a proximal step (``ipot``), in the units of the cost;
            ``exact`` has no use for it.
        iterations: the most iterations that a solver makes; ``exact`` has no use for it.
        tolerance: stop once both marginals are as near as this, in L1 (and for ``ipot`` also the duality gap).
            ``fused`` aims at a third of it, ``torch`` at two fifths. Float32 reaches about 1e-5; give a float64 cost
            for less.
        relaxation: None, or rho of unbalanced transport, in units of the cost: instead of meeting the marginals the
            plan pays rho KL(P 1, source) + rho KL(P' 1, target), in addition to epsilon KL(P, source target').
        mass: None, or the share of the mass that partial transport moves, 0 < mass <= 1: no token gives or takes more
            than it has. The entropy covers also the mass that each token keeps.

    Returns:
        The plans, and how good they are.

    Raises:
        ValueError: an option out of range, one that the solver does not know, shapes that do not fit, or marginals
            that are not distributions.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 9.0]]])  # the third target token is padding
        >>> half = torch.tensor([[0.5, 0.5]])
        >>> transport = solve(cost, half, torch.tensor([[0.5, 0.5, 0.0]]), solver="exact")
        >>> transport.plan
        tensor([[[0.5000, 0.0000, 0.0000],
                 [0.0000, 0.5000, 0.0000]]])
    """
    check_problem(cost, source, target)
    options = Options(epsilon, iterations, tolerance, relaxation)
    name = _chosen(solver, cost, options, mass)
    run: Callable[..., Transport] = import_module(SOLVERS[name]).solve
    if name in NATIVE and mass in (None, 1):  # these do in one loop what is done below
        transport = run(at_least_float32(cost), source, target, options, normalise=True)
    else:
        check_marginals(source, target)
        with torch.no_grad(), without_autocast(cost):
            cost = at_least_float32(cost)
            # Rows that sum to one as nearly as the number format allows: otherwise no plan could meet both marginals.
            source, target = (
                marginal / marginal.sum(1, keepdim=True) for marginal in (source.to(cost.dtype), target.to(cost.dtype))
            )
            if mass is None or mass == 1:
                transport = run(cost, source, target, options)
            else:
                transport = run(*with_dummies(cost, source, target, mass, epsilon), options)
                transport = without_dummies(transport, cost)
    if not bool(transport.converged.all()):
        # No figures of this batch: Python shows an equal warning once, not at every step.
        warnings.warn(
            f"{name} did not converge for some pairs (epsilon {epsilon:g}, {iterations} iterations, tolerance "
            f"{tolerance:g}): the plans are approximate; allow more iterations, or a larger epsilon or tolerance",
            stacklevel=2,
        )
    return transport


def _chosen(solver: str, cost: Tensor, options: Options, mass: float | None) -> str:
    """The solver for ``auto``, after a look at the options."""
    check_choice("solver", solver, ("auto", *SOLVERS))
    for option, value in options._asdict().items():
        if value is not None:
            check_number(option, value, above=0)
    if mass is not None:
        check_number("mass", mass, above=0, most=1)
        if options.relaxation is not None:
            raise ValueError("relaxation and mass are both given, expected one: unbalanced or partial transport")
    chosen = _fastest(cost, options.tolerance) if solver == "auto" else solver
    if options.relaxation is not None and chosen not in ENTROPIC:
        raise ValueError(f"solver is {chosen!r}, which has no relaxation, expected one of auto, {', '.join(ENTROPIC)}")
    return chosen


def _fastest(cost: Tensor, tolerance: float) -> str:
    """The fastest solver for this device, size and tolerance."""
    _, length, width = cost.shape
    if cost.device.type == "cpu":
        # Numba is a dependency, but not every platform has it. The native loop needs float64 matrices for tolerances
        # beyond single precision, by pair and on one thread.
        return "fused" if _has("numba") and (width <= NEWTON_LIMIT or tolerance >= FINE) else "torch"
    # Below the tolerance of single precision Newton steps are needed, which the torch solver has.
    native = cost.is_cuda and _has("triton") and max(length, width) <= TRITON_LIMIT
    return "triton" if native and tolerance >= FINE and cost.dtype != torch.float64 else "torch"


@cache
def _has(package: str) -> bool:
    return find_spec(package) is not None
