"""Exact search in blocks: one vector a text (cosine, dot product), or one a token (MaxSim).

The result does not depend on the size of the blocks nor on the number of threads, bit for bit. A matrix product
usually does: its sums run in another order for another shape, and two copies of a document then differ in the
last bit. Here vectors are scaled to at most unit length and rounded to multiples of 2**-26 (pooled) or 2**-22
(tokens), and multiplied in double precision: every product and partial sum is then exact, in any order. The
rounding moves a cosine by about 1e-8 (pooled) or 1e-7 (tokens), which is below or near the resolution of single
precision. Scores are returned, and ranked, in single precision.

Equal scores are ranked as trec_eval ranks them, by descending document id.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from retrieval.collection import Run
from retrieval.progress import delayed_progress
from retrieval.tokens import TokenMatrix
from retrieval.top_documents import TopDocuments

Similarity = Literal["cosine", "dot"]

_POOLED_GRID = 2.0**26
_TOKEN_GRID = 2.0**22  # coarser, so that sums over up to 512 query tokens are exact as well
_BYTES = 8
_MAX_QUERY_ROWS = 4096
_ROWS_PER_CHECK = 65536


@torch.no_grad()
def search(
    queries: Tensor,
    documents: Tensor,
    k: int,
    document_ids: Sequence[str],
    *,
    similarity: Similarity = "cosine",
    memory_mb: int = 256,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k most similar documents of each query, by one vector a text.

    Args:
        queries: (Q, D), any floating type.
        documents: (N, D).
        k: number of documents wanted.
        document_ids: id of each document, all different; they break ties.
        similarity: ``cosine``, or ``dot`` for the plain product.
        memory_mb: memory for the blocks, in MiB; the result does not depend on it.
        device: where to multiply, by default where the queries are. It needs double precision.
        progress: show a bar when it takes long.

    Returns:
        Scores (Q, K), float32, descending, and document indices (Q, K), int64, both on the CPU; K = min(k, N).

    Raises:
        ValueError: shapes that do not fit, equal ids, or vectors that are not finite.
    """
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"unknown similarity {similarity!r}, expected 'cosine' or 'dot'")
    _check_vectors(queries, documents, "")
    device = torch.device(device or queries.device)
    top = TopDocuments(len(queries), k, document_ids, len(documents), device)
    query_rows, document_rows = _block_rows(len(queries), queries.shape[1], memory_mb)
    normalise = similarity == "cosine"
    total = len(queries) * len(documents)
    with delayed_progress("search", total, 2.0 if progress else math.inf) as advance:
        for some in _spans(len(documents), document_rows):
            block, block_scale = _on_grid(documents[some].to(device), _POOLED_GRID, normalise)
            indices = torch.arange(some.start, some.stop)
            for rows in _spans(len(queries), query_rows):
                vectors, scale = _on_grid(queries[rows].to(device), _POOLED_GRID, normalise)
                scores = vectors @ block.T
                if not normalise:
                    scores *= scale * block_scale.T
                top.add(rows, scores.float(), indices)
                advance(scores.numel())
    return top.result()


@torch.no_grad()
def search_tokens(
    queries: TokenMatrix,
    documents: TokenMatrix,
    k: int,
    document_ids: Sequence[str],
    *,
    memory_mb: int = 256,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k most similar documents of each query under MaxSim, by one vector a token.

    The score is the sum, over the tokens of the query, of the largest cosine with a token of the document
    (ColBERT, Khattab & Zaharia 2020, eq. 3). It is not divided by the number of query tokens.

    Args:
        queries: Q texts; vectors need not be normalised.
        documents: N texts, of the same width.
        k: number of documents wanted.
        document_ids: id of each document, all different; they break ties.
        memory_mb: memory for the blocks, in MiB; the result does not depend on it.
        device: where to multiply, by default where the queries are. It needs double precision.
        progress: show a bar when it takes long.

    Returns:
        Scores (Q, K), float32, descending, and document indices (Q, K), int64, both on the CPU; K = min(k, N).

    Raises:
        ValueError: widths that do not fit, equal ids, or vectors that are not finite.
    """
    _check_vectors(queries.values, documents.values, " token")
    device = torch.device(device or queries.values.device)
    top = TopDocuments(len(queries), k, document_ids, len(documents), device)
    tokens = max(1, memory_mb * 2**20 // _BYTES // 4 // queries.values.shape[1])
    # Texts of like length share a block: the longest first, so that token t is there in the first texts only.
    order = documents.lengths.cpu().argsort(descending=True, stable=True)
    total = len(queries.values) * len(documents.values)
    with delayed_progress("search", total, 2.0 if progress else math.inf) as advance:
        for texts in _text_blocks(documents.lengths.cpu()[order], tokens):
            indices = order[texts]
            columns = _token_columns(documents.select(indices.to(documents.offsets.device)), device)
            limit = max(1, memory_mb * 2**20 // _BYTES // 4 // len(indices))
            for rows in _text_blocks(queries.lengths.cpu(), min(limit, _MAX_QUERY_ROWS)):
                block = queries.select(torch.arange(rows.start, rows.stop, device=queries.offsets.device))
                vectors, _ = _on_grid(block.values.to(device), _TOKEN_GRID)
                top.add(rows, _maxsim(vectors, block.lengths.to(device), columns).float(), indices)
                advance(len(vectors) * sum(map(len, columns)))
    return top.result()


def to_run(scores: Tensor, indices: Tensor, query_ids: Sequence[str], document_ids: Sequence[str]) -> Run:
    """The result of a search as a run.

    Args:
        scores: (Q, K).
        indices: document indices; (Q, K).
        query_ids: id of each row.
        document_ids: id of each document.
    """
    if scores.shape != indices.shape or len(query_ids) != len(indices):
        raise ValueError(
            f"scores {tuple(scores.shape)}, indices {tuple(indices.shape)} and {len(query_ids)} query ids do not fit"
        )
    rows = zip(query_ids, indices.tolist(), scores.tolist(), strict=True)
    return {query: {document_ids[i]: s for i, s in zip(found, row, strict=True)} for query, found, row in rows}


def _maxsim(query_vectors: Tensor, lengths: Tensor, columns: list[Tensor]) -> Tensor:
    """MaxSim of some queries with some documents.

    Args:
        query_vectors: the tokens of the queries, end to end; (tokens, D).
        lengths: tokens of each query; (q,).
        columns: token t of each document that has more than t tokens, documents by descending length.

    Returns:
        (q, d).
    """
    best = query_vectors @ columns[0].T
    for column in columns[1:]:
        part = best[:, : len(column)]
        torch.maximum(part, query_vectors @ column.T, out=part)
    query = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    return best.new_zeros(len(lengths), best.shape[1]).index_add_(0, query, best)


def _token_columns(texts: TokenMatrix, device: torch.device) -> list[Tensor]:
    """Token t of each text that has one, for each t; texts by descending length."""
    values, _ = _on_grid(texts.values.to(device), _TOKEN_GRID)
    starts, lengths = texts.offsets[:-1].to(device), texts.lengths.to(device)
    return [values[starts[lengths > t] + t] for t in range(int(lengths.max()))]


def _on_grid(vectors: Tensor, grid: float, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Vectors scaled to at most unit length, in double precision, rounded to multiples of 1 / grid.

    Args:
        vectors: (n, D).
        grid: a power of two.
        normalise: divide by the norm; otherwise by the next power of two, so that the scale can be undone exactly.

    Returns:
        The vectors (n, D), and what they were divided by (n, 1).
    """
    vectors = vectors.double()
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    if normalise:
        scale = norms.clamp_min(torch.finfo(torch.float64).tiny)
    else:
        scale = torch.ldexp(torch.ones_like(norms), torch.frexp(norms).exponent)
    return (vectors / scale).mul_(grid).round_().div_(grid), scale


def _block_rows(queries: int, width: int, memory_mb: int) -> tuple[int, int]:
    """Rows of a query block and of a document block: vectors, scores and their copies stay within the memory."""
    if memory_mb < 1:
        raise ValueError(f"memory_mb is {memory_mb}, expected at least 1")
    numbers = memory_mb * 2**20 // _BYTES
    query_rows = max(1, min(queries, _MAX_QUERY_ROWS, numbers // (4 * width)))
    return query_rows, max(1, numbers // (2 * (query_rows + width)))


def _spans(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _text_blocks(lengths: Tensor, tokens: int) -> Iterator[slice]:
    """Runs of texts with at most so many tokens together, at least one text each."""
    ends = lengths.cumsum(0)
    start = 0
    while start < len(lengths):
        used = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, used + tokens, right=True)))
        yield slice(start, stop)
        start = stop


def _check_vectors(queries: Tensor, documents: Tensor, unit: str) -> None:
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(
            f"queries have shape {tuple(queries.shape)} and documents {tuple(documents.shape)}, "
            "expected (Q, D) and (N, D) of the same width"
        )
    for name, vectors in (("query", queries), ("document", documents)):
        for rows in _spans(len(vectors), _ROWS_PER_CHECK):
            wrong = torch.nonzero(~torch.isfinite(vectors[rows]).all(dim=1))
            if len(wrong):
                raise ValueError(f"the vector of {name}{unit} {rows.start + int(wrong[0])} is not finite")
