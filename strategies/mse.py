"""Mean squared error distillation, of pooled vectors or of greedily aligned tokens."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.base import DistillationStrategy, Embeddings
from strategies.functional import greedy_alignment, pooled_cost, token_cost, without_autocast

Level = Literal["pooled", "token"]


class MSE(DistillationStrategy):
    """Pulls the student's vector of a text to the teacher's vector of the source; with ``level: token``, tokens too.

    ``pooled``: ||s - t||^2 of the pooled vectors, summed over dimensions, mean over the batch: 2 (1 - cosine), as
    the vectors have unit length.

    ``token``: tokens are aligned one to one, always the nearest two that are left, and the loss of a pair is the
    mean over aligned tokens of 1/2 ||s - t||^2 = 1 - cosine of the unit-length token vectors; the alignment is held
    fixed in the gradient. The half makes it the very cost of ``OptimalTransport``, so that the two differ
    in the plan alone. The pooled term is added with its weight.

    Source: pooled: Reimers & Gurevych 2020 (arXiv 2004.09813), the target side's term. Token: DR.DECR (Li et al.
    2021, arXiv 2112.08185).

    Relations: the simplest strategy, and the one to beat under pooled search; it needs no tokens, no negatives and no
    large batch. ``OptimalTransport`` aligns softly and many-to-many and leaves no token out, where greedy alignment
    drops the tokens that the longer text has in addition. ``Contrastive`` also pushes other texts away.

    Args:
        level: ``pooled``, or ``token`` for aligned tokens and the pooled term.
        pooled_weight: weight of the pooled term; 0 leaves it out, with ``level: token`` only.

    Inputs: pooled vectors; for ``token`` also tokens and masks, in the same width.

    Shape:
        - student.pooled, teacher.pooled (B, D); student.tokens (B, T, D), teacher.tokens (B, S, D)
        - ``pooled``, ``token``: scalars

    Raises:
        ValueError: an option out of range, or no term left.

    Example:
        >>> import torch
        >>> student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> MSE()(Embeddings(student), Embeddings(teacher))
        {'pooled': tensor(2.)}
    """

    def __init__(self, level: Level = "pooled", pooled_weight: float = 1.0) -> None:
        super().__init__()
        check_choice("level", level, get_args(Level))
        check_number("pooled_weight", pooled_weight, least=0)
        if level == "pooled" and pooled_weight == 0:
            raise ValueError("pooled_weight 0 leaves no loss at level pooled: give a weight above 0, or level token")
        self.level: Level = level
        self.pooled_weight = pooled_weight
        self.needs_tokens, self.sees_pooled = level == "token", pooled_weight > 0

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The pooled term if it has a weight, and the token term at that level."""
        terms = {}
        with without_autocast(student.pooled):
            if self.level == "token":
                cost = token_cost(teacher, student)
                plan = greedy_alignment(cost, teacher.require_tokens()[1], student.require_tokens()[1])
                plan = plan / plan.sum((1, 2), keepdim=True)
                terms["token"] = (plan * cost).sum((1, 2)).mean()
            if self.pooled_weight > 0:
                terms["pooled"] = self.pooled_weight * pooled_cost(teacher, student)
        return terms
