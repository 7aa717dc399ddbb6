"""Exact search in blocks: one vector a text (cosine, dot product), or one a token (MaxSim).

The result does not depend on the size of the blocks nor on the number of threads, bit for bit. A matrix product
usually does: its sums run in another order for another shape, and two copies of a document then differ in the
last bit. Here vectors are scaled to at most unit length and rounded to multiples of 2**-26 (pooled) or 2**-22
(tokens), and multiplied in double precision: every product and partial sum is then exact, in any order. The
rounding moves a cosine by about 1e-8 (pooled) or 1e-7 (tokens), which is below or near the resolution of single
precision. Weights of query tokens are rounded to multiples of 2**-26. Scores are returned, and ranked, in single
precision. Where there are many documents, single precision finds the candidates first (`retrieval.index.exact`), which
takes less than half the time and gives the same bits.

Equal scores are ranked as trec_eval ranks them, by descending document id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from foundations.checks import check_choice, check_number
from foundations.progress import delayed_progress
from retrieval.collection import Run
from retrieval.index.exact import (
    POOLED_GRID,
    TOKEN_GRID,
    WEIGHT_GRID,
    AllScores,
    Preselection,
    TopDocuments,
    blocks,
    check_documents,
    check_finite,
    error_bound,
    exact_result,
    kept_documents,
    on_grid,
    preselect,
    spans,
    tie_positions,
)
from retrieval.index.tokens import TokenMatrix

Similarity = Literal["cosine", "dot"]

_BYTES = 8
_MAX_QUERY_ROWS = 4096

_BLOCK = (_MAX_QUERY_ROWS, 32, 16, 16)
"""Most queries in a block; bytes for each number of a query, each score, and each number of a document."""

_FAST_BLOCK = (1024, 64, 6, 10)
"""The same where scores are computed in single precision."""

_FAST_FROM = 4


@torch.no_grad()
def search(
    queries: Tensor,
    documents: Tensor | Sequence[Tensor],
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
        documents: (N, D); or their parts one after the other, (n, D) each, such as memory-mapped shards, of which a
            block at a time is read.
        k: number of documents to find.
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
    check_choice("similarity", similarity, get_args(Similarity))
    check_number("memory_mb", memory_mb, least=1)
    parts = [documents] if isinstance(documents, Tensor) else documents
    _check_shapes(queries, parts[0])
    check_finite(queries, "query")
    device = torch.device(device or queries.device)
    total = sum(map(len, parts))
    check_documents(k, document_ids, total)
    is_fast = similarity == "cosine" and total >= _FAST_FROM * kept_documents(k)
    with (
        torch.autocast(device.type, enabled=False),
        delayed_progress("search", len(queries) * total, 2.0 if progress else math.inf) as advance,
    ):
        if is_fast:
            return _search_fast(queries, parts, k, document_ids, total, memory_mb, device, advance)
        return _search_slowly(queries, parts, k, document_ids, total, similarity, memory_mb, device, advance)


@torch.no_grad()
def search_tokens(
    queries: TokenMatrix,
    documents: TokenMatrix | Sequence[TokenMatrix],
    k: int,
    document_ids: Sequence[str],
    *,
    memory_mb: int = 256,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k most similar documents of each query under MaxSim, by one vector a token.

    The score is the sum, over the tokens of the query, of the largest cosine with a token of the document
    (ColBERT, Khattab & Zaharia 2020, eq. 3). It is not divided by the number of query tokens. Where the queries have
    weights, it is the weighted sum.

    Args:
        queries: Q texts; vectors need not be normalised.
        documents: N texts, of the same width; or their parts one after the other, such as memory-mapped shards.
        k: number of documents to find.
        document_ids: id of each document, all different; they break ties.
        memory_mb: memory for the blocks, in MiB; the result does not depend on it.
        device: where to multiply, by default where the queries are. It needs double precision.
        progress: show a bar when it takes long.

    Returns:
        Scores (Q, K), float32, descending, and document indices (Q, K), int64, both on the CPU; K = min(k, N).

    Raises:
        ValueError: widths that do not fit, equal ids, or vectors that are not finite.
    """
    parts = [documents] if isinstance(documents, TokenMatrix) else documents
    _check_shapes(queries.values, parts[0].values)
    check_finite(queries.values, "query token")
    device = torch.device(device or queries.values.device)
    top = TopDocuments(len(queries), k, document_ids, sum(map(len, parts)), device)
    _add_all_tokens(top, queries, parts, memory_mb, device, 2.0 if progress else math.inf)
    return top.result()


@torch.no_grad()
def score_all(
    queries: Tensor | TokenMatrix, documents: Sequence[Tensor] | Sequence[TokenMatrix], memory_mb: int = 256
) -> Tensor:
    """The score of every document, the same as `search` (by cosine) and `search_tokens` give.

    Args:
        queries: (Q, D), or the tokens of Q texts.
        documents: N of the same kind, in parts.
        memory_mb: memory for the blocks, in MiB; the result does not depend on it.

    Returns:
        (Q, N), float32, on the CPU.
    """
    result = AllScores(len(queries), sum(map(len, documents)))
    if isinstance(queries, TokenMatrix):
        _add_all_tokens(result, queries, documents, memory_mb, queries.values.device, math.inf)  # type: ignore[arg-type]
    else:
        _add_all(result, queries, documents, "cosine", memory_mb, queries.device, lambda _: None)  # type: ignore[arg-type]
    return result.scores


def to_run(scores: Tensor, indices: Tensor, query_ids: Sequence[str], document_ids: Sequence[str]) -> Run:
    """The result of a search as a run.

    Args:
        scores: (Q, K).
        indices: document indices, negative where there is none; (Q, K).
        query_ids: id of each row.
        document_ids: id of each document.
    """
    if scores.shape != indices.shape or len(query_ids) != len(indices):
        raise ValueError(
            f"scores {tuple(scores.shape)}, indices {tuple(indices.shape)} and {len(query_ids)} query ids do not fit"
        )
    rows = zip(query_ids, indices.tolist(), scores.tolist(), strict=True)
    return {
        query: {document_ids[i]: score for i, score in zip(row, row_scores, strict=True) if i >= 0}
        for query, row, row_scores in rows
    }


def _search_fast(
    queries: Tensor,
    parts: Sequence[Tensor],
    k: int,
    document_ids: Sequence[str],
    total: int,
    memory_mb: int,
    device: torch.device,
    advance: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Cosine search by candidates in single precision; see `retrieval.index.exact`."""
    width = queries.shape[1]
    selection = Preselection(len(queries), k, total, error_bound(width), device)
    preselect(queries, parts, selection, _block_rows(len(queries), width, memory_mb, _FAST_BLOCK), advance)
    scores, indices, wrong = exact_result(queries, parts, selection, tie_positions(document_ids), memory_mb)
    scores, indices = scores.cpu(), indices.cpu()
    if wrong.any():
        rest = queries[wrong.to(queries.device)]
        again = _search_slowly(rest, parts, k, document_ids, total, "cosine", memory_mb, device, lambda _: None)
        scores[wrong.cpu()], indices[wrong.cpu()] = again
    return scores, indices


def _search_slowly(
    queries: Tensor,
    parts: Sequence[Tensor],
    k: int,
    document_ids: Sequence[str],
    total: int,
    similarity: Similarity,
    memory_mb: int,
    device: torch.device,
    advance: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Search by computing all scores in double precision."""
    top = TopDocuments(len(queries), k, document_ids, total, device)
    _add_all(top, queries, parts, similarity, memory_mb, device, advance)
    return top.result()


def _add_all(
    top: TopDocuments | AllScores,
    queries: Tensor,
    parts: Sequence[Tensor],
    similarity: Similarity,
    memory_mb: int,
    device: torch.device,
    advance: Callable[[float], None],
) -> None:
    """Compute all scores in double precision."""
    normalise = similarity == "cosine"
    query_rows, document_rows = _block_rows(len(queries), queries.shape[1], memory_mb, _BLOCK)
    for first, part in blocks(parts, document_rows):
        check_finite(part, "document", first)
        block, block_scale = on_grid(part.to(device), POOLED_GRID, normalise)
        indices = torch.arange(first, first + len(part))
        for rows in spans(len(queries), query_rows):
            vectors, scale = on_grid(queries[rows].to(device), POOLED_GRID, normalise)
            scores = vectors @ block.T
            if not normalise:
                scores *= scale * block_scale.T
            top.add(rows, scores.float(), indices)
            advance(scores.numel())


def _add_all_tokens(
    top: TopDocuments | AllScores,
    queries: TokenMatrix,
    parts: Sequence[TokenMatrix],
    memory_mb: int,
    device: torch.device,
    delay: float,
) -> None:
    """Compute MaxSim of all queries and documents in double precision; a bar shows after `delay` seconds."""
    total = len(queries.values) * sum(len(part.values) for part in parts)
    first = 0
    with delayed_progress("search", total, delay) as advance:
        for part in parts:
            check_finite(part.values, "document token")
            for indices, columns in _column_blocks(part, memory_mb, device):
                limit = max(1, memory_mb * 2**20 // _BYTES // 4 // len(indices))
                for rows in _text_blocks(queries.lengths.cpu(), min(limit, _MAX_QUERY_ROWS)):
                    block = queries.select(torch.arange(rows.start, rows.stop, device=queries.offsets.device))
                    vectors, _ = on_grid(block.values.to(device), TOKEN_GRID)
                    weights = None if block.weights is None else block.weights.to(device)
                    top.add(rows, _maxsim(vectors, block.lengths.to(device), weights, columns).float(), indices + first)
                    advance(len(vectors) * sum(map(len, columns)))
            first += len(part)


def _column_blocks(
    documents: TokenMatrix, memory_mb: int, device: torch.device
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Blocks of texts of like length: their indices, and token t of each that has one, for each t."""
    tokens = max(1, memory_mb * 2**20 // _BYTES // 4 // documents.values.shape[1])
    # The longest first, so that token t is there in the first texts only.
    order = documents.lengths.cpu().argsort(descending=True, stable=True)
    for texts in _text_blocks(documents.lengths.cpu()[order], tokens):
        indices = order[texts]
        block = documents.select(indices.to(documents.offsets.device))
        values, _ = on_grid(block.values.to(device), TOKEN_GRID)
        starts, lengths = block.offsets[:-1].to(device), block.lengths.to(device)
        yield indices, [values[starts[lengths > t] + t] for t in range(int(lengths.max()))]


def _maxsim(query_vectors: Tensor, lengths: Tensor, weights: Tensor | None, columns: list[Tensor]) -> Tensor:
    """MaxSim of q queries with d documents, (q, d).

    The queries' tokens stand end to end, (tokens, D), with their `lengths`, (q,), and what each counts, (tokens,);
    `columns` holds token t of each document that has more than t tokens, documents by descending length.
    """
    best = query_vectors @ columns[0].T
    for column in columns[1:]:
        part = best[:, : len(column)]
        torch.maximum(part, query_vectors @ column.T, out=part)
    if weights is not None:  # multiples of 2**-52 below 2, as all their sums are
        best = best.mul_(WEIGHT_GRID).round_().mul_(1 / WEIGHT_GRID)
        best *= weights.double().mul_(WEIGHT_GRID).round_().mul_(1 / WEIGHT_GRID)[:, None]
    query = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    return best.new_zeros(len(lengths), best.shape[1]).index_add_(0, query, best)


def _block_rows(queries: int, width: int, memory_mb: int, sizes: tuple[int, int, int, int]) -> tuple[int, int]:
    """Rows of a query block and of a document block: vectors, scores and their copies stay within the memory."""
    most, per_query, per_score, per_document = sizes
    memory = memory_mb * 2**20
    query_rows = max(1, min(queries, most, memory // (per_query * width)))
    return query_rows, max(1, memory // (per_score * query_rows + per_document * width))


def _text_blocks(lengths: Tensor, tokens: int) -> Iterator[slice]:
    """Runs of texts with at most `tokens` tokens together, at least one text each."""
    ends = lengths.cumsum(0)
    start = 0
    while start < len(lengths):
        used = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, used + tokens, right=True)))
        yield slice(start, stop)
        start = stop


def _check_shapes(queries: Tensor, documents: Tensor) -> None:
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise ValueError(
            f"queries have shape {tuple(queries.shape)} and documents {tuple(documents.shape)}, "
            "expected (Q, D) and (N, D) of the same width"
        )
