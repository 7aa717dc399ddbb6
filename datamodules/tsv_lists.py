"""Training queries with listed passages, for `datamodules.tsv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from datamodules.derived import scan_lines
from datamodules.pairs import Candidate
from datamodules.scores import ScoredList, read_scores
from datamodules.text import normalise
from retrieval.errors import InputError
from retrieval.files import require_file

_QUERY_LINE = "id<TAB>English text<TAB>text in the student's language"


@dataclass(frozen=True)
class TrainQuery:
    """A training query and its list.

    Args:
        source: its text for the teacher.
        target: its text for the student.
        candidates: the passages listed for it; none where the file of lists does not name it.
    """

    source: str
    target: str
    candidates: tuple[Candidate, ...]


def read_train_queries(
    queries: Path, lists: Path, sources: Mapping[str, str], targets: Mapping[str, str] | None
) -> list[TrainQuery]:
    """The training queries in the order of their file, with the passages listed for them.

    Args:
        queries: lines of ``id<TAB>English text<TAB>text in the student's language``.
        lists: teacher scores; see `datamodules.scores`.
        sources: passages for the teacher, by id.
        targets: the same passages for the student; None where it reads no passages.

    Raises:
        InputError: a malformed line, or a list of an unknown query or with an unknown passage; with file and line.
    """
    texts = dict(_read_queries(queries))
    found: dict[str, tuple[Candidate, ...]] = {}
    for scored in read_scores(lists):
        if scored.query not in texts:
            raise InputError(f"unknown query {scored.query!r}: {queries} has no such id", lists, scored.line)
        found[scored.query] = _candidates(scored, sources, targets, lists)
    return [TrainQuery(source, target, found.get(query, ())) for query, (source, target) in texts.items()]


def _candidates(
    scored: ScoredList, sources: Mapping[str, str], targets: Mapping[str, str] | None, lists: Path
) -> tuple[Candidate, ...]:
    candidates = []
    for passage, score in scored.passages:
        try:
            source, target = sources[passage], None if targets is None else targets[passage]
        except KeyError:
            raise InputError(
                f"unknown passage {passage!r}: the documents have no such id", lists, scored.line
            ) from None
        candidates.append(Candidate(source, target, score))
    return tuple(candidates)


def _read_queries(path: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    """Id and the two texts of each line."""
    lines: dict[str, int] = {}
    for number, _, line in scan_lines(require_file(path)):
        try:
            columns = [normalise(column) for column in line.decode("utf-8").split("\t")]
        except UnicodeDecodeError as error:
            raise InputError(f"invalid UTF-8 ({error.reason}); expected {_QUERY_LINE}", path, number) from None
        if len(columns) != 3:
            plural = "" if len(columns) == 1 else "s"
            raise InputError(f"found {len(columns)} column{plural}, expected 3: {_QUERY_LINE}", path, number)
        if "" in columns:
            which = ("first", "second", "third")[columns.index("")]
            raise InputError(f"the {which} column is empty, expected {_QUERY_LINE}", path, number)
        query, source, target = columns
        if query in lines:
            raise InputError(f"the id {query!r} is already that of line {lines[query]}", path, number)
        lines[query] = number
        yield query, (source, target)
