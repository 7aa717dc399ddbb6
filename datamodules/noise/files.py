"""The files that text noise reads: a lexicon for code-switching, machine translations of texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datamodules.text import fold, normalise
from foundations.errors import InputError
from foundations.files import columns, scan_lines


def read_lexicon(path: str | Path) -> dict[str, str]:
    """Folded words and their translations, in both directions, from a file of ``word<TAB>word`` without a header.

    Of a word that comes twice the first translation counts, and one as a second column before one as a first: with
    ``english<TAB>swahili`` a Swahili word is replaced by the English one. A translation may have several words.
    """
    by_first: dict[str, str] = {}
    by_second: dict[str, str] = {}
    for _, word, translation in _rows(path, "word<TAB>translation"):
        by_second.setdefault(fold(translation), word)
        by_first.setdefault(fold(word), translation)
    return {word: text for word, text in (by_first | by_second).items() if word != fold(text)}


def read_machine_translations(path: str | Path) -> dict[str, str]:
    """Machine translations by the folded text that they stand for, from a file of ``text<TAB>machine translation``.

    InputError for a line without two columns, or two translations of one text.
    """
    translations: dict[str, str] = {}
    for line, text, translation in _rows(path, "text<TAB>machine translation"):
        if translations.setdefault(fold(text), translation) != translation:
            raise InputError(f"a second translation of {text!r}", path, line)
    return translations


def _rows(path: str | Path, expected: str) -> Iterator[tuple[int, str, str]]:
    """Line number and the two columns of each line."""
    path = Path(path).expanduser()
    for number, _, line in scan_lines(path, expected):
        first, second = columns(line, 2, expected, path, number, filled=True)
        yield number, normalise(first), normalise(second)
