"""Sinkhorn iterations on a GPU, one program for each pair, which stays in registers from cost to plan."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from strategies.transport.problem import Potentials, Transport

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ValueError(
        "solver triton needs the package triton, which exists for Linux alone: take solver auto"
    ) from error

LONGEST = 128
"""Tokens on a side that one program can hold in its registers."""
CHECK_EVERY = 10
"""Iterations between two looks at the violation; the first of them is made in the log domain."""


@triton.jit  # type: ignore[untyped-decorator]
def _lse(x, axis: tl.constexpr):  # type: ignore[no-untyped-def]
    """Log of a sum of exponentials; there is a finite entry in each row."""
    top = tl.max(x, axis)
    return top + tl.log(tl.sum(tl.exp(x - tl.expand_dims(top, axis)), axis))


@triton.jit
def _scale(scaling, product, log_mass, potential, share, omega):  # type: ignore[no-untyped-def]
    """One half-step, and beyond it by omega: log u = log a - share * log(K v) + (share - 1) F, kept in bounds."""
    log_scaling = tl.log(scaling)
    wanted = log_mass - share * tl.log(tl.maximum(product, 1e-37)) + (share - 1) * potential
    step = log_scaling + omega * (wanted - log_scaling)
    return tl.exp(tl.minimum(tl.maximum(step, -30.0), 30.0))


@triton.jit  # type: ignore[untyped-decorator]
def _sinkhorn(  # type: ignore[no-untyped-def]
    cost_ptr, source_ptr, target_ptr, f_ptr, g_ptr, plan_ptr, value_ptr, violation_ptr, used_ptr,
    source_length, target_length, epsilon, tolerance, iterations, share, softness,
    check: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """One pair. All potentials are in units of epsilon; softness is epsilon / relaxation, 0 for balanced plans."""
    pair = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, height), tl.arange(0, width)
    a = tl.load(source_ptr + pair * source_length + i, mask=i < source_length, other=0.0)
    b = tl.load(target_ptr + pair * target_length + j, mask=j < target_length, other=0.0)
    log_a, log_b = tl.log(tl.where(a > 0, a, 1.0)), tl.log(tl.where(b > 0, b, 1.0))
    real = (a > 0)[:, None] & (b > 0)[None, :]
    at = pair * source_length * target_length + i[:, None] * target_length + j[None, :]
    inside = (i < source_length)[:, None] & (j < target_length)[None, :]
    f = tl.load(f_ptr + pair * source_length + i, mask=i < source_length, other=0.0) / epsilon
    g = tl.load(g_ptr + pair * target_length + j, mask=j < target_length, other=0.0) / epsilon
    kernel = tl.zeros((height, width), tl.float32)
    done, omega, before, violation = 0, 1.0, 1e30, 1e30
    while (done < iterations) & (violation > tolerance):
        steps = tl.minimum(check, iterations - done)
        cost = tl.load(cost_ptr + at, mask=real, other=0.0) / epsilon  # again each time: registers are for the kernel
        f = tl.where(a > 0, log_a - share * _lse(tl.where((b > 0)[None, :], g[None, :] - cost, -1e30), 1), 0.0)
        g = tl.where(b > 0, log_b - share * _lse(tl.where((a > 0)[:, None], f[:, None] - cost, -1e30), 0), 0.0)
        kernel = tl.where(real, tl.exp(f[:, None] + g[None, :] - cost), 0.0)
        u, v = tl.where(a > 0, 1.0, 0.0), tl.where(b > 0, 1.0, 0.0)
        for step in range(1, steps):
            ahead = tl.where(step < steps - 1, omega, 1.0)  # the last is plain, so that the target marginal holds
            rows = tl.sum(kernel * v[None, :], 1)
            u = tl.where(a > 0, _scale(tl.where(a > 0, u, 1.0), rows, log_a, f, share, ahead), 0.0)
            columns = tl.sum(kernel * u[:, None], 0)
            v = tl.where(b > 0, _scale(tl.where(b > 0, v, 1.0), columns, log_b, g, share, ahead), 0.0)
        f += tl.log(tl.where(a > 0, u, 1.0))
        g += tl.log(tl.where(b > 0, v, 1.0))
        cost = tl.load(cost_ptr + at, mask=real, other=0.0) / epsilon
        kernel = tl.where(real, tl.exp(f[:, None] + g[None, :] - cost), 0.0)
        wanted_a, wanted_b = a * tl.exp(-softness * (f - log_a)), b * tl.exp(-softness * (g - log_b))
        violation = tl.maximum(
            tl.sum(tl.abs(tl.sum(kernel, 1) - wanted_a)), tl.sum(tl.abs(tl.sum(kernel, 0) - wanted_b))
        )
        # As in the torch solver: the plain rate from the fall of the violation, and from that the best omega.
        rate = tl.exp(tl.log(tl.maximum(violation / before, 1e-30)) / steps)
        plain = tl.minimum((rate + omega - 1) * (rate + omega - 1) / (rate * omega * omega), 1.0)
        best = tl.minimum(2 / (1 + tl.sqrt(1 - plain)), 1.9)
        best = tl.where(rate > omega - 1, tl.maximum(best, omega), omega)
        best = tl.where(rate > 1, (1 + omega) / 2, best)
        omega = tl.where((done > 0) & (softness == 0), best, 1.0)
        before = violation
        done += steps
    tl.store(plan_ptr + at, kernel, mask=inside)
    tl.store(f_ptr + pair * source_length + i, f * epsilon, mask=i < source_length)
    tl.store(g_ptr + pair * target_length + j, g * epsilon, mask=j < target_length)
    tl.store(value_ptr + pair, tl.sum(tl.sum(kernel * tl.load(cost_ptr + at, mask=real, other=0.0), 1)))
    tl.store(violation_ptr + pair, violation)
    tl.store(used_ptr + pair, done)


def solve(
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float,
    relaxation: float | None = None,
    potentials: Potentials | None = None,
    fixed_iterations: int | None = None,
) -> Transport:
    """Balanced and unbalanced entropic transport in float32, for up to 128 tokens on a side.

    Every tenth iteration is made in the log domain, the others are scalings of the kernel that follows from it, with
    the over-relaxation of the torch solver (balanced only). No number travels to the host.
    `strategies.transport.solve` documents the arguments.

    Raises:
        ValueError: more tokens than a program holds, or tensors that are not on a GPU.
    """
    batch, length, width = cost.shape
    if max(length, width) > LONGEST:
        raise ValueError(f"solver triton takes up to {LONGEST} tokens on a side, not {length} x {width}")
    if not cost.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"solver triton runs on a GPU, and the cost is on {cost.device}: take solver auto")
    costs, a, b = (tensor.float().contiguous() for tensor in (cost, source, target))
    f, g = (torch.zeros_like(a), torch.zeros_like(b)) if potentials is None else (p.float().clone() for p in potentials)
    plan, value, violation = torch.empty_like(costs), costs.new_empty(batch), costs.new_empty(batch)
    used = torch.empty(batch, dtype=torch.int32, device=cost.device)
    rows, columns = (max(16, triton.next_power_of_2(size)) for size in (length, width))
    share, softness = (1.0, 0.0) if relaxation is None else (relaxation / (relaxation + epsilon), epsilon / relaxation)
    _sinkhorn[(batch,)](
        costs, a, b, f, g, plan, value, violation, used,
        length, width, epsilon, tolerance if fixed_iterations is None else -1.0,
        iterations if fixed_iterations is None else fixed_iterations, share, softness,
        check=CHECK_EVERY, height=rows, width=columns, num_warps=min(16, max(1, rows * columns // 1024)),
    )  # fmt: skip
    return Transport(
        plan=plan.to(cost),
        value=value.to(cost),
        violation=violation.to(cost),
        iterations=used.long(),
        converged=violation <= tolerance,
        potentials=(f.to(cost), g.to(cost)),
    )
