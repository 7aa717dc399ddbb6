"""Where the relevant documents stand in each ranking: all that the metrics need to know.

Two orders of tied documents are in use, and `ir_measures` uses both: trec_eval compares scores in single
precision and puts the *higher* document id first; the MS MARCO script, behind RR@k, compares them in double
precision and puts the *lower* id first. So every retrieved relevant document carries two ranks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.collection import Qrels, Run

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = NDArray[np.float64] | NDArray[np.float32]

_UNKNOWN = -2  # a judged document that is not in the index; rankings are padded with -1
_CELLS_PER_BLOCK = 1 << 22


@dataclass(frozen=True)
class IndexedQrels:
    """Qrels by number instead of id: the relevant documents of Q queries, R in all.

    Args:
        row: row of each judged query in the rankings to score, -1 if it has none; (Q,).
        query: number of the query of each relevant document, ascending; (R,).
        document: its index; (R,).
        grade: its grade, above 0; (R,).
    """

    row: Integers
    query: Integers
    document: Integers
    grade: Integers

    @classmethod
    def of(cls, qrels: Qrels, query_ids: Sequence[str], document_ids: Sequence[str]) -> IndexedQrels:
        """Look up the ids of some qrels.

        Args:
            qrels: query id -> document id -> grade.
            query_ids: query of each row of the rankings. Rows without qrels are not scored; judged queries without
                a row count as 0.
            document_ids: document of each index in the rankings. Relevant documents that are not among them
                count as not retrieved.
        """
        rows = {query: row for row, query in enumerate(query_ids)}
        indices = {document: index for index, document in enumerate(document_ids)}
        relevant = list(_relevant(qrels))
        return cls(
            row=_integers([rows.get(query, -1) for query in qrels]),
            query=_integers([query for query, _, _ in relevant]),
            document=_integers([indices.get(document, _UNKNOWN) for _, document, _ in relevant]),
            grade=_integers([grade for _, _, grade in relevant]),
        )


@dataclass(frozen=True)
class RankedRelevance:
    """The relevant documents of Q queries (R in all), and the ranks of those that were retrieved (H in all).

    Args:
        queries: Q.
        query: position of the query of each retrieved relevant document, ascending; (H,).
        rank: its rank from 1, in trec_eval's order, ascending within a query; (H,).
        msmarco_rank: its rank from 1, in the MS MARCO script's order; (H,).
        grade: its grade; (H,).
        relevant_query: position of the query of each relevant document, ascending; (R,).
        relevant_grade: its grade, descending within a query; (R,).
    """

    queries: int
    query: Integers
    rank: Integers
    msmarco_rank: Integers
    grade: Integers
    relevant_query: Integers
    relevant_grade: Integers

    def at_least(self, level: int) -> RankedRelevance:
        """The same where only grades from a level on are relevant."""
        if level <= 1:
            return self
        hit, relevant = self.grade >= level, self.relevant_grade >= level
        return RankedRelevance(
            self.queries, self.query[hit], self.rank[hit], self.msmarco_rank[hit], self.grade[hit],
            self.relevant_query[relevant], self.relevant_grade[relevant],
        )  # fmt: skip


def relevance_of_run(run: Run, qrels: Qrels) -> RankedRelevance:
    """The ranks of the relevant documents in a run.

    Raises:
        ValueError: a score is not a number.
    """
    hits: list[tuple[int, str, int]] = []
    trec: list[Integers] = []
    msmarco: list[Integers] = []
    for number, (query, judged) in enumerate(qrels.items()):
        retrieved = run.get(query, {})
        scores = np.fromiter(retrieved.values(), np.float64, len(retrieved))
        if np.isnan(scores).any():
            raise ValueError(f"query {query!r}: a score is NaN, expected numbers that can be ranked")
        relevant = [document for document, grade in judged.items() if grade > 0 and document in retrieved]
        if not relevant:
            continue
        hits += [(number, document, judged[document]) for document in relevant]
        hit_scores = np.array([retrieved[document] for document in relevant], dtype=np.float64)
        trec.append(_ranks(retrieved, _single(scores), relevant, _single(hit_scores), descending_ids=True))
        msmarco.append(_ranks(retrieved, scores, relevant, hit_scores, descending_ids=False))
    judgments = list(_relevant(qrels))
    return _assemble(
        queries=len(qrels),
        hits=(_integers([n for n, _, _ in hits]), _joined(trec), _joined(msmarco), _integers([g for *_, g in hits])),
        relevant=(_integers([n for n, _, _ in judgments]), _integers([g for *_, g in judgments])),
    )


def relevance_of_rankings(qrels: IndexedQrels, indices: ArrayLike) -> RankedRelevance:
    """The ranks of the relevant documents in rankings that are given as arrays; both ranks follow the order given.

    Args:
        qrels: the relevant documents.
        indices: index of each retrieved document, best first, padded with -1; (rows, K), integers, NumPy or torch on
            the CPU.

    Raises:
        ValueError: the shapes do not fit.
    """
    ranking = np.asarray(indices)
    if ranking.ndim != 2 or not np.issubdtype(ranking.dtype, np.integer):
        raise ValueError(f"indices are {ranking.dtype} of shape {ranking.shape}, expected integers (queries, K)")
    if len(ranking) <= qrels.row.max(initial=-1):
        raise ValueError(f"indices have {len(ranking)} rows, but the qrels name row {qrels.row.max()}")
    hit, column = _find(qrels, ranking)
    return _assemble(
        queries=len(qrels.row),
        hits=(qrels.query[hit], column + 1, column + 1, qrels.grade[hit]),
        relevant=(qrels.query, qrels.grade),
    )


def _find(qrels: IndexedQrels, ranking: NDArray[np.integer]) -> tuple[Integers, Integers]:
    """Which relevant documents (0..R-1) were retrieved, and in which column of their query's row."""
    if ranking.shape[1] == 0:
        return _integers([]), _integers([])
    sought = np.flatnonzero(qrels.row[qrels.query] >= 0)
    step = max(1, _CELLS_PER_BLOCK // ranking.shape[1])
    hits, columns = [], []
    for start in range(0, len(sought), step):
        block = sought[start : start + step]
        match = ranking[qrels.row[qrels.query[block]]] == qrels.document[block][:, None]
        column = match.argmax(axis=1)
        is_hit = match[np.arange(len(block)), column]
        hits.append(block[is_hit])
        columns.append(column[is_hit])
    return _joined(hits), _joined(columns)


def _ranks(
    ids: Iterable[str], scores: Numbers, documents: list[str], document_scores: Numbers, descending_ids: bool
) -> Integers:
    """Ranks from 1 of some documents of a query, ties broken by id.

    A rank is 1 + the number of higher scores, from one sort of the scores alone; ids are compared only
    where a relevant document is tied.
    """
    ordered = np.sort(scores)
    above = len(scores) - np.searchsorted(ordered, document_scores, side="right")
    equal = len(scores) - above - np.searchsorted(ordered, document_scores, side="left")
    ranks = above.astype(np.int64) + 1
    for score in set(document_scores[equal > 1].tolist()):
        group = sorted(compress(ids, scores == score))
        for i in np.flatnonzero(document_scores == score):
            before = bisect_left(group, documents[i])
            ranks[i] += len(group) - 1 - before if descending_ids else before
    return ranks


def _assemble(
    queries: int, hits: tuple[Integers, Integers, Integers, Integers], relevant: tuple[Integers, Integers]
) -> RankedRelevance:
    """Sort the hits by query and rank, and the relevant documents by query and descending grade."""
    by_rank = np.lexsort((hits[1], hits[0]))
    by_grade = np.lexsort((-relevant[1], relevant[0]))
    return RankedRelevance(queries, *(column[by_rank] for column in hits), *(column[by_grade] for column in relevant))


def _relevant(qrels: Qrels) -> Iterator[tuple[int, str, int]]:
    """Query number, document and grade of each relevant document."""
    return chain.from_iterable(
        ((number, document, grade) for document, grade in judged.items() if grade > 0)
        for number, judged in enumerate(qrels.values())
    )


def _single(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scores in single precision, as trec_eval keeps them."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)


def _joined(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else _integers([])


def _integers(values: list[int]) -> Integers:
    return np.array(values, dtype=np.int64)
