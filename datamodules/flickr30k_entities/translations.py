"""Translations of captions and phrases by a key, or of phrases by their English words.

A line is ``key<TAB>text``. The key is

- ``36979#0#2``: a phrase, by image, caption (from 0, as in ``results_20130124.token``) and index in the caption
  (from 0, counting every marked phrase, also those without a box);
- ``36979#0`` or ``36979.jpg#0``: a caption;
- anything else: an English phrase, whatever caption it stands in; case and white space make no difference.

A phrase takes the line of its own key where there is one, else that of its English words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.text import fold, normalise
from datamodules.text_files import read_rows
from foundations.errors import InputError

_KEY = re.compile(r"([^\s#]+?)(?:\.jpg)?#(\d+)(?:#(\d+))?")
_LINE = "key<TAB>text"


@dataclass(frozen=True)
class Translations:
    """Texts by ``image#caption`` or ``image#caption#phrase``, and by folded English phrase."""

    by_key: dict[str, str] = field(default_factory=dict)
    by_words: dict[str, str] = field(default_factory=dict)

    def get(self, key: str, english: str) -> str | None:
        """The translation of a phrase or a caption; None where there is none."""
        found = self.by_key.get(key)
        return self.by_words.get(fold(english)) if found is None else found


def read_translations(path: str | Path) -> Translations:
    """Read a file of translations; InputError for a malformed line, or two different texts for a key."""
    result = Translations()
    path = Path(path)
    lines: dict[str, int] = {}
    for number, (column, raw) in read_rows(path, _LINE):
        match = _KEY.fullmatch(column)
        texts = result.by_words if match is None else result.by_key
        key = fold(column) if match is None else "#".join(part for part in match.groups() if part is not None)
        text = normalise(raw)
        if texts.setdefault(key, text) != text:
            raise InputError(f"line {lines[key]} has another text for {column!r}", path, number)
        lines.setdefault(key, number)
    return result
