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
from typing import Any, Literal

import torch
from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.functional import at_least_float32, without_autocast
from strategies.transport.cpu_solver import FINE, NEWTON_LIMIT
from strategies.transport.problem import (
    LONGEST,
    Potentials,
    Transport,
    check_marginals,
    check_problem,
    marginal_violation,
    potentials_of_dummies,
    with_dummies,
    without_dummies,
)

__all__ = ["SOLVERS", "Potentials", "Solver", "Transport", "marginal_violation", "solve"]

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

ENTROPIC = {"fused", "torch", "reference", "triton"}
"""Solvers with potentials, which therefore do unbalanced plans and warm starts."""
NATIVE = {"fused", "triton"}
"""Solvers that check and normalise masses themselves, and care for no autocast."""
SYNC_FREE = {"torch", "triton"}
"""Solvers with a mode of fixed iterations."""


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
    potentials: Potentials | None = None,
    fixed_iterations: int | None = None,
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
            plan pays rho KL(P 1, source) + rho KL(P' 1, target), beside epsilon KL(P, source target').
        mass: None, or the share of the mass that partial transport moves, 0 < mass <= 1: no token gives or takes more
            than it has. The entropy covers also the mass that each token keeps.
        potentials: those of a similar problem, to start from; only the target's are read.
        fixed_iterations: None, or the number of iterations to make without ever waiting for the device, as CUDA
            graphs need it. Nothing is checked and nothing warns then: look at ``converged``.

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
    options = {"epsilon": epsilon, "iterations": iterations, "tolerance": tolerance}
    name = _chosen(solver, cost, options, relaxation, mass, potentials, fixed_iterations)
    more = {"relaxation": relaxation, "potentials": potentials, "fixed_iterations": fixed_iterations}
    given = {option: value for option, value in more.items() if value is not None}
    run: Callable[..., Transport] = import_module(SOLVERS[name]).solve
    moved = 1.0 if mass is None else mass
    if name in NATIVE and moved == 1:  # these do in one loop what is done below
        transport = run(at_least_float32(cost), source, target, **options, **given, normalise=True)
    else:
        if fixed_iterations is None:
            check_marginals(source, target)
        with torch.no_grad(), without_autocast(cost):
            cost = at_least_float32(cost)
            source, target = (_normalise(marginal.to(cost.dtype)) for marginal in (source, target))
            problem = cost, source, target
            if moved < 1:
                problem = with_dummies(*problem, moved, epsilon)
                if potentials is not None:
                    given["potentials"] = potentials_of_dummies(*problem[1:], potentials, epsilon)
            transport = run(*problem, **options, **given)
            if moved < 1:
                transport = without_dummies(transport, cost)
    if fixed_iterations is None and not bool(transport.converged.all()):
        # No figures of this batch: Python shows an equal warning once, not at every step.
        warnings.warn(
            f"{name} did not converge for some pairs (epsilon {epsilon:g}, {iterations} iterations, tolerance "
            f"{tolerance:g}): the plans are approximate; allow more iterations, or a larger epsilon or tolerance",
            stacklevel=2,
        )
    return transport


def _chosen(
    solver: str,
    cost: Tensor,
    options: dict[str, float],
    relaxation: float | None,
    mass: float | None,
    potentials: Potentials | None,
    fixed_iterations: int | None,
) -> str:
    """The solver for ``auto``, after a look at the options."""
    check_choice("solver", solver, ("auto", *SOLVERS))
    for option, value in {**options, "relaxation": relaxation, "fixed_iterations": fixed_iterations}.items():
        if value is not None:
            check_number(option, value, above=0)
    if mass is not None:
        check_number("mass", mass, above=0, most=1)
    if mass is not None and relaxation is not None:
        raise ValueError("give relaxation (unbalanced) or mass (partial transport), not both")
    chosen = solver
    if solver == "auto":
        chosen = _fastest(cost, tolerance=options["tolerance"], fixed=fixed_iterations is not None)
    asked: list[tuple[str, Any, set[str]]] = [
        ("relaxation", relaxation, ENTROPIC),
        ("potentials", potentials, ENTROPIC),
        ("fixed_iterations", fixed_iterations, SYNC_FREE),
    ]
    for option, value, able in asked:
        if value is not None and chosen not in able:
            raise ValueError(f"solver {chosen!r} has no {option}: use one of auto, {', '.join(sorted(able))}")
    return chosen


def _fastest(cost: Tensor, *, tolerance: float, fixed: bool) -> str:
    """The fastest solver for this device, size and mode."""
    _, length, width = cost.shape
    if cost.device.type == "cpu":
        # Numba is a dependency, but not every platform has it. The native loop needs float64 matrices for tolerances
        # beyond single precision, by pair and on one thread.
        native = not fixed and _has("numba") and (width <= NEWTON_LIMIT or tolerance >= FINE)
        return "fused" if native else "torch"
    # Under the tolerance of single precision Newton steps are needed, which the torch solver has.
    native = cost.is_cuda and _has("triton") and max(length, width) <= LONGEST
    return "triton" if native and tolerance >= FINE and cost.dtype != torch.float64 else "torch"


@cache
def _has(package: str) -> bool:
    return find_spec(package) is not None


def _normalise(marginal: Tensor) -> Tensor:
    """Rows that sum to one as nearly as the number format allows; otherwise no plan could meet both marginals."""
    return marginal / marginal.sum(1, keepdim=True)
