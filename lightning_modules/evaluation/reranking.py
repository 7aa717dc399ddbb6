"""Reranking: a student scores the documents that another system retrieved."""

from __future__ import annotations

from foundations.errors import InputError
from foundations.progress import delayed_progress
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import EncodedTexts, encode, encoder_of
from lightning_modules.evaluation.ranking import search_texts
from lightning_modules.students.base import TextSide
from retrieval.collection import Collection, Run
from retrieval.index.search import to_run
from retrieval.trec import ranked_documents
from strategies.functional import Marginals

_QUERIES = 512
"""Queries whose documents are encoded, and held in memory, together."""


def rerank_run(
    module: DistillationModule,
    collection: Collection,
    run: Run,
    depth: int,
    path: str,
    token_weights: Marginals = "uniform",
) -> Run:
    """The first documents of each query, scored by the student (and the teacher, on the side that it reads).

    Documents below `depth` are left out. Scores are those that a search over the whole collection would give.

    Args:
        module: with the weights to use; ``score`` says how texts are compared (``both`` and ``hybrid`` mean MaxSim).
        collection: the texts, and who reads them.
        run: query id -> document id -> score.
        depth: documents to score for each query.
        path: where the run is from, for the error messages.
        token_weights: how much the query's tokens count in MaxSim.

    Returns:
        Query id -> document id -> score.

    Raises:
        InputError: the run names a query or a document that the collection lacks, or no query of it.
    """
    first = {query: ranked_documents(scores)[:depth] for query, scores in run.items()}
    for query, documents in first.items():
        for what, name, known in [("query", query, collection.queries)] + [
            ("document", document, collection.documents) for document in documents
        ]:
            if name not in known:
                raise InputError(f"the {what} {name!r} is not in the collection {collection.name!r}", path)

    def encoded(side: TextSide, ids: list[str]) -> EncodedTexts:
        texts = collection.texts(side)
        encoder = encoder_of(module, module.reader_of(collection, side))
        chosen, tokens = {name: texts[name] for name in ids}, module.score != "pooled"
        kind = token_weights if side == "queries" else "uniform"
        return encode(encoder, chosen, side, tokens=tokens, token_weights=kind)

    reranked: Run = {}
    kind = "pooled" if module.score == "pooled" else "maxsim"
    names = list(first)
    with delayed_progress("rerank", len(names)) as advance:
        for start in range(0, len(names), _QUERIES):
            block = names[start : start + _QUERIES]
            queries = encoded("queries", block)
            candidates = encoded("documents", list(dict.fromkeys(each for query in block for each in first[query])))
            for query in block:
                single, among = queries.of([query]), candidates.of(first[query])
                result = search_texts(single, among, kind, len(among.ids), progress=False)
                reranked |= to_run(*result, single.ids, among.ids)
                advance(1)
    return reranked
