"""Reranking: a student scores the documents that another system retrieved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

from datamodules.pairs import TextBatch
from foundations.errors import InputError
from foundations.progress import delayed_progress
from lightning_modules.distillation import DistillationModule
from lightning_modules.evaluation.encoding import EncodedTexts, encode_with_teacher
from retrieval.collection import Collection, Run
from retrieval.index.search import search, search_tokens, to_run
from retrieval.trec import ranked_documents

_BATCH = 256

_QUERIES = 512
"""Queries whose documents are encoded, and held in memory, together."""


@torch.no_grad()
def rerank_run(module: DistillationModule, collection: Collection, run: Run, depth: int, path: str) -> Run:
    """The first documents of each query, scored by the student (and the teacher, on the side that it reads).

    Documents below `depth` are left out. Scores are those that a search over the whole collection would give.

    Args:
        module: with the weights to use; ``score`` says how texts are compared (``both`` means MaxSim).
        collection: the texts, and who reads them.
        run: query id -> document id -> score.
        depth: documents to score for each query.
        path: where the run is from, for the error messages.

    Returns:
        Query id -> document id -> score.

    Raises:
        InputError: the run names a query or a document that the collection lacks, or no query of it.
    """
    module.eval()
    first = {query: ranked_documents(scores)[:depth] for query, scores in run.items()}
    _check_known(collection, first, path)
    reranked: Run = {}
    queries = list(first)
    with delayed_progress("rerank", len(queries)) as advance:
        for start in range(0, len(queries), _QUERIES):
            some = queries[start : start + _QUERIES]
            wanted = dict.fromkeys(document for query in some for document in first[query])
            read_queries = _encode(module, collection, "queries", some)
            read_documents = _encode(module, collection, "documents", wanted)
            for query in some:
                reranked |= _score(module, _select(read_queries, [query]), _select(read_documents, first[query]))
                advance(1)
    return reranked


def _check_known(collection: Collection, first: Mapping[str, list[str]], path: str) -> None:
    for query, documents in first.items():
        if query not in collection.queries:
            raise InputError(f"the query {query!r} is not in the collection {collection.name!r}", path)
        for document in documents:
            if document not in collection.documents:
                raise InputError(f"the document {document!r} is not in the collection {collection.name!r}", path)


def _encode(
    module: DistillationModule, collection: Collection, side: Literal["queries", "documents"], ids: Iterable[str]
) -> EncodedTexts:
    """Some texts of one side, read by whoever reads that side."""
    is_queries = side == "queries"
    texts = collection.queries if is_queries else collection.documents
    some = {name: texts[name] for name in ids}
    reader = collection.query_side if is_queries else collection.document_side
    if reader == "teacher" and not module.siamese:
        return encode_with_teacher(module.teacher, some, module.score != "pooled", side)
    parts = []
    items = sorted(some.items(), key=lambda item: -len(item[1]))
    for start in range(0, len(items), _BATCH):
        names, chunk = zip(*items[start : start + _BATCH], strict=True)
        batch = TextBatch(collection.name, side, list(names), list(chunk))
        encoded: Any = module.test_step(batch, 0)
        parts.append(EncodedTexts.from_embeddings(batch.ids, encoded))
    return EncodedTexts.concatenate(parts)


def _select(encoded: EncodedTexts, ids: list[str]) -> EncodedTexts:
    """The texts with these ids, in this order."""
    place = {name: row for row, name in enumerate(encoded.ids)}
    rows = torch.tensor([place[name] for name in ids])
    tokens = None if encoded.tokens is None else encoded.tokens.select(rows)
    return EncodedTexts(ids, encoded.pooled[rows], tokens)


def _score(module: DistillationModule, query: EncodedTexts, documents: EncodedTexts) -> Run:
    """Scores of one query's documents."""
    depth = len(documents.ids)
    if module.score == "pooled":
        found = search(query.pooled, documents.pooled, depth, documents.ids, progress=False)
    else:
        assert query.tokens is not None
        assert documents.tokens is not None
        found = search_tokens(query.tokens, documents.tokens, depth, documents.ids, progress=False)
    return to_run(*found, query.ids, documents.ids)
