"""How much mass each token brings to a transport problem."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from strategies.base import Embeddings
from strategies.options import at_least_float32, check_choice

Marginals = Literal["uniform", "norm", "idf"]


def token_marginals(embeddings: Embeddings, kind: Marginals) -> Tensor:
    """The mass of each token of a text: exact zeros at padding, rows sum to one, without gradient.

    Args:
        embeddings: one side of B pairs, with tokens.
        kind: ``uniform``: all tokens alike. ``norm``: in proportion to the norm of the token vector before
            normalisation, which is small for words that say little (Yokoi et al. 2020, arXiv 2004.15003). ``idf``: in
            proportion to the inverse document frequency in ``embeddings.weights``.

    Returns:
        (B, T), float32 (float64 if the tokens are). A text whose masses are all zero is taken as uniform.

    Raises:
        ValueError: an unknown kind; ``idf`` without weights.

    Example:
        >>> import torch
        >>> tokens, mask = torch.tensor([[[3.0, 4.0], [0.0, 5.0], [7.0, 7.0]]]), torch.tensor([[True, True, False]])
        >>> token_marginals(Embeddings(torch.ones(1, 2), tokens, mask), "norm")
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    check_choice("marginals", kind, get_args(Marginals))
    tokens, mask = embeddings.require_tokens()
    with torch.no_grad():
        if kind == "idf":
            if embeddings.weights is None:
                raise ValueError(
                    'marginals "idf" need a weight for each token, but the encoder gave none: encode with weights '
                    "(a strategy declares this with needs_weights = True)"
                )
            mass = at_least_float32(embeddings.weights)
        elif kind == "norm":
            mass = at_least_float32(tokens).norm(dim=-1)
        else:
            mass = torch.ones_like(mask, dtype=at_least_float32(tokens[:0]).dtype)
        mass = torch.where(mask, mass, 0.0)
        mass = torch.where(mass.sum(1, keepdim=True) > 0, mass, mask.to(mass))
        return mass / mass.sum(1, keepdim=True)
