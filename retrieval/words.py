"""The words of a text in any script, for lexical retrieval."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = {0x27: "'", 0x2019: "'", 0x200C: "\u200c", 0x200D: "\u200d"}
# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")


class _Separators(dict[int, str]):
    """What `str.translate` puts for a character: itself in a word, a space between words."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if unicodedata.category(character)[0] in "LMN" else " "
        return self[code]


_SEPARATORS = _Separators(_APOSTROPHES)


def words(text: str) -> list[str]:
    r"""The words of a text, without case, in Unicode NFKC.

    A word is a run of letters, marks and digits; vowel signs (of Devanagari, Ethiopic, ...) stay in it, and so do
    apostrophes and joiners between letters. Runs in a script without spaces (Han, kana, Thai, ...) become
    overlapping pairs of characters, as in Lucene's CJK analyser. Nothing is stemmed, and no word is left out.

    >>> words("Ng'ombe, wa MARÍA; मराठी")
    ["ng'ombe", 'wa', 'maría', 'मराठी']
    >>> words("東京都 tower")
    ['東京', '京都', 'tower']
    """
    found = []
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    for word in folded.translate(_SEPARATORS).split():
        bare = word.strip("'\u200c\u200d")
        if not bare:
            continue
        if not _HAS_UNSPACED.search(bare):
            found.append(bare)
            continue
        for run in _RUNS.findall(bare):
            is_pairs = _HAS_UNSPACED.match(run) and len(run) > 1
            found += [run[i : i + 2] for i in range(len(run) - 1)] if is_pairs else [run]
    return found
