"""Token-level optimal transport distillation (OPTICAL)."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.base import DistillationStrategy, Embeddings
from strategies.functional import Marginals, pooled_cost, token_marginals, without_autocast
from strategies.transport import Solver, Transport, solve
from strategies.transport.loss import Gradient, transport_loss


class OptimalTransport(DistillationStrategy):
    """Pulls each student token to the teacher tokens that optimal transport aligns it with.

    The loss of a pair is <P, C> = sum_st P_st C_st, with C_st = 1 - cosine(teacher token s, student token t) and P the
    transport plan for C whose marginals are the tokens' masses; mean over the batch. The gradient is analytic, so
    that memory does not grow with iterations.
    ``pooled_weight`` adds the squared distance of the pooled vectors, summed over dimensions.

    Against noise, two options move less mass. ``mass`` m is partial transport: of each pair the cheapest share m of
    the mass moves, so that words without a counterpart stay out. ``marginal_relaxation`` rho is unbalanced transport
    (Chizat et al. 2018): P minimises <P, C> + rho KL(P 1, a) + rho KL(P' 1, b), so mass moves where that costs less
    than the divergences take for leaving it: at equal costs c, about exp(-c / (2 rho)) of it. A pair that is put
    together wrongly moves little, and so has a small gradient. In both cases <P, C> is the cost of the mass that moves,
    not divided by it, or a pair would count the same however little it moves. The unbalanced loss includes the two
    divergences: so it does not fall as mass is left behind, and is about 2 rho for the worst of pairs. The gradient
    at the envelope is P as before. A pair's pooled term is multiplied by its moved mass.

    Source: OPTICAL (Huang et al. 2023, arXiv 2301.12566), for the token loss alone (``pooled_weight=0``), which there
    distils a late-interaction teacher that is scored by MaxSim over tokens.

    Relations: ``MSE`` with ``level: token`` differs in the plan alone, greedy one-to-one for soft many-to-many; ``MSE``
    pooled is this with the pooled term alone. Prefer transport where the two languages cut words into
    different numbers of tokens, and where tokens are what is searched; with pooled search keep the pooled term.

    Args:
        marginals: mass of a token: ``uniform``, ``norm`` (norm of its vector), or ``idf``
            (inverse document frequency of its piece).
        solver: ``auto`` (soft plans, by the fastest solver for the device), another of `strategies.transport`, such as
            ``exact`` (linear program, on the CPU), or ``ipot`` (proximal point).
        epsilon: softness of a plan, or step size of ``ipot`` (which wants about 0.5), in units of the
            cost, which is 0 to 2.
        iterations: the most iterations of the solver.
        tolerance: largest L1 error of the plan's marginals; 1e-2 gives the gradient to about half a percent.
        pooled_weight: weight of the pooled term; 0 leaves it out.
        marginal_relaxation: rho, in units of the cost; None holds the marginals. Choose it near the cost that
            parts right from wrong pairs, 0.1 to 0.5. Not with ``mass``.
        mass: share of the mass that moves, 0 < mass <= 1; None or 1 moves all.
        gradient: two objectives of the same value. ``envelope`` holds P fixed, which gives the gradient of the optimal
            entropic value <P, C> - epsilon * H(P) (envelope theorem). ``implicit`` gives the derivative of <P(C), C> as
            the plan follows the cost, through the optimality conditions; for soft plans alone, and dearer.

    Inputs: student and teacher with tokens and masks, in the same width; ``weights`` on both sides for ``idf``.

    Shape:
        - student.tokens (B, T, D), teacher.tokens (B, S, D), pooled (B, D)
        - ``ot``, ``pooled``: scalars; ``info/ot_violation`` the largest marginal error, ``info/ot_converged`` the share
          of pairs that met the tolerance; with ``marginal_relaxation`` or ``mass`` also ``info/ot_mass``, the mean
          mass that moved

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import torch
        >>> pooled, tokens = torch.eye(2), torch.eye(2).expand(2, 2, 2)
        >>> mask = torch.ones(2, 2, dtype=torch.bool)
        >>> teacher = Embeddings(pooled, tokens, mask)
        >>> student = Embeddings(pooled, tokens.flip(1), mask)  # the same tokens in another order
        >>> terms = OptimalTransport(epsilon=0.01)(student, teacher)
        >>> {name: round(term.item(), 3) for name, term in terms.items()}
        {'ot': 0.0, 'pooled': 0.0, 'info/ot_violation': 0.0, 'info/ot_converged': 1.0}
    """

    needs_tokens = True

    def __init__(
        self,
        *,
        marginals: Marginals = "uniform",
        solver: Solver = "auto",
        epsilon: float = 0.05,
        iterations: int = 1000,
        tolerance: float = 1e-2,
        pooled_weight: float = 1.0,
        gradient: Gradient = "envelope",
        marginal_relaxation: float | None = None,
        mass: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("marginals", marginals, get_args(Marginals))
        check_choice("solver", solver, get_args(Solver))
        check_number("epsilon", epsilon, above=0)
        check_number("iterations", iterations, above=0)
        check_number("tolerance", tolerance, above=0)
        check_number("pooled_weight", pooled_weight, least=0)
        check_choice("gradient", gradient, get_args(Gradient))
        if gradient == "implicit" and solver in ("exact", "ipot"):
            raise ValueError(f"gradient implicit is the derivative of a soft plan: solver {solver} gives another kind")
        _check_relaxed(marginal_relaxation, mass, solver, gradient)
        self.marginals: Marginals = marginals
        self.solver: Solver = solver
        self.epsilon = epsilon
        self.iterations = iterations
        self.tolerance = tolerance
        self.pooled_weight = pooled_weight
        self.gradient: Gradient = gradient
        self.marginal_relaxation = marginal_relaxation
        self.mass = None if mass == 1 else mass
        self.needs_weights = marginals == "idf"
        self.sees_pooled = pooled_weight > 0

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The transport cost, and the pooled term if it has a weight."""
        with without_autocast(student.pooled):
            marginals = token_marginals(teacher, self.marginals), token_marginals(student, self.marginals)
            costs, transport = transport_loss(
                teacher,
                student,
                lambda cost: self._solve(cost, *marginals),
                epsilon=self.epsilon if self.gradient == "implicit" else None,
            )
            if self.marginal_relaxation is not None:
                costs = costs + self.marginal_relaxation * _divergence(transport.plan, *marginals)
            terms = {"ot": costs.mean()}
            moved = transport.plan.sum((1, 2)) if self.marginal_relaxation or self.mass else None
            if self.pooled_weight > 0:
                terms["pooled"] = self.pooled_weight * pooled_cost(teacher, student, moved)
        terms["info/ot_violation"] = transport.violation.max()
        terms["info/ot_converged"] = transport.converged.float().mean()
        if moved is not None:
            terms["info/ot_mass"] = moved.mean()
        return terms

    def _solve(self, cost: Tensor, source: Tensor, target: Tensor) -> Transport:
        return solve(
            cost,
            source,
            target,
            solver=self.solver,
            epsilon=self.epsilon,
            iterations=self.iterations,
            tolerance=self.tolerance,
            relaxation=self.marginal_relaxation,
            mass=self.mass,
        )


def _check_relaxed(relaxation: float | None, mass: float | None, solver: str, gradient: str) -> None:
    if relaxation is None and mass is None:
        return
    if relaxation is not None and mass is not None:
        raise ValueError("give marginal_relaxation (unbalanced) or mass (partial transport), not both")
    if relaxation is not None:
        check_number("marginal_relaxation", relaxation, above=0)
        if solver in ("exact", "ipot"):
            raise ValueError(f"solver {solver} has no marginal_relaxation: use auto, torch, or mass in its place")
    elif mass is not None:
        check_number("mass", mass, above=0, most=1)
    if gradient == "implicit":
        raise ValueError("gradient implicit is for balanced plans: leave out marginal_relaxation and mass")


def _divergence(plan: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """KL(P 1, source) + KL(P' 1, target), KL(p, a) = sum p log(p / a) - p + a also where the masses differ; (B,)."""
    total = torch.zeros_like(plan[:, 0, 0])
    for sums, marginal in ((plan.sum(2), source), (plan.sum(1), target)):
        expected = marginal.to(plan)
        total += (torch.xlogy(sums, sums) - torch.xlogy(sums, expected) - sums + expected).sum(1)
    return total
