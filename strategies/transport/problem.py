"""What a transport solver is given and gives back, and the constants that the solvers share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

AIM = 0.4
"""Iterations end at this share of the tolerance, so that gradients are within half of it."""

FINE = 3e-5
"""Tolerances below this are beyond single precision, and left to Newton steps."""

LARGEST_OMEGA = 1.9
"""Over-relaxation goes up to here; it must stay below 2."""

CLAMP = 1e8
"""No scaling is larger than this."""

ABSORB = 1e6
"""Scalings move into the potentials when one of them, or its inverse, is beyond this."""

DROP = 1e-25
"""Smaller kernel entries are zero, so that no denormal numbers slow the products; times CLAMP^2 it is negligible."""

TINY, LEAST = 1e-30, 1e-37
"""Sums and denominators are at least this, so that no division is by zero."""

NEWTON_LIMIT = 512
"""Target tokens up to which Newton steps are made: their work grows with the cube."""

HALVINGS = 12
"""How often a Newton step that does not help is halved."""

ROUGH = 0.1
"""After a step shorter than this share of Newton's, half a Sinkhorn iteration comes before the next."""

LARGEST_STEP = 8.0
"""No potential changes by more than this, in units of epsilon, in one Newton step."""

TRITON_LIMIT = 128
"""Tokens on a side that one program of the triton solver can hold in its registers."""


@dataclass(frozen=True)
class Transport:
    """Transport plans of B problems, and how good they are.

    Args:
        plan: mass moved from each source token to each target token; exactly zero at padding; (B, S, T).
        value: transport cost <P, C>, without any entropy term; (B,).
        violation: L1 error of the plan's marginals, the larger of the two; for unbalanced plans that of the optimality
            condition, see `optimal_marginal`; for partial ones with the mass that is left over; (B,).
        iterations: iterations that were made; 0 where the solver does not count them; (B,), int64.
        converged: whether the solver's stopping criterion was met; (B,), bool.
        potentials: f (B, S) and g (B, T) of P = exp((f + g - C) / epsilon), in units of the cost, zero at padding;
            None from solvers that have none.
    """

    plan: Tensor
    value: Tensor
    violation: Tensor
    iterations: Tensor
    converged: Tensor
    potentials: tuple[Tensor, Tensor] | None = None


def check_problem(cost: Tensor, source: Tensor, target: Tensor) -> None:
    """Refuse shapes that do not belong together.

    Raises:
        ValueError: they are not (B, S, T), (B, S) and (B, T).
    """
    if cost.ndim != 3 or source.shape != cost.shape[:2] or target.shape != cost.shape[::2]:
        raise ValueError(
            f"cost, source and target are {tuple(cost.shape)}, {tuple(source.shape)} and {tuple(target.shape)}, "
            "expected (B, S, T), (B, S) and (B, T)"
        )


def check_marginals(source: Tensor, target: Tensor) -> None:
    """Refuse marginals (B, S) and (B, T) that are not distributions. On a GPU this waits for the device.

    Raises:
        ValueError: a negative or non-finite mass, or a row that does not sum to one.
    """
    for name, marginal in (("source", source), ("target", target)):
        # Written so that NaN fails too.
        if not bool((((marginal.sum(1) - 1).abs() < 1e-3) & (marginal >= 0).all(1)).all()):
            raise ValueError(f"a row of {name} is no distribution, expected masses of at least 0 that sum to one")


def without_padding(cost: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The cost with zeros wherever a token has no mass, so that nothing that stands there (NaN too) is read."""
    return torch.where((source > 0)[:, :, None] & (target > 0)[:, None, :], cost, 0.0)


def with_dummies(
    cost: Tensor, source: Tensor, target: Tensor, mass: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The balanced problem whose plans, without the last row and column, move this mass (Caffarelli & McCann 2010).

    A dummy token on each side takes, at no cost, the mass 1 - mass that stays where it is. Moving mass from dummy to
    dummy costs so much that no solver does it.

    Returns:
        cost (B, S + 1, T + 1), source (B, S + 1), target (B, T + 1); the masses sum to 2 - mass.
    """
    cost = pad(without_padding(cost, source, target), (0, 1, 0, 1))
    cost[:, -1, -1] = 100 * (cost.abs().amax((1, 2)) + epsilon)
    return cost, pad(source, (0, 1), value=1 - mass), pad(target, (0, 1), value=1 - mass)


def without_dummies(transport: Transport, cost: Tensor) -> Transport:
    """The plans without their last row and column; cost is that of the problem before the dummies came."""
    plan, potentials = transport.plan[:, :-1, :-1].contiguous(), transport.potentials
    return replace(
        transport,
        plan=plan,
        value=(plan * torch.where(plan > 0, cost, 0.0)).sum((1, 2)),
        potentials=potentials and (potentials[0][:, :-1], potentials[1][:, :-1]),
    )


def optimal_marginal(marginal: Tensor, potential: Tensor, epsilon: float, relaxation: float | None) -> Tensor:
    """The sums that the plan must have: the marginal itself, or, unbalanced, what its penalty makes of it.

    With KL penalties of weight rho the optimal plan has the row sums a * exp(-(f - epsilon log a) / rho)
    (Chizat et al. 2018, table 1), with epsilon KL(P, a b') as entropy; potentials are in units of the cost.
    """
    if relaxation is None:
        return marginal
    exponent = (epsilon * marginal.log() - potential) / relaxation
    return torch.where(marginal > 0, marginal * exponent.exp(), 0.0)


def marginal_violation(plan: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """The larger of the L1 errors of the plans' two marginals; (B,)."""
    rows = (plan.sum(2) - source).abs().sum(1)
    columns = (plan.sum(1) - target).abs().sum(1)
    return torch.maximum(rows, columns)


def transport_of(
    plan: Tensor,
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    potentials: tuple[Tensor, Tensor],
    iterations: Tensor,
    *,
    epsilon: float,
    tolerance: float,
    relaxation: float | None,
) -> Transport:
    """A `Transport` from plans and their potentials: value, violation and convergence are of the plans given."""
    f, g = (
        potential.masked_fill(marginal == 0, 0.0)
        for potential, marginal in zip(potentials, (source, target), strict=True)
    )
    exact = plan.double() if tolerance < 1e-4 and plan.device.type != "mps" else plan
    violation = marginal_violation(
        exact,
        optimal_marginal(source, f, epsilon, relaxation),
        optimal_marginal(target, g, epsilon, relaxation),
    )
    value = torch.linalg.vecdot(plan.flatten(1), cost.flatten(1))  # without a product as large as a plan
    return Transport(plan, value, violation.to(plan.dtype), iterations, violation <= tolerance, (f, g))
