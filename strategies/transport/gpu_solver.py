"""Sinkhorn iterations on a GPU, one program for each pair, which stays in registers from cost to plan."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from strategies.transport.problem import (
    ABSORB,
    AIM,
    CLAMP,
    LARGEST_OMEGA,
    LEAST,
    TINY,
    TRITON_LIMIT,
    Options,
    Transport,
    check_marginals,
)

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ValueError(
        "solver triton needs the package triton, which exists for Linux alone: take solver auto"
    ) from error

CHECK_EVERY = tl.constexpr(6)
"""Iterations between two looks at the violation."""

# The shared constants as a kernel takes them; LARGE is the logarithm, since a kernel compares those.
_AIM, _LARGEST_OMEGA, _CLAMP = tl.constexpr(AIM), tl.constexpr(LARGEST_OMEGA), tl.constexpr(CLAMP)
_TINY, _LEAST, _LARGE = tl.constexpr(TINY), tl.constexpr(LEAST), tl.constexpr(math.log(ABSORB))

ENTRIES_PER_WARP, MOST_WARPS = 1024, 8
"""Entries of the kernel that a warp holds, 32 in each thread, and more where there are many: as measured on an H100."""


@triton.jit  # type: ignore[untyped-decorator]
def _scale(old, sums, mass, log_mass, potential, share, omega, balanced: tl.constexpr):  # type: ignore[no-untyped-def]
    """Half an iteration: the best scaling p, and beyond it to p (p / old)^(omega - 1); zero at padding."""
    if balanced:  # the power by its first Pade approximant, in a form with one division: see the fused loop
        got = old * sums
        above = mass * (mass * omega + got * (2 - omega))
        new = above / tl.maximum(sums * (mass * (2 - omega) + got * omega), _LEAST)
        return tl.minimum(new, _CLAMP)
    log_new = log_mass - share * tl.log(tl.maximum(sums, _TINY)) + (share - 1) * potential
    return tl.where(mass > 0, tl.exp(tl.minimum(tl.maximum(log_new, -18.0), 18.0)), 0.0)


@triton.jit
def _expected(mass, log_mass, potential, softness):  # type: ignore[no-untyped-def]
    """The sums that the plan must have: see `optimal_marginal`; softness is epsilon / relaxation, 0 if balanced."""
    return mass * tl.exp(-softness * (potential - log_mass))


@triton.jit
def _next_omega(omega, fall, steps):  # type: ignore[no-untyped-def]
    """As in the torch solver: the plain rate from the fall of the violation, and from that the best omega."""
    rate = tl.exp(tl.log(tl.maximum(fall, 1e-30)) / steps)
    plain = tl.minimum((rate + omega - 1) * (rate + omega - 1) / (rate * omega * omega), 1.0)
    best = tl.minimum(2 / (1 + tl.sqrt(1 - plain)), _LARGEST_OMEGA)
    best = tl.where(rate > omega - 1, tl.maximum(best, omega), omega)
    return tl.where(rate > 1, (1 + omega) / 2, best)


@triton.jit
def _start(cost, a, b):  # type: ignore[no-untyped-def]
    """Potentials that make the largest entry of every row and column 1."""
    f = tl.where(a > 0, tl.min(cost, 1), 0.0)
    least = tl.min(tl.where((a > 0)[:, None], cost - f[:, None], 1e30), 0)
    return f, tl.where(b > 0, least, 0.0)


@triton.jit
def _log(scaling):  # type: ignore[no-untyped-def]
    """The logarithm, 0 at padding."""
    return tl.log(tl.where(scaling > 0, scaling, 1.0))


@triton.jit  # type: ignore[untyped-decorator]
def _sinkhorn(  # type: ignore[no-untyped-def]  # noqa: PLR0915 (one kernel: its state is in registers)
    cost_ptr, source_ptr, target_ptr, f_ptr, g_ptr, plan_ptr, value_ptr, violation_ptr, used_ptr, wrong_ptr,
    source_length, target_length, epsilon, tolerance, iterations, share, softness,
    balanced: tl.constexpr, normalise: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """One pair. Potentials are in units of epsilon here."""
    pair = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, height), tl.arange(0, width)
    a = tl.load(source_ptr + pair * source_length + i, mask=i < source_length, other=0.0)
    b = tl.load(target_ptr + pair * target_length + j, mask=j < target_length, other=0.0)
    right = 1
    if normalise:
        of_a, of_b = tl.sum(a, 0), tl.sum(b, 0)
        right = (tl.abs(of_a - 1) < 1e-3) & (tl.abs(of_b - 1) < 1e-3) & (tl.min(a, 0) >= 0) & (tl.min(b, 0) >= 0)
        a, b = a / of_a, b / of_b
    log_a, log_b = _log(a), _log(b)
    real = (a > 0)[:, None] & (b > 0)[None, :]
    at = pair * source_length * target_length + i[:, None] * target_length + j[None, :]
    inside = (i < source_length)[:, None] & (j < target_length)[None, :]
    cost = tl.load(cost_ptr + at, mask=real, other=1e30) / epsilon
    f, g = _start(cost, a, b)
    kernel = tl.where(real, tl.exp(f[:, None] + g[None, :] - cost), 0.0)
    u, v = tl.where(a > 0, 1.0, 0.0), tl.where(b > 0, 1.0, 0.0)
    rows = tl.sum(kernel * v[None, :], 1)
    done, omega, before, violation = 0, 1.0, 1e30, 1e30
    while (done < iterations) & (violation > _AIM * tolerance):
        steps = tl.minimum(CHECK_EVERY, iterations - done)
        for step in range(steps):
            ahead = tl.where(step < steps - 1, omega, 1.0)  # the last is plain, so that the target marginal holds
            u = _scale(u, rows, a, log_a, f, share, ahead, balanced)
            v = _scale(v, tl.sum(kernel * u[:, None], 0), b, log_b, g, share, ahead, balanced)
            rows = tl.sum(kernel * v[None, :], 1)
        log_u, log_v = _log(u), _log(v)
        violation = tl.sum(tl.abs(u * rows - _expected(a, log_a, f + log_u, softness)), 0)
        omega = tl.where(done > 0, _next_omega(omega, violation / before, steps), 1.0)
        before = violation
        done += steps
        if tl.maximum(tl.max(tl.abs(log_u), 0), tl.max(tl.abs(log_v), 0)) > _LARGE:
            f, g = f + log_u, g + log_v
            cost = tl.load(cost_ptr + at, mask=real, other=1e30) / epsilon  # again: registers are for the kernel
            kernel = tl.where(real, tl.exp(f[:, None] + g[None, :] - cost), 0.0)
            u, v = tl.where(a > 0, 1.0, 0.0), tl.where(b > 0, 1.0, 0.0)
            rows = tl.sum(kernel * v[None, :], 1)
            violation = tl.where(violation > _AIM * tolerance, violation, 1e30)  # a clamped scaling says nothing
    f, g = f + _log(u), g + _log(v)
    kernel = kernel * u[:, None] * v[None, :]
    off_a = tl.sum(tl.abs(tl.sum(kernel, 1) - _expected(a, log_a, f, softness)), 0)
    off_b = tl.sum(tl.abs(tl.sum(kernel, 0) - _expected(b, log_b, g, softness)), 0)
    violation = tl.maximum(off_a, off_b)
    tl.store(plan_ptr + at, kernel, mask=inside)
    tl.store(f_ptr + pair * source_length + i, f * epsilon, mask=i < source_length)
    tl.store(g_ptr + pair * target_length + j, g * epsilon, mask=j < target_length)
    cost = tl.load(cost_ptr + at, mask=real, other=0.0)
    tl.store(value_ptr + pair, tl.sum(tl.sum(kernel * cost, 1), 0))
    tl.store(violation_ptr + pair, violation)
    tl.store(used_ptr + pair, done)
    tl.store(wrong_ptr + pair, right == 0)


def solve(cost: Tensor, source: Tensor, target: Tensor, options: Options, normalise: bool = False) -> Transport:
    """Balanced and unbalanced entropic transport in float32, for up to 128 tokens on a side.

    Each program iterates on the kernel of its pair until that pair meets its tolerance, with the over-relaxation of
    the torch solver (balanced only); large scalings move into potentials. No number travels to the host meanwhile.
    `strategies.transport.solve` documents the arguments; with ``normalise`` the masses are checked, and made to sum
    to one.
    """
    batch, length, width = cost.shape
    if max(length, width) > TRITON_LIMIT:
        raise ValueError(f"solver triton takes up to {TRITON_LIMIT} tokens on a side, not {length} x {width}")
    if not cost.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"solver triton runs on a GPU, and the cost is on {cost.device}: take solver auto")
    costs, a, b = (tensor.detach().float().contiguous() for tensor in (cost, source, target))
    plan, value, violation = torch.empty_like(costs), costs.new_empty(batch), costs.new_empty(batch)
    f, g = torch.empty_like(a), torch.empty_like(b)
    used, wrong = costs.new_empty(batch, dtype=torch.int64), costs.new_empty(batch, dtype=torch.int32)
    rows, columns = (max(16, triton.next_power_of_2(size)) for size in (length, width))
    if batch:
        _sinkhorn[(batch,)](
            costs, a, b, f, g, plan, value, violation, used, wrong,
            length, width, options.epsilon, options.tolerance, options.iterations, options.share, options.weight,
            balanced=options.relaxation is None, normalise=normalise,
            height=rows, width=columns, num_warps=min(MOST_WARPS, max(1, rows * columns // ENTRIES_PER_WARP)),
        )  # fmt: skip
    if normalise and bool(wrong.any()):
        check_marginals(source, target)
    return Transport(plan, value, violation, used, violation <= options.tolerance, (f, g)).in_format_of(cost)
