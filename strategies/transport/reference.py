"""Plain Sinkhorn iterations in the log domain and in float64: slow, simple, the yardstick of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from strategies.transport.problem import Options, Transport, transport_of, without_padding

CHECK_EVERY = 10
"""Iterations between two looks at the violation."""


def solve(cost: Tensor, source: Tensor, target: Tensor, options: Options) -> Transport:
    """Alternate f = log a - s lse(g - C / epsilon) and the same for g, in units of epsilon (Chizat et al. 2018).

    s is 1 for balanced and rho / (rho + epsilon) for unbalanced plans. `strategies.transport.solve` documents the
    arguments.
    """
    exact = torch.float32 if cost.device.type == "mps" else torch.float64  # MPS has no float64
    costs = without_padding(cost, source, target).to(exact)
    scaled, a, b = costs / options.epsilon, source.to(exact), target.to(exact)
    g = torch.zeros_like(b).masked_fill(b == 0, -math.inf)
    used = torch.full((len(cost),), options.iterations, device=cost.device)
    for step in range(1, options.iterations + 1):
        f = a.log() - options.share * (g[:, None, :] - scaled).logsumexp(2)
        g = b.log() - options.share * (f[:, :, None] - scaled).logsumexp(1)
        if step % CHECK_EVERY == 0 or step == options.iterations:
            plan = (f[:, :, None] + g[:, None, :] - scaled).exp()
            potentials = f * options.epsilon, g * options.epsilon
            result = transport_of(plan, costs, a, b, potentials, used, options)
            used = torch.where(result.converged, used.clamp(max=step), used)
            if bool(result.converged.all()):
                break
    return replace(result, iterations=used).in_format_of(cost)
