"""Qrels and runs in the formats of trec_eval, checked line by line."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from foundations.errors import InputError
from foundations.files import check_width, read_columns, write_whole
from foundations.progress import delayed_progress
from retrieval.collection import Qrels, Run

_QRELS_LINE = "'query 0 document grade' or 'query document grade', separated by spaces or tabs"
_RUN_LINE = "'query Q0 document rank score tag', separated by spaces or tabs"
_INTEGER = re.compile(r"[+-]?[0-9]+")
_LARGEST_GRADE = 2**31 - 1
_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_HEADER = re.compile("(query|topic|q)([-_ ]?id)?"), re.compile("score|relevance|rel|grade|label|judge?ment")
"""Names of the first and the last column of judgments, where a line says them."""

_UNUSABLE_ID = re.compile(r"[ \t\n\r\v\f]|^#?$")


def read_qrels(path: str | Path) -> Qrels:
    """Relevance judgments from a file.

    Args:
        path: four columns ``query 0 document grade`` (TREC; the second is not used), or three without it,
            separated by spaces or tabs, the same number in every line, plain or compressed. Grades are integers.
            Comments (``# ...``) and the header of BEIR's files are passed over, another header with a warning.

    Returns:
        Query id -> document id -> grade, in the order of the file.

    Raises:
        InputError: with file and line: a missing column, a grade that is no integer of 32 bits, a (query, document)
            that appears twice, invalid UTF-8, an empty file.
    """
    qrels: Qrels = {}
    width = 0
    for line, columns in _rows(path, _QRELS_LINE, lambda row: len(row) in (3, 4) and bool(_INTEGER.fullmatch(row[-1]))):
        if not width and _HEADER[0].fullmatch(columns[0].lower()) and _HEADER[1].fullmatch(columns[-1].lower()):
            width = len(columns)
            if columns != _BEIR_HEADER:
                warnings.warn(f"{path}: line {line} is a header ({' '.join(columns)}) and is passed over", stacklevel=2)
            continue
        width = width or len(columns)
        if len(columns) not in (3, 4) or len(columns) != width:
            expected = f"{width} columns like the lines before" if width in (3, 4) and line > 1 else _QRELS_LINE
            plural = "" if len(columns) == 1 else "s"
            raise InputError(f"found {len(columns)} column{plural}, expected {expected}", path, line)
        query, document, grade = columns[0], columns[-2], columns[-1]
        if not _INTEGER.fullmatch(grade):
            raise InputError(f"the grade is {grade!r}, expected an integer (in {_QRELS_LINE})", path, line)
        if abs(int(grade)) > _LARGEST_GRADE:
            raise InputError(f"the grade is {grade}, expected at most {_LARGEST_GRADE}", path, line)
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise InputError(f"document {document!r} is judged twice for query {query!r}", path, line)
        judged[document] = int(grade)
    if not qrels:
        raise InputError(f"the file holds no judgment, expected lines of {_QRELS_LINE}", path)
    return qrels


def read_run(path: str | Path) -> Run:
    """A run from a file in the TREC format.

    Args:
        path: six columns ``query Q0 document rank score tag``, plain or compressed. As in trec_eval, the score ranks
            the documents; the rank column must be an integer and is not used. Comments (``# ...``) are passed over.

    Returns:
        Query id -> document id -> score, in the order of the file.

    Raises:
        InputError: with file and line: a missing column, a rank or score that is no number, a score that is
            not finite, a (query, document) that appears twice, invalid UTF-8, an empty file.
    """
    run: Run = {}
    for line, columns in _rows(path, _RUN_LINE, lambda row: len(row) == 6 and bool(_INTEGER.fullmatch(row[3]))):
        check_width(columns, 6, _RUN_LINE, path, line)
        query, _, document, rank, score, _ = columns
        if not _INTEGER.fullmatch(rank):
            raise InputError(f"the rank is {rank!r}, expected an integer (in {_RUN_LINE})", path, line)
        retrieved = run.setdefault(query, {})
        if document in retrieved:
            raise InputError(f"document {document!r} appears twice for query {query!r}", path, line)
        retrieved[document] = _score(score, path, line)
    if not run:
        raise InputError(f"the file holds no result, expected lines of {_RUN_LINE}", path)
    return run


def _rows(path: str | Path, expected: str, is_data: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """Number and columns of each line that is no comment: ids may begin with # as well, but none is # alone."""
    for line, columns in read_columns(path, expected):
        if not columns[0].startswith("#") or (columns[0] != "#" and is_data(columns)):
            yield line, columns


def check_queries(run: Run, qrels: Qrels, name: str) -> None:
    """Warn where a run lacks judged queries, or has none of them; the name is that of the run, for the message."""
    missing = [query for query in qrels if query not in run]
    if len(missing) == len(qrels):
        message = f"none of its {len(run):,} queries is in the qrels: are these the right qrels?"
    else:
        message = f"{len(missing):,} of the {len(qrels):,} judged queries are not in the run and count as 0"
    if missing:
        warnings.warn(f"{name}: {message} (judged is {missing[0]!r}, for example)", stacklevel=2)


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write judgments as ``query 0 document grade``, whole or not at all.

    Raises:
        ValueError: there is nothing to write, or an id is empty or holds white space.
    """
    _require_some(qrels, "qrels")
    with write_whole(path) as file:
        for query, judged in qrels.items():
            for document, grade in judged.items():
                file.write(f"{_usable(query)} 0 {_usable(document)} {int(grade)}\n")


def write_run(path: str | Path, run: Run, tag: str = "potstill") -> None:
    """Write a run in the six TREC columns, whole or not at all.

    Documents are ranked from 1 as trec_eval ranks them (`ranked_documents`). Scores are written with all their
    digits, so that the run that is read back has the same metrics.

    Args:
        path: the file.
        run: query id -> document id -> score.
        tag: the name of the run, without white space.

    Raises:
        ValueError: there is nothing to write, an id or the tag is empty or holds white space, or a score is
            not finite.
    """
    _require_some(run, "run")
    _usable(tag)
    with write_whole(path) as file, delayed_progress(f"write {Path(path).name}", len(run)) as advance:
        for query, scores in run.items():
            _usable(query)
            for rank, document in enumerate(ranked_documents(scores), start=1):
                score = float(scores[document])
                if not math.isfinite(score):
                    raise ValueError(f"query {query!r}, document {document!r}: the score is {score}, not finite")
                file.write(f"{query} Q0 {_usable(document)} {rank} {score!r} {tag}\n")
            advance(1)


def ranked_documents(scores: dict[str, float]) -> list[str]:
    """Document ids as trec_eval ranks them: by score in single precision, and ties by *descending* id.

    >>> ranked_documents({"a": 0.5, "b": 0.5, "c": -1.0, "d": 2.0})
    ['d', 'b', 'a', 'c']
    """
    documents = sorted(scores, reverse=True)
    with np.errstate(over="ignore"):
        single = np.array([scores[document] for document in documents], dtype=np.float64).astype(np.float32)
    return [documents[i] for i in np.argsort(-single, kind="stable")]


def _score(text: str, path: str | Path, line: int) -> float:
    """The score, if it is a finite number."""
    try:
        score = math.nan if "_" in text else float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"the score is {text!r}, expected a finite number (in {_RUN_LINE})", path, line)
    return score


def _usable(identifier: str) -> str:
    """The id, if a file with columns can hold it."""
    if _UNUSABLE_ID.search(identifier):
        problem = "is the sign of a comment" if identifier == "#" else "is empty or holds white space"
        raise ValueError(f"the id {identifier!r} {problem}: the TREC formats cannot hold it")
    return identifier


def _require_some(entries: Qrels | Run, name: str) -> None:
    if not any(entries.values()):
        raise ValueError(f"the {name} to write holds no document: expected at least one")
