"""The files that text noise reads: a lexicon for code-switching, machine translations of texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datamodules.text import fold, normalise
from foundations.errors import InputError
from foundations.files import columns, require_file, scan_lines


def read_lexicon(path: str | Path) -> dict[str, str]:
    """Words and their translations, in both directions, from a file of ``word<TAB>word``.

    Of a word that comes twice the first translation counts, and one as a second column before one as a first: with
    ``english<TAB>swahili`` a Swahili word is replaced by the English one.

    Args:
        path: UTF-8, two columns, no header; a translation may have several words.

    Returns:
        Folded word -> translation.

    Raises:
        InputError: no such file, a line without two columns, or no line.
    """
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    for _, one, other in _rows(path, "word<TAB>translation"):
        second.setdefault(fold(other), one)
        first.setdefault(fold(one), other)
    return {word: other for word, other in (first | second).items() if word != fold(other)}


def read_translations(path: str | Path) -> dict[str, str]:
    """Machine translations by the text that they stand for, from a file of ``text<TAB>machine translation``.

    Args:
        path: UTF-8, two columns, no header.

    Returns:
        Folded text -> machine translation.

    Raises:
        InputError: no such file, a line without two columns, no line, or two translations of one text.
    """
    found: dict[str, str] = {}
    for line, text, translation in _rows(path, "text<TAB>machine translation"):
        if found.setdefault(fold(text), translation) != translation:
            raise InputError(f"a second translation of {text!r}", path, line)
    return found


def _rows(path: str | Path, expected: str) -> Iterator[tuple[int, str, str]]:
    """Line number and the two columns of each line."""
    path = require_file(Path(path).expanduser())
    for number, _, line in scan_lines(path, expected):
        first, second = columns(line, 2, expected, path, number, filled=True)
        yield number, normalise(first), normalise(second)
