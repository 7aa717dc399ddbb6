"""Transport between all texts of a batch, of all ranks: which student goes with which teacher."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from foundations.checks import check_number
from strategies.distributed import gather, rank_and_world_size
from strategies.functional import at_least_float32, without_autocast
from strategies.transport import Solver, solve
from strategies.transport.problem import Transport

LARGEST_BATCH = 4096
"""Beyond this the cost matrix of all ranks, which each of them holds, is too much to ask for."""
_BARRED, _BARRED_EPSILONS = 20.0, 100.0
"""The cost of a forbidden entry is the larger of this and so many epsilon; real ones are 0 to 2."""


@torch.no_grad()
def match_batch(
    student_pooled: Tensor,
    teacher_pooled: Tensor,
    *,
    epsilon: float = 0.05,
    mass: float | None = None,
    relaxation: float | None = None,
    forbidden: Tensor | None = None,
    student_mass: Tensor | None = None,
    teacher_mass: Tensor | None = None,
    solver: Solver = "auto",
    tolerance: float = 1e-3,
    iterations: int = 1000,
) -> tuple[Tensor, Transport]:
    """The transport plan between the students and the teachers of the whole batch, without gradient.

    The cost is 1 - cosine. The vectors of all ranks are gathered, never the cost, and each rank solves the same problem
    (up to 4096 texts): that is cheaper than to share it. All ranks must call it together, with batches of one size.

    Args:
        student_pooled: this rank's students, the rows of the plan; (B, D).
        teacher_pooled: this rank's teachers; (B, D).
        epsilon: strength of the entropy, in units of the cost.
        mass: the share of the mass to move, 0 < mass <= 1 (partial transport); None moves all.
        relaxation: the weight of the marginals' KL divergence (unbalanced transport); None holds them.
        forbidden: True at pairs that must get no mass, e.g. a text's own source; (B, ranks * B), the columns in
            the order of ranks.
        student_mass: mass of each student, at least 0, in any unit; (B,); None is the same for all.
        teacher_mass: mass of each teacher, likewise.
        solver: one of `strategies.transport.SOLVERS`.
        tolerance: largest L1 error of the marginals.
        iterations: the most iterations.

    Returns:
        This rank's rows of the plan, (B, ranks * B), exactly zero where forbidden; and the whole transport, as a batch
        of one (1, ranks * B, ranks * B). Mass that found only forbidden places is missing in the plan, and counts in
        its violation. If no student or no teacher has mass, the plan is zero.

    Raises:
        ValueError: shapes that do not fit, an option out of range, or more than 4096 texts.
    """
    check_number("epsilon", epsilon, above=0)
    batch, (rank, ranks) = len(student_pooled), rank_and_world_size()
    texts = batch * ranks
    _check(student_pooled, teacher_pooled, forbidden, texts)
    with without_autocast(student_pooled):
        masses = [
            torch.ones_like(student_pooled[:, 0]) if given is None else given for given in (student_mass, teacher_mass)
        ]
        barred = student_pooled.new_zeros(batch, 0 if forbidden is None else texts, dtype=torch.uint8)
        if forbidden is not None:
            barred.copy_(forbidden)
        gathered = gather(student_pooled.detach(), teacher_pooled.detach(), *masses, barred)
        students, teachers, *masses = (at_least_float32(tensor) for tensor in gathered[:4])
        cost = 1 - F.normalize(students, dim=1) @ F.normalize(teachers, dim=1).mT
        closed = gathered[4].bool() if forbidden is not None else None
        totals = [each.sum() for each in masses]
        if not all(bool(total > 0) for total in totals):
            transport = _nothing(cost)
        else:
            transport = solve(
                (cost if closed is None else cost.masked_fill(closed, max(_BARRED, _BARRED_EPSILONS * epsilon)))[None],
                (masses[0] / totals[0])[None].to(cost),
                (masses[1] / totals[1])[None].to(cost),
                solver=solver,
                epsilon=epsilon,
                iterations=iterations,
                tolerance=tolerance,
                mass=mass,
                relaxation=relaxation,
            )
            if closed is not None:
                transport = _without(transport, closed, cost, tolerance)
    return transport.plan[0, rank * batch : (rank + 1) * batch], transport


def _check(student_pooled: Tensor, teacher_pooled: Tensor, forbidden: Tensor | None, texts: int) -> None:
    if student_pooled.ndim != 2 or student_pooled.shape != teacher_pooled.shape:
        raise ValueError(
            f"students and teachers must both be (B, D), not {tuple(student_pooled.shape)} and "
            f"{tuple(teacher_pooled.shape)}"
        )
    if forbidden is not None and forbidden.shape != (len(student_pooled), texts):
        raise ValueError(f"forbidden must be {(len(student_pooled), texts)}, not {tuple(forbidden.shape)}")
    if texts > LARGEST_BATCH:
        raise ValueError(f"transport over a batch takes at most {LARGEST_BATCH} texts of all devices, not {texts}")


def _without(transport: Transport, closed: Tensor, cost: Tensor, tolerance: float) -> Transport:
    """The transport less the mass on forbidden entries, which is none unless there was no other place."""
    lost = transport.plan.masked_fill(~closed, 0.0).sum((1, 2))
    plan = transport.plan.masked_fill(closed, 0.0)
    violation = transport.violation + lost
    converged = transport.converged & (lost <= tolerance)
    return dataclasses.replace(
        transport, plan=plan, value=(plan * cost).sum((1, 2)), violation=violation, converged=converged
    )


def _nothing(cost: Tensor) -> Transport:
    none = cost.new_zeros(1)
    return Transport(cost.new_zeros(1, *cost.shape), none, none, none.long(), none == 0)
