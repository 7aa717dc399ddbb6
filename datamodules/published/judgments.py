"""Judgments too many to hold as texts: arrays over a file of ``query document grade`` lines."""

from __future__ import annotations

import warnings
from array import array
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from datamodules.lines import TextStore
from datamodules.text import hash_share
from foundations.cache import IntArray, derived_array, file_key
from foundations.errors import InputError
from foundations.files import clean_line, columns, scan_lines
from foundations.progress import delayed_progress
from retrieval.collection import Qrels

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

_SHARE_BITS = 53
_IDS_PER_UPDATE = 4096
_BLOCK = 1 << 20


def share_of(identifier: str, salt: str) -> int:
    """`hash_share` of an id in units of 2**-53, which loses nothing."""
    return int(hash_share(identifier, salt) * 2**_SHARE_BITS)


def below(shares: IntArray, share: float) -> BoolArray:
    """Which hashes are below a share of all, such as 0.05."""
    chosen: BoolArray = shares < share * 2**_SHARE_BITS
    return chosen


@dataclass(frozen=True)
class JudgmentFormat:
    """The grades that the lines of a file of judgments may hold, and the salt of `hash_share` for their ids.

    With `skip_unknown`, judgments of unknown queries and documents are left out, with a warning, instead of refused.
    """

    grades: tuple[int, ...]
    salt: str
    skip_unknown: bool = False

    def parse(self, line: bytes, path: Path, number: int) -> tuple[str, str, int]:
        """Query, document and grade of a line; InputError for a malformed line or another grade."""
        expected = "'query document grade', separated by spaces or tabs"
        query, document, grade = columns(line, 3, expected, path, number, separator=None)
        if grade not in map(str, self.grades):
            choices = " or ".join(map(str, self.grades))
            raise InputError(f"the grade is {grade!r}, expected {choices} (in {expected})", path, number)
        return query, document, int(grade)


@dataclass(frozen=True)
class JudgmentTable:
    """The judgments of a file as arrays of J lines; the ids themselves stay in the file.

    Args:
        path: the file.
        offsets: where each line begins, in bytes, ascending.
        queries: `share_of` each line's query.
        documents: `share_of` each line's document.
        grades: of each line.
    """

    path: Path
    offsets: IntArray
    queries: IntArray
    documents: IntArray
    grades: IntArray

    @classmethod
    def open(cls, path: Path, queries: TextStore, documents: TextStore, form: JudgmentFormat) -> JudgmentTable:
        """Read and check a file, or take its arrays (32 bytes a line) from the cache.

        A document that is judged twice for a query keeps its highest grade, with a warning where they differ.

        Args:
            path: the file.
            queries: texts of all that the first column may name.
            documents: texts of all that the second column may name.
            form: what its lines hold.

        Raises:
            InputError: a line that does not fit `form`, an unknown query or document, no file, or no line with text.
        """
        name = f"judgments 1 {form} {file_key(queries.path)} {file_key(documents.path)}"
        return cls(path, *derived_array(path, name, lambda: _table(path, queries, documents, form)))

    def __len__(self) -> int:
        return len(self.offsets)

    def qrels(self, chosen: BoolArray) -> Qrels:
        """The judgments of the chosen lines; (J,)."""
        qrels: Qrels = {}
        with self.path.open("rb") as file:
            for offset, grade in zip(self.offsets[chosen].tolist(), self.grades[chosen].tolist(), strict=True):
                query, document = _ids_at(file, offset)
                qrels.setdefault(query, {})[document] = grade
        return qrels

    def first_queries(self, chosen: BoolArray, count: int) -> BoolArray:
        """Of the chosen lines, those of the `count` queries whose hash is smallest; all of them for 0."""
        shares = np.unique(self.queries[chosen])
        if count == 0 or count >= len(shares):
            return chosen
        bounded: BoolArray = chosen & (self.queries <= shares[count - 1])
        return bounded


def _table(path: Path, queries: TextStore, documents: TextStore, form: JudgmentFormat) -> IntArray:
    """Offset, query, document and grade of each line; (4, J)."""
    table_columns = [array("q") for _ in range(4)]
    share = lru_cache(1024)(lambda query: share_of(query, form.salt))  # the lines of a query are neighbours
    for number, offset, line in scan_lines(path):
        query, document, grade = form.parse(line, path, number)
        values = (offset, share(query), share_of(document, form.salt), grade)
        for column, value in zip(table_columns, values, strict=True):
            column.append(value)
    table = np.stack([np.frombuffer(column, dtype=np.int64) for column in table_columns])
    for row, what, texts in ((1, "query", queries), (2, "document", documents)):
        table = _known(path, table, row, what, texts, form.skip_unknown)
    return _without_repeats(path, table)


def _known(path: Path, table: IntArray, row: int, what: str, texts: TextStore, skip: bool) -> IntArray:
    """The lines whose query (row 1) or document (row 2) has a text."""
    shares, first = np.unique(table[row], return_index=True)
    unknown: list[tuple[int, str, int]] = []
    with path.open("rb") as file, delayed_progress(f"check {path.name}", len(shares)) as advance:
        for count, (share, position) in enumerate(zip(shares.tolist(), first.tolist(), strict=True), start=1):
            offset = int(table[0, position])
            identifier = _ids_at(file, offset)[row - 1]
            if identifier not in texts:
                unknown.append((offset, identifier, share))
            if count % _IDS_PER_UPDATE == 0:
                advance(_IDS_PER_UPDATE)
    if not unknown:
        return table
    offset, identifier, _ = min(unknown)
    others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    problem = f"unknown {what} {identifier!r}: {texts.path.name} has no such id{others}"
    if not skip:
        hint = "--data.skip_unknown true leaves such judgments out"
        raise InputError(f"{problem}; {hint}", path, _line_number(path, offset))
    warnings.warn(f"{problem}; their judgments are left out", stacklevel=2)
    return table[:, ~np.isin(table[row], [share for *_, share in unknown])]


def _without_repeats(path: Path, table: IntArray) -> IntArray:
    """The table with each query and document once, at the highest grade, in the order of the file."""
    order = np.lexsort((-table[3], table[2], table[1]))
    pairs = table[1:3, order]
    repeated = np.concatenate([[False], (pairs[:, 1:] == pairs[:, :-1]).all(axis=0)])
    differing = repeated[1:] & (table[3, order][1:] != table[3, order][:-1])
    if differing.any():
        warnings.warn(
            f"{path}: {differing.sum()} judgments repeat others with another grade; the highest is kept", stacklevel=2
        )
    return table[:, np.sort(order[~repeated])]


def _ids_at(file: IO[bytes], offset: int) -> tuple[str, str]:
    """Query and document of the line that begins at an offset."""
    file.seek(offset)
    query, document = clean_line(file.readline(), 1 if offset == 0 else 0).split()[:2]
    return query.decode("utf-8"), document.decode("utf-8")


def _line_number(path: Path, offset: int) -> int:
    """The number, from 1, of the line that begins at an offset."""
    number = 1
    with path.open("rb") as file:
        while offset > 0 and (block := file.read(min(_BLOCK, offset))):
            number += block.count(b"\n")
            offset -= len(block)
    return number
