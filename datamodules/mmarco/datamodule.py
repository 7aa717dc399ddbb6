"""``--data mmarco``: MS MARCO passages and queries in 13 languages, parallel with English (Bonifacio et al. 2021).

Machine translations of MS MARCO, with its ids: version 1 by Helsinki-NLP's models (8 languages), version 2 by Google
(13). The files come from ir_datasets, or with `root` from a folder in the official layout; see
`datamodules.mmarco.files`.

What there is to train on (``--data.pairs``): the 808,731 training queries with their translations, the 8,841,823
passages with theirs, both, or the 39,780,811 training triples, which are pairs of queries with a relevant and another
passage as candidates. ``--data.scores FILE`` takes the candidates and a teacher's scores for them from a file instead
of the triples; see `datamodules.scored_lists`.

What is searched (``--data.direction``): ``x-en`` foreign queries among English passages, ``en-x`` English queries
among foreign passages, ``x-x`` foreign queries among foreign passages. The teacher reads English, the student the
rest.

``test`` is what is published: the 6,980 queries of ``dev/small`` (MRR@10, Recall@1000) among all passages. ``dev``, to
choose the best epoch by, are other queries: those of MS MARCO's dev set that are not in ``dev/small`` and whose id has
the smallest hash. So nothing is ever chosen by the reported queries, and no training query is searched for.

Traps: (1) the translations of the passages that ``dev`` and ``test`` search are among the pairs of ``passages`` and
``both``, without any judgment: say so where you report them. (2) Triples and scores come from English; a passage that
was translated badly keeps its judgment. (3) The relevant passage of a query is one that an annotator was shown: many
of the others are relevant too, and are no good negatives.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.base import PairsDataModule
from datamodules.mixture import Mixture
from datamodules.mmarco.files import IrFiles, LocalFiles, MMarcoFiles, translated_language
from datamodules.mmarco.lists import ListTexts, scored_lists, triples
from datamodules.mmarco.texts import TranslatedPairs, marco_texts
from datamodules.published.judged import Judged, known
from datamodules.sources import PairSource, check_bounds, sampled_documents
from datamodules.text import hash_share
from foundations.checks import check_choice
from foundations.errors import InputError
from retrieval.collection import Collection, Qrels, Side
from retrieval.trec import read_qrels

Kind = Literal["queries", "passages", "both", "triples"]
Direction = Literal["x-en", "en-x", "x-x"]

KINDS: dict[Direction, Kind] = {"x-en": "queries", "en-x": "passages", "x-x": "both"}
"""The pairs of each direction where nothing else is asked for: what the student will read in the search."""


class MMarcoDataModule(PairsDataModule):
    """mMARCO in one language: English for the teacher, its translation for the student.

    Args:
        language: code of a language: ar, de, es, fr, hi, id, it, ja, nl (or dt), pt, ru, vi, zh.
        version: 1 (Helsinki-NLP) or 2 (Google).
        root: a folder in the official layout; None takes the files from ir_datasets.
        pairs: what to train on: ``queries``, ``passages``, ``both``, or ``triples``; by default what the student will
            read in the search, or ``triples`` if there are scores.
        scores: file of a teacher's scores, which gives the candidates of each query in place of the triples.
        candidates: with scores, take this many passages of each list, from its beginning; 0 takes all.
        direction: languages of the queries and of the passages to search, ``x-en``, ``en-x`` or ``x-x``.
        dev_queries: search this many of the dev queries; 0 takes all 48,598.
        dev_documents: search this many passages for dev: the relevant ones and others by a hash; 0 takes all.
        test_documents: the same for test, for a quick look; such figures are NOT comparable with published ones.
        ceiling: search the English passages for the English queries of test as well, which gives the row of the
            teacher; with ``en-x`` and ``x-x`` it costs encoding the passages a second time.
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        language: str = "hi",
        version: int = 2,
        root: str | None = None,
        pairs: Kind | None = None,
        scores: str | None = None,
        candidates: int = 0,
        direction: Direction = "x-en",
        dev_queries: int = 1000,
        dev_documents: int = 20_000,
        test_documents: int = 0,
        ceiling: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.language, self.version = translated_language(language, version), version
        check_choice("direction", direction, KINDS)
        if pairs is not None:
            check_choice("pairs", pairs, get_args(Kind))
        if scores is not None and pairs not in (None, "triples"):
            raise ValueError(f"scores give candidates for pairs=triples, not for {pairs}: leave one of them out")
        if candidates and not scores:
            raise ValueError(f"candidates is {candidates}, but only lists with scores can be cut: set scores as well")
        check_bounds(
            candidates=candidates, dev_queries=dev_queries, dev_documents=dev_documents, test_documents=test_documents
        )
        self.kind: Kind = pairs or ("triples" if scores else KINDS[direction])
        self.scores, self.candidates = None if scores is None else Path(scores).expanduser(), candidates
        self.root, self.direction = root, direction
        self.query_side: Side = "teacher" if direction == "en-x" else "student"
        self.document_side: Side = "teacher" if direction == "x-en" else "student"
        self.dev_queries, self.dev_documents, self.test_documents = dev_queries, dev_documents, test_documents
        self.ceiling = ceiling

    def prepare_data(self) -> None:
        """Download, unpack and check the files."""
        if not self._is_loaded:
            self.load_pairs(), self.load_collections()

    def load_pairs(self) -> PairSource:
        """The training pairs, which stay on disk."""
        files = self._files()
        if self.kind == "triples":
            texts = self._list_texts(files)
            if self.scores is not None:
                return scored_lists(self.scores, texts, self.candidates)
            return triples(files.triples(), texts)
        parts: dict[str, Any] = {}
        if self.kind in ("queries", "both"):
            parts["queries"] = TranslatedPairs(files.queries("en", "train"), files.queries(self.language, "train"))
        if self.kind in ("passages", "both"):
            parts["passages"] = TranslatedPairs(files.collection("en"), files.collection(self.language))
        return Mixture(parts) if self.kind == "both" else parts[self.kind]

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test``, and ``english``: the queries of ``test`` and the passages in English."""
        files = self._files()
        small = read_qrels(files.qrels("dev.small"))
        dev = self._dev_qrels(files.qrels("dev"), small)
        if self.test_documents:
            warnings.warn(
                f"test_documents is {self.test_documents}: test searches a part of the passages, so its figures are "
                "NOT comparable with published ones",
                stacklevel=3,
            )
        collections = {
            "dev": self._collection("dev", files, dev, self.dev_documents),
            "test": self._collection("test", files, small, self.test_documents),
        }
        if self.ceiling:
            english = self._collection("english", files, small, self.test_documents)
            if self.document_side == "teacher":  # the very same passages, so that they are encoded once
                english = replace(english, documents=collections["test"].documents)
            collections["english"] = english
        return collections

    def _files(self) -> MMarcoFiles:
        return IrFiles(self.version) if self.root is None else LocalFiles(self.root, self.version)

    def _list_texts(self, files: MMarcoFiles) -> ListTexts:
        """What triples and lists with scores name."""
        queries, foreign = (marco_texts(files.queries(code, "train")) for code in ("en", self.language))
        passages = None if self.document_side == "teacher" else marco_texts(files.collection(self.language))
        return ListTexts(queries, foreign, marco_texts(files.collection("en")), passages)

    def _dev_qrels(self, path: Path, small: Qrels) -> Qrels:
        """The judgments of the dev queries: a fixed choice outside the reported ones."""
        qrels = {query: grades for query, grades in read_qrels(path).items() if query not in small}
        if not qrels:
            raise InputError("judges no query outside qrels.dev.small.tsv, so there is none for dev", path)
        chosen = sorted(qrels, key=lambda query: hash_share(query, "mmarco dev"))
        return {query: qrels[query] for query in (chosen[: self.dev_queries] if self.dev_queries else chosen)}

    def _collection(self, name: str, files: MMarcoFiles, qrels: Qrels, documents: int) -> Collection:
        """A collection of the judged queries, with so many passages."""
        sides: tuple[Side, Side] = (
            ("teacher", "teacher") if name == "english" else (self.query_side, self.document_side)
        )
        query_code, document_code = ("en" if side == "teacher" else self.language for side in sides)
        split: Literal["dev", "dev.small"] = "dev" if name == "dev" else "dev.small"
        queries, passages = marco_texts(files.queries(query_code, split)), marco_texts(files.collection(document_code))
        judged = known(Judged(str(files.qrels(split)), queries, passages, qrels))
        some = sampled_documents(passages, judged.qrels, documents)
        return Collection(name, judged.queries, some, judged.qrels, *sides)
