"""Search and score: encoded texts and a collection in, metrics and ranked lists out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from foundations.progress import delayed_progress
from lightning_modules.evaluation.encoding import EncodedTexts
from lightning_modules.evaluation.large import merge_runs
from retrieval.collection import Collection, Run, View
from retrieval.index.search import search, search_tokens, to_run
from retrieval.index.shards import Shards
from retrieval.metrics import PerQuery
from retrieval.relevance import IndexedQrels, RankedRelevance, relevance_of_rankings, relevance_of_run
from retrieval.results import Result
from retrieval.views import Ranks, score_views, views_of

_CELLS = 1 << 24
"""Places of full rankings that are in memory at once."""


def rank(
    queries: EncodedTexts,
    documents: EncodedTexts | Shards,
    collection: Collection,
    metrics: Sequence[str],
    score: str,
    k: int,
) -> Result:
    """Search and score, in each view of the collection.

    In a transposed view, MaxSim sums over the tokens of the documents, which ask there.

    Args:
        queries: the encoded queries.
        documents: the encoded documents. Where they are shards, the ranks search together, each for some queries.
        collection: gives the judgments.
        metrics: names as in `retrieval.metrics.parse_metric`.
        score: ``pooled``, ``maxsim`` or ``both``; with ``both`` the metrics of MaxSim are named ``maxsim/...``.
        k: documents to retrieve for each query.
    """
    means: dict[str, float] = {}
    per_query: PerQuery = {}
    runs: dict[str, Run] = {}
    for kind in ("pooled", "maxsim") if score == "both" else (score,):
        found: dict[str, Run] = {}
        for view in (views := views_of(collection)):
            same = next((each for each in views[: len(found)] if _ranks_alike(each, view)), None)
            found[view.name] = found[same.name] if same else _ranked_lists(queries, documents, view, kind, k)
        scores = score_views(collection, found, metrics, lambda view: _full_ranks(queries, documents, view, kind))  # noqa: B023
        prefix = "maxsim/" if kind == "maxsim" and score == "both" else ""
        means |= {prefix + metric: value for metric, value in scores.means.items()}
        per_query |= {prefix + metric: values for metric, values in scores.per_query.items()}
        runs |= {f"{name}.{kind}" if name else kind: run for name, run in found.items()}
    return Result(means, per_query, runs)


def _ranked_lists(queries: EncodedTexts, documents: EncodedTexts | Shards, view: View, kind: str, k: int) -> Run:
    """The first k of each that asks in a view."""
    if isinstance(documents, Shards):
        assert not view.transposed
        assert view.candidates is None
        own = queries.own_share()
        found = {kind: to_run(*_search(own, documents, kind, k), own.ids, documents.ids)} if own.ids else {}
        return merge_runs(found, queries.ids)[kind]
    asking, asked = _sides(queries, documents, view)
    if view.candidates is not None:
        return _among_candidates(asking, asked, view, kind, k)
    return to_run(*_search(asking, asked, kind, k), asking.ids, asked.ids)


def _ranks_alike(one: View, other: View) -> bool:
    """Whether two views differ in their judgments only, as two protocols of localisation do."""
    return (
        one.transposed == other.transposed
        and one.qrels.keys() == other.qrels.keys()
        and (one.candidates is other.candidates or one.candidates == other.candidates)
    )


def _sides(queries: EncodedTexts, documents: EncodedTexts, view: View) -> tuple[EncodedTexts, EncodedTexts]:
    """Who asks, and who is asked for; in a named view only those ask that have judgments there."""
    asking, asked = (documents, queries) if view.transposed else (queries, documents)
    if view.name and not all(name in view.qrels for name in asking.ids):
        asking = asking.select([row for row, name in enumerate(asking.ids) if name in view.qrels])
    return asking, asked


def _search(
    asking: EncodedTexts, asked: EncodedTexts | Shards, kind: str, k: int, bar: bool = True
) -> tuple[Tensor, Tensor]:
    if kind == "pooled":
        return search(asking.pooled, asked.pooled, k, asked.ids, progress=bar)
    if asking.tokens is None or asked.tokens is None:
        raise ValueError("MaxSim needs token states, but the texts were encoded without")
    return search_tokens(asking.tokens, asked.tokens, k, asked.ids, progress=bar)


def _among_candidates(asking: EncodedTexts, asked: EncodedTexts, view: View, kind: str, k: int | None) -> Run:
    """Ranked candidates; those that have the same ones, such as the phrases of an image, are searched together."""
    assert view.candidates is not None
    together: dict[tuple[str, ...], list[int]] = {}
    for row, name in enumerate(asking.ids):
        if candidates := tuple(view.candidates.get(name, ())):
            together.setdefault(candidates, []).append(row)
    places = {name: place for place, name in enumerate(asked.ids)}
    run: Run = {}
    with delayed_progress(f"search {view.name}", len(together)) as advance:
        for candidates, rows in together.items():
            these, those = asking.select(rows), asked.select([places[name] for name in candidates])
            found = _search(these, those, kind, k or len(candidates), bar=False)
            run |= to_run(*found, these.ids, those.ids)
            advance(1)
    return {name: run[name] for name in asking.ids if name in run}


def _full_ranks(queries: EncodedTexts, documents: EncodedTexts | Shards, view: View, kind: str) -> Ranks:
    """The rank of the best relevant document of each that asks, exactly, from rankings of everything."""
    if isinstance(documents, Shards):
        raise ValueError("median_rank needs all documents in memory: raise evaluation.shard_texts")
    asking, asked = _sides(queries, documents, view)
    if view.candidates is not None:
        run = _among_candidates(asking, asked, view, kind, None)
        return _best(relevance_of_run(run, view.qrels), view, [len(run.get(name, ())) for name in view.qrels])
    ranks: Ranks = {}
    step = max(1, _CELLS // len(asked.ids))
    for start in range(0, len(asking.ids), step):
        block = asking.select(range(start, min(start + step, len(asking.ids))))
        part = View(view.name, {name: view.qrels[name] for name in block.ids if name in view.qrels})
        judgments = IndexedQrels.of(part.qrels, block.ids, asked.ids)
        _, indices = _search(block, asked, kind, len(asked.ids))
        ranks |= _best(relevance_of_rankings(judgments, indices), part, [len(asked.ids)] * len(part.qrels))
    return {name: ranks.get(name, len(asked.ids) + 1) for name in view.qrels}


def _best(relevance: RankedRelevance, view: View, ranked: Sequence[int]) -> Ranks:
    """The best rank of each query; behind all that was ranked where nothing relevant was."""
    best = np.array(ranked, dtype=np.float64) + 1
    np.minimum.at(best, relevance.query, relevance.rank)
    return dict(zip(view.qrels, best.tolist(), strict=True))
