"""Transport plans as the soft targets of a contrastive loss over tokens."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foundations.checks import check_choice, check_number
from strategies.base import Embeddings
from strategies.distributed import gather, gather_tokens, own_rows, same_source
from strategies.functional import (
    MEMORY_MB,
    Marginals,
    at_least_float32,
    check_widths,
    greedy_alignment,
    pooled_cost,
    token_marginals,
    without_autocast,
)
from strategies.ot import OptimalTransport
from strategies.transport import Solver
from strategies.transport.loss import UnitSide, unit_side

Plan = Literal["transport", "attention", "greedy", "uniform"]

TINY = 1e-37
"""Sums of exponentials are at least this: no negative is left of a pair alone in its batch."""

LARGEST = 80.0
"""Exponents are at most this, within the range of float32."""


class OTContrastive(OptimalTransport):
    """Pulls each student token to the teacher tokens that transport aligns it with, and away from all others.

    With teacher tokens x and student tokens y as unit vectors, P the plan of ``OptimalTransport`` between the tokens
    of a pair, held fixed, and n_k the negatives, the loss of a pair is

        sum_st P_st * -log( exp(x_s . y_t / tau) / (sum_s' exp(x_s' . y_t / tau) + sum_k exp(n_k . y_t / tau)) )

    mean over the batch: InfoNCE for each student token, among the tokens of its own source and the negatives, with
    the plan as its soft targets. ``pooled_weight`` adds the squared distance of the pooled vectors. ``<P, C>`` rewards
    also what all tokens share; this rewards what tells a token from others.

    The negatives are drawn without replacement from the teacher tokens of the batches of all ranks, the same on every
    rank and others in each step, by torch's generator of the first rank, which a run seeds by its seed and the step.
    Tokens of the own pair, and of pairs with the same id, are none. If the teacher is trained too (siamese), they
    have their gradient, also across ranks: with gradients averaged over ranks the result equals one process on the
    full batch.

    The gradient is made in closed form in the forward pass, in blocks of student tokens, so that nothing is kept of the
    logits but their gradient by the states. Equal ``types`` of student tokens meet the negatives once.

    Source: InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; plans as soft targets of a contrastive loss
    over a batch, OTTER, Wu et al. 2022 (arXiv 2112.09445); here over tokens.

    Relations: ``OptimalTransport`` with negatives. ``Contrastive`` with ``score: maxsim`` compares texts by their best
    tokens; this compares tokens, with targets for each. The cosine of a token does not see its length, here as in
    ``OptimalTransport``: with pooled search keep the pooled term.

    Args:
        plan: the targets: ``transport``, or, to compare with it, ``attention``, transport without the masses of
            the source tokens, a softmax of cosine / epsilon over them; ``greedy``, the alignment of ``MSE`` with
            ``level: token``; ``uniform``, the product of the marginals.
        temperature: divides the cosines.
        negatives: the most tokens that are drawn.
        pooled_weight: weight of the pooled term; 0 leaves it out.
        epsilon: softness of the plan, as in ``OptimalTransport``, and so are those that follow.
        marginals: mass of a token.
        solver: of the plan.
        iterations: the most iterations of the solver.
        tolerance: largest L1 error of the plan's marginals.
        marginal_relaxation: rho of unbalanced transport. The loss has no divergences: the plan is its target.
        mass: share of the mass that moves.

    Inputs: student and teacher with tokens and masks, in the same width; ``weights`` on both sides for ``idf``; ``ids``
    of either side where sources repeat (the student's are used if both have them); ``types`` of the student.

    Shape:
        - student.tokens (B, T, D), teacher.tokens (B, S, D), pooled (B, D), the same B on all ranks
        - ``ot_contrastive``, ``pooled``: scalars; ``info/ot_cost`` the mean of <P, C>, ``info/ot_entropy`` that of the
          plan's entropy in nats; ``info/ot_violation``, ``info/ot_converged``, ``info/ot_mass`` as ``OptimalTransport``

    Raises:
        ValueError: an option out of range, or one of transport alone with another plan.

    Example:
        >>> import torch
        >>> pooled, tokens, mask = torch.eye(2), torch.eye(4).view(2, 2, 4), torch.ones(2, 2, dtype=torch.bool)
        >>> sides = Embeddings(pooled, tokens, mask), Embeddings(pooled, tokens, mask)
        >>> terms = OTContrastive(temperature=1.0, epsilon=0.01)(*sides)
        >>> {name: round(term.item(), 3) for name, term in terms.items()}  # log(1 + 3 / e): one own, two negatives
        {'ot_contrastive': 0.744, 'pooled': 0.0, 'info/ot_violation': 0.0, 'info/ot_converged': 1.0, \
'info/ot_cost': 0.0, 'info/ot_entropy': 0.693}
    """

    def __init__(
        self,
        *,
        plan: Plan = "transport",
        temperature: float = 0.05,
        negatives: int = 512,
        pooled_weight: float = 4.0,
        epsilon: float = 0.05,
        marginals: Marginals = "uniform",
        solver: Solver = "auto",
        iterations: int = 1000,
        tolerance: float = 1e-2,
        marginal_relaxation: float | None = None,
        mass: float | None = None,
    ) -> None:
        super().__init__(
            marginals=marginals,
            solver=solver,
            epsilon=epsilon,
            iterations=iterations,
            tolerance=tolerance,
            pooled_weight=pooled_weight,
            marginal_relaxation=marginal_relaxation,
            mass=mass,
        )
        check_choice("plan", plan, get_args(Plan))
        check_number("temperature", temperature, above=0)
        check_number("negatives", negatives, least=1)
        if plan != "transport" and (marginal_relaxation or self.mass):
            raise ValueError(f"marginal_relaxation and mass are of transport: leave them out with plan {plan}")
        self.plan: Plan = plan
        self.temperature, self.negatives = temperature, negatives
        self.memory_mb: float = MEMORY_MB

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The contrastive term, and the pooled term if it has a weight."""
        check_widths(student, teacher)
        with without_autocast(student.pooled):
            drawn, allowed = draw_negatives(student, teacher, self.negatives)
            with torch.no_grad():
                x, y = unit_side(*teacher.require_tokens()), unit_side(*student.require_tokens())
                negatives = unit_side(drawn, torch.ones_like(drawn[:, 0], dtype=torch.bool))
                cost = x.cost(y)
                plan, info = self._planned(cost, student, teacher)
                value, gradients = self._differentiated(x, y, negatives, allowed, rows_of(student), cost, plan)
            sides = chain.from_iterable((*side, by) for side, by in zip((x, y, negatives), gradients, strict=True))
            terms = {"ot_contrastive": _Given.apply(value, *sides)}
            moved = plan.sum((1, 2)) if self.marginal_relaxation or self.mass else None
            if self.pooled_weight > 0:
                terms["pooled"] = self.pooled_weight * pooled_cost(teacher, student, moved)
        if moved is not None:
            info["info/ot_mass"] = moved.mean()
        return terms | info

    def _planned(self, cost: Tensor, student: Embeddings, teacher: Embeddings) -> tuple[Tensor, dict[str, Tensor]]:
        """The targets (B, S, T), and what to log of them."""
        source, target = (token_marginals(side, self.marginals).to(cost) for side in (teacher, student))
        info = {}
        if self.plan == "transport":
            transport = self._solve(cost, source, target)
            plan = transport.plan
            info["info/ot_violation"] = transport.violation.max()
            info["info/ot_converged"] = transport.converged.float().mean()
        elif self.plan == "attention":
            logits = (cost / -self.epsilon).masked_fill_(~teacher.require_tokens()[1][:, :, None], -math.inf)
            plan = logits.softmax(1) * target[:, None, :]
        elif self.plan == "greedy":
            plan = greedy_alignment(cost, teacher.require_tokens()[1], student.require_tokens()[1])
            plan /= plan.sum((1, 2), keepdim=True)
        else:
            plan = source[:, :, None] * target[:, None, :]
        info["info/ot_cost"] = (plan * cost).sum() / len(plan)
        info["info/ot_entropy"] = (plan.clamp(min=TINY).log_() * plan).sum() / -len(plan)
        return plan, info

    def _differentiated(
        self, x: UnitSide, y: UnitSide, negatives: UnitSide, allowed: Tensor, rows: Rows, cost: Tensor, plan: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor, Tensor | None]]:
        """The loss, and its gradients by the unit vectors of teacher, student and negatives; cost is overwritten.

        With the logits l = (cosine - 1) / tau, z the denominator, and r_t = sum_s P_st, the loss of a pair is
        sum_t r_t log z_t + <P, C> / tau, and its derivative by l_st is r_t exp(l_st) / z_t - P_st.
        """
        trains_teacher = x.tokens.requires_grad
        value, share = (plan * cost).sum() / self.temperature, plan.sum(1)
        weights = cost.div_(-self.temperature).masked_fill_(x.scale[:, :, None] == 0, -math.inf)
        peak = weights.amax(1)
        sums = weights.sub_(peak[:, None]).exp_().sum(1)
        own = (sums.log_() + peak).flatten()[rows.token]
        log_z, by_types, by_negatives = self._against(
            y, negatives, allowed, rows, own, share.flatten()[rows.token], trains_teacher
        )
        denominators = torch.zeros_like(peak).flatten().index_copy_(0, rows.token, log_z).view_as(peak)
        value += (share * denominators).sum()
        weights.mul_(share.mul_(peak.sub_(denominators).exp_())[:, None]).sub_(plan)
        scale = 1 / (self.temperature * len(plan))
        by_x = (weights * (y.scale * scale)[:, None, :]) @ y.vectors() if trains_teacher else None
        by_y = weights.mul_((x.scale * scale)[:, :, None]).mT @ x.vectors()
        by_y.flatten(0, 1).index_add_(0, rows.first, by_types, alpha=scale)
        return value / len(plan), (by_x, by_y, by_negatives.mul_(scale) if trains_teacher else None)

    def _against(
        self, y: UnitSide, negatives: UnitSide, allowed: Tensor, rows: Rows, own: Tensor, share: Tensor, both: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The student tokens against the K negatives, in blocks of types.

        Args:
            y: the student's tokens.
            negatives: of the teacher; (K, D).
            allowed: 1 where a pair has a negative, else 0; (B, K).
            rows: the N real tokens, of U types.
            own: log sum exp of each over its own source; (N,).
            share: weight of each in the loss; (N,).
            both: whether the negatives need a gradient too.

        Returns:
            The logarithm of each token's denominator (N,), and temperature times the gradient of sum share * that,
            through the negatives, by the unit vectors of the types (U, D) and of the negatives (K, D).
        """
        states, scale, others = y.vectors().flatten(0, 1), y.scale.flatten(), negatives.unit()
        size = max(1, int(self.memory_mb * 2**20) // (own.element_size() * sum(allowed.shape)))
        log_z, by_types, by_negatives = torch.empty_like(own), [], torch.zeros_like(others)
        for start in range(0, len(rows.first), size):
            token = rows.first[start : start + size]
            unit = states[token] * scale[token, None]
            weights = (unit @ others.mT).sub_(1.0).div_(self.temperature)
            peak = weights.amax(1)
            sums = weights.sub_(peak[:, None]).exp_() @ allowed.mT
            ends = torch.tensor([start, start + len(token)], device=token.device)
            block = slice(*torch.searchsorted(rows.type, ends).tolist())
            place = rows.type[block] - start, rows.pair[block]
            tops = peak[place[0]]
            log_z[block] = torch.logaddexp(own[block], tops + sums[place].clamp_(min=TINY).log_())
            # The exponent is above 0 only where the nearest negative is not allowed, and no token of its own source.
            factors = share[block] * (tops - log_z[block]).clamp_(max=LARGEST).exp_()
            weights *= sums.zero_().index_put_(place, factors, accumulate=True) @ allowed
            by_types.append(weights @ others)
            if both:
                by_negatives.addmm_(weights.mT, unit)
        return log_z, torch.cat(by_types), by_negatives


class Rows(NamedTuple):
    """The N real tokens of the student by their U types; all are positions."""

    token: Tensor  # (N,), in B * T
    pair: Tensor  # (N,), in B
    type: Tensor  # (N,), in U, not falling
    first: Tensor  # (U,), the first token of each type, in B * T


def rows_of(student: Embeddings) -> Rows:
    """The real tokens of the student's texts."""
    mask = student.require_tokens()[1]
    token = mask.flatten().nonzero()[:, 0]
    if student.types is None:
        return Rows(token, token // mask.shape[1], torch.arange(len(token), device=token.device), token)
    types, order = student.types.flatten()[token].sort(stable=True)
    token = token[order]
    _, number, counts = torch.unique_consecutive(types, return_inverse=True, return_counts=True)
    return Rows(token, token // mask.shape[1], number, token[counts.cumsum(0) - counts])


def draw_negatives(student: Embeddings, teacher: Embeddings, most: int) -> tuple[Tensor, Tensor]:
    """Tokens of the teacher's texts of all ranks, the same on each rank, with gradient.

    Returns:
        K <= most states (K, D), and 1 where they are negatives of a pair of this rank, 0 where they are of it or of a
        pair with its id; (B, K).
    """
    tokens, mask = gather_tokens(*teacher.require_tokens())
    pair, place = mask.nonzero(as_tuple=True)
    if most < len(pair):
        drawn = gather(torch.randperm(len(pair), device=pair.device)[:most])[0][:most]  # those of the first rank
        pair, place = pair[drawn], place[drawn]
    states, same = tokens[pair, place], same_source(student, teacher)
    own = own_rows(student.pooled)[:, None] == pair
    allowed = ~own if same is None else ~(own | same[:, pair])
    return states, allowed.to(at_least_float32(states[:0]))


class _Given(torch.autograd.Function):
    """A value whose gradients by unit vectors are given."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *sides: Any) -> Tensor:
        """Keep what a `UnitSide` has, and the gradient by its unit vectors, for each side; return the value."""
        ctx.save_for_backward(*sides)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by the states of the sides that have one."""
        results: list[Tensor | None] = [None]
        for start in range(0, len(ctx.saved_tensors), 4):
            *side, by_unit = ctx.saved_tensors[start : start + 4]
            by_states = None if by_unit is None else UnitSide(*side).by_states(by_unit, gradient)
            results += [by_states, None, None, None]
        return tuple(results)
