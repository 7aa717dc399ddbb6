"""Transport between all texts of a batch, of all ranks: which student goes with which teacher."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from foundations.checks import check_number
from strategies.distributed import gather, rank_and_world_size
from strategies.functional import at_least_float32, without_autocast
from strategies.transport import solve
from strategies.transport.problem import Transport

LARGEST_BATCH = 4096
"""Beyond this the cost matrix of all ranks, which each of them holds, is too much to ask for."""

TOLERANCE = 1e-3
"""Largest L1 error of the marginals."""

_BARRED, _BARRED_EPSILONS = 20.0, 100.0
"""The cost of a forbidden entry is the larger of this and this many epsilon; real ones are 0 to 2."""


@torch.no_grad()
def match_batch(
    student_pooled: Tensor,
    teacher_pooled: Tensor,
    *,
    epsilon: float = 0.05,
    mass: float | None = None,
    forbidden: Tensor | None = None,
    student_mass: Tensor | None = None,
    teacher_mass: Tensor | None = None,
) -> tuple[Tensor, Transport]:
    """The transport plan between the students and the teachers of the whole batch, without gradient.

    The cost is 1 - cosine. The vectors of all ranks are gathered, never the cost, and each rank solves the same problem
    (up to 4096 texts): that is cheaper than to share it. All ranks must call it together, with batches of one size.

    The vectors (B, D) are this rank's. Epsilon and mass are those of `strategies.transport.solve`. ``forbidden`` is
    True at pairs that must get no mass, e.g. a text's own source; (B, ranks * B), the columns in the order of ranks.
    The masses (B,) of students and teachers are at least 0, in any unit; None is the same for all.

    Returns this rank's rows of the plan, (B, ranks * B), exactly zero where forbidden; and the whole transport, as a
    batch of one (1, ranks * B, ranks * B). Mass that only forbidden entries could take is missing in the plan, and
    counts in its violation. If no student or no teacher has mass, the plan is zero.
    """
    check_number("epsilon", epsilon, above=0)
    batch, (rank, ranks) = len(student_pooled), rank_and_world_size()
    if forbidden is None:
        forbidden = torch.zeros(batch, batch * ranks, dtype=torch.bool, device=student_pooled.device)
    _check(student_pooled, teacher_pooled, forbidden, batch * ranks)
    masses = [torch.ones_like(student_pooled[:, 0]) if m is None else m for m in (student_mass, teacher_mass)]
    with without_autocast(student_pooled):
        *gathered, barred = gather(
            student_pooled.detach(), teacher_pooled.detach(), *masses, forbidden.to(torch.uint8, copy=True)
        )
        students, teachers, *masses = (at_least_float32(tensor) for tensor in gathered)
        barred = barred.bool()
        cost = 1 - F.normalize(students, dim=1) @ F.normalize(teachers, dim=1).mT
        totals = [m.sum() for m in masses]
        if all(bool(total > 0) for total in totals):
            barred_cost = cost.masked_fill(barred, max(_BARRED, _BARRED_EPSILONS * epsilon))
            source, target = ((m / total)[None].to(cost) for m, total in zip(masses, totals, strict=True))
            transport = solve(barred_cost[None], source, target, epsilon=epsilon, tolerance=TOLERANCE, mass=mass)
            transport = _without(transport, barred, cost)
        else:
            zero = cost.new_zeros(1)
            transport = Transport(torch.zeros_like(cost)[None], zero, zero, zero.long(), zero == 0)
    return transport.plan[0, rank * batch : (rank + 1) * batch], transport


def _check(student_pooled: Tensor, teacher_pooled: Tensor, forbidden: Tensor, texts: int) -> None:
    if student_pooled.ndim != 2 or student_pooled.shape != teacher_pooled.shape:
        raise ValueError(
            f"students and teachers are {tuple(student_pooled.shape)} and {tuple(teacher_pooled.shape)}, "
            "expected both (B, D)"
        )
    if forbidden.shape != (len(student_pooled), texts):
        raise ValueError(f"forbidden is {tuple(forbidden.shape)}, expected {(len(student_pooled), texts)}")
    if texts > LARGEST_BATCH:
        raise ValueError(f"a batch has {texts} texts of all devices, expected at most {LARGEST_BATCH} to be matched")


def _without(transport: Transport, barred: Tensor, cost: Tensor) -> Transport:
    """The transport without the mass on forbidden entries, of which there is none unless no other could take it."""
    lost = transport.plan.masked_fill(~barred, 0.0).sum((1, 2))
    plan = transport.plan.masked_fill(barred, 0.0)
    return dataclasses.replace(
        transport,
        plan=plan,
        value=(plan * cost).sum((1, 2)),
        violation=transport.violation + lost,
        converged=transport.converged & (lost <= TOLERANCE),
    )
