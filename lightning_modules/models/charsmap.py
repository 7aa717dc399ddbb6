"""A character map as a normaliser of the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_HAS_LEAF = 1 << 8
_LEAF = 1 << 31
_OFFSET_SHIFT = 10
_CONTROL = "\x01"


def charsmap_normalizer(replacements: Mapping[str, str]) -> Any:
    r"""A normaliser that replaces single characters, and leaves the others and their order alone.

    ``tokenizers.normalizers.Precompiled`` is the only fast one that takes a table. It looks up a whole grapheme
    first and then drops its combining marks, so a control character, which the map deletes again, is put before
    each mark to make it a grapheme of its own; a map that does not delete U+0001 is a ValueError.

    >>> ascii(charsmap_normalizer({"\x01": "", "\ufb01": "fi"}).normalize_str("\ufb01n\u0301"))
    "'fin\\u0301'"
    """
    from tokenizers import Regex, normalizers

    if replacements.get(_CONTROL) != "":
        raise ValueError("a character map must delete U+0001, which separates combining marks")
    marks = Regex(r"(?<=[\s\S])(?=[\p{M}\u200c\u200d])")
    table = precompile({key.encode(): value.encode() for key, value in replacements.items()})
    return normalizers.Sequence([normalizers.Replace(marks, _CONTROL), normalizers.Precompiled(table)])


def precompile(replacements: Mapping[bytes, bytes]) -> bytes:
    """Pack a map in SentencePiece's ``precompiled_charsmap`` format.

    The format is the size of a double-array trie in bytes (uint32), the trie (uint32 units, as darts-clone writes
    them), and the replacements, each ended by a zero byte. A leaf holds the byte offset of its replacement. All is
    little-endian and UTF-8; neither keys nor replacements hold a zero byte.
    """
    blob = bytearray()
    root: dict[int, Any] = {}
    for key, value in sorted(replacements.items()):
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = len(blob)
        blob += value + b"\0"
    units = np.array(_double_array(root), dtype="<u4")
    return np.uint32(units.nbytes).tobytes() + units.tobytes() + bytes(blob)


def _double_array(root: dict[int, Any]) -> list[int]:
    """The units of a trie: the child of a node with base b by byte c lies at b ^ c, its value at b ^ 0."""
    units = [0] * 256
    taken, bases = {0}, {0}
    queue: list[tuple[int, dict[int, Any]]] = [(0, root)]
    for position, node in queue:
        base = max(1, len(units) - 512)  # the end only, which is mostly free: the table is small, the search short
        # Bases are unique: a unit is checked by its byte only, so two nodes with one base would see each other's.
        while base in bases or any(base ^ byte in taken for byte in node):
            base += 1
        bases.add(base)
        units.extend([0] * ((base | 255) + 1 - len(units)))
        units[position] |= (position ^ base) << _OFFSET_SHIFT
        for byte, child in node.items():
            taken.add(base ^ byte)
            if byte == 0:
                units[position] |= _HAS_LEAF
                units[base] = child | _LEAF
            else:
                units[base ^ byte] = byte
                queue.append((base ^ byte, child))
    return units
