"""Queries of mMARCO with passages to rank: the training triples, and lists with a teacher's scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datamodules.lines import LineIndex, TextStore
from datamodules.pairs import Candidate, Pair
from datamodules.scored_lists import ScoredList, scores_line
from datamodules.sources import LineSource
from datamodules.text import text_id
from foundations.errors import InputError
from foundations.files import columns

NumberedLine = tuple[int, bytes]
IdsAndScores = Sequence[tuple[str, float | None]]
ParseList = Callable[[bytes, int], tuple[str, IdsAndScores]]

_TRIPLE_LINE = "query id<TAB>relevant passage id<TAB>other passage id"


@dataclass(frozen=True)
class ListTexts:
    """The texts that lists of passages name by id: queries and passages in English, for the teacher, and foreign ones.

    `foreign_passages` is None where the student reads queries only.
    """

    queries: TextStore
    foreign_queries: TextStore
    passages: TextStore
    foreign_passages: TextStore | None = None

    def pair(self, query: str, passages: IdsAndScores, path: Path, line: int) -> Pair:
        """The pair of a query and its list of passage ids and scores; InputError for an id without a text."""
        source = _text(self.queries, "query", query, path, line)
        target = _text(self.foreign_queries, "query", query, path, line)
        candidates = tuple(self._candidate(passage, score, path, line) for passage, score in passages)
        return Pair(source, target, text_id(source), candidates)

    def _candidate(self, passage: str, score: float | None, path: Path, line: int) -> Candidate:
        source = _text(self.passages, "passage", passage, path, line)
        foreign = self.foreign_passages
        target = None if foreign is None else _text(foreign, "passage", passage, path, line)
        return Candidate(source, target, score, int(passage))


class PassageLists(LineSource):
    """Queries with passages to rank, one list a line of a file, which is unpacked into the cache folder if need be.

    `parse_line` gives the query and the passages, with their scores if there are any, of a line of the format `form`;
    see `LineIndex`. Only the `first` passages of each list are kept; 0 keeps all.
    """

    def __init__(
        self, path: Path, texts: ListTexts, parse_line: ParseList, form: str, first: int = 0, chunk_rows: int = 1024
    ) -> None:
        self.path, self.texts, self.first = path, texts, first or None
        self._parse_line = parse_line
        super().__init__(LineIndex.open(path, parse_line, chunk_rows, form))

    def read_chunk(self, number: int) -> list[NumberedLine]:
        """The lines of a chunk with their numbers."""
        return list(enumerate(self.lines.read_chunk(number), self.lines.first_line(number)))

    def parse(self, row: NumberedLine) -> Pair:
        """The query with its passages, in the order of the line, as candidates."""
        number, line = row
        query, passages = self._parse_line(line, number)
        return self.texts.pair(query, passages[: self.first], self.path, number)

    def row_length(self, row: NumberedLine) -> int:  # noqa: ARG002
        """0: a line names its texts and does not say how long they are."""
        return 0


def triples(path: Path, texts: ListTexts) -> PassageLists:
    """The training triples, lines of ``qid<TAB>relevant pid<TAB>other pid``."""
    return PassageLists(path, texts, partial(_triple, path), "mmarco triples 1")


def scored_lists(path: Path, texts: ListTexts, first: int = 0) -> PassageLists:
    """Queries with the (`first`) passages that a teacher scored; see `datamodules.scored_lists`."""
    return PassageLists(path, texts, partial(_scored, scores_line(path)), "scores", first)


def _triple(path: Path, line: bytes, number: int) -> tuple[str, IdsAndScores]:
    ids = columns(line, 3, _TRIPLE_LINE, path, number)
    if not all(identifier.isascii() and identifier.isdigit() for identifier in ids):
        found = line[:60].decode(errors="replace")
        raise InputError(f"found {found!r}, expected numbers: {_TRIPLE_LINE}", path, number)
    query, relevant, irrelevant = ids
    return query, [(relevant, None), (irrelevant, None)]


def _scored(parse: Callable[[bytes, int], ScoredList], line: bytes, number: int) -> tuple[str, IdsAndScores]:
    scored = parse(line, number)
    return scored.query, scored.passages


def _text(texts: TextStore, what: str, identifier: str, path: Path, line: int) -> str:
    try:
        return texts[identifier]
    except KeyError:
        raise InputError(f"unknown {what} {identifier!r}: {texts.path} has no such id", path, line) from None
