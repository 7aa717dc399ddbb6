"""One run from several: reciprocal-rank fusion and weighted sums of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from foundations.checks import check_choice, check_number
from retrieval.collection import Run
from retrieval.trec import ranked_documents

Normalisation = Literal["min_max", "z", "none"]


def reciprocal_rank_fusion(runs: Sequence[Run], depth: int, k: int = 60, weights: Sequence[float] | None = None) -> Run:
    """Sum of weight / (k + rank) over the runs; a run that did not retrieve a document adds nothing for it.

    Source: Cormack, Clarke & Buettcher 2009.

    Args:
        runs: at least one; a query need not be in all of them.
        depth: documents to keep for each query.
        k: how little the first ranks stand out.
        weights: one for each run; all 1 by default.

    Raises:
        ValueError: there is no run, or the weights do not fit.

    >>> fused = reciprocal_rank_fusion([{"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 9.0, "c": 8.0}}], depth=3)
    >>> list(fused["q"])
    ['b', 'a', 'c']
    """
    check_number("k", k, least=0)

    def shares(scores: Mapping[str, float]) -> dict[str, float]:
        return {document: 1 / (k + rank) for rank, document in enumerate(ranked_documents(dict(scores)), start=1)}

    return _fuse(runs, weights, shares, depth)


def linear_fusion(
    runs: Sequence[Run], depth: int, weights: Sequence[float] | None = None, normalisation: Normalisation = "min_max"
) -> Run:
    """Weighted sum of the scores, brought to one scale for each query.

    Args:
        runs: at least one; a query need not be in all of them.
        depth: documents to keep for each query.
        weights: one for each run; all 1 by default.
        normalisation: ``min_max`` maps the scores of a query to [0, 1], ``z`` to mean 0 and deviation 1, ``none``
            leaves them. A document that a run did not retrieve gets that run's lowest score of the query.

    Raises:
        ValueError: there is no run, the weights do not fit, or there is no such normalisation.
    """
    scales: dict[str, Callable[[Mapping[str, float]], dict[str, float]]] = {"min_max": _min_max, "z": _z, "none": dict}
    check_choice("normalisation", normalisation, scales)
    return _fuse(runs, weights, scales[normalisation], depth, fill=True)


def _fuse(
    runs: Sequence[Run],
    weights: Sequence[float] | None,
    scale: Callable[[Mapping[str, float]], dict[str, float]],
    depth: int,
    fill: bool = False,
) -> Run:
    weights = [1.0] * len(runs) if weights is None else weights
    if not runs or len(weights) != len(runs):
        raise ValueError(f"there are {len(weights)} weights for {len(runs)} runs, expected one for each")
    check_number("depth", depth, least=1)
    fused: Run = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        sums: dict[str, float] = {}
        parts = [(weight, scale(run[query])) for weight, run in zip(weights, runs, strict=True) if run.get(query)]
        for document in dict.fromkeys(document for _, part in parts for document in part):
            lowest = [min(part.values()) if fill else 0.0 for _, part in parts]
            terms = zip(parts, lowest, strict=True)
            sums[document] = math.fsum(weight * part.get(document, low) for (weight, part), low in terms)
        fused[query] = {document: sums[document] for document in ranked_documents(sums)[:depth]}
    return fused


def _min_max(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores from 0 to 1; all 1 where they are equal."""
    low, high = min(scores.values()), max(scores.values())
    return {document: (score - low) / (high - low) if high > low else 1.0 for document, score in scores.items()}


def _z(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores with mean 0 and deviation 1; all 0 where they are equal."""
    mean = math.fsum(scores.values()) / len(scores)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores.values()) / len(scores))
    return {document: (score - mean) / deviation if deviation else 0.0 for document, score in scores.items()}
