"""The passages and queries of mMARCO, by id and as bitext; nothing is held in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from datamodules.lines import LineIndex, TextStore
from datamodules.pairs import Pair
from datamodules.sources import LineSource
from datamodules.text import normalise, text_id
from foundations.cache import file_key
from foundations.errors import InputError
from foundations.files import columns, require_file

TEXT_LINE = "id<TAB>text with a number as id"


def marco_texts(path: Path) -> TextStore:
    """The texts of a file of queries or passages by id; a translation that came out empty is an empty text.

    InputError for no file; with its line for other than two columns, an id that is no number or is there twice.
    """
    return TextStore.open(path, partial(parse_text, path), "mmarco 1")


def parse_text(path: Path, line: bytes, number: int) -> tuple[str, str]:
    """Id and text of a line of a file; see `marco_texts`."""
    identifier, text = columns(line, 2, TEXT_LINE, path, number)
    if not (identifier.isascii() and identifier.isdigit()):
        raise InputError(f"the id is {identifier!r}, expected {TEXT_LINE}", path, number)
    return identifier, normalise(text)


class TranslatedPairs(LineSource):
    """English texts and their translations, joined by id, in the order of the translations.

    The first time, both files are read line by line next to each other to see that every translation has its English
    text (else InputError); where their orders differ, ids are looked up instead.
    """

    def __init__(self, english: Path, foreign: Path, chunk_rows: int = 1024) -> None:
        self.english = marco_texts(english)
        self._parse = partial(parse_text, foreign)
        form = f"mmarco translations 1 {file_key(require_file(english))}"
        with english.open("rb") as twin:
            check = partial(_check, foreign, self.english, lambda: next(twin, b""))
            super().__init__(LineIndex.open(foreign, check, chunk_rows, form))
        if len(self.lines) < len(self.english):
            warnings.warn(
                f"{foreign.name} has {len(self.lines)} of the {len(self.english)} texts of {english.name}: "
                "is it complete?",
                stacklevel=2,
            )

    def parse(self, row: bytes) -> Pair:
        """The pair of a translation; English texts that differ only in case and white space share an id."""
        identifier, target = self._parse(row, 0)
        source = self.english[identifier]
        return Pair(source, target, text_id(source))


def _check(path: Path, english: TextStore, next_line: Callable[[], bytes], line: bytes, number: int) -> None:
    """Raise InputError where a translation is malformed, or has no English text."""
    identifier, _ = parse_text(path, line, number)
    twin = next_line().partition(b"\t")[0]
    if twin != identifier.encode() and identifier not in english:
        raise InputError(f"there is no English text with the id {identifier!r} in {english.path}", path, number)
