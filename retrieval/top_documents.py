"""The best documents of each query, gathered from blocks of scores, with a fixed order of ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from retrieval.stored_ids import StoredIds


class TopDocuments:
    """The k best documents of Q queries, while the scores come in blocks.

    Documents are ordered by descending score and then by descending id, as trec_eval orders them; the result does
    not depend on how the documents were cut into blocks, nor on the order of the blocks.

    Args:
        queries: Q.
        k: number of documents to keep.
        document_ids: id of each of the N documents.
        documents: N.
        device: where the scores are.

    Raises:
        ValueError: k is below 1, there is no document, or the ids are not N different ones.
    """

    def __init__(self, queries: int, k: int, document_ids: Sequence[str], documents: int, device: torch.device) -> None:
        check_documents(k, document_ids, documents)
        k = min(k, documents)
        # Position in the order of ties stands for the document until the end.
        self._position = tie_positions(document_ids).to(device)
        self._scores = torch.full((queries, k), -torch.inf, device=device)
        self._positions = torch.full((queries, k), documents, device=device, dtype=torch.int32)

    def add(self, rows: slice, scores: Tensor, documents: Tensor) -> None:
        """Take in the scores of a block; a query meets each document once.

        Args:
            rows: the queries.
            scores: above minus infinity; (queries of the block, documents of the block), float32.
            documents: index of each document of the block; (documents of the block,), int64.
        """
        position = self._position[documents.to(self._position.device)].expand(len(scores), -1)
        kept = self._scores.shape[1]
        block_scores, block_positions = _select(scores, position, min(kept, len(documents)))
        merged = torch.cat([self._scores[rows], block_scores], dim=1)
        positions = torch.cat([self._positions[rows], block_positions], dim=1)
        self._scores[rows], self._positions[rows] = _select(merged, positions, kept)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores (Q, K), float32, and document indices (Q, K), int64, on the CPU; K = min(k, N)."""
        columns = by_rank(self._scores, self._positions)
        positions = self._positions.gather(1, columns).cpu()
        return self._scores.gather(1, columns).cpu(), self._position.cpu().argsort()[positions.long()]


def tie_positions(document_ids: Sequence[str]) -> Tensor:
    """Place of each document in descending order of the ids, which is the order of ties; (N,), int32."""
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
        columns[unclear] = by_rank(scores[unclear], positions[unclear])[:, :k]
    return scores.gather(1, columns), positions.gather(1, columns)


def by_rank(scores: Tensor, positions: Tensor) -> Tensor:
    """Columns of each row by descending score and ascending position."""
    by_position = positions.argsort(dim=1)
    return by_position.gather(1, scores.gather(1, by_position).argsort(dim=1, descending=True, stable=True))


def check_documents(k: int, document_ids: Sequence[str], documents: int) -> None:
    """Raise ValueError where there is nothing to rank, or the ids are not N different ones."""
    if k < 1 or documents < 1:
        raise ValueError(f"k is {k} with {documents} documents, expected at least 1 of each")
    if len(document_ids) != documents:
        raise ValueError(f"there are {len(document_ids)} document ids for {documents} documents")
    if not isinstance(document_ids, StoredIds) and len(set(document_ids)) != documents:
        twice = Counter(document_ids).most_common(1)[0][0]
        raise ValueError(f"document id {twice!r} appears twice: ids must differ to break ties")
