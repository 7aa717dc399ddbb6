"""A collection to search: queries, documents, graded judgments, and which model encodes which side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["student", "teacher"]
Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> grade; a grade above 0 is relevant."""
Run = dict[str, dict[str, float]]
"""Query id -> document id -> score; higher is better."""


@dataclass(frozen=True)
class View:
    """Another way to score the encoded texts of a collection.

    Args:
        name: goes before the metrics, e.g. ``image_to_text`` in ``image_to_text/success@1``.
        qrels: the judgments of this view: query id -> document id -> grade.
        transposed: the documents of the collection are the queries of this view, and its queries the documents.
        candidates: query id -> the only ids that are ranked for it (the regions of its image); None ranks all. Not
            with ``transposed``.
        groups: query id -> its group (the type of a phrase), or several; each group has a mean as well.
    """

    name: str
    qrels: Qrels = field(repr=False)
    transposed: bool = False
    candidates: Mapping[str, Sequence[str]] | None = field(default=None, repr=False)
    groups: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Collection:
    """Queries, documents and relevance judgments (qrels).

    Args:
        name: short name, used in logs and file names, e.g. ``dev``, ``test``; of several languages ``test/sw``.
        queries: query id -> text; any mapping, also one that leaves the texts on disk.
        documents: document id -> text; the same.
        qrels: query id -> document id -> grade.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the documents.
        views: the ways to score it; without any it is scored once, by ``qrels``.
    """

    name: str
    queries: Mapping[str, str] = field(repr=False)
    documents: Mapping[str, str] = field(repr=False)
    qrels: Qrels = field(repr=False)
    query_side: Side = "student"
    document_side: Side = "teacher"
    views: tuple[View, ...] = field(default=(), repr=False)

    def texts(self, side: Literal["queries", "documents"]) -> Mapping[str, str]:
        """The queries or the documents."""
        return self.queries if side == "queries" else self.documents

    def reader(self, side: Literal["queries", "documents"]) -> Side:
        """Which encoder reads the queries, or the documents."""
        return self.query_side if side == "queries" else self.document_side

    @property
    def split(self) -> str:
        """``dev``, ``test`` or ``english``: the name without the language."""
        return self.name.partition("/")[0]

    @property
    def language(self) -> str:
        """The language in the name; empty where a run has one language only."""
        return self.name.partition("/")[2]
