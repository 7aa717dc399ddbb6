"""Bitext in columns: ``source<TAB>target`` or CSV, perhaps with a header, and a score before or behind the texts."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.sources import PAIR_LINE
from foundations.errors import InputError
from foundations.files import check_width, columns, decode, scan_lines

Row = tuple[int, str, str, float | None]
"""Number of a pair in its file from 1, source, target, and score; None where there is none."""

_SOURCE_NAME = re.compile("source|src|english|en|eng|eng_latn|teacher|sentence1")
_TARGET_NAME = re.compile(
    "target|tgt|trg|translation|non_english|student|sentence2|foreign|[a-z]{2,3}([_-][a-z]{2,4})?|"
    # Languages by their names; any two or three letters are taken for a code.
    "afrikaans|amharic|arabic|bemba|bengali|burmese|chewa|chichewa|chinese|farsi|filipino|french|fula|fulfulde|german|"
    "gujarati|hausa|hindi|igbo|indonesian|kamba|kannada|khmer|kikuyu|kinyarwanda|kirundi|kiswahili|lingala|luganda|"
    "malagasy|marathi|ndebele|nepali|oromo|persian|portuguese|punjabi|quechua|sesotho|setswana|shona|sinhala|somali|"
    "sotho|spanish|swahili|swati|tagalog|tamil|telugu|tigrinya|tsonga|tswana|urdu|venda|wolof|xhosa|yoruba|zulu"
)
_SCORES = re.compile(r"(.*[_ -])?score|similarity")
_SCORED_LINE = f"{PAIR_LINE}, or three with a score in the first or last one"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


@dataclass
class Notes:
    """What the user should know of a bitext, collected for one warning.

    Args:
        spec: the bitext.
        parts: sentences without their ends.
        empty: numbers of pairs that lack a text.
        low: how many pairs have too low a score.
    """

    spec: str
    parts: list[str] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    low: int = 0

    def warn(self, unit: str) -> None:
        """Give the warning, if there is anything to say; the unit is what is numbered, such as a line."""
        parts = list(self.parts)
        if self.empty:
            parts.append(f"{len(self.empty):,} pairs lack a text and are left out ({unit} {first_of(self.empty)})")
        if self.low:
            parts.append(f"{self.low:,} pairs score below min_score and are left out")
        if parts:
            warnings.warn(f"{self.spec}: {'; '.join(parts)}", stacklevel=3)


def first_of(numbers: list[int]) -> str:
    """The first three of some numbers.

    >>> first_of([3, 5, 8, 13])
    '3, 5, 8, ...'
    """
    return ", ".join([*map(str, numbers[:3]), *(["..."] if len(numbers) > 3 else [])])


def read_tsv(path: Path, notes: Notes) -> Iterator[Row]:
    """The rows of tab-separated lines.

    Quotes are part of the texts; where they look like those of CSV, that is noted.
    """
    quoted: list[int] = []
    doubled, count = 0, 0

    def cells() -> Iterator[tuple[int, list[str]]]:
        nonlocal doubled, count
        for number, _, line in scan_lines(path, PAIR_LINE):
            texts = [cell.strip() for cell in columns(line, None, PAIR_LINE, path, number)]
            if b'"' in line and any(len(text) > 1 and _QUOTED.fullmatch(text) for text in texts):
                quoted.append(number)
                doubled += b'""' in line
            count += 1
            yield number, texts

    yield from _shaped(cells(), path, notes)
    if doubled or (quoted and len(quoted) == count):
        notes.parts.append(
            f"{len(quoted):,} of {count:,} lines have quotes as CSV writes them (line {first_of(quoted)}), read as "
            "part of the texts: name the file .csv to have them read as CSV"
        )


def read_csv(path: Path, notes: Notes) -> Iterator[Row]:
    """The rows of a CSV file; its separator is the comma, semicolon or tab, whichever its first line has most of."""
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for at, _, line in scan_lines(path, PAIR_LINE):
            number = at
            yield decode(line, PAIR_LINE, path, at) + "\n"

    first = next(lines())
    separator = max(",;\t", key=first.count)

    def cells() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in csv.reader(lines(), delimiter=separator, strict=True):
                yield number, [cell.strip() for cell in row]
        except csv.Error as error:
            raise InputError(f"mixed quotes ({error}), expected CSV", path, number) from None

    yield from _shaped(cells(), path, notes)


def _shaped(rows: Iterator[tuple[int, list[str]]], path: Path, notes: Notes) -> Iterator[Row]:
    """Rows of two columns, or of three with a score; the first of them says which."""
    width, score, first = 0, -1, True
    for number, cells in rows:
        if first and _is_header(cells):
            notes.parts.append(f"line {number} is a header ({', '.join(cells)}) and is passed over")
            score = next(
                (at for at, cell in enumerate(cells) if len(cells) == 3 and _SCORES.fullmatch(cell.lower())), -1
            )
            width, first = len(cells), False
            continue
        if not width:
            width = len(cells)
            if width == 3:
                score = next((at for at in (2, 0) if _is_number(cells[at])), -1)
            if width != 2 and score < 0:
                width = 0  # a line of one text, or of three
        first = False
        check_width(cells, width or 2, PAIR_LINE if width else _SCORED_LINE, path, number)
        texts = [cell for at, cell in enumerate(cells) if at != score]
        yield number, texts[0], texts[1], None if score < 0 else score_of(cells[score], path, number)


def _is_header(cells: list[str]) -> bool:
    """Whether the cells name columns: the source, the target or its language, and perhaps a score."""
    names = [cell.lower() for cell in cells]
    texts = [name for name in names if not _SCORES.fullmatch(name)]
    if len(texts) != 2 or len(names) > 3:
        return False
    return bool(_SOURCE_NAME.fullmatch(texts[0]) and _TARGET_NAME.fullmatch(texts[1]))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def score_of(value: Any, path: str | Path, number: int) -> float:
    """The score of a pair, if it is a finite number; else InputError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not _is_number(str(value)):
        raise InputError(f"the score is {value!r}, expected a finite number", path, number)
    return float(value)
