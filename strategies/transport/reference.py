"""Plain Sinkhorn iterations in the log domain and in float64: slow, simple, the yardstick of the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strategies.transport.problem import Transport, transport_of, without_padding

CHECK_EVERY = 10
"""Iterations between two looks at the violation."""


def solve(
    cost: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float,
    relaxation: float | None = None,
) -> Transport:
    """Alternate f = log a - s lse(g - C / epsilon) and the same for g, in units of epsilon (Chizat et al. 2018).

    s is 1 for balanced and rho / (rho + epsilon) for unbalanced plans. `strategies.transport.solve` documents the
    arguments.
    """
    exact = torch.float32 if cost.device.type == "mps" else torch.float64  # MPS has no float64
    costs = without_padding(cost, source, target).to(exact)
    scaled, a, b = costs / epsilon, source.to(exact), target.to(exact)
    share = 1.0 if relaxation is None else relaxation / (relaxation + epsilon)
    g = torch.zeros_like(b).masked_fill(b == 0, -math.inf)
    used = torch.full((len(cost),), iterations, device=cost.device)
    for step in range(1, iterations + 1):
        f = a.log() - share * (g[:, None, :] - scaled).logsumexp(2)
        g = b.log() - share * (f[:, :, None] - scaled).logsumexp(1)
        if step % CHECK_EVERY == 0 or step == iterations:
            plan = (f[:, :, None] + g[:, None, :] - scaled).exp()
            result = transport_of(
                plan, costs, a, b, (f * epsilon, g * epsilon), used,
                epsilon=epsilon, tolerance=tolerance, relaxation=relaxation,
            )  # fmt: skip
            used = torch.where(result.converged, used.clamp(max=step), used)
            if bool(result.converged.all()):
                break
    return Transport(
        plan=plan.to(cost),
        value=result.value.to(cost),
        violation=result.violation.to(cost),
        iterations=used,
        converged=result.converged,
        potentials=(result.potentials[0].to(cost), result.potentials[1].to(cost)) if result.potentials else None,
    )
