"""Distillation of margins between relevant and other passages."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from foundations.checks import check_choice, check_number
from strategies.base import DistillationStrategy, Embeddings, require_lists
from strategies.functional import Score, check_widths, list_scores, teacher_list_scores, without_autocast


class MarginMSE(DistillationStrategy):
    """Gives the student the teacher's margins: by how much the relevant passage scores above another one.

    With S and T the student's and the teacher's score, and p the first passage listed for query i, the loss of the
    query is the mean over its other passages n of ((S(i, p) - S(i, n)) - (T(i, p) - T(i, n)))^2; mean over the batch,
    to which a pair with fewer than two passages adds zero. The teacher's scores are those of a file where the data
    have them, else computed from its vectors.

    Source: Hofstaetter et al. 2020 (arXiv 2010.02666), there with one other passage for each query.

    Relations: like ``KL`` over lists it ignores a constant that is added to all scores of a query; unlike ``KL`` it
    takes every margin as seriously, not only those among the best passages, and it needs the student's scores on
    the teacher's scale. It says nothing of where the student puts a text with no list: mix it with ``MSE`` or
    ``Contrastive`` in a ``WeightedSum`` where the lists are few.

    Args:
        score: ``pooled``, the cosine of pooled vectors, or ``maxsim``, late interaction over tokens.
        given_scale: scores of a file are multiplied by this. Cosines differ by 1 at most while the logits of
            cross-encoders differ by 10 and more, hence 0.05; a ``KL`` with temperature 0.05 has the same exchange rate.

    Inputs: candidates, the relevant one first; pooled vectors, or tokens and masks for ``maxsim``.

    Shape:
        - student.pooled, teacher.pooled (B, D), candidates (B, N, D)
        - ``margin_mse``: scalar; ``info/margin_agreement`` the share of margins with the teacher's sign

    Raises:
        ValueError: an option out of range.

    Example:
        >>> import torch
        >>> from strategies.base import ListEmbeddings
        >>> passages, listed = Embeddings(torch.eye(2)[None]), torch.ones(1, 2, dtype=torch.bool)
        >>> teacher = ListEmbeddings(torch.tensor([[1.0, 0.0]]), candidates=passages, listed=listed)
        >>> student = ListEmbeddings(torch.tensor([[0.8, 0.6]]), candidates=passages, listed=listed)
        >>> terms = MarginMSE()(student, teacher)  # margins 0.2 and 1
        >>> {name: round(term.item(), 3) for name, term in terms.items()}
        {'margin_mse': 0.64, 'info/margin_agreement': 1.0}
    """

    needs_candidates = True
    uses_candidates = True
    uses_scores = True

    def __init__(self, score: Score = "pooled", given_scale: float = 0.05) -> None:
        super().__init__()
        check_choice("score", score, get_args(Score))
        check_number("given_scale", given_scale, above=0)
        self.score: Score = score
        self.given_scale = given_scale
        self.needs_tokens = score == "maxsim"
        self.sees_pooled = score == "pooled"

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The squared error of the margins."""
        check_widths(student, teacher)
        ours, theirs = require_lists(student, teacher)
        passages, listed = ours.require_candidates()
        negatives = listed[:, 1:]
        with without_autocast(student.pooled):
            result = _margins(list_scores(ours, passages, self.score))
            expected = _margins(teacher_list_scores(theirs, self.score, 1.0, self.given_scale))
            errors = (result - expected).square() * negatives
            loss = (errors.sum(1) / negatives.sum(1).clamp(min=1)).mean()
            agree = ((result > 0) == (expected > 0)) & negatives
        return {"margin_mse": loss, "info/margin_agreement": agree.sum() / negatives.sum().clamp(min=1)}


def _margins(scores: Tensor) -> Tensor:
    """First score minus each of the others; (B, N - 1)."""
    return scores[:, :1] - scores[:, 1:]
