"""Search and score: encoded texts and a collection in, metrics and ranked lists out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from foundations.progress import delayed_progress
from lightning_modules.evaluation.encoding import EncodedTexts
from lightning_modules.evaluation.hybrid import Hybrid
from retrieval.collection import Collection, Run, View
from retrieval.index.search import search, search_tokens, to_run
from retrieval.index.shards import Shards
from retrieval.metrics import PerQuery
from retrieval.relevance import IndexedQrels, RankedRelevance, relevance_of_rankings, relevance_of_run
from retrieval.results import Result
from retrieval.views import Ranks, score_views, views_of
from strategies.distributed import gathered, rank_and_world_size

_CELLS = 1 << 24
"""Positions of full rankings that are in memory at once."""


def rank(
    queries: EncodedTexts,
    documents: EncodedTexts | Shards,
    collection: Collection,
    metrics: Sequence[str],
    score: str,
    k: int,
    hybrid: Hybrid | None = None,
) -> Result:
    """Search and score, in each view of the collection.

    In a transposed view the documents are the queries, and MaxSim sums over their tokens.

    Args:
        queries: the encoded queries.
        documents: the encoded documents. Where they are shards, the ranks search together, each for some queries.
        collection: gives the judgments.
        metrics: names as in `retrieval.metrics.parse_metric`.
        score: ``pooled``, ``maxsim``, ``hybrid`` or ``both``; with ``both`` the metrics of MaxSim are named
            ``maxsim/...``.
        k: documents to retrieve for each query.
        hybrid: what ``hybrid`` needs.
    """
    means: dict[str, float] = {}
    per_query: PerQuery = {}
    runs: dict[str, Run] = {}
    for kind in ("pooled", "maxsim") if score == "both" else (score,):
        by_view: dict[str, Run] = {}
        for view in (views := views_of(collection)):
            same = next((other for other in views[: len(by_view)] if _ranks_alike(other, view)), None)
            by_view[view.name] = by_view[same.name] if same else _run(queries, documents, view, kind, k, hybrid)

        def full_ranks(view: View, kind: str = kind) -> Ranks:
            return _full_ranks(queries, documents, view, kind, hybrid)

        scores = score_views(collection, by_view, metrics, full_ranks)
        prefix = "maxsim/" if kind == "maxsim" and score == "both" else ""
        means |= {prefix + metric: value for metric, value in scores.means.items()}
        per_query |= {prefix + metric: values for metric, values in scores.per_query.items()}
        runs |= {f"{name}.{kind}" if name else kind: run for name, run in by_view.items()}
    return Result(means, per_query, runs)


def search_texts(
    queries: EncodedTexts,
    documents: EncodedTexts | Shards,
    kind: str,
    k: int,
    *,
    progress: bool = True,
    memory_mb: int = 256,
    hybrid: Hybrid | None = None,
) -> tuple[Tensor, Tensor]:
    """The first k documents of each query.

    Args:
        queries: Q encoded queries.
        documents: the encoded documents.
        kind: ``pooled``, ``maxsim`` or ``hybrid``.
        k: documents to retrieve for each query.
        progress: show a bar if it takes long.
        memory_mb: see `search`.
        hybrid: what ``hybrid`` needs.

    Returns:
        Scores and positions, both (Q, k).

    Raises:
        ValueError: MaxSim of texts that were encoded without tokens.
    """
    if kind == "pooled":
        return search(queries.pooled, documents.pooled, k, documents.ids, memory_mb=memory_mb, progress=progress)
    if hybrid is not None and kind == "hybrid":
        return hybrid.search(queries, documents, k, memory_mb)
    if queries.tokens is None or documents.tokens is None:
        raise ValueError("MaxSim needs token states, but the texts were encoded without")
    return search_tokens(queries.tokens, documents.tokens, k, documents.ids, memory_mb=memory_mb, progress=progress)


def _run(
    queries: EncodedTexts, documents: EncodedTexts | Shards, view: View, kind: str, k: int, hybrid: Hybrid | None
) -> Run:
    """The first k of each query of a view."""
    if isinstance(documents, Shards):
        assert not view.transposed
        assert view.candidates is None
        rank, world_size = rank_and_world_size()
        own = queries.select(range(rank, len(queries.ids), world_size))
        run = to_run(*search_texts(own, documents, kind, k), own.ids, documents.ids) if own.ids else {}
        everything = {query: scores for part in gathered(run) for query, scores in part.items()}
        return {query: everything[query] for query in queries.ids}
    queries, documents = _sides(queries, documents, view)
    if view.candidates is not None:
        return _among_candidates(queries, documents, view, kind, k)
    return to_run(*search_texts(queries, documents, kind, k, hybrid=hybrid), queries.ids, documents.ids)


def _ranks_alike(first: View, second: View) -> bool:
    """Whether two views differ in their judgments only, as two protocols of localisation do."""
    return (
        first.transposed == second.transposed
        and first.qrels.keys() == second.qrels.keys()
        and (first.candidates is second.candidates or first.candidates == second.candidates)
    )


def _sides(queries: EncodedTexts, documents: EncodedTexts, view: View) -> tuple[EncodedTexts, EncodedTexts]:
    """The queries and documents of a view; the queries of a named one are those that have judgments there."""
    if view.transposed:
        queries, documents = documents, queries
    if view.name and not all(name in view.qrels for name in queries.ids):
        queries = queries.select([row for row, name in enumerate(queries.ids) if name in view.qrels])
    return queries, documents


def _among_candidates(queries: EncodedTexts, documents: EncodedTexts, view: View, kind: str, k: int | None) -> Run:
    """Ranked candidates; queries with the same ones, such as the phrases of an image, are searched together."""
    assert view.candidates is not None
    together: dict[tuple[str, ...], list[int]] = {}
    for row, name in enumerate(queries.ids):
        if candidates := tuple(view.candidates.get(name, ())):
            together.setdefault(candidates, []).append(row)
    run: Run = {}
    with delayed_progress(f"search {view.name}", len(together)) as advance:
        for candidates, rows in together.items():
            group, among = queries.select(rows), documents.of(candidates)
            result = search_texts(group, among, kind, k or len(candidates), progress=False)
            run |= to_run(*result, group.ids, among.ids)
            advance(1)
    return {name: run[name] for name in queries.ids if name in run}


def _full_ranks(
    queries: EncodedTexts, documents: EncodedTexts | Shards, view: View, kind: str, hybrid: Hybrid | None
) -> Ranks:
    """The rank of the best relevant document of each query, exactly, from rankings of everything."""
    if isinstance(documents, Shards):
        raise ValueError("median_rank needs all documents in memory: raise evaluation.shard_texts")
    queries, documents = _sides(queries, documents, view)
    if view.candidates is not None:
        run = _among_candidates(queries, documents, view, kind, None)
        return _best(relevance_of_run(run, view.qrels), view, [len(run.get(name, ())) for name in view.qrels])
    ranks: Ranks = {}
    step = max(1, _CELLS // len(documents.ids))
    for start in range(0, len(queries.ids), step):
        block = queries.select(range(start, min(start + step, len(queries.ids))))
        part = View(view.name, {name: view.qrels[name] for name in block.ids if name in view.qrels})
        qrels = IndexedQrels.of(part.qrels, block.ids, documents.ids)
        _, indices = search_texts(block, documents, kind, len(documents.ids), hybrid=hybrid)
        ranks |= _best(relevance_of_rankings(qrels, indices), part, [len(documents.ids)] * len(part.qrels))
    return {name: ranks.get(name, len(documents.ids) + 1) for name in view.qrels}


def _best(relevance: RankedRelevance, view: View, ranked: Sequence[int]) -> Ranks:
    """The best rank of each query; behind all that was ranked where nothing relevant was."""
    best = np.array(ranked, dtype=np.float64) + 1
    np.minimum.at(best, relevance.query, relevance.rank)
    return dict(zip(view.qrels, best.tolist(), strict=True))
