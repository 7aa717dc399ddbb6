"""A mixture of strategies."""

from __future__ import annotations

from torch import Tensor, nn

from foundations.checks import check_choice, check_number
from strategies.base import INFO_PREFIX, DistillationStrategy, Embeddings


class WeightedSum(DistillationStrategy):
    """Several strategies at once: the loss is sum_k w_k L_k.

    Each term is multiplied by its strategy's weight and named after it, ``name/term``; diagnostics keep their
    values and become ``info/name/term``. A mixture may contain a mixture.

    Source: none needed; weights are as in any multi-task loss.

    Relations: combines siblings that pull in different ways, such as ``Contrastive`` for the ranking and ``MSE`` for
    the vectors. For transport plus a pooled term, ``OptimalTransport`` alone is enough: it has one.

    Args:
        strategies: the strategies by a name of your choice.
        weights: weight of a strategy by its name; 1 where it is not given.

    Inputs: what its strategies need: tokens, weights or candidates if one of them needs them.

    Shape:
        - student.pooled, teacher.pooled (B, D), tokens as the strategies want them
        - scalars

    Raises:
        ValueError: no strategy, a name that cannot be one, a weight for a name that does not exist, or a weight that
            is not a number above 0.

    Example:
        In YAML::

            model:
              strategy:
                class_path: strategies.weighted_sum.WeightedSum
                init_args:
                  strategies:
                    vectors: {class_path: strategies.mse.MSE}
                    ranking: {class_path: strategies.contrastive.Contrastive, init_args: {temperature: 0.1}}
                  weights: {ranking: 0.5}

        In Python:

        >>> import torch
        >>> from strategies.mse import MSE
        >>> mixture = WeightedSum({"a": MSE(), "b": MSE()}, weights={"b": 0.5})
        >>> mixture(Embeddings(torch.tensor([[1.0, 0.0]])), Embeddings(torch.tensor([[0.0, 1.0]])))
        {'a/pooled': tensor(2.), 'b/pooled': tensor(1.)}
    """

    def __init__(self, strategies: dict[str, DistillationStrategy], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        weights = weights or {}
        if not strategies:
            raise ValueError("a weighted sum needs at least one strategy")
        for name in strategies:
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"{name!r} cannot name a strategy: use letters, digits and _, and no word that torch uses"
                )
        for name, weight in weights.items():
            check_choice("a name in weights", name, strategies)
            check_number(f"the weight of {name}", weight, above=0)
        self.strategies = nn.ModuleDict(strategies)
        self.weights = {name: weights.get(name, 1.0) for name in strategies}
        self.needs_tokens = any(strategy.needs_tokens for strategy in strategies.values())
        self.sees_pooled = any(strategy.sees_pooled for strategy in strategies.values())
        self.needs_weights = any(strategy.needs_weights for strategy in strategies.values())
        self.needs_candidates = any(strategy.needs_candidates for strategy in strategies.values())
        self.uses_candidates = any(strategy.uses_candidates for strategy in strategies.values())
        self.uses_scores = any(strategy.uses_scores for strategy in strategies.values())

    def forward(self, student: Embeddings, teacher: Embeddings) -> dict[str, Tensor]:
        """The terms of all strategies, weighted, under their names."""
        terms = {}
        for name, strategy in self.strategies.items():
            for term, value in strategy(student, teacher).items():
                if term.startswith(INFO_PREFIX):
                    terms[f"{INFO_PREFIX}{name}/{term.removeprefix(INFO_PREFIX)}"] = value
                else:
                    terms[f"{name}/{term}"] = self.weights[name] * value
        return terms
