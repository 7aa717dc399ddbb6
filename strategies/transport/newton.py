"""Damped Newton steps on the dual problems of a batch, in float64: the tail of the torch solver."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.transport.problem import HALVINGS, LARGEST_STEP, ROUGH


@dataclass
class _Dual:
    """What belongs to potentials g of the target, for A pairs; all in units of epsilon."""

    cost: Tensor  # (A, S, T)
    source: Tensor  # (A, S)
    target: Tensor  # (A, T)
    g: Tensor  # (A, T), -inf at padding
    f: Tensor  # (A, S), the best for these g, -inf at padding
    plan: Tensor  # (A, S, T)
    column: Tensor  # (A, T), sums of the plan
    expected: Tensor  # (A, T), what they should be
    value: Tensor  # (A,), the dual objective up to a constant

    @property
    def violation(self) -> Tensor:
        """L1 error of the columns; the rows are right; (A,)."""
        return (self.expected - self.column).abs().sum(1)

    def keep(self, position: Tensor) -> _Dual:
        """The pairs at these positions."""
        return _Dual(*(getattr(self, field.name).index_select(0, position) for field in dataclasses.fields(self)))


def _dual(cost: Tensor, source: Tensor, target: Tensor, g: Tensor, weight: float) -> _Dual:
    """The best f for these g, and the plans of both."""
    f = source.log() - (g[:, None, :] - cost).logsumexp(2) / (1 + weight)
    plan = (f[:, :, None] + g[:, None, :] - cost).exp_()
    expected, value = target, -plan.sum((1, 2))
    if weight > 0:
        expected = target * torch.where(target > 0, (target.log() - g) * weight, 0.0).exp()
        penalty = source * torch.where(source > 0, (source.log() - f) * weight, 0.0).exp()
        value = value - (expected.sum(1) + penalty.sum(1)) / weight
    else:
        for marginal, potential in ((source, f), (target, g)):
            value = value + (marginal * potential.masked_fill(marginal == 0, 0.0)).sum(1)
    return _Dual(cost, source, target, g, f, plan, plan.sum(1), expected, value)


def _direction(dual: _Dual, weight: float) -> tuple[Tensor, Tensor]:
    """The Newton direction for g, and the dual's slope along it; (A, T) and (A,)."""
    rows = dual.plan.sum(2) * (1 + weight)
    r, q = (torch.where(mass > 0, mass, math.inf).rsqrt() for mass in (rows, dual.column))
    scaled = dual.plan * r[:, :, None] * q[:, None, :]
    ridge = 0.1 * dual.violation.clamp(max=1.0)[:, None]
    diagonal = 1 + ridge + weight * dual.expected * q.square()
    matrix = torch.diag_embed(diagonal) - scaled.mT @ scaled
    if weight == 0:  # without penalty, a constant moved from f to g changes nothing
        null = dual.column.sqrt() / dual.column.sum(1, keepdim=True).sqrt()
        matrix += null[:, :, None] * null[:, None, :]
    error = (dual.expected - dual.column) * q
    solution = torch.cholesky_solve(error[:, :, None], torch.linalg.cholesky_ex(matrix)[0])[:, :, 0]
    return solution.nan_to_num(0.0) * q, (error * solution).sum(1)


def _step(dual: _Dual, weight: float) -> tuple[_Dual, Tensor]:
    """A step that raises the dual or lowers the violation, and its length as a share of Newton's; (A,)."""
    direction, slope = _direction(dual, weight)
    length = (LARGEST_STEP / direction.abs().amax(1).clamp(min=1e-30)).clamp(max=1.0)
    for _ in range(HALVINGS):
        new = _dual(dual.cost, dual.source, dual.target, dual.g + length[:, None] * direction, weight)
        good = new.violation <= (1 - 0.1 * length) * dual.violation
        good |= new.value - dual.value >= 1e-4 * length * slope
        if bool(good.all()):
            break
        length = torch.where(good, length, length / 2)
    return new, length


def newton(
    cost: Tensor, source: Tensor, target: Tensor, g: Tensor, *, weight: float, steps: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Improve potentials g (A, T) until the plans' columns meet the tolerance, or the steps are used up.

    See `strategies.transport.cpu_newton`, which does the same for one pair. All is in float64 and in units of epsilon,
    potentials are -inf at padding, and the weight is epsilon / rho, 0 for balanced plans. Returns the plans (A, S, T),
    f (A, S), g (A, T), and the steps made (A,).
    """
    if weight == 0:  # masses rounded to single precision do not sum to the same
        target = target * (source.sum(1) / target.sum(1))[:, None]
    dual = _dual(cost, source, target, g, weight)
    plan, f_out, g_out = torch.empty_like(cost), torch.empty_like(source), torch.empty_like(target)
    used = torch.zeros(len(cost), dtype=torch.int64, device=cost.device)
    index, length = torch.arange(len(cost), device=cost.device), cost.new_zeros(len(cost))
    for step in range(steps + 1):
        done = dual.violation <= tolerance
        if step == steps:
            done = torch.ones_like(done)
        if bool(done.any()):
            at, left = done.nonzero()[:, 0], (~done).nonzero()[:, 0]
            plan[index[at]], f_out[index[at]], g_out[index[at]] = dual.plan[at], dual.f[at], dual.g[at]
            used[index[at]] = step
            dual, index, length = dual.keep(left), index[left], length[left]
        if not len(index):
            break
        rough = length < ROUGH
        if bool(rough.any()):  # half a Sinkhorn iteration, which also gives columns without any mass theirs
            best = dual.target.log() - (dual.f[:, :, None] - dual.cost).logsumexp(1) / (1 + weight)
            dual = _dual(dual.cost, dual.source, dual.target, torch.where(rough[:, None], best, dual.g), weight)
        dual, length = _step(dual, weight)
    return plan, f_out, g_out, used
