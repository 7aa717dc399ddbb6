"""What a transport solver is given and gives back, and the constants that the solvers share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

AIM = 0.4  # iterations end at this share of the tolerance, so that gradients are within half of it
FINE = 3e-5  # tolerances below this are beyond single precision, and left to Newton steps
LARGEST_OMEGA = 1.9  # over-relaxation goes up to here; it must stay below 2
CLAMP = 1e8  # no scaling is larger than this
ABSORB = 1e6  # scalings move into the potentials when one of them, or its inverse, is beyond this
# Smaller kernel entries are zero, so that no denormal numbers slow the products; times CLAMP^2 it is negligible.
DROP = 1e-25
TINY, LEAST = 1e-30, 1e-37  # sums and denominators are at least this, so that no division is by zero
NEWTON_LIMIT = 512  # target tokens up to which Newton steps are made: their work grows with the cube
HALVINGS = 12  # how often a Newton step that does not help is halved
ROUGH = 0.1  # after a step shorter than this share of Newton's, half a Sinkhorn iteration comes before the next
LARGEST_STEP = 8.0  # no potential changes by more than this, in units of epsilon, in one Newton step
TRITON_LIMIT = 128  # tokens on a side that one program of the triton solver can hold in its registers


class Options(NamedTuple):
    """What a solver is told in addition to its problem: the arguments of `strategies.transport.solve`."""

    epsilon: float
    iterations: int
    tolerance: float
    relaxation: float | None = None

    @property
    def weight(self) -> float:
        """What KL penalties weigh, epsilon / rho; 0 for balanced plans."""
        return 0.0 if self.relaxation is None else self.epsilon / self.relaxation

    @property
    def share(self) -> float:
        """The power of an unbalanced half-step, rho / (rho + epsilon); 1 for balanced plans."""
        return 1.0 if self.relaxation is None else self.relaxation / (self.relaxation + self.epsilon)


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

    def in_format_of(self, cost: Tensor) -> Transport:
        """The same in the number format of the cost."""
        potentials = self.potentials and (self.potentials[0].to(cost), self.potentials[1].to(cost))
        numbers = {name: getattr(self, name).to(cost) for name in ("plan", "value", "violation")}
        return replace(self, potentials=potentials, **numbers)


def check_problem(cost: Tensor, source: Tensor, target: Tensor) -> None:
    """Refuse, with a ValueError, shapes that do not belong together."""
    if cost.ndim != 3 or source.shape != cost.shape[:2] or target.shape != cost.shape[::2]:
        raise ValueError(
            f"cost, source and target are {tuple(cost.shape)}, {tuple(source.shape)} and {tuple(target.shape)}, "
            "expected (B, S, T), (B, S) and (B, T)"
        )


def check_marginals(source: Tensor, target: Tensor) -> None:
    """Refuse, with a ValueError, marginals that are not distributions. On a GPU this waits for the device."""
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

    A dummy token on each side takes, at no cost, the mass 1 - mass that stays where it is, so the masses sum to
    2 - mass. Moving mass from dummy to dummy costs so much that no solver does it.
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
    options: Options,
) -> Transport:
    """A `Transport` from plans and their potentials: value, violation and convergence are of the plans given."""
    f, g = (
        potential.masked_fill(marginal == 0, 0.0)
        for potential, marginal in zip(potentials, (source, target), strict=True)
    )
    exact = plan.double() if options.tolerance < 1e-4 and plan.device.type != "mps" else plan
    sums = (
        optimal_marginal(marginal, potential, options.epsilon, options.relaxation)
        for marginal, potential in ((source, f), (target, g))
    )
    violation = marginal_violation(exact, *sums)
    value = torch.linalg.vecdot(plan.flatten(1), cost.flatten(1))  # without a product as large as a plan
    return Transport(plan, value, violation.to(plan.dtype), iterations, violation <= options.tolerance, (f, g))
