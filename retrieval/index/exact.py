"""The parts of an exact search: vectors on a grid, the best documents of blocks of scores, and a fast preselection.

The exact score of a query and a document is the product of their vectors on the grid (`on_grid`). In single precision
it comes out within a distance e of it (`error_bound`). If b is the k-th best approximate score, then k documents have
exact scores of at least b - e, so each of the k best has an approximate score of at least b - 2e. The preselection
keeps all of these; as e is about 5e-5 for 384 dimensions, they are hardly more than k. Their exact scores give the
result, the same bits as computing all scores exactly. Where too many documents are that near to each other (as copies
are), the query is searched in the slow way.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from retrieval.index.stored_ids import StoredIds

POOLED_GRID = 2.0**26
TOKEN_GRID = 2.0**22  # coarser, so that sums over up to 512 query tokens are exact as well
WEIGHT_GRID = 2.0**26  # of the weights of tokens, which sum to one, and of what they weigh: so are their products' sums

_SMALLEST = torch.finfo(torch.float64).tiny
_SAFE_NORMS = (1e-15, 1e15)
_SLOW_ROWS = 1024
_ROWS_PER_CHECK = 8192
_ROWS_IN_CACHE = 256
_MIB = 2**20


def on_grid(vectors: Tensor, grid: float, normalise: bool = True) -> tuple[Tensor, Tensor]:
    """Vectors (n, D) scaled to at most unit length, rounded to multiples of 1 / grid, and what divided them (n, 1).

    Both are in double precision. The grid is a power of two. Without `normalise` the divisor is not the norm but the
    next power of two, so that the scale can be undone exactly.
    """
    if vectors.device.type == "cpu" and len(vectors) > _ROWS_IN_CACHE:
        result, scales = torch.empty(vectors.shape, dtype=torch.float64), torch.empty(len(vectors), 1).double()
        for rows in spans(len(vectors), _ROWS_IN_CACHE):
            result[rows], scales[rows] = on_grid(vectors[rows], grid, normalise)
        return result, scales
    vectors = vectors.double()
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    scale = (
        norms.clamp_min(_SMALLEST) if normalise else torch.ldexp(torch.ones_like(norms), torch.frexp(norms).exponent)
    )
    return (vectors / scale).mul_(grid).round_().mul_(1 / grid), scale


def spans(total: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` rows, one after the other."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def blocks(parts: Sequence[Tensor], size: int) -> Iterator[tuple[int, Tensor]]:
    """The rows of all parts, at most `size` at a time, with the number of the first one."""
    first = 0
    for part in parts:
        for rows in spans(len(part), size):
            yield first + rows.start, part[rows]
        first += len(part)


def check_finite(vectors: Tensor, name: str, first: int = 0) -> None:
    """Raise ValueError where one of some vectors, (n, D), is not finite; `first` is the number of the first of them."""
    for rows in spans(len(vectors), _ROWS_PER_CHECK):
        wrong = torch.nonzero(~torch.isfinite(vectors[rows]).all(dim=1))
        if len(wrong):
            raise ValueError(f"the vector of {name} {first + rows.start + int(wrong[0])} is not finite")


def check_documents(k: int, document_ids: Sequence[str], documents: int) -> None:
    """Raise ValueError where there is nothing to rank, or the ids are not N different ones."""
    if k < 1 or documents < 1:
        raise ValueError(f"k is {k} with {documents} documents, expected at least 1 of each")
    if len(document_ids) != documents:
        raise ValueError(f"there are {len(document_ids)} document ids for {documents} documents")
    if not isinstance(document_ids, StoredIds) and len(set(document_ids)) != documents:
        twice = Counter(document_ids).most_common(1)[0][0]
        raise ValueError(f"document id {twice!r} appears twice: ids must differ to break ties")


class TopDocuments:
    """The k best of N documents for each of Q queries, while the scores come in blocks.

    Documents are ordered by descending score and then by descending id, as trec_eval orders them; the result does not
    depend on how the documents were cut into blocks, nor on the order of the blocks. `device` is where the scores are;
    for the ids see `check_documents`.
    """

    def __init__(self, queries: int, k: int, document_ids: Sequence[str], documents: int, device: torch.device) -> None:
        check_documents(k, document_ids, documents)
        k = min(k, documents)
        # Position in the order of ties stands for the document until the end.
        self._position = tie_positions(document_ids).to(device)
        self._scores = torch.full((queries, k), -torch.inf, device=device)
        self._positions = torch.full((queries, k), documents, device=device, dtype=torch.int32)

    def add(self, rows: slice, scores: Tensor, documents: Tensor) -> None:
        """Take in the scores of a block: of the queries `rows` (q), and of `documents`, indices (d,), int64.

        Scores are above minus infinity; (q, d), float32. A query meets each document once.
        """
        position = self._position[documents.to(self._position.device)].expand(len(scores), -1)
        kept = self._scores.shape[1]
        block_scores, block_positions = _select(scores, position, min(kept, len(documents)))
        merged = torch.cat([self._scores[rows], block_scores], dim=1)
        positions = torch.cat([self._positions[rows], block_positions], dim=1)
        self._scores[rows], self._positions[rows] = _select(merged, positions, kept)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores (Q, K), float32, and document indices (Q, K), int64, on the CPU; K = min(k, N)."""
        columns = _by_rank(self._scores, self._positions)
        positions = self._positions.gather(1, columns).cpu()
        return self._scores.gather(1, columns).cpu(), self._position.cpu().argsort()[positions.long()]


class AllScores:
    """The scores of all N documents for each of Q queries, while they come in blocks; see `TopDocuments`."""

    def __init__(self, queries: int, documents: int) -> None:
        self.scores = torch.empty(queries, documents)

    def add(self, rows: slice, scores: Tensor, documents: Tensor) -> None:
        """Take in the scores of a block: of the queries `rows` (q), and of `documents`, indices (d,), int64."""
        self.scores[rows, documents] = scores.cpu()


def tie_positions(document_ids: Sequence[str]) -> Tensor:
    """Position of each document in descending order of the ids, which is the order of ties; (N,), int32."""
    if isinstance(document_ids, StoredIds):
        return document_ids.positions()
    order = torch.tensor(sorted(range(len(document_ids)), key=document_ids.__getitem__, reverse=True))
    positions = torch.empty(len(order), dtype=torch.int32)
    positions[order] = torch.arange(len(order), dtype=torch.int32)
    return positions


def _select(scores: Tensor, positions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scores and positions of the k best columns of each row, in no order; ties by ascending position."""
    best, columns = scores.topk(k, dim=1, sorted=False)
    # topk takes any of the documents that are tied at the end of the list: redo those rows.
    unclear = torch.nonzero((scores >= best.amin(dim=1, keepdim=True)).sum(dim=1, dtype=torch.int32) > k)[:, 0]
    if len(unclear):
        columns[unclear] = _by_rank(scores[unclear], positions[unclear])[:, :k]
    return scores.gather(1, columns), positions.gather(1, columns)


def _by_rank(scores: Tensor, positions: Tensor) -> Tensor:
    """Columns of each row by descending score and ascending position."""
    by_position = positions.argsort(dim=1)
    return by_position.gather(1, scores.gather(1, by_position).argsort(dim=1, descending=True, stable=True))


def error_bound(width: int) -> float:
    """Largest distance of a cosine of vectors of width D in single precision from the one on the grid.

    With u = 2**-24: a sum of D products is off by at most D u / (1 - D u) whatever its order (Higham 2002, eq. 3.5),
    dividing a document by its norm in single precision adds at most (D / 2 + 3) u, rounding the query u, the grid at
    most sqrt(D) u / 4, and rounding the exact score u. Together that is below (2 D + 32) u.
    """
    return (2 * width + 32) * 2.0**-24


def kept_documents(k: int) -> int:
    """How many documents a preselection keeps for each query."""
    return k + max(64, k // 8)


class Preselection:
    """All of N documents that may be among the k <= N best of Q queries, from approximate scores that come in blocks.

    The `error` is the largest distance of an approximate score from the exact one.
    """

    def __init__(self, queries: int, k: int, documents: int, error: float, device: torch.device) -> None:
        self.k, self.error = k, error
        self.size = min(documents, kept_documents(k))
        self.complete = self.size == documents
        self.scores = torch.full((queries, self.size), -torch.inf, device=device)
        self.documents = torch.zeros((queries, self.size), dtype=torch.int32, device=device)

    def add(self, rows: slice, scores: Tensor, first: int) -> None:
        """Take in the scores of a block: of the queries `rows` and of the documents from number `first` on, float32."""
        cut = self.scores[rows, self.k - 1 : self.k] - 2 * self.error
        near = scores >= cut
        count = int(torch.count_nonzero(near))
        if count == 0:
            return
        if count > self.size * len(scores):
            best, columns = scores.topk(min(self.size, scores.shape[1]), dim=1)
        else:
            query, column = torch.nonzero(near, as_tuple=True)
            counts = torch.bincount(query, minlength=len(scores))
            slot = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
            best = scores.new_full((len(scores), int(counts.max())), -torch.inf)
            columns = torch.zeros_like(best, dtype=torch.int64)
            best[query, slot], columns[query, slot] = scores[query, column], column
        merged = torch.cat([self.scores[rows], best], dim=1)
        numbers = torch.cat([self.documents[rows], (columns + first).int()], dim=1)
        self.scores[rows], order = merged.topk(self.size, dim=1)
        self.documents[rows] = numbers.gather(1, order)

    def candidates(self) -> Tensor:
        """Which of the kept documents may be among the k best; (Q, size), bool."""
        return self.scores >= self.scores[:, self.k - 1 : self.k] - 2 * self.error

    def overfull(self) -> Tensor:
        """Queries for which a document may have been dropped that is among the k best; (Q,), bool."""
        return self.candidates()[:, -1] & (not self.complete)


def preselect(
    queries: Tensor,
    parts: Sequence[Tensor],
    selection: Preselection,
    block_rows: tuple[int, int],
    advance: Callable[[float], None],
) -> None:
    """Run the approximate scores of queries (Q, D) and of all parts of the documents, (n, D) each, past a selection.

    A block has at most `block_rows` queries and documents; `advance` is told the number of scores that were computed.
    """
    device = selection.scores.device
    query_rows, document_rows = block_rows
    for first, block in blocks(parts, document_rows):
        documents = _unit(block.to(device), first)
        for rows in spans(len(queries), query_rows):
            vectors = on_grid(queries[rows].to(device), POOLED_GRID)[0].float()
            scores = vectors @ documents.T
            selection.add(rows, scores, first)
            advance(scores.numel())
            del scores


def exact_result(
    queries: Tensor, parts: Sequence[Tensor], selection: Preselection, positions: Tensor, memory_mb: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the exact scores of what `preselect` selected of the same queries and parts, and rank.

    Positions are those of the N documents in the order of ties, (N,). The result is on the selection's device: scores
    (Q, k), float32, and document indices (Q, k), int64; and which queries have to be searched in another way, (Q,),
    bool.
    """
    device = selection.scores.device
    size = max(1, memory_mb * _MIB // (32 * queries.shape[1]))
    wrong = selection.overfull()
    candidates = selection.candidates() & ~wrong[:, None]
    exact = torch.full_like(selection.scores, -torch.inf)
    for rows in spans(len(queries), size):
        vectors = on_grid(queries[rows].to(device), POOLED_GRID)[0]
        query, column = torch.nonzero(candidates[rows], as_tuple=True)
        numbers, order = selection.documents[rows][query, column].sort(stable=True)
        query, column = query[order], column[order]
        exact[rows][query, column] = _products(vectors, query, parts, numbers, size)
    if bool(((exact - selection.scores).abs() > selection.error)[candidates].any()):
        wrong = torch.ones_like(wrong)  # the machine multiplies with less than single precision
    best = _by_rank(exact, positions.to(device)[selection.documents.long()])[:, : selection.k]
    return exact.gather(1, best), selection.documents.gather(1, best).long(), wrong


def _products(vectors: Tensor, query: Tensor, parts: Sequence[Tensor], numbers: Tensor, size: int) -> Tensor:
    """Exact scores of P pairs of a query and a document, at most `size` at once; (P,), float32.

    A pair's query is the row `query` of the vectors on the grid, (q, D), ascending for each document; its document has
    the number `numbers`, ascending.
    """
    scores = torch.empty(len(numbers), device=vectors.device)
    first = start = 0
    for part in parts:
        stop = int(torch.searchsorted(numbers, first + len(part)))
        for rows in spans(stop - start, size):
            pairs = slice(start + rows.start, start + rows.stop)
            different, counts = torch.unique_consecutive(numbers[pairs], return_counts=True)
            documents = on_grid(part[(different - first).to(part.device)].to(vectors.device), POOLED_GRID)[0]
            scores[pairs] = _sampled_products(documents, vectors, counts, query[pairs]).float()
        first, start = first + len(part), stop
    return scores


def _sampled_products(left: Tensor, right: Tensor, counts: Tensor, columns: Tensor) -> Tensor:
    """Products of each row of `left` with `counts` of it rows of `right`, without copies of the rows; (P,).

    The rows of `right` are in `columns`, ascending for each row of `left`; (P,).
    """
    ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse (CSR tensor support is in beta|invariant checks)")
        zeros = left.new_zeros(len(columns))
        pairs = torch.sparse_csr_tensor(ends, columns, zeros, (len(left), len(right)), check_invariants=False)
        products: Tensor = torch.sparse.sampled_addmm(pairs, left, right.T, beta=0.0).values()
    return products


def _unit(vectors: Tensor, first: int) -> Tensor:
    """Rows divided by their norms, in single precision; (n, D). ValueError where one is not finite."""
    single = vectors.float()
    norms: Tensor = torch.linalg.vector_norm(single, dim=1, keepdim=True)
    low, high = norms.aminmax()
    if low > _SAFE_NORMS[0] and high < _SAFE_NORMS[1]:
        return single / norms
    check_finite(vectors, "document", first)
    return torch.cat([on_grid(vectors[rows], POOLED_GRID)[0].float() for rows in spans(len(vectors), _SLOW_ROWS)])
