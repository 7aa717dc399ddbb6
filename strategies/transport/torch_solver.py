"""Sinkhorn iterations for entropic optimal transport: batched, masked, stable at small epsilon."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from strategies.transport.newton import newton
from strategies.transport.problem import (
    ABSORB,
    AIM,
    CLAMP,
    DROP,
    FINE,
    LARGEST_OMEGA,
    LEAST,
    NEWTON_LIMIT,
    TINY,
    Options,
    Transport,
    transport_of,
    without_padding,
)

CHECK_EVERY = 8
"""Iterations between two looks at the violation; converged pairs leave there."""

CPU_GROUP = 5 * 2**16
"""On a CPU, pairs are solved in groups of about this many cost entries, whose kernels fit its cache."""


def solve(cost: Tensor, source: Tensor, target: Tensor, options: Options) -> Transport:
    """Minimise <P, C> - epsilon * H(P) over plans with the given marginals (Cuturi 2013, eq. 2).

    Alternates u = a / (K v), v = b / (K' u) on K = exp(-C / epsilon). What makes it stable: large scalings
    are absorbed into log-domain potentials (Schmitzer 2019). What makes it fast: converged pairs leave the
    batch, and each pair has its own over-relaxation omega = 2 / (1 + sqrt(1 - rate)) (Lehmann et al. 2022), with
    the rate of plain Sinkhorn estimated from the fall of the violation; where the violation grows, omega goes half
    of the way back to 1. Pairs that are left after some iterations are finished by Newton steps.

    `strategies.transport.solve` documents the arguments.
    """

    def solve_group(clean: Tensor, a: Tensor, b: Tensor) -> Transport:
        scaled = clean.div_(options.epsilon)
        active = _start(scaled, a, b, options.weight)
        out = _Output(
            torch.empty_like(scaled), torch.empty_like(a), torch.empty_like(b), torch.empty_like(active.index)
        )
        _iterate(active, out, options.iterations, options.tolerance)
        del active
        potentials = out.f * options.epsilon, out.g * options.epsilon
        transport = transport_of(out.plan, scaled, a, b, potentials, out.used, options)
        return replace(transport, value=transport.value * options.epsilon)

    if cost.device.type == "cpu":
        return in_groups(solve_group, cost, source, target, entries=CPU_GROUP)
    return solve_group(without_padding(cost, source, target), source, target)


@dataclass
class _Output:
    """Results of all B pairs, written as they finish; potentials in units of epsilon."""

    plan: Tensor  # (B, S, T)
    f: Tensor  # (B, S)
    g: Tensor  # (B, T)
    used: Tensor  # (B,)

    def refine(self, active: _Active, done: int, steps: int, tolerance: float) -> None:
        """Make Newton steps on all active pairs, and take over what comes of them."""
        a, b = (marginal[:, 0].double() for marginal in (active.source, active.target))
        g = active.g.double() + active.v[:, 0].log()
        plan, f, g, used = newton(
            active.cost.double(), a, b, g, weight=active.weight, steps=steps, tolerance=0.5 * tolerance
        )
        self.plan.index_copy_(0, active.index, plan.to(self.plan))
        self.f.index_copy_(0, active.index, f.to(self.f))
        self.g.index_copy_(0, active.index, g.to(self.g))
        self.used[active.index] = done + used

    def write(self, active: _Active, position: Tensor, iterations: int) -> None:
        """Take over the pairs at these positions among the active ones."""
        index = active.index[position]
        self.plan.index_copy_(0, index, active.plans(position))
        self.f.index_copy_(0, index, active.f[position] + active.u[position, 0].log())
        self.g.index_copy_(0, index, active.g[position] + active.v[position, 0].log())
        self.used.index_fill_(0, index, iterations)  # a plain assignment would copy the number from the host


@dataclass
class _Active:
    """The A pairs that have not converged. Their plans are diag(u) K diag(v), K = exp(f + g - cost / epsilon)."""

    index: Tensor  # (A,), their positions in the batch
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
    pull_u: Tensor  # (A, 1, S), what the KL penalty does to the scalings; 1 for balanced plans
    pull_v: Tensor  # (A, 1, T)
    weight: float  # epsilon / rho; 0 for balanced plans

    def keep(self, position: Tensor) -> None:
        """Drop all pairs but those at these positions."""
        for field in dataclasses.fields(self):
            if field.name == "weight":
                continue
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
        self.pull_u, self.pull_v = self._pull(self.source, self.f), self._pull(self.target, self.g)

    def _pull(self, marginal: Tensor, potential: Tensor) -> Tensor:
        """(marginal / exp(potential)) ** (1 - s), with s = rho / (rho + epsilon)."""
        if self.weight == 0:
            return torch.ones_like(marginal)
        power = (marginal.log() - potential[:, None]) * (self.weight / (1 + self.weight))
        return torch.where(marginal > 0, power, 0.0).exp_()

    def absorb(self) -> None:
        """Move the scalings into the potentials."""
        self.f = self.f + self.u[:, 0].log()
        self.g = self.g + self.v[:, 0].log()
        self.rebuild()

    def step(self, steps: int, relaxed: bool) -> None:
        """Make some iterations, the last without over-relaxation, so that the target marginal holds after it."""
        plain = _Rates.of(self.source, self.target, torch.ones_like(self.omega))
        rates = _Rates.of(self.source, self.target, self.omega) if relaxed else plain
        for step in range(steps):
            now = rates if step < steps - 1 else plain
            self.u = self._scale(self.u, self.rows, self.source, self.pull_u, now, now.source)
            self.v = self._scale(self.v, torch.bmm(self.u, self.kernel), self.target, self.pull_v, now, now.target)
            self.rows = torch.bmm(self.v, self.kernel_t)

    def measure(self, steps: int, adapt: bool) -> Tensor:
        """Update the violation and, from its fall, the over-relaxation; return the scalings' size |log|, (A,)."""
        before, expected = self.violation, self.source
        if self.weight > 0:
            expected = expected * (expected.log() - self.f[:, None] - self.u.log()).mul_(self.weight).exp_()
            expected = torch.where(self.source > 0, expected, 0.0)
        self.violation = (self.u * self.rows - expected).abs_().sum((1, 2))
        if adapt:
            rate = (self.violation / before).clamp_(min=1e-6).pow_(1 / steps)
            self.omega = _next_omega(self.omega[:, 0, 0], rate)[:, None, None]
        size_u = torch.where(self.source > 0, self.u, 1.0).log_().abs_().amax((1, 2))
        size_v = torch.where(self.target > 0, self.v, 1.0).log_().abs_().amax((1, 2))
        return torch.maximum(size_u, size_v)

    def _scale(
        self, old: Tensor, sums: Tensor, marginal: Tensor, pull: Tensor, rates: _Rates, relaxed: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Half an iteration: p = marginal / sums, or, over-relaxed, p (p / old)^(omega - 1). Zero stays zero.

        The power is its first Pade approximant. Few operations matter: on a GPU, and for short texts on a CPU too, the
        time is that of starting them.
        """
        if self.weight > 0:
            plain = (marginal / sums.clamp(min=TINY)).pow_(1 / (1 + self.weight)).mul_(pull).clamp_(max=CLAMP)
            above = torch.addcmul(plain * rates.omega, old, rates.short).mul_(plain)
            below = torch.addcmul(plain * rates.short, old, rates.omega).clamp_(min=LEAST)
        else:  # the same, numerator and denominator times the sums
            more, rest = relaxed
            got = old * sums
            above = torch.addcmul(more, got, rates.short).mul_(marginal)
            below = torch.addcmul(rest, got, rates.omega).mul_(sums).clamp_(min=LEAST)
        return above.div_(below).clamp_(max=CLAMP)


class _Rates(NamedTuple):
    """Over-relaxation, and what follows from it, for some iterations."""

    omega: Tensor  # (A, 1, 1)
    short: Tensor  # (A, 1, 1), 2 - omega
    source: tuple[Tensor, Tensor]  # (A, 1, S), the marginal times both
    target: tuple[Tensor, Tensor]  # (A, 1, T)

    @classmethod
    def of(cls, source: Tensor, target: Tensor, omega: Tensor) -> _Rates:
        short = 2 - omega
        return cls(omega, short, (source * omega, source * short), (target * omega, target * short))


def _start(cost: Tensor, source: Tensor, target: Tensor, weight: float) -> _Active:
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
        weight=weight,
        **dict.fromkeys(("kernel", "kernel_t", "u", "v", "rows", "pull_u", "pull_v"), later),
    )
    active.rebuild()
    return active


def _iterate(active: _Active, out: _Output, iterations: int, tolerance: float) -> None:
    """Iterate until no pair is active, and write what came of each."""
    done = 0
    newton_from = _newton_from(active, tolerance)
    # What single precision says of finer tolerances means nothing: Newton steps then finish all pairs.
    beyond = tolerance < FINE and active.cost.dtype == torch.float32 and newton_from < math.inf
    while len(active.index):
        if newton_from <= done < iterations:
            out.refine(active, done, iterations - done, tolerance)
            return
        steps = min(CHECK_EVERY, iterations - done)
        # The first block is far from its asymptotic rate: the second gives the first estimate.
        active.step(steps, relaxed=done >= 2 * CHECK_EVERY)
        size = active.measure(steps, adapt=done >= CHECK_EVERY)
        done += steps
        # A scaling at its clamp breaks the target marginal: such a pair is absorbed and goes on.
        finished = (active.violation <= (-1 if beyond else AIM * tolerance)) & (size < math.log(ABSORB))
        finished |= done >= iterations
        if beyond and bool((active.violation <= FINE / 3).all()):
            newton_from = done
        # Copying costs as much as some iterations: drop pairs when there are some to drop.
        if 4 * int(finished.sum()) >= len(finished):
            out.write(active, finished.nonzero()[:, 0], done)
            active.keep((~finished).nonzero()[:, 0])
        if bool((size >= math.log(ABSORB)).any()):
            active.absorb()


def _newton_from(active: _Active, tolerance: float) -> float:
    """The number of iterations after which Newton steps take over."""
    if active.cost.shape[2] > NEWTON_LIMIT or active.cost.device.type == "mps":  # MPS has no float64
        return math.inf
    if tolerance < FINE:
        return 3 * CHECK_EVERY
    return 20 * CHECK_EVERY if active.cost.shape[2] <= NEWTON_LIMIT // 4 else math.inf


def _next_omega(omega: Tensor, rate: Tensor) -> Tensor:
    """The over-relaxation for a pair whose violation fell by this factor per iteration; (A,).

    Young's relation between the rates of an over-relaxed and of a plain iteration, (r + w - 1)^2 = r w^2 p, gives
    the plain rate p; the best omega follows from it. Omega only grows, except where the violation does.
    """
    plain = ((rate + omega - 1).square() / (rate * omega.square())).clamp_(max=1.0)
    best = (2 / (1 + (1 - plain).sqrt())).clamp_(max=LARGEST_OMEGA)
    best = torch.where(rate > omega - 1, torch.maximum(best, omega), omega)  # faster than omega allows: no estimate
    return torch.where(rate > 1, (1 + omega) / 2, best)


def in_groups(
    solve: Callable[[Tensor, Tensor, Tensor], Transport], cost: Tensor, source: Tensor, target: Tensor, *, entries: int
) -> Transport:
    """Solve groups of pairs, the longest first, and put the results where the pairs were.

    A group has about this many cost entries, and at least one pair; its cost is a copy, cropped and zero at padding.
    """
    ends = [_ends(marginal) for marginal in (source, target)]
    longest, order = torch.maximum(*ends).sort(descending=True, stable=True)
    out = Transport(
        plan=torch.zeros_like(cost),
        value=torch.empty_like(cost[:, 0, 0]),
        violation=torch.empty_like(cost[:, 0, 0]),
        iterations=torch.empty_like(ends[0]),
        converged=torch.empty_like(ends[0], dtype=torch.bool),
        potentials=(torch.zeros_like(source), torch.zeros_like(target)),
    )
    sides, start = longest.tolist(), 0
    while start < len(cost):
        count = max(1, entries // sides[start] ** 2)
        group = order[start : start + count]
        start += count
        s, t = (int(end[group].max()) for end in ends)
        a, b = source[group, :s], target[group, :t]
        part = solve(without_padding(cost[group, :s, :t], a, b), a, b)
        out.plan[:, :s, :t].index_copy_(0, group, part.plan)
        for name in ("value", "violation", "iterations", "converged"):
            getattr(out, name).index_copy_(0, group, getattr(part, name))
        for own, whole, length in zip(part.potentials or (), out.potentials or (), (s, t), strict=True):
            whole[:, :length].index_copy_(0, group, own)
    return out


def _ends(marginal: Tensor) -> Tensor:
    """The position after each row's last mass."""
    positions = torch.arange(1, marginal.shape[1] + 1, device=marginal.device)
    return torch.where(marginal > 0, positions, 1).amax(1)
