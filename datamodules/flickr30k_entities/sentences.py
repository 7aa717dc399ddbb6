"""Captions of Flickr30k Entities with their phrases marked: ``Sentences/<image>.txt``.

A line is a caption: ``[/EN#7/people/animals A man] waits near [/EN#9/scene the bar] .`` The number is the *chain*:
phrases of one image with the same chain mean the same thing, and the image's boxes are by chain. Chain 0 is not visual
and never had a box. A phrase has one type or several. Phrases inside phrases are read as well.

``UNRELATED_CAPTIONS`` lists captions that do not describe their image: ``<image> <number of the caption from 1>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundations.errors import InputError
from foundations.files import lines, read_columns

NOT_VISUAL = "0"
_OPENING = re.compile(r"\[/EN#(\d+)((?:/[A-Za-z]+)+) ")
_MARK = re.compile(r"\[/|\]")
_EXPECTED = "[/EN#<chain>/<type> words]"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase of a caption: ``caption.text[start:end] == text``.

    The chain says what it refers to; ``0`` is not visual. It has at least one type: people, clothing, bodyparts,
    animals, vehicles, instruments, scene, other or notvisual.
    """

    text: str
    chain: str
    types: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption without its marks, its phrases (also without a box) by where they begin, and its line in the file."""

    text: str
    phrases: tuple[Phrase, ...]
    line: int


def read_sentences(path: str | Path) -> tuple[Sentence, ...]:
    """The captions of an image in the order of the file, which is that of ``results_20130124.token``."""
    sentences = []
    for number, line in lines(path, f"captions with phrases such as {_EXPECTED}"):
        try:
            sentences.append(parse_sentence(" ".join(line.split()), number))
        except ValueError as error:
            raise InputError(str(error), path, number) from None
    return tuple(sentences)


def parse_sentence(line: str, number: int = 1) -> Sentence:
    """A caption from its marked form, a line with single spaces; ValueError for a mark that is wrong or not closed.

    >>> parse_sentence("[/EN#7/people A man] waits near [/EN#9/scene the bar] .").phrases[1]
    Phrase(text='the bar', chain='9', types=('scene',), start=17, end=24)
    """
    text, done, count = "", 0, 0
    open_phrases: list[tuple[int, str, tuple[str, ...], int]] = []
    phrases: list[tuple[int, Phrase]] = []
    for mark in _MARK.finditer(line):
        text += line[done : mark.start()]
        if mark.group() == "]":
            done = mark.end()
            if not open_phrases:
                text += _stray(line, mark.start())
                continue
            number_of_phrase, chain, types, start = open_phrases.pop()
            text = text.rstrip(" ")
            if len(text) <= start:
                raise ValueError(f"the phrase of chain {chain} has no words, expected {_EXPECTED}")
            phrases.append((number_of_phrase, Phrase(text[start:], chain, types, start, len(text))))
        else:
            opening = _OPENING.match(line, mark.start())
            if opening is None:
                raise ValueError(f"cannot read {line[mark.start() :][:40]!r}, expected {_EXPECTED}")
            done = opening.end()
            open_phrases.append((count, opening[1], tuple(opening[2][1:].split("/")), len(text)))
            count += 1
    if open_phrases:
        raise ValueError(f"the phrase of chain {open_phrases[-1][1]} has no closing bracket, expected {_EXPECTED}")
    in_order = tuple(phrase for _, phrase in sorted(phrases, key=lambda item: item[0]))
    return Sentence((text + line[done:]).rstrip(" "), in_order, number)


def read_unrelated(path: str | Path) -> set[tuple[str, int]]:
    """The captions that do not describe their image: (image, number of the caption from 0)."""
    captions = set()
    for line, columns in read_columns(path, "image and number of the caption"):
        if columns[0].startswith("#"):
            continue
        if len(columns) != 2 or not columns[1].isdecimal() or int(columns[1]) < 1:
            raise InputError(f"found {' '.join(columns)!r}, expected an image and a number from 1", path, line)
        captions.add((columns[0], int(columns[1]) - 1))
    return captions


def read_split(path: str | Path) -> list[str]:
    """The images of ``train.txt``, ``val.txt`` or ``test.txt``: one name a line, without ``.jpg``, each once."""
    names: dict[str, int] = {}
    for line, columns in read_columns(path, "the name of an image"):
        name = columns[0].removesuffix(".jpg")
        if len(columns) != 1 or "/" in name:
            raise InputError(f"found {' '.join(columns)!r}, expected the name of one image", path, line)
        if name in names:
            raise InputError(f"the image {name} is already in line {names[name]}", path, line)
        names[name] = line
    return list(names)


def phrase_keys(image: str, sentences: tuple[Sentence, ...]) -> Iterator[tuple[str, Phrase]]:
    """Every phrase of an image under its key ``image#caption#phrase``, both numbers from 0."""
    for number, sentence in enumerate(sentences):
        for index, phrase in enumerate(sentence.phrases):
            yield f"{image}#{number}#{index}", phrase


def _stray(line: str, index: int) -> str:
    """A closing bracket where no phrase is open: text if it stands alone."""
    if line[max(index - 1, 0) : index + 2].strip() != "]":
        raise ValueError(f"a bracket closes nothing after {line[max(index - 30, 0) : index]!r}, expected {_EXPECTED}")
    return "]"
