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

No file has a header line. Empty lines are passed over. Queries without judgments are left out.

Traps: a tab inside a text makes a third column, which is refused; so is a text that is empty. Without ``dev.qrels``,
a query is ``dev`` by a hash of its id, so adding queries moves no other query between ``dev`` and ``test``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.base import PairsDataModule
from datamodules.pairs import Pair, make_pairs
from datamodules.text import hash_share, normalise
from retrieval.collection import Collection, Qrels, Side
from retrieval.errors import InputError
from retrieval.files import read_columns, require_file
from retrieval.progress import delayed_progress
from retrieval.trec import read_qrels

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PAIR_LINE = "source<TAB>target"
_TEXT_LINE = "id<TAB>text"


class TSVDataModule(PairsDataModule):
    """Bitext and a collection from a folder of TSV files.

    File names are taken in the folder `root`, unless they are absolute. By default the student reads the queries (in
    the low-resource language) and the teacher the documents (in English); for documents in the low-resource language,
    set query_side to ``teacher`` and document_side to ``student``.

    Args:
        root: the folder.
        pairs: file of the training pairs.
        queries: file of the queries.
        documents: file of the documents.
        qrels: file of the relevance judgments.
        dev_queries: file of the dev queries; by default dev.queries.tsv if it is there, else `queries`.
        dev_qrels: file of their judgments; by default dev.qrels if it is there, else dev_share of the judged
            queries are ``dev``.
        english_queries: file of the queries in English; by default queries.english.tsv if it is there.
        english_documents: file of the documents in English; by default documents.english.tsv if it is there.
        dev_share: share of the judged queries that become ``dev`` where there is no dev_qrels.
        query_side: which encoder reads the queries.
        document_side: which encoder reads the documents.
        **options: those of `PairsDataModule`.
    """

    def __init__(
        self,
        root: str,
        pairs: str = "pairs.tsv",
        queries: str = "queries.tsv",
        documents: str = "documents.tsv",
        qrels: str = "qrels",
        dev_queries: str | None = None,
        dev_qrels: str | None = None,
        english_queries: str | None = None,
        english_documents: str | None = None,
        dev_share: float = 0.25,
        query_side: Side = "student",
        document_side: Side = "teacher",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < dev_share < 1:
            raise ValueError(f"dev_share is {dev_share}, expected a number between 0 and 1, such as 0.25")
        if (query_side, document_side) == ("teacher", "teacher"):
            raise ValueError("query_side and document_side are both 'teacher': set one of them to 'student'")
        self.root = Path(root).expanduser()
        self.pairs_file, self.queries_file = self.root / pairs, self.root / queries
        self.documents_file, self.qrels_file = self.root / documents, self.root / qrels
        self.dev_queries_file = self._optional(dev_queries, "dev.queries.tsv")
        self.dev_qrels_file = self._optional(dev_qrels, "dev.qrels")
        self.english_queries_file = self._optional(english_queries, "queries.english.tsv")
        self.english_documents_file = self._optional(english_documents, "documents.english.tsv")
        self.dev_share = dev_share
        self.query_side, self.document_side = query_side, document_side

    def load_pairs(self) -> list[Pair]:
        """The pairs of the file, in its order."""
        if not self.root.is_dir():
            raise InputError(
                "no such folder, expected one with pairs.tsv, queries.tsv, documents.tsv, qrels", self.root
            )
        rows = read_rows(self.pairs_file, _PAIR_LINE)
        return make_pairs((source, target) for _, (source, target) in rows)

    def load_collections(self) -> dict[str, Collection]:
        """``dev``, ``test`` and, where the English texts are there, ``english``."""
        queries = read_texts(self.queries_file)
        documents = read_texts(self.documents_file)
        qrels = read_judgments(self.qrels_file, queries, documents)
        if self.dev_queries_file and not self.dev_qrels_file:
            raise InputError("there are dev queries without judgments: write dev.qrels", self.dev_queries_file)
        if self.dev_qrels_file:
            dev_queries = read_texts(self.dev_queries_file) if self.dev_queries_file else queries
            dev_qrels = read_judgments(self.dev_qrels_file, dev_queries, documents)
            if not self.dev_queries_file:
                _refuse_overlap(self.dev_qrels_file, qrels, dev_qrels)
        else:
            dev_queries = queries
            dev_qrels, qrels = self._split(qrels)
        if unjudged := len(queries.keys() - qrels.keys() - (dev_qrels.keys() if dev_queries is queries else set())):
            warnings.warn(f"{unjudged} queries have no judgments and are left out", stacklevel=3)
        test = self._collection("test", queries, documents, qrels)
        collections = {"dev": self._collection("dev", dev_queries, documents, dev_qrels), "test": test}
        english = self._english(test)
        return collections | ({} if english is None else {"english": english})

    def _optional(self, chosen: str | None, default: str) -> Path | None:
        """The path of a file that need not exist, unless it was chosen."""
        path = self.root / (chosen or default)
        return path if chosen or path.is_file() else None

    def _split(self, qrels: Qrels) -> tuple[Qrels, Qrels]:
        """The judgments of ``dev`` and of ``test``."""
        dev = {query: grades for query, grades in qrels.items() if hash_share(query, "tsv dev") < self.dev_share}
        test = {query: grades for query, grades in qrels.items() if query not in dev}
        if not dev or not test:
            raise InputError(
                f"{len(qrels)} judged queries are too few to take {self.dev_share:.0%} of them for dev: "
                "write dev.qrels with judgments of other queries",
                self.qrels_file,
            )
        return dev, test

    def _collection(self, name: str, queries: dict[str, str], documents: dict[str, str], qrels: Qrels) -> Collection:
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
                english = read_texts(path)
                if lacking := [identifier for identifier in texts if identifier not in english]:
                    raise InputError(
                        f"no line for {lacking[0]!r} ({len(lacking)} of {len(texts)} ids are missing)", path
                    )
                sides.append({identifier: english[identifier] for identifier in texts})
            else:
                return None
        return Collection("english", sides[0], sides[1], test.qrels, "teacher", "teacher")


def read_rows(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """The two columns of each line of a TSV file, without white space around them.

    Args:
        path: the file; a byte order mark at its start and empty lines are passed over.
        expected: what a line holds, for the error messages, e.g. ``id<TAB>text``.

    Yields:
        Line number from 1, and the columns.

    Raises:
        InputError: no file, an empty file, invalid UTF-8, another number of columns, or an empty column.
    """
    path, found = require_file(path), False
    with path.open("rb") as file, delayed_progress(f"read {path.name}", path.stat().st_size) as advance:
        for number, raw in enumerate(file, start=1):
            advance(len(raw))
            try:
                line = (raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw).decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"invalid UTF-8 ({error.reason}); expected {expected}", path, number) from None
            if not line.strip():
                continue
            columns = [column.strip() for column in line.rstrip("\r\n").split("\t")]
            if len(columns) != 2:
                plural = "" if len(columns) == 1 else "s"
                raise InputError(f"found {len(columns)} column{plural}, expected 2: {expected}", path, number)
            if "" in columns:
                which = "first" if columns[0] == "" else "second"
                raise InputError(f"the {which} column is empty, expected {expected}", path, number)
            found = True
            yield number, columns
    if not found:
        raise InputError(f"the file is empty, expected lines of {expected}", path)


def read_texts(path: Path) -> dict[str, str]:
    """Texts by id, in the order of the file.

    Raises:
        InputError: as `read_rows`; or an id that appears twice, or holds a space.
    """
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, (identifier, text) in read_rows(path, _TEXT_LINE):
        if identifier in lines:
            raise InputError(f"the id {identifier!r} is already that of line {lines[identifier]}", path, number)
        if any(space in identifier for space in " \v\f\r"):
            raise InputError(f"the id {identifier!r} holds white space, which TREC files cannot", path, number)
        texts[identifier], lines[identifier] = normalise(text), number
    return texts


def read_judgments(path: Path, queries: dict[str, str], documents: dict[str, str]) -> Qrels:
    """Judgments, all of which name known queries and documents.

    Raises:
        InputError: as `read_qrels`; or an unknown query or document, with its line.
    """
    qrels = read_qrels(path)
    for query, grades in qrels.items():
        if query not in queries:
            raise InputError(f"unknown query {query!r}", path, _line_of(path, query, None))
        for document in grades:
            if document not in documents:
                raise InputError(f"unknown document {document!r}", path, _line_of(path, query, document))
    return qrels


def _line_of(path: Path, query: str, document: str | None) -> int | None:
    """The first line that judges a query (and a document)."""
    for number, columns in read_columns(path, "judgments"):
        if columns[0] == query and document in (None, columns[-2]):
            return number
    return None


def _refuse_overlap(path: Path, qrels: Qrels, dev_qrels: Qrels) -> None:
    """Raise InputError where a query of ``test`` is one of ``dev`` as well."""
    if both := qrels.keys() & dev_qrels.keys():
        query = min(both)
        raise InputError(
            f"query {query!r} is in the test qrels as well ({len(both)} such queries)",
            path,
            _line_of(path, query, None),
        )
