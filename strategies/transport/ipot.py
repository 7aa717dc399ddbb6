"""Inexact proximal point iterations for unregularised optimal transport."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strategies.transport.problem import Options, Transport, marginal_violation, without_padding

CHECK_EVERY = 10
"""Iterations between two looks at violation and duality gap."""


def solve(cost: Tensor, source: Tensor, target: Tensor, options: Options) -> Transport:
    """Minimise <P, C> over plans with the given marginals by IPOT (Xie et al. 2018, with one inner step).

    Each step minimises <P, C> + epsilon * KL(P, last P) by one Sinkhorn iteration, so that after n steps the plan is
    entropic with epsilon / n, started where the step before pointed to. Here in the log domain: with potentials
    F and G of log P = F + G - n C / epsilon, the source's half-step sees G extrapolated by its last change. That is
    in float64, because n C / epsilon becomes large.

    A pair has converged when both marginals hold, and <P, C> is proven optimal by the duality gap, to the
    tolerance. A small epsilon sharpens the plan faster than one inner step can follow: 0.5 converges in a few hundred
    steps where 0.05 takes thousands. `strategies.transport.solve` documents the arguments.
    """
    exact = torch.float32 if cost.device.type == "mps" else torch.float64  # MPS has no float64
    cost = without_padding(cost, source, target)
    costs, a, b = cost.to(exact), source.to(exact), target.to(exact)
    index = torch.arange(len(cost), device=cost.device)
    g = before = torch.zeros_like(b)
    plan = torch.zeros_like(cost)
    used = torch.zeros_like(index)
    converged = torch.zeros_like(index, dtype=torch.bool)
    for n in range(1, options.iterations + 1):
        scaled = costs * (-n / options.epsilon)
        ahead = (2 * g - before).masked_fill(b == 0, -math.inf)
        f = a.log() - (scaled + ahead[:, None, :]).logsumexp(2)
        before, g = g, b.log() - (scaled + f[:, :, None]).logsumexp(1)
        if n % CHECK_EVERY and n < options.iterations:
            continue
        plans = (scaled + f[:, :, None] + g[:, None, :]).exp_()
        good = marginal_violation(plans, a, b) <= 0.99 * options.tolerance
        good &= _duality_gap(plans, costs, a, b, f * (options.epsilon / n)) <= options.tolerance
        plan[index], used[index], converged[index] = plans.to(plan), n, good
        if bool(good.all()):
            break
        if bool(good.any()):
            index, costs, a, b, g, before = (x[~good] for x in (index, costs, a, b, g, before))
    return Transport(plan, (plan * cost).sum((1, 2)), marginal_violation(plan, source, target), used, converged)


def _duality_gap(plan: Tensor, cost: Tensor, source: Tensor, target: Tensor, potential: Tensor) -> Tensor:
    """<P, C> minus the dual value of the source's potential and its c-transform; (B,)."""
    transformed = (cost - potential[:, :, None]).amin(1)  # padding has potential -inf, so it is never the minimum
    dual = (source * potential.masked_fill(source == 0, 0.0)).sum(1) + (target * transformed).sum(1)
    return (plan * cost).sum((1, 2)) - dual
