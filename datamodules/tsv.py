"""``--data tsv``: your own language, from a folder of plain files.

The folder holds, in UTF-8:

    pairs.tsv              source<TAB>target      what the teacher reads, and its translation
    queries.tsv            id<TAB>text
    documents.tsv          id<TAB>text
    qrels                  query 0 document grade     (TREC; see `retrieval.trec.read_qrels`)

and, where there are such files:

    dev.queries.tsv, dev.qrels    the queries to choose the best epoch by; without them, a share of the queries
    queries.english.tsv           the same queries (same ids) in English, for the ceiling: the teacher on English
    documents.english.tsv         the same documents in English, where the student reads the documents
    candidates.jsonl              ["query", ["document", score], ...]    passages to rank for a training query, with
                                  the scores of a teacher (see `datamodules.scored_lists`), the relevant one first
    train.queries.tsv             id<TAB>English text<TAB>text in the student's language: the queries that it names

With candidates.jsonl the training pairs are those of pairs.tsv, which may then be missing, and after them the training
queries with their lists, for strategies such as ``kl`` and ``margin_mse``. The passages are the documents. The teacher
reads them in English; the student reads them too where it is the reader of the documents.

Any of them may be compressed (gzip, bz2, xz; ``pairs.tsv.gz``). Queries and documents may be JSON lines, so the folders
of BEIR are read as they are: ``queries.jsonl``, ``corpus.jsonl``, ``qrels/test.tsv`` and ``qrels/dev.tsv``. For what
pairs may be, see `datamodules.bitext.reading`; a header line is recognised. Empty lines are passed over. Queries
without judgments are left out, as are judgments of unknown queries.

Files above 256 MB stay on disk: they are read once to check every line, and an index is kept in the cache folder.
Pairs are then streamed (see `datamodules.loading`), in another order than pairs in memory, and texts looked up. With
candidates.jsonl, pairs and passages are in memory whatever their size.

Traps: a tab inside a text makes a third column, which is refused; so is a query or document without text, while such
pairs are left out, with a warning. Without ``dev.qrels``,
a query is ``dev`` by a hash of its id, so adding queries moves no other query between ``dev`` and ``test``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.base import PairsDataModule
from datamodules.bitext.reading import located, open_pairs, read_bitext
from datamodules.lines import TextStore, unique
from datamodules.pairs import Candidate, Pair, make_pairs
from datamodules.published.judged import Judged, known
from datamodules.scored_lists import ScoredList, read_scores
from datamodules.sources import Pairs
from datamodules.text import hash_share, normalise
from datamodules.text_files import open_texts, read_texts, stays_on_disk
from foundations.checks import check_number
from foundations.errors import InputError
from foundations.files import PACKED_SUFFIXES, columns, scan_lines
from retrieval.collection import Collection, Qrels, Side
from retrieval.trec import read_qrels


class TSVDataModule(PairsDataModule):
    """Bitext and a collection from a folder of TSV files.

    File names are taken in the folder `root`, unless they are absolute. By default the student reads the queries (in
    the low-resource language) and the teacher the documents (in English); for documents in the low-resource language,
    set query_side to ``teacher`` and document_side to ``student``.

    Args:
        root: the folder.
        pairs: the training pairs, in any of the formats of `datamodules.bitext.reading`; by default pairs.tsv.
        queries: file of the queries; by default queries.tsv, or queries.jsonl.
        documents: file of the documents; by default documents.tsv, or corpus.jsonl.
        qrels: file of the relevance judgments; by default qrels, or qrels/test.tsv.
        dev_queries: file of the dev queries; by default dev.queries.tsv if it is there, else `queries`.
        dev_qrels: file of their judgments; by default dev.qrels or qrels/dev.tsv if it is there, else
            dev_share of the judged queries are ``dev``.
        english_queries: file of the queries in English; by default queries.english.tsv if it is there.
        english_documents: file of the documents in English; by default documents.english.tsv if it is there.
        dev_share: share of the judged queries that become ``dev`` where there is no dev_qrels.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the documents.
        candidates: file of passages to rank, with scores; by default candidates.jsonl if it is there.
        train_queries: file of the queries that it names; it is read with candidates only.
        stream: leave pairs, queries and documents on disk; by default those of files above 256 MB.
        pair_languages: codes of source and target, such as ``en,sw``, where pairs are TMX or JSON with more than the
            English text and one other.
        min_score: of pairs with scores, leave out those that score lower.
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        root: str,
        pairs: str | None = None,
        queries: str | None = None,
        documents: str | None = None,
        qrels: str | None = None,
        dev_queries: str | None = None,
        dev_qrels: str | None = None,
        english_queries: str | None = None,
        english_documents: str | None = None,
        dev_share: float = 0.25,
        query_side: Side = "student",
        document_side: Side = "teacher",
        candidates: str | None = None,
        train_queries: str = "train.queries.tsv",
        stream: bool | None = None,
        pair_languages: str | None = None,
        min_score: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_number("dev_share", dev_share, above=0, below=1)
        if (query_side, document_side) == ("teacher", "teacher"):
            raise ValueError("query_side and document_side are both 'teacher': set one of them to 'student'")
        self.root = Path(root).expanduser()
        self.pairs_spec = located(self._found(pairs, "pairs.tsv"), self.root)
        self.pair_languages, self.min_score = pair_languages, min_score
        self.queries_file = self.root / self._found(queries, "queries.tsv", "queries.jsonl")
        self.documents_file = self.root / self._found(documents, "documents.tsv", "corpus.jsonl")
        self.qrels_file = self.root / self._found(qrels, "qrels", "qrels/test.tsv")
        self.dev_queries_file = self._optional(dev_queries, "dev.queries.tsv")
        self.dev_qrels_file = self._optional(dev_qrels, "dev.qrels", "qrels/dev.tsv")
        self.english_queries_file = self._optional(english_queries, "queries.english.tsv")
        self.english_documents_file = self._optional(english_documents, "documents.english.tsv")
        self.candidates_file = self._optional(candidates, "candidates.jsonl")
        self.train_queries_file = self.root / train_queries
        self.dev_share = dev_share
        self.query_side, self.document_side = query_side, document_side
        self.stream = stream
        self._has_pairs = pairs not in (None, "pairs.tsv")

    def load_pairs(self) -> Pairs:
        """The pairs of the file, in its order."""
        if not self.root.is_dir():
            raise InputError(
                "no such folder, expected one with pairs.tsv, queries.tsv, documents.tsv, qrels", self.root
            )
        if self.candidates_file:
            return self._pairs_and_lists(self.candidates_file)
        return open_pairs(self.pairs_spec, self.stream, self.pair_languages, self.min_score)

    def _pairs_and_lists(self, lists: Path) -> list[Pair]:
        """The pairs of the file if it is there, and the training queries with their lists."""
        sources, targets = self.documents_file, None
        if self.document_side == "student":
            if self.english_documents_file is None:
                raise InputError("the teacher cannot read the listed passages: write documents.english.tsv", lists)
            sources, targets = self.english_documents_file, read_texts(self.documents_file)
        queries = _train_queries(self.train_queries_file, lists, read_texts(sources), targets)
        has_pairs = self._has_pairs or Path(self.pairs_spec).is_file()
        texts = [*read_bitext(self.pairs_spec, self.pair_languages, self.min_score)] if has_pairs else []
        pairs = make_pairs([*texts, *((query.source, query.target) for query in queries)])
        listed = zip(pairs[len(texts) :], queries, strict=True)
        return pairs[: len(texts)] + [replace(pair, candidates=query.candidates) for pair, query in listed]

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test`` and, where the English texts are there, ``english``."""
        queries, documents = self._texts(self.queries_file), self._texts(self.documents_file)
        qrels = self._judgments(self.qrels_file, queries, documents)
        if self.dev_queries_file and not self.dev_qrels_file:
            raise InputError("there are dev queries without judgments: write dev.qrels", self.dev_queries_file)
        if self.dev_qrels_file:
            dev_queries = self._texts(self.dev_queries_file) if self.dev_queries_file else queries
            dev_qrels = self._judgments(self.dev_qrels_file, dev_queries, documents)
            if not self.dev_queries_file and (both := qrels.keys() & dev_qrels.keys()):
                message = f"query {min(both)!r} is in the test qrels as well ({len(both)} such queries)"
                raise InputError(message, self.dev_qrels_file)
        else:
            dev_queries = queries
            dev_qrels, qrels = self._split(qrels)
        if unjudged := len(queries.keys() - qrels.keys() - (dev_qrels.keys() if dev_queries is queries else set())):
            warnings.warn(f"{unjudged} queries have no judgments and are left out", stacklevel=3)
        test = self._collection("test", queries, documents, qrels)
        collections = {"dev": self._collection("dev", dev_queries, documents, dev_qrels), "test": test}
        english = self._english(test)
        return collections | ({} if english is None else {"english": english})

    def _texts(self, path: Path) -> Mapping[str, str]:
        """Texts by id, in memory or on disk."""
        return open_texts(path) if stays_on_disk(path, self.stream) else read_texts(path)

    def _judgments(self, path: Path, queries: Mapping[str, str], documents: Mapping[str, str]) -> Qrels:
        """The judgments of known queries, whose unknown documents a warning counts."""
        return known(Judged(str(path), queries, documents, read_qrels(path))).qrels

    def _found(self, chosen: str | None, *defaults: str) -> str:
        """What was chosen, or the first of some default names that is there, plain or compressed, or else the first."""
        if chosen:
            return chosen
        names = [f"{name}{suffix}" for name in defaults for suffix in ("", *PACKED_SUFFIXES)]
        return next((name for name in names if (self.root / name).is_file()), defaults[0])

    def _optional(self, chosen: str | None, *defaults: str) -> Path | None:
        """The path of a file that need not exist, unless it was chosen."""
        path = self.root / self._found(chosen, *defaults)
        return path if chosen or path.is_file() else None

    def _split(self, qrels: Qrels) -> tuple[Qrels, Qrels]:
        """The judgments of ``dev`` and of ``test``."""
        dev = {query: grades for query, grades in qrels.items() if hash_share(query, "tsv dev") < self.dev_share}
        test = {query: grades for query, grades in qrels.items() if query not in dev}
        if not dev or not test:
            few = f"{len(qrels)} judged queries are too few to take {self.dev_share:.0%} of them for dev"
            raise InputError(f"{few}: write dev.qrels with judgments of other queries", self.qrels_file)
        return dev, test

    def _collection(
        self, name: str, queries: Mapping[str, str], documents: Mapping[str, str], qrels: Qrels
    ) -> Collection:
        judged = {query: queries[query] for query in queries if query in qrels}
        return Collection(name, judged, documents, qrels, self.query_side, self.document_side)

    def _english(self, test: Collection) -> Collection | None:
        """The English twin of ``test``; None where a side in the student's language has no English file."""
        sides = []
        for path, reader, texts in (
            (self.english_queries_file, test.query_side, test.queries),
            (self.english_documents_file, test.document_side, test.documents),
        ):
            if reader == "teacher":
                sides.append(texts)
            elif path:
                english = self._texts(path)
                if lacking := [identifier for identifier in texts if identifier not in english]:
                    raise InputError(
                        f"no line for {lacking[0]!r} ({len(lacking)} of {len(texts)} ids are missing)", path
                    )
                as_it_is = isinstance(english, TextStore) and len(english) == len(texts)
                sides.append(english if as_it_is else {identifier: english[identifier] for identifier in texts})
            else:
                return None
        return Collection("english", sides[0], sides[1], test.qrels, "teacher", "teacher")


_QUERY_LINE = "id<TAB>English text<TAB>text in the student's language"


def _train_queries(
    queries: Path, lists: Path, sources: Mapping[str, str], targets: Mapping[str, str] | None
) -> list[Pair]:
    """A pair for each line of a file of training queries, with the passages that a file of scores lists for it.

    The sources are passages for the teacher by id, the targets the same for the student; None where it reads none.
    """
    texts = dict(_read_queries(queries))
    candidates: dict[str, tuple[Candidate, ...]] = {}
    for scored in read_scores(lists):
        if scored.query not in texts:
            raise InputError(f"unknown query {scored.query!r}: {queries} has no such id", lists, scored.line)
        candidates[scored.query] = _candidates(scored, sources, targets, lists)
    return [Pair(source, target, 0, candidates.get(query, ())) for query, (source, target) in texts.items()]


def _candidates(
    scored: ScoredList, sources: Mapping[str, str], targets: Mapping[str, str] | None, lists: Path
) -> tuple[Candidate, ...]:
    try:
        return tuple(
            Candidate(sources[passage], None if targets is None else targets[passage], score)
            for passage, score in scored.passages
        )
    except KeyError as error:
        message = f"unknown passage {error.args[0]!r}: the documents have no such id"
        raise InputError(message, lists, scored.line) from None


def _read_queries(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Id and the two texts of each line."""
    rows = (
        (number, [normalise(column) for column in columns(line, 3, _QUERY_LINE, path, number, filled=True)])
        for number, _, line in scan_lines(path)
    )
    return unique(((number, row[0], row[1:]) for number, row in rows), path)
