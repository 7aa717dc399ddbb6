"""Text noise at severities 0 to 5, each script with its own.

A kind with characters changes each word with a probability of 0.05 x severity (MMRobustness, Qiu et al. 2022), and in a
chosen word 0.3 of its characters, at least one. A character is a grapheme cluster: marks stay with their base. Kinds
that stand for another way of writing (``diacritics``, ``transliteration``) or for another text (``mt``) act with a
probability of 0.2 x severity, so severity 5 changes everything.

The random numbers come from a hash of the text, the kind and the seed. The words that are chosen at a severity are
chosen at each higher one too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from datamodules.noise.graphemes import clusters, has_letter_base, join_words, split_words, without_diacritics
from datamodules.noise.replacements import misread, mistyped, other_letters
from datamodules.noise.romanise import romanise
from datamodules.text import fold, normalise
from foundations.checks import check_choice, check_number

_WORDS = 0.05
_CHARACTERS = 0.3
_WHOLE = 0.2


@dataclass(frozen=True)
class Setting:
    """What a kind of noise works with: severity 1 to 5, random numbers, translations by folded word or text."""

    severity: int
    generator: Random
    lexicon: Mapping[str, str] = field(default_factory=dict, repr=False)
    translations: Mapping[str, str] = field(default_factory=dict, repr=False)

    def draw(self, count: int, share: float) -> list[bool]:
        """Which of some things are chosen, each with a probability of share x severity."""
        return [self.generator.random() < share * self.severity for _ in range(count)]


Change = Callable[[str, Setting], str]


class TextNoise:
    """One kind of `TEXT_NOISES` at a severity of 0 to 5: gives the noisy text for a text, always the same for a seed.

    The lexicon is for ``code_switch`` (folded word -> translation), the translations are for ``mt`` (folded text ->
    machine translation).
    """

    def __init__(
        self,
        kind: str,
        severity: int,
        seed: int = 0,
        lexicon: Mapping[str, str] | None = None,
        translations: Mapping[str, str] | None = None,
    ) -> None:
        check_choice("the text noise", kind, TEXT_NOISES)
        check_number(f"the severity of {kind}", severity, least=0, most=5)
        self.kind, self.severity, self.seed = kind, severity, seed
        self._lexicon, self._translations = lexicon or {}, translations or {}

    def __call__(self, text: str) -> str:
        """The text with noise, in NFC and never empty; the text as it is at severity 0."""
        if not self.severity:
            return text
        digest = hashlib.blake2b(f"{self.seed}\0{self.kind}\0{text}".encode(), digest_size=8).digest()
        generator = Random(int.from_bytes(digest, "big"))
        changed = TEXT_NOISES[self.kind](text, Setting(self.severity, generator, self._lexicon, self._translations))
        return normalise(changed) or text


def _characters(text: str, setting: Setting, edit: Callable[[list[str], list[int], Random], None]) -> str:
    """The text with some characters of some words edited."""
    words, gaps = split_words(text)
    for number, is_chosen in enumerate(setting.draw(len(words), _WORDS)):
        if is_chosen:
            parts = clusters(words[number])
            edit(parts, [index for index, part in enumerate(parts) if has_letter_base(part)], setting.generator)
            words[number] = "".join(parts)
    return join_words(words, gaps)


def _drawn(indices: Sequence[int], generator: Random) -> list[int]:
    """0.3 of the indices, at least one (where there is any), in ascending order."""
    count = max(1, int(_CHARACTERS * len(indices)))
    keys = [(generator.random(), index) for index in indices]
    return sorted(index for _, index in sorted(keys)[:count])


def _replace(parts: list[str], indices: list[int], generator: Random, choices: Callable[[str], Sequence[str]]) -> None:
    """Replace characters by one of the choices for them; characters without a choice stay."""
    for index in _drawn([index for index in indices if choices(parts[index])], generator):
        options = choices(parts[index])
        parts[index] = options[int(generator.random() * len(options))]


def _insert(parts: list[str], indices: list[int], generator: Random) -> None:
    for index in _drawn([index for index in indices if other_letters(parts[index])], generator):
        options = other_letters(parts[index])
        letter = clusters(options[int(generator.random() * len(options))])[0][0]
        parts[index] = letter + parts[index] if generator.random() < 0.5 else parts[index] + letter


def _delete(parts: list[str], indices: list[int], generator: Random) -> None:
    if len(indices) > 1:
        for index in _drawn(indices, generator):
            parts[index] = ""


def _swap(parts: list[str], indices: list[int], generator: Random) -> None:
    followed = [index for index in indices if index + 1 in indices and parts[index] != parts[index + 1]]
    for index in _drawn(followed, generator):
        parts[index], parts[index + 1] = parts[index + 1], parts[index]


def word_drop(text: str, setting: Setting) -> str:
    """Leave out words; one stays."""
    words, gaps = split_words(text)
    chosen = setting.draw(len(words), _WORDS)
    if all(chosen) and words:
        chosen[int(setting.generator.random() * len(words))] = False
    kept, gap = "", ""
    for word, before, is_chosen in zip(words, gaps, chosen, strict=True):
        gap = gap or before
        if not is_chosen:
            kept, gap = kept + gap + word, ""
    return kept


def word_order(text: str, setting: Setting) -> str:
    """Exchange words with the next one."""
    words, gaps = split_words(text)
    for number, is_chosen in enumerate(setting.draw(len(words), _WORDS)):
        if is_chosen and len(words) > 1:
            neighbour = number + 1 if number + 1 < len(words) else number - 1
            words[number], words[neighbour] = words[neighbour], words[number]
    return join_words(words, gaps)


def code_switch(text: str, setting: Setting) -> str:
    """Replace words by those of the other language of a lexicon; signs around them stay."""
    words, gaps = text.split(), [" "] * len(text.split())
    for number, is_chosen in enumerate(setting.draw(len(words), _WORDS)):
        if is_chosen:
            start, bare, end = _bare(words[number])
            words[number] = start + setting.lexicon.get(fold(bare), bare) + end
    return join_words(words, gaps)


def _bare(word: str) -> tuple[str, str, str]:
    """Signs before a word, the word, signs after it."""
    parts = clusters(word)
    indices = [index for index, part in enumerate(parts) if has_letter_base(part)] or [0]
    first, last = indices[0], indices[-1] + 1
    return "".join(parts[:first]), "".join(parts[first:last]), "".join(parts[last:])


def _whole_words(text: str, setting: Setting, write: Callable[[str], str]) -> str:
    words = text.split()
    chosen = setting.draw(len(words), _WHOLE)
    return " ".join(write(word) if is_chosen else word for word, is_chosen in zip(words, chosen, strict=True))


def machine_translation(text: str, setting: Setting) -> str:
    """The machine translation of the text, if the file has one."""
    return setting.translations.get(fold(text), text) if setting.draw(1, _WHOLE)[0] else text


def mixed(text: str, setting: Setting) -> str:
    """One of the kinds that need no file and no other way of writing, by chance."""
    return TEXT_NOISES[MIXED[int(setting.generator.random() * len(MIXED))]](text, setting)


TEXT_NOISES: dict[str, Change] = {
    "keyboard": partial(_characters, edit=partial(_replace, choices=mistyped)),
    "insert": partial(_characters, edit=_insert),
    "delete": partial(_characters, edit=_delete),
    "swap": partial(_characters, edit=_swap),
    "substitute": partial(_characters, edit=partial(_replace, choices=other_letters)),
    "ocr": partial(_characters, edit=partial(_replace, choices=misread)),
    "word_drop": word_drop,
    "word_order": word_order,
    "code_switch": code_switch,
    "diacritics": partial(_whole_words, write=without_diacritics),
    "transliteration": partial(_whole_words, write=romanise),
    "mt": machine_translation,
    "mixed": mixed,
}
"""Every kind of text noise."""
MIXED = ("keyboard", "insert", "delete", "swap", "substitute", "ocr", "word_drop", "word_order")
"""The kinds that ``mixed`` chooses from."""
