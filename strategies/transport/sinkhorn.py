"""Sinkhorn iterations for entropic optimal transport: batched, masked, stable at small epsilon."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.transport.problem import Transport, marginal_violation

CHECK_EVERY = 10
"""Iterations between two looks at the violation; pairs that have converged leave the batch there."""
CPU_CHUNK = 2**19
"""On a CPU, pairs are solved in groups of about this many cost entries, which fit its cache."""
LARGEST_OMEGA = 1.9
"""Over-relaxation goes up to here; it must stay below 2."""

# Scalings stay within CLAMP, and leave for the potentials beyond ABSORB. Kernel entries under DROP are set to zero,
# so that no denormal numbers slow the products: DROP * CLAMP**2 is far below float32's precision.
CLAMP, ABSORB, DROP, TINY = 1e8, 1e6, 1e-25, 1e-30


def solve(
    cost: Tensor, source: Tensor, target: Tensor, *, epsilon: float, iterations: int, tolerance: float
) -> Transport:
    """Minimise <P, C> - epsilon * H(P) over plans with the given marginals (Cuturi 2013, eq. 2).

    Alternates u = a / (K v), v = b / (K' u) on K = exp(-C / epsilon). What makes it stable: large scalings
    are absorbed into log-domain potentials (Schmitzer 2019). What makes it fast: converged pairs leave the
    batch, and each pair has its own over-relaxation omega = 2 / (1 + sqrt(1 - rate)) (Lehmann et al. 2022), with
    the rate of plain Sinkhorn estimated from the fall of the violation; where the violation grows, omega goes half
    of the way back to 1.

    `strategies.transport.solve` documents the arguments; the cost must be finite everywhere.
    """
    at_once = max(1, CPU_CHUNK // cost[0].numel()) if cost.device.type == "cpu" else len(cost)
    plan = torch.empty_like(cost)
    used = torch.empty(len(cost), dtype=torch.int64, device=cost.device)
    for start in range(0, len(cost), at_once):
        part = slice(start, start + at_once)
        active = _start(cost[part] / epsilon, source[part], target[part])
        _iterate(active, plan[part], used[part], iterations=iterations, tolerance=tolerance)
    violation = marginal_violation(plan, source, target)
    return Transport(plan, (plan * cost).sum((1, 2)), violation, used, violation <= tolerance)


@dataclass
class _Active:
    """The A pairs that have not converged. Their plans are diag(u) K diag(v), K = exp(f + g - cost / epsilon)."""

    index: Tensor  # (A,), their places in the batch
    cost: Tensor  # (A, S, T), divided by epsilon
    source: Tensor  # (A, 1, S)
    target: Tensor  # (A, 1, T)
    f: Tensor  # (A, S), log-domain potentials, -inf at padding
    g: Tensor  # (A, T)
    omega: Tensor  # (A, 1, 1)
    violation: Tensor  # (A,)
    kernel: Tensor  # (A, S, T)
    kernel_t: Tensor  # (A, T, S): a vector times a matrix is the fast product, on a CPU by far, so both are kept
    u: Tensor  # (A, 1, S)
    v: Tensor  # (A, 1, T)
    rows: Tensor  # (A, 1, S), K v

    def keep(self, position: Tensor) -> None:
        """Drop all pairs but those at these positions."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name).index_select(0, position))

    def plans(self, position: Tensor) -> Tensor:
        """The plans of the pairs at these positions."""
        return self.kernel.index_select(0, position).mul_(self.u[position].mT).mul_(self.v[position])

    def rebuild(self) -> None:
        """Compute the kernel from the potentials, and start the scalings at one."""
        kernel = self.f[:, :, None] - self.cost
        kernel += self.g[:, None, :]
        self.kernel = torch.threshold_(kernel.exp_(), DROP, 0.0)
        self.kernel_t = self.kernel.mT.contiguous()
        self.u = (self.source > 0).to(kernel)
        self.v = (self.target > 0).to(kernel)
        self.rows = torch.bmm(self.v, self.kernel_t)

    def absorb(self) -> None:
        """Move the scalings into the potentials."""
        self.f = self.f + self.u[:, 0].log()
        self.g = self.g + self.v[:, 0].log()
        self.rebuild()

    def step(self, steps: int, relaxed: bool) -> None:
        """Make some iterations, the last without over-relaxation, so that the target marginal holds after it."""
        for step in range(steps):
            omega = self.omega if relaxed and step < steps - 1 else None
            self.u = _scale(self.u, self.rows, self.source, omega)
            self.v = _scale(self.v, torch.bmm(self.u, self.kernel), self.target, omega)
            self.rows = torch.bmm(self.v, self.kernel_t)

    def measure(self, steps: int, adapt: bool) -> Tensor:
        """Update the violation and, from its fall, the over-relaxation; return the scalings' size |log|, (A,)."""
        before = self.violation
        self.violation = (self.u * self.rows - self.source).abs_().sum((1, 2))
        if adapt:
            rate = (self.violation / before).clamp_(min=1e-6).pow_(1 / steps)
            self.omega = _next_omega(self.omega[:, 0, 0], rate)[:, None, None]
        size_u = torch.where(self.source > 0, self.u, 1.0).log_().abs_().amax((1, 2))
        size_v = torch.where(self.target > 0, self.v, 1.0).log_().abs_().amax((1, 2))
        return torch.maximum(size_u, size_v)


def _start(cost: Tensor, source: Tensor, target: Tensor) -> _Active:
    """All pairs, with potentials that make the largest entry of every row and every column of the kernel 1."""
    padding = torch.zeros_like(target).masked_fill_(target == 0, math.inf)
    f = (cost + padding[:, None, :]).amin(2).masked_fill_(source == 0, -math.inf)
    g = (cost - f[:, :, None]).amin(1).masked_fill_(target == 0, -math.inf)
    batch, later = len(cost), cost.new_empty(0)
    active = _Active(
        index=torch.arange(batch, device=cost.device),
        cost=cost,
        source=source[:, None],
        target=target[:, None],
        f=f,
        g=g,
        omega=cost.new_ones(batch, 1, 1),
        violation=cost.new_full((batch,), math.inf),
        **dict.fromkeys(("kernel", "kernel_t", "u", "v", "rows"), later),
    )
    active.rebuild()
    return active


def _iterate(active: _Active, plan: Tensor, used: Tensor, *, iterations: int, tolerance: float) -> None:
    """Iterate until no pair is active, and write plans (B, S, T) and the iterations that each took (B,)."""
    done = 0
    while len(active.index):
        steps = min(CHECK_EVERY, iterations - done)
        # The first block is far from its asymptotic rate: the second gives the first estimate.
        active.step(steps, relaxed=done >= 2 * CHECK_EVERY)
        size = active.measure(steps, adapt=done >= CHECK_EVERY)
        done += steps
        # A scaling at its clamp breaks the target marginal: such a pair is absorbed and goes on.
        finished = (active.violation <= 0.99 * tolerance) & (size < math.log(ABSORB))
        finished |= done >= iterations
        # Copying costs as much as some iterations: drop pairs when there are some to drop.
        if 4 * int(finished.sum()) >= len(finished):
            index = active.index[finished]
            plan.index_copy_(0, index, active.plans(finished.nonzero()[:, 0]))
            used[index] = done
            active.keep((~finished).nonzero()[:, 0])
        if bool((size >= math.log(ABSORB)).any()):
            active.absorb()


def _scale(scaling: Tensor, product: Tensor, marginal: Tensor, omega: Tensor | None) -> Tensor:
    """One half-step: the scaling that gives the wanted marginal, or, over-relaxed, beyond it. Zero stays zero."""
    if omega is None:
        return (marginal / product.clamp(min=TINY)).clamp_(max=CLAMP)
    return (scaling * (marginal / (scaling * product).clamp_(min=TINY)).pow_(omega)).clamp_(max=CLAMP)


def _next_omega(omega: Tensor, rate: Tensor) -> Tensor:
    """The over-relaxation for a pair whose violation fell by this factor per iteration; (A,).

    Young's relation between the rates of an over-relaxed and of a plain iteration, (r + w - 1)^2 = r w^2 p, gives
    the plain rate p; the best omega follows from it. Omega only grows, except where the violation does.
    """
    plain = ((rate + omega - 1).square() / (rate * omega.square())).clamp_(max=1.0)
    best = (2 / (1 + (1 - plain).sqrt())).clamp_(max=LARGEST_OMEGA)
    best = torch.where(rate > omega - 1, torch.maximum(best, omega), omega)  # faster than omega allows: no estimate
    return torch.where(rate > 1, (1 + omega) / 2, best)
