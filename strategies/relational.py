"""Relational distillation: the structure of the batch, not the position of each text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foundations.checks import check_number
from strategies.base import DistillationStrategy, Embeddings
from strategies.distributed import gather, own_rows
from strategies.functional import at_least_float32, check_widths, pooled_cost, without_autocast

_SMALL = 1e-12
"""Keeps equal vectors from a division by 0."""


class Relational(DistillationStrategy):
    """Gives the students' vectors of a batch the same distances from each other as the teacher's vectors have.

    With h the Huber loss of threshold 1 (smooth L1), x_i a student's and t_i a teacher's pooled vector:

    - ``distance``: mean over pairs i != j of h(|x_i - x_j| / m_x - |t_i - t_j| / m_t), m the mean distance of that
      side (RKD-D, eqs. 5-8).
    - ``angle``: mean over triples of different i, j, k of h(cos of the angle at x_j between x_i and x_k - the same of
      the teacher) (RKD-A, eqs. 9-11). Its memory is B * (ranks * B)^2.
    - ``similarity``: mean over pairs i != j of (x_i . x_j - t_i . t_j)^2.
    - ``pooled``: ||x_i - t_i||^2 as in ``MSE``. The other three do not change when all students are rotated together,
      so without this one (or another strategy in a ``WeightedSum``) the student does not land in the teacher's
      space, and cannot search the teacher's index.

    The batch is that of all ranks: both sides are gathered with gradient, so that with gradients averaged over ranks
    the result equals one process on the full batch.

    Source: RKD, Park et al. 2019 (arXiv 1904.05068); similarity: Tung & Mori 2019 (arXiv 1907.09682) without their
    normalisation of rows.

    Relations: ``KL`` compares the student with the teacher's sources, and so fixes the position and the structure;
    this one compares students with students. To ``MSE`` it adds a penalty on errors in different directions, which move
    texts relative to each other, over errors that all texts share.

    Args:
        distance_weight: weight of that term; 0 leaves it out, as for the others.
        angle_weight: likewise.
        similarity_weight: likewise.
        pooled_weight: likewise.

    Inputs: pooled vectors. Equal sources are at distance 0 for the teacher, so they are pulled together.

    Shape:
        - student.pooled, teacher.pooled (B, D), the same B on all ranks; B >= 2 (``angle`` >= 3), else the terms are 0
        - ``distance``, ``angle``, ``similarity``, ``pooled``: scalars, weighted, those that have a weight

    Raises:
        ValueError: a weight out of range, or no term of structure left.

    Example:
        >>> import torch
        >>> teacher, student = torch.eye(3), torch.eye(3).roll(1, 0)  # the same structure, elsewhere
        >>> Relational()(Embeddings(student), Embeddings(teacher))
        {'distance': tensor(0.), 'pooled': tensor(2.)}
    """

    def __init__(
        self,
        distance_weight: float = 1.0,
        angle_weight: float = 0.0,
        similarity_weight: float = 0.0,
        pooled_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {"distance": distance_weight, "angle": angle_weight, "similarity": similarity_weight}
        for name, weight in (*self.weights.items(), ("pooled", pooled_weight)):
            check_number(f"{name}_weight", weight, least=0)
        if not any(self.weights.values()):
            raise ValueError("distance_weight, angle_weight and similarity_weight are all 0: use strategy mse instead")
        self.pooled_weight = pooled_weight

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The terms that have a weight."""
        check_widths(student, teacher)
        compare = {"distance": _distance, "angle": _angle, "similarity": _similarity}
        with without_autocast(student.pooled):
            ours, theirs = gather(at_least_float32(student.pooled), at_least_float32(teacher.pooled))
            own = own_rows(student.pooled)
            terms = {
                name: weight * compare[name](ours, theirs, own) for name, weight in self.weights.items() if weight > 0
            }
            if self.pooled_weight > 0:
                terms["pooled"] = self.pooled_weight * pooled_cost(teacher, student)
        return terms


def _distance(ours: Tensor, theirs: Tensor, own: Tensor) -> Tensor:
    """Huber loss of distances over their means, for the own rows; vectors (M, D)."""
    result, expected = _relative_distances(ours)[own], _relative_distances(theirs)[own]
    return _mean_off_diagonal(F.smooth_l1_loss(result, expected, reduction="none"), own)


def _similarity(ours: Tensor, theirs: Tensor, own: Tensor) -> Tensor:
    return _mean_off_diagonal((ours[own] @ ours.mT - theirs[own] @ theirs.mT).square(), own)


def _angle(ours: Tensor, theirs: Tensor, own: Tensor) -> Tensor:
    """Huber loss of the cosines of angles whose corner is an own row."""
    total = len(ours)
    errors = F.smooth_l1_loss(_angles(ours, own), _angles(theirs, own), reduction="none")
    column = torch.arange(total, device=ours.device)
    end = column[None, :] != own[:, None]
    triples = end[:, :, None] & end[:, None, :] & (column[:, None] != column[None, :])
    return (errors * triples).sum() / triples.sum().clamp(min=1)


def _angles(vectors: Tensor, own: Tensor) -> Tensor:
    """Cosine of the angle at j between i and k; (rows, M, M). 0 where i or k is j, or has the same vector."""
    edges = vectors[None, :, :] - vectors[own][:, None, :]
    edges = edges / (edges.square().sum(2, keepdim=True) + _SMALL).sqrt()
    return edges @ edges.mT


def _relative_distances(vectors: Tensor) -> Tensor:
    """Euclidean distances over their mean between different rows; (M, M)."""
    # Not by a matrix product, which cancels where two texts are near each other.
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances * len(vectors) * (len(vectors) - 1) / distances.sum().clamp(min=_SMALL)


def _mean_off_diagonal(errors: Tensor, own: Tensor) -> Tensor:
    """Mean of (rows, M) over the pairs of different texts."""
    rows, total = errors.shape
    column = torch.arange(total, device=errors.device)
    different = own[:, None] != column[None, :]
    return (errors * different).sum() / max(1, rows * (total - 1))
