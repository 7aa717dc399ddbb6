"""Queries of mMARCO with passages to rank: the training triples, and lists with a teacher's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datamodules.lines import LineIndex, TextStore
from datamodules.pairs import Candidate, Pair
from datamodules.scored_lists import scores_line
from datamodules.sources import LineSource
from datamodules.text import text_id
from foundations.cache import unpacked
from foundations.errors import InputError

NumberedLine = tuple[int, bytes]

_TRIPLE_LINE = "query id<TAB>relevant passage id<TAB>other passage id"


@dataclass(frozen=True)
class ListTexts:
    """The texts that lists of passages name by id.

    Args:
        queries: the queries in English, for the teacher.
        foreign_queries: the same queries for the student.
        passages: the passages in English, for the teacher.
        foreign_passages: the same passages for the student; None where it reads queries only.
    """

    queries: TextStore
    foreign_queries: TextStore
    passages: TextStore
    foreign_passages: TextStore | None = None

    def pair(self, query: str, passages: Sequence[tuple[str, float | None]], path: Path, line: int) -> Pair:
        """The pair of a query and its list.

        Args:
            query: its id.
            passages: id and score, if there is one, of each passage.
            path: the file of the list, for the error message.
            line: its line.

        Raises:
            InputError: an id without a text, with file and line.
        """
        source = _text(self.queries, "query", query, path, line)
        target = _text(self.foreign_queries, "query", query, path, line)
        candidates = tuple(self._candidate(passage, score, path, line) for passage, score in passages)
        return Pair(source, target, text_id(source), candidates)

    def _candidate(self, passage: str, score: float | None, path: Path, line: int) -> Candidate:
        source = _text(self.passages, "passage", passage, path, line)
        foreign = self.foreign_passages
        target = None if foreign is None else _text(foreign, "passage", passage, path, line)
        return Candidate(source, target, score, int(passage))


class _Lists(LineSource):
    """Lines that name a query and its passages, with their numbers for the error messages."""

    def read_chunk(self, number: int) -> list[NumberedLine]:
        """The lines of a chunk with their numbers."""
        return list(enumerate(self.lines.read_chunk(number), self.lines.first_line(number)))

    def row_length(self, row: NumberedLine) -> int:  # noqa: ARG002
        """0: a line names its texts and does not say how long they are."""
        return 0


class Triples(_Lists):
    """The training triples: each a query with a relevant passage and one that is not.

    Args:
        path: lines of ``qid<TAB>relevant pid<TAB>other pid``.
        texts: what the ids stand for.
        chunk_rows: triples in a chunk.

    Raises:
        InputError: no file; with file and line: not three columns, or an id that is no number.
    """

    def __init__(self, path: Path, texts: ListTexts, chunk_rows: int = 1024) -> None:
        super().__init__(LineIndex.open(path, partial(_triple, path), chunk_rows, "mmarco triples 1"))
        self.texts = texts

    def parse(self, row: NumberedLine) -> Pair:
        """The query with the relevant passage, and then the other, as candidates."""
        number, line = row
        query, *passages = _triple(self.lines.path, line, number)
        return self.texts.pair(query, [(passage, None) for passage in passages], self.lines.path, number)


class ScoredLists(_Lists):
    """Queries with the passages that a teacher scored, one query a line.

    Args:
        path: a query with passage ids and scores on each line; see `datamodules.scored_lists`. A file that ends in
            .gz or .bz2 is unpacked into the cache folder.
        texts: what the ids stand for.
        first: keep the first so many passages of each list; 0 keeps all.
        chunk_rows: queries in a chunk.

    Raises:
        InputError: no file, or a malformed line.
    """

    def __init__(self, path: Path, texts: ListTexts, first: int = 0, chunk_rows: int = 1024) -> None:
        self.texts, self.first = texts, first or None
        self.path, self._parse = path, scores_line(path)
        super().__init__(LineIndex.open(unpacked(path), self._parse, chunk_rows, "scores"))

    def parse(self, row: NumberedLine) -> Pair:
        """The query with its passages, in the order of the file, as candidates."""
        number, line = row
        scored = self._parse(line, number)
        return self.texts.pair(scored.query, scored.passages[: self.first], self.path, number)


def _triple(path: Path, line: bytes, number: int) -> tuple[str, str, str]:
    """The ids of a line."""
    columns = line.split(b"\t")
    if len(columns) != 3:
        plural = "" if len(columns) == 1 else "s"
        raise InputError(f"found {len(columns)} column{plural}, expected 3: {_TRIPLE_LINE}", path, number)
    query, relevant, other = columns
    if not (query.isdigit() and relevant.isdigit() and other.isdigit()):
        raise InputError(
            f"found {line[:60].decode(errors='replace')!r}, expected numbers: {_TRIPLE_LINE}", path, number
        )
    return query.decode(), relevant.decode(), other.decode()


def _text(texts: TextStore, what: str, identifier: str, path: Path, line: int) -> str:
    try:
        return texts[identifier]
    except KeyError:
        raise InputError(f"unknown {what} {identifier!r}: {texts.path} has no such id", path, line) from None
