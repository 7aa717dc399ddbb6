"""The loss <P, C> from token states, with an analytic gradient: nothing of the solver is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from strategies.base import Embeddings
from strategies.functional import SHORTEST, at_least_float32, check_widths, without_autocast
from strategies.transport.problem import Transport

Gradient = Literal["envelope", "implicit"]

_LARGE = 1e9
"""Padding is set to zero where a vector is longer than this, or not finite; products with anything less are finite."""


def transport_loss(
    teacher: Embeddings, student: Embeddings, solver: Callable[[Tensor], Transport], *, epsilon: float | None = None
) -> tuple[Tensor, Transport]:
    """The transport cost <P, C> of each pair, C = 1 - cosine, with a gradient for the token states of both sides.

    Forward keeps the token states, one weight for each entry of the cost (dL/dC, which is the plan itself under the
    envelope), and one or two numbers a token; backward goes from there through cost and normalisation in closed form.

    The solver gives the plans for a cost (B, S, T), which is 1 at padding. Without epsilon P is held fixed (the
    envelope: the gradient of the optimal value, entropy included). With it the gradient is that of <P(C), C> itself,
    for balanced plans with this much entropy; see `implicit_weights`. The two are different objectives. Returns the
    costs (B,), and the plans.
    """
    check_widths(student, teacher)
    with torch.no_grad(), without_autocast(student.pooled):
        x, y = unit_side(*teacher.require_tokens()), unit_side(*student.require_tokens())
        cost = x.cost(y)
        transport = solver(cost)
        weights = transport.plan if epsilon is None else implicit_weights(transport.plan, cost, epsilon)
        products = cost.mul_(weights)  # in its place: it is as large as a plan
        totals = [weights.sum(axis) - products.sum(axis) for axis in (2, 1)]
    loss: Tensor = _Weighted.apply(
        x.tokens, y.tokens, x.scale, y.scale, *totals, weights, x.padding, y.padding, transport.value
    )
    return loss, transport


def implicit_weights(plan: Tensor, cost: Tensor, epsilon: float) -> Tensor:
    """d<P(C), C>/dC (B, S, T) of balanced entropic plans, through the optimality conditions.

    With P = exp((f + g - C) / epsilon) and fixed marginals, the derivative is P * (1 + l + m - C / epsilon), where
    l (of rows) and m (of columns) solve [diag(P 1), P; P', diag(P' 1)] [l; m] = [(P * C) 1; (P * C)' 1] / epsilon
    (Luise et al. 2018, arXiv 1805.11897, theorem 3). The rows are eliminated; the system of the columns is
    T x T, scaled to I - A'A, without its null space, and solved by Cholesky in float64.
    """
    exact = torch.float32 if cost.device.type == "mps" else torch.float64  # MPS has no float64
    p, c = plan.to(exact), cost.to(exact) / epsilon
    rows, columns = p.sum(2), p.sum(1)
    # 1 / sqrt(mass), zero where there is none: this scales the system so that its diagonal is about one.
    r, q = (torch.where(mass > 0, mass, torch.inf).rsqrt() for mass in (rows, columns))
    scaled = p * r[:, :, None] * q[:, None, :]
    of_rows, of_columns = (p * c).sum(2) * r, (p * c).sum(1) * q
    null = columns.sqrt()  # a constant moved from l to m changes nothing
    identity = torch.eye(p.shape[2], dtype=exact, device=p.device)
    system = identity * (1 + 1e-12) - scaled.mT @ scaled + null[:, :, None] * null[:, None, :]
    right = of_columns[:, :, None] - scaled.mT @ of_rows[:, :, None]
    m = torch.cholesky_solve(right, torch.linalg.cholesky_ex(system)[0])[:, :, 0]
    multiplier = of_rows - (scaled @ m[:, :, None])[:, :, 0]
    return (p * (1 + (multiplier * r)[:, :, None] + (m * q)[:, None, :] - c)).to(cost)


class UnitSide(NamedTuple):
    """The token states of one side, whose unit vectors are vectors() times scale, not made unless asked for."""

    tokens: Tensor  # (..., T, D), any precision
    scale: Tensor  # (..., T), 1 / norm, zero at padding
    padding: Tensor | None  # (..., T), where states must be set to zero

    def vectors(self) -> Tensor:
        """The states in float32, finite at padding."""
        states = at_least_float32(self.tokens)
        return states if self.padding is None else states.masked_fill(self.padding[..., None], 0.0)

    def unit(self) -> Tensor:
        """The unit vectors, zero at padding."""
        return self.vectors() * self.scale[..., None]

    def cost(self, other: UnitSide) -> Tensor:
        """1 - cosine of each token of this side with each of the other; (B, S, T), 1 at padding."""
        products = self.vectors() @ other.vectors().mT
        return products.mul_(-self.scale[:, :, None]).mul_(other.scale[:, None, :]).add_(1.0)

    def by_states(self, gradient: Tensor, factor: Tensor) -> Tensor:
        """The gradient by the states (..., T, D), from that by their unit vectors, times a number."""
        states = self.vectors()
        along = torch.einsum("...d,...d->...", gradient, states) * self.scale.square()
        # A vector shorter than SHORTEST is divided by that, a constant.
        along = along.masked_fill_(self.scale >= 1 / SHORTEST, 0.0)
        scale = (self.scale * factor)[..., None]
        return (gradient * scale).addcmul_(states, along[..., None] * scale, value=-1).to(self.tokens.dtype)


def unit_side(tokens: Tensor, mask: Tensor) -> UnitSide:
    """States (..., T, D), True at real ones (..., T), and one number for each that makes it a unit vector."""
    exact = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    norm = torch.linalg.vector_norm(tokens, dim=-1, dtype=exact)
    scale = torch.where(mask, norm.clamp(min=SHORTEST).reciprocal(), 0.0)
    # Off the CPU a look at the values would have to wait for them; a copy is cheaper.
    finite = tokens.device.type == "cpu" and bool((norm < _LARGE).all())
    return UnitSide(tokens, scale, None if finite else ~mask)


class _Weighted(torch.autograd.Function):
    """A value whose derivative by the cost is given, differentiated by the token states of both sides.

    With unit vectors u of the one side and v = s y of the other (s = 1 / norm), the cosine has the derivative
    s (u - (u v) v) by y. So the gradient of sum W (1 - cosine) by y_t is s_t (v_t sum_s W_st cos_st - sum_s W_st u_s):
    one matrix product, and the sums that forward has made.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        """Keep the states, scales, sums of W cos, W, and padding; return the value."""
        *kept, value = arguments
        ctx.save_for_backward(*kept)
        return value.clone()  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the sides that need one."""
        x_tokens, y_tokens, x_scale, y_scale, x_total, y_total, weights, x_padding, y_padding = ctx.saved_tensors
        x, y = UnitSide(x_tokens, x_scale, x_padding), UnitSide(y_tokens, y_scale, y_padding)
        with without_autocast(gradient):
            gradient = gradient.to(weights)[:, None]
            by_x = _by_tokens(x, y, weights, x_total, gradient) if ctx.needs_input_grad[0] else None
            by_y = _by_tokens(y, x, weights.mT, y_total, gradient) if ctx.needs_input_grad[1] else None
        return by_x, by_y, *[None] * 8


def _by_tokens(own: UnitSide, other: UnitSide, weights: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by one side's token states (B, T, D), from weights (B, T, S), their sums with cosines (B, T)."""
    scaled = weights * (own.scale * -gradient)[:, :, None]
    scaled *= other.scale[:, None, :]
    # A vector shorter than SHORTEST is divided by that, a constant.
    along = (own.scale.square() * total * gradient).masked_fill(own.scale >= 1 / SHORTEST, 0.0)
    return (scaled @ other.vectors()).addcmul_(own.vectors(), along[:, :, None]).to(own.tokens.dtype)
